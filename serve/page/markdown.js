// Markdown as elements: headings, lists, tables, paragraphs, blocks of code; bold and code within them.

import { element } from "./dom.js";

const KINDS = [
  ["heading", /^#{1,6} /],
  ["bullets", /^ *[*+-] /],
  ["numbers", /^ *\d{1,3}[.)] /],
  ["table", /^\|/],
  ["blank", /^\s*$/],
];

// The lines below a heading of the second level, or "" if there is none.
export function linesBelow(markdown, title) {
  const section = markdown.split(/^## /m).find((part) => part.startsWith(`${title}\n`));
  return section ? section.slice(title.length + 1) : "";
}

export function toElements(markdown) {
  const blocks = [];
  let fence = null; // the lines of a block of code that is not closed yet
  for (const line of markdown.split("\n")) {
    if (/^ {0,3}```/.test(line)) {
      if (!fence) blocks.push({ kind: "code", lines: [] });
      fence = fence ? null : blocks.at(-1).lines;
    } else if (fence) fence.push(line);
    else addLine(blocks, line);
  }
  return blocks.filter(({ kind }) => kind !== "blank").map(({ kind, lines }) => BLOCKS[kind](lines));
}

// Lines of one kind make one block, except headings; a list's lines may go on, indented.
function addLine(blocks, line) {
  const last = blocks.at(-1);
  const kind = KINDS.find(([, pattern]) => pattern.test(line))?.[0] ?? "text";
  const goesOn = kind === "text" && /^ +\S/.test(line) && ["bullets", "numbers"].includes(last?.kind);
  if (goesOn) last.lines.push(`${last.lines.pop()}\n${line.trim()}`);
  else if (last?.kind === kind && kind !== "heading") last.lines.push(line);
  else blocks.push({ kind, lines: [line] });
}

const BLOCKS = {
  heading: ([line]) => element(`h${Math.min(6, line.indexOf(" ") + 2)}`, {}, ...inline(line.replace(/^#+ /, ""))),
  bullets: (lines) => element("ul", {}, ...items(lines)),
  numbers: (lines) => element("ol", { start: Number.parseInt(lines[0], 10) }, ...items(lines)),
  table: (lines) => (lines.length > 1 ? table(lines) : BLOCKS.text(lines)),
  code: (lines) => element("pre", { tabindex: 0 }, element("code", {}, lines.join("\n"))),
  text: (lines) => element("p", {}, ...inline(lines.join("\n"))),
};

const items = (lines) => lines.map((line) => element("li", {}, ...inline(line.replace(/^ *(?:[*+-]|\d+[.)]) /, ""))));

function table([head, , ...rows]) {
  const cells = (line, tag) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => element(tag, {}, ...inline(cell.trim())));
  const thead = element("thead", {}, element("tr", {}, ...cells(head, "th")));
  const tbody = element("tbody", {}, ...rows.map((line) => element("tr", {}, ...cells(line, "td"))));
  return scrollable("Table", element("table", {}, thead, tbody));
}

// A wide table in a region of its own, which the keyboard can scroll.
export function scrollable(label, table) {
  return element("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
}

function inline(text) {
  return text.split(/(\*\*[^*]+\*\*|`[^`]+`)/).map((part) => {
    if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) return element("strong", {}, part.slice(2, -2));
    return part.length > 2 && part.startsWith("`") && part.endsWith("`") ? element("code", {}, part.slice(1, -1)) : part;
  });
}
