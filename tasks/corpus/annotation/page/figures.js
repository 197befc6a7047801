// The figures as tables.

import { $, element } from "./dom.js";

const interval = (row) => (row.total ? `${row.share.toFixed(3)} (${row.low.toFixed(3)} to ${row.high.toFixed(3)})` : "not known");

function table(caption, head, rows) {
  const cells = (tag, row) => element("tr", {}, ...row.map((text, i) => element(i ? tag : "th", {}, String(text))));
  return element("table", {}, element("caption", {}, caption), cells("th", head), ...rows.map((row) => cells("td", row)));
}

export function showFigures(figures) {
  const rate = figures.wrong_per_1000_words;
  const rows = (list) => list.map((row) => [row.name, row.notes, row.total, row.count, interval(row)]);
  $("figures").replaceChildren(
    table(`${figures.notes} finished notes, ${figures.words.toLocaleString("en")} words`, ["", "share of the notes, 95 % interval"], [
      ["an identifier is missed", interval(figures.missed)],
      ["clinical text is changed", interval(figures.damaged)],
      ["wrong masks per 1,000 words", `${rate.value} (${rate.low} to ${rate.high})`],
      ["new masks, not judged", figures.unjudged],
    ]),
    table("Recall", ["type", "notes", "identifiers", "masked", "recall"], rows(figures.recall)),
    table("Wrong masks", ["type", "notes", "masks", "wrong", "share"], rows(figures.damage)),
    element("p", {}, "They are in annotation/report.html too, and the next version that is registered carries them."),
  );
}
