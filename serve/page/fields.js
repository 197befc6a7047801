// The values of an extraction as a table: each with its unit, its probability, and whether the note states it.

import { element } from "./dom.js";
import { leavesOf } from "./json.js";
import { placesOf } from "./places.js";
import { percent, probabilityBar } from "./tokens.js";

const STATES = { absent: "not in the note", elsewhere: "in the note, without its label" };
const UNSURE = 0.5; // a probability below it stands out

// { elements, values }: the tables, and of each value its element and the places where the note states it.
export function fieldsOf(pieces, note, { schema, stated = {} }) {
  const groups = new Map(); // title → rows
  const values = [];
  for (const leaf of leavesOf(pieces.map(({ text }) => text).join(""))) {
    const kind = schemaAt(schema, leaf.path);
    const { state, places } = placesOf(leaf.value, note, stated[leaf.path.at(-1)]);
    const row = rowOf(leaf, kind, kind["x-stated"] === false && state === "absent" ? "" : state, probabilityOf(pieces, leaf));
    const title = leaf.path.length > 1 ? leaf.path[0] : "";
    groups.set(title, [...(groups.get(title) ?? []), row]);
    values.push({ element: row, places });
  }
  return { elements: [...groups].map(([title, rows]) => tableOf(title, rows)), values };
}

function tableOf(title, rows) {
  const caption = title === "" ? [] : [element("caption", {}, words(title))];
  return element("table", { className: "fields" }, ...caption, element("tbody", {}, ...rows));
}

function rowOf({ path, value }, kind, state, probability) {
  const shown = value === undefined ? "none" : `${value}${kind["x-unit"] ? ` ${unitOf(kind["x-unit"])}` : ""}`;
  const badge = STATES[state] ? [element("span", { className: `state ${state}` }, STATES[state])] : [];
  const name = (path.length > 1 ? path.slice(1) : path).map(words).join(" · ");
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, name),
    element("td", {}, element("button", { type: "button", className: "value" }, shown), ...badge),
    element("td", { className: "probability" }, ...probabilityCell(probability)),
  );
}

function probabilityCell(probability) {
  if (probability === undefined) return [];
  const attributes = { className: probability < UNSURE ? "unsure" : "", title: "Probability of the value: the product of its tokens'" };
  return [element("span", attributes, percent(probability)), probabilityBar(probability)];
}

// The product over the tokens that the value is written with; undefined where they are not known.
function probabilityOf(pieces, { start, end }) {
  let product = 1;
  let at = 0;
  for (const { text, tokens } of pieces) {
    const [from, to] = [at, (at += text.length)];
    if (to <= start || from >= end) continue;
    if (!tokens.length) return undefined;
    for (const { probability } of tokens) product *= probability;
  }
  return product;
}

// The part of a JSON Schema that describes a value; {} where it does not say.
function schemaAt(schema, path) {
  const step = (part, key) => (typeof key === "number" ? part?.items : part?.properties?.[key]);
  return path.reduce(step, schema) ?? {};
}

// A UCUM unit as people write it: mm[Hg], Cel, mL/min/{1.73_m2}.
const unitOf = (ucum) => ucum.replace("Cel", "°C").replace("_", " ").replace(/[[\]{}]/g, "");
const words = (name) => (typeof name === "number" ? String(name + 1) : name.replaceAll("_", " "));
