// Where a note states a value that was extracted from it: numbers as numbers, behind their label where training says how notes write it;
// words as words. As in tasks/corpus/extraction/statements.py, which decides what is asked in training.

const NUMBER = String.raw`\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?`;
const GAP = String.raw`[\s:=(]+(?:(?:is|was|of|at)[\s:=(]+)?`;
const WHOLE = String.raw`(?![.,]?\d)`; // no digits behind it
// Behind a label: no digits, and no dose, which is no measurement: "Sodium bicarbonate 500 mg".
const MEASURED = String.raw`(?!/?\d|[.,]\d|\s?(?:m?g|mcg|µg|mL|ml|units?|tablets?)\b(?!/))`;

// { state, places: [[start, end]] }; state: "stated"; "elsewhere", a number that stands in the note, but not behind its label;
// "absent"; "", where the value says nothing that could stand there.
export function placesOf(value, note, labels) {
  if (typeof value === "string" && value.trim()) return claim(matches(note, new RegExp(`(?<!\\w)${escape(value)}(?!\\w)`, "gi")));
  if (typeof value !== "number") return { state: "", places: [] };
  const labelled = (labels ?? []).flatMap((label) => labelledNumbers(note, label)).filter(isNumber(note, value));
  if (labelled.length) return claim(labelled);
  const all = matches(note, new RegExp(`(?<![\\d.,])(?:${NUMBER})${WHOLE}`, "g")).filter(isNumber(note, value));
  return all.length && labels ? { state: "elsewhere", places: all } : claim(all);
}

const claim = (places) => ({ state: places.length ? "stated" : "absent", places });
const matches = (note, expression) => [...note.matchAll(expression)].map(({ index, 0: text }) => [index, index + text.length]);
const isNumber = (note, value) => ([start, end]) => Number(note.slice(start, end).replaceAll(",", "")) === Math.abs(value);
const escape = (text) => text.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");

// The numbers of "HR #" or "BP #/*": # is the number, * another one. Labels in capitals count as they are, others in any case.
function labelledNumbers(note, label) {
  const words = { "#": `(${NUMBER})`, "*": `(?:${NUMBER})` };
  const parts = label.split(/(\s+|[#*])/).filter(Boolean).map((part) => words[part] ?? (/^\s+$/.test(part) ? GAP : escape(part)));
  const name = label.split(/[#*]/)[0];
  const expression = new RegExp(`(?<![\\w/])${parts.join("")}${MEASURED}`, name === name.toUpperCase() ? "gd" : "gid");
  return [...note.matchAll(expression)].map((match) => match.indices[1]);
}
