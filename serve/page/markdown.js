// The little Markdown that a model card is written in, as elements: headings, lists, tables, paragraphs, bold and code.

import { element } from "./dom.js";

// The lines below a heading of the second level, or "" where there is none.
export function section(markdown, title) {
  const found = markdown.split(/^## /m).find((part) => part.startsWith(`${title}\n`));
  return found ? found.slice(title.length + 1) : "";
}

export function blocks(markdown) {
  const body = markdown.replace(/^---\n[^]*?\n---\n/, ""); // what is for machines
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
  if (lines[0].startsWith("* "))
    return element(
      "ul",
      {},
      ...text
        .split(/\n\* |^\* /)
        .filter(Boolean)
        .map((item) => element("li", {}, ...inline(item))),
    );
  if (lines[0].startsWith("|")) return table(lines);
  return element("p", {}, ...inline(text));
}

function table([head, , ...rows]) {
  const cells = (line, tag) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => element(tag, {}, ...inline(cell.trim())));
  const body = rows.map((line) => element("tr", {}, ...cells(line, "td")));
  const whole = element("table", {}, element("thead", {}, element("tr", {}, ...cells(head, "th"))), element("tbody", {}, ...body));
  return element("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": "Table" }, whole);
}

function inline(text) {
  return text.split(/(\*\*[^*]+\*\*|`[^`]+`)/).map((part) => {
    if (part.startsWith("**")) return element("strong", {}, part.slice(2, -2));
    return part.startsWith("`") ? element("code", {}, part.slice(1, -1)) : part;
  });
}
