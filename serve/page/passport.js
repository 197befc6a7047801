// The dialog that says what a model was made from: data and licences, metrics with intervals, the decision, limits, the whole card.

import { request } from "./api.js";
import { $, element } from "./dom.js";
import { linesBelow, scrollable, toElements } from "./markdown.js";

export async function showPassport(model) {
  const body = $("passport-body");
  body.replaceChildren(element("p", { className: "muted" }, "Loading…"));
  if (!$("passport").open) $("passport").showModal();
  $("passport-title").textContent = `Passport of ${model}`;
  try {
    const response = await request(`passport?model=${encodeURIComponent(model)}`);
    body.replaceChildren(...sections(await response.json()));
  } catch (error) {
    body.replaceChildren(element("div", { className: "error", role: "alert" }, error.message));
  }
}

function* sections(passport) {
  const { corpus = [], metrics = [], decision } = passport;
  const card = passport.card ?? "";
  const limits = linesBelow(card, "Limits");
  yield verifiedBadge(passport.verified);
  yield origin(passport);
  if (limits) yield section("Limits", ...toElements(limits));
  if (metrics.length) yield metricsSection(metrics);
  if (corpus.length) yield section("Training data", element("ul", { className: "corpus" }, ...corpus.map(corpusFile)));
  if (decision) yield decisionSection(decision);
  if (card) yield wholeCard(card);
}

const section = (title, ...children) => element("section", {}, element("h3", {}, title), ...children);

function verifiedBadge(verified) {
  return verified
    ? element("p", { className: "badge good" }, "Verified: its files are those that the passport names")
    : element("p", { className: "badge bad" }, "Not verified: nothing says that its files are what they should be");
}

// Version, date, code and digest, as far as the passport states them.
function origin({ version, made: date, code, passport_sha256: digest }) {
  const changes = String(code?.dirty) === "true" ? ", with uncommitted changes" : "";
  const commit = code?.commit ? `${code.commit.slice(0, 12)}${changes}` : code;
  const rows = { Version: version, Made: date && dateElement(date), Code: commit, Passport: digest && element("code", {}, digest) };
  const stated = Object.entries(rows).filter(([, value]) => value);
  return element("dl", {}, ...stated.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function dateElement(text) {
  const date = new Date(text);
  return Number.isNaN(date.valueOf())
    ? text
    : element("time", { datetime: text }, date.toLocaleDateString(undefined, { dateStyle: "long" }));
}

function corpusFile({ path, sha256, title, licence, credit }) {
  const lines = [element("strong", {}, title || path), element("span", {}, `Licence: ${licence || "not stated"}`)];
  if (credit) lines.push(element("span", {}, credit));
  lines.push(element("code", { title: sha256 ?? "" }, `${path}  ${(sha256 ?? "").slice(0, 12)}`));
  return element("li", {}, ...lines);
}

function decisionSection({ verdict, reasons = [] }) {
  return section("Decision", element("p", {}, verdict), element("ul", {}, ...reasons.map((reason) => element("li", {}, reason))));
}

function wholeCard(card) {
  const text = card.replace(/^---\n[^]*?\n---\n/, ""); // without the front matter, which is for programs
  const body = element("div", { className: "model-card" }, ...toElements(text));
  return element("details", {}, element("summary", {}, "The whole model card"), body);
}

function metricsSection(metrics) {
  const note = "With 95 % intervals, on the same items of groups that training never saw.";
  return section("How it compares with its base model", metricsTable(metrics), element("p", { className: "muted" }, note));
}

function metricsTable(metrics) {
  const head = ["Measure", "Base", "Tuned", "Change"].map((name) => element("th", { scope: "col" }, name));
  const thead = element("thead", {}, element("tr", {}, ...head));
  return scrollable("Metrics", element("table", {}, thead, element("tbody", {}, ...metrics.map(metricRow))));
}

function metricRow({ metric, meaning, split, items, base, tuned, change }) {
  const name = meaning ?? metric.replaceAll("_", " ");
  const head = element("th", { scope: "row" }, name, element("small", {}, `${split}, ${items} items`));
  return element("tr", {}, head, ...[base, tuned, change].map(scoreCell));
}

function scoreCell(score) {
  const interval = typeof score?.low === "number" ? `${formatScore(score.low)} to ${formatScore(score.high)}` : "no interval";
  return element("td", {}, formatScore(score?.value), element("small", {}, interval));
}

const formatScore = (value) => (typeof value === "number" ? value.toFixed(3).replace("-", "−") : "–");
