// Shows a note: its text with the masks, repairs and marks in it, each an element that the keyboard reaches. Offsets are UTF-16 units.

import { element } from "./dom.js";

const FAMILIES = {
  person: ["NAME"],
  place: ["FACILITY", "ADDRESS", "ZIP"],
  time: ["DATE", "AGE"],
  contact: ["PHONE", "FAX", "EMAIL", "URL", "IP"],
};

export const familyOf = (type) => Object.keys(FAMILIES).find((name) => FAMILIES[name].includes(type)) ?? "number";

// Of the same length in units: what has no shape of its own, or would break lines where it should not.
const visible = (text) =>
  text.replace(/\r(?=\n)/g, "\u200b").replace(/\r/g, "\n").replace(/\0/g, "―")
    .replace(/[\x01-\x08\x0b\x0c\x0e-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0))).replace(/\x7f/g, "␡");

// The element of a note's text, and its items in their order: {kind, start, end, node, …}.
export function render(note) {
  const marks = note.marks;
  const missed = marks.filter((mark) => mark.verdict === "missed");
  const masks = note.masks.map((mask, i) => ({ ...mask, kind: "mask", state: note.states[i], ...judgement(mask, marks) }));
  const repairs = note.repairs.filter((repair) => !overlapping(masks, repair)).map((repair) => {
    const lost = marks.some((mark) => mark.verdict === "lost" && overlaps(mark, repair));
    return { ...repair, kind: "repair", state: lost ? "wrong" : "right" };
  });
  const items = [];
  const begun = new Set();
  const container = element("div", { id: "text", dir: "auto", spellcheck: "false" });

  // Text without masks and repairs, in it the marks of what was missed.
  const plain = (parent, from, to) => {
    let at = from;
    for (const mark of missed) {
      if (mark.end <= from || mark.start >= to) continue;
      const [start, end] = [Math.max(mark.start, from), Math.min(mark.end, to)];
      parent.append(visible(note.text.slice(at, start)));
      const node = element("span", { className: `mark missed ${familyOf(mark.type)}` }, visible(note.text.slice(start, end)));
      if (!begun.has(mark)) {
        begun.add(mark);
        focusable(node, { ...mark, kind: "missed" }, note, items);
      }
      parent.append(node);
      at = end;
    }
    parent.append(visible(note.text.slice(at, to)));
  };

  let at = 0;
  for (const item of [...masks, ...repairs].sort((a, b) => a.start - b.start)) {
    plain(container, at, item.start);
    const unjudged = item.state === "unjudged" && note.done ? "new" : "";
    const family = item.kind === "mask" ? familyOf(item.trueType ?? item.type) : "";
    const node = element("span", { className: `mark ${item.kind} ${item.state} ${unjudged} ${family}` });
    focusable(node, item, note, items);
    plain(node, item.start, item.end);
    container.append(node);
    at = item.end;
  }
  plain(container, at, note.text.length);
  return { container, items: items.sort((a, b) => a.start - b.start) };
}

export const overlaps = (a, b) => a.start < b.end && b.start < a.end;

// Whether one of the masks, which are in their order, overlaps.
function overlapping(masks, span) {
  let [low, high] = [0, masks.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (masks[middle].end <= span.start) low = middle + 1;
    else high = middle;
  }
  return low < masks.length && overlaps(masks[low], span);
}

// The type that a person gave a mask, where it is another one.
function judgement(mask, marks) {
  const own = marks.find((mark) => mark.verdict === "right" && mark.start === mask.start && mark.end === mask.end);
  return own && own.type !== mask.type ? { trueType: own.type } : {};
}

function focusable(node, item, note, items) {
  node.tabIndex = 0;
  node.setAttribute("role", "button");
  node.setAttribute("aria-label", `${describe(item, note)}: ${note.text.slice(item.start, item.end)}`);
  node.title = describe(item, note);
  node.dataset.label = item.kind === "repair" ? "repaired" : item.trueType ?? item.type;
  items.push(Object.assign(item, { node }));
}

// What is said of an item, for its label and the panel beside the note.
export function describe(item, note) {
  if (item.kind === "missed") return `Missed ${item.type}, which you marked`;
  if (item.kind === "repair") {
    return `Repair, ${item.after ? `becomes “${item.after.slice(0, 80)}”` : "is taken out"}${item.state === "wrong" ? "; wrong: clinical text is lost" : ""}`;
  }
  const verdict = { wrong: "wrong: clinical or nobody's", right: "right" }[item.state] ?? (note.done ? "new, not judged" : "right unless you say otherwise");
  return `${item.type} mask, becomes ${item.replacement}; ${item.trueType ? `it is ${item.trueType}` : verdict}`;
}
