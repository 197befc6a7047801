// The Markdown of model cards as elements: headings, lists, tables, paragraphs, bold and code.

import { element } from "./dom.js";

// The lines below a heading of the second level, or "" if there is none.
export function linesBelow(markdown, title) {
  const section = markdown.split(/^## /m).find((part) => part.startsWith(`${title}\n`));
  return section ? section.slice(title.length + 1) : "";
}

export function toElements(markdown) {
  const body = markdown.replace(/^---\n[^]*?\n---\n/, ""); // the front matter, which is for programs
  return body
    .split(/\n{2,}|(?<=^#.*)\n/m)
    .map((text) => text.trim())
    .filter(Boolean)
    .map(block);
}

function block(text) {
  const lines = text.split("\n");
  const heading = /^(#{1,4}) (.*)$/.exec(lines[0]);
  if (heading) return element(`h${Math.min(6, heading[1].length + 2)}`, {}, ...inline(heading[2]));
  if (lines[0].startsWith("* ")) return list(text);
  if (lines[0].startsWith("|")) return table(lines);
  return element("p", {}, ...inline(text));
}

function list(text) {
  const items = text.split(/\n\* |^\* /).filter(Boolean);
  return element("ul", {}, ...items.map((item) => element("li", {}, ...inline(item))));
}

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
    if (part.startsWith("**")) return element("strong", {}, part.slice(2, -2));
    return part.startsWith("`") ? element("code", {}, part.slice(1, -1)) : part;
  });
}
