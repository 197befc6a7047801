// A note whose words are marked that extracted values link to. Marks and values light up together, and each leads to the other.

import { element } from "./dom.js";

export class Note {
  constructor(text) {
    this.text = text;
    this.valuesOf = new Map(); // answer → [{ element, places: [[start, end]] }]
    this.linked = new Map(); // mark → elements of values, and the other way round
    this.body = element("div", { className: "note", tabindex: 0, role: "region", "aria-label": "Note" }, text);
  }

  // Marks the places of an answer's values, in place of those that it had before.
  link(answer, values) {
    this.valuesOf.set(answer, values);
    this.linked.clear();
    const all = [...this.valuesOf.values()].flat();
    const ends = all.flatMap(({ places }) => places.flat());
    const cuts = [...new Set([0, ...ends, this.text.length])].sort((a, b) => a - b);
    const parts = cuts.slice(1).map((end, index) => this.#part(cuts[index], end, all));
    this.body.replaceChildren(...parts);
  }

  #part(start, end, values) {
    const text = this.text.slice(start, end);
    const stating = values.filter(({ places }) => places.some(([from, to]) => from <= start && end <= to));
    if (!stating.length) return text;
    const mark = element("mark", { tabindex: 0 }, text);
    for (const { element: value } of stating) this.#connect(mark, value);
    return mark;
  }

  #connect(mark, value) {
    for (const [one, other] of [[mark, value], [value, mark]]) this.linked.set(one, [...(this.linked.get(one) ?? []), other]);
  }

  // Lights up what belongs to a mark or a value below `root` that the pointer or the focus is on; a click also scrolls to it.
  listen(root) {
    const target = (event) => [...this.linked.keys()].find((part) => part.contains(event.target));
    const light = (part) => {
      for (const lit of root.querySelectorAll(".lit")) lit.classList.remove("lit");
      for (const other of part ? [part, ...this.linked.get(part)] : []) other.classList.add("lit");
    };
    for (const type of ["pointerover", "focusin"]) root.addEventListener(type, (event) => light(target(event)));
    root.addEventListener("pointerout", () => light(target({ target: document.activeElement })));
    root.addEventListener("focusout", () => light());
    root.addEventListener("click", (event) => this.linked.get(target(event))?.[0].scrollIntoView({ block: "nearest" }));
  }
}
