// The panel that says what a model was made from: data and licences, metrics with intervals, the decision, limits, the whole card.

import { request } from "./api.js";
import { $, element } from "./dom.js";
import { blocks, section } from "./markdown.js";

export async function showPassport(model) {
  const body = $("passport-body");
  body.replaceChildren(element("p", { className: "muted" }, "Loading…"));
  if (!$("passport").open) $("passport").showModal();
  $("passport-title").textContent = `Passport of ${model}`;
  try {
    const response = await request(`passport?model=${encodeURIComponent(model)}`);
    body.replaceChildren(...parts(await response.json()));
  } catch (error) {
    body.replaceChildren(element("div", { className: "error", role: "alert" }, error.message));
  }
}

function* parts(passport) {
  const { corpus = [], metrics = [], decision } = passport;
  const card = passport.card ?? "";
  yield element(
    "p",
    { className: passport.verified ? "badge good" : "badge bad" },
    passport.verified
      ? "Verified: its files are those that the passport names"
      : "Not verified: nothing says that its files are what they should be",
  );
  yield facts(passport);
  const limits = section(card, "Limits");
  if (limits) yield part("Limits", ...blocks(limits));
  if (metrics.length)
    yield part(
      "How it compares with its base model",
      metricsTable(metrics),
      element("p", { className: "muted" }, "With 95 % intervals, on the same items of groups that training never saw."),
    );
  if (corpus.length) yield part("Training data", element("ul", { className: "corpus" }, ...corpus.map(source)));
  if (decision)
    yield part(
      "Decision",
      element("p", {}, decision.verdict),
      element("ul", {}, ...(decision.reasons ?? []).map((reason) => element("li", {}, reason))),
    );
  if (card)
    yield element(
      "details",
      {},
      element("summary", {}, "The whole model card"),
      element("div", { className: "model-card" }, ...blocks(card)),
    );
}

const part = (title, ...children) => element("section", {}, element("h3", {}, title), ...children);

function facts({ version, made, code, passport_sha256: digest }) {
  const commit = code?.commit ? `${code.commit.slice(0, 12)}${String(code.dirty) === "true" ? ", with uncommitted changes" : ""}` : code;
  const rows = { Version: version, Made: made && day(made), Code: commit, Passport: digest && element("code", {}, digest) };
  const stated = Object.entries(rows).filter(([, value]) => value);
  return element("dl", {}, ...stated.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function day(text) {
  const date = new Date(text);
  return Number.isNaN(date.valueOf())
    ? text
    : element("time", { datetime: text }, date.toLocaleDateString(undefined, { dateStyle: "long" }));
}

function source({ path, sha256, title, licence, credit }) {
  const lines = [element("strong", {}, title || path), element("span", {}, `Licence: ${licence || "not stated"}`)];
  if (credit) lines.push(element("span", {}, credit));
  lines.push(element("code", { title: sha256 ?? "" }, `${path}  ${(sha256 ?? "").slice(0, 12)}`));
  return element("li", {}, ...lines);
}

function metricsTable(metrics) {
  const head = ["Measure", "Base", "Tuned", "Change"].map((name) => element("th", { scope: "col" }, name));
  const rows = metrics.map((row) =>
    element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        row.meaning ?? row.metric.replaceAll("_", " "),
        element("small", {}, `${row.split}, ${row.items} items`),
      ),
      ...[row.base, row.tuned, row.change].map(cell),
    ),
  );
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
  return element("div", { className: "scroll", tabindex: 0, role: "region", "aria-label": "Metrics" }, table);
}

function cell(figure) {
  const interval = typeof figure?.low === "number" ? `${number(figure.low)} to ${number(figure.high)}` : "no interval";
  return element("td", {}, number(figure?.value), element("small", {}, interval));
}

const number = (value) => (typeof value === "number" ? value.toFixed(3).replace("-", "−") : "–");
