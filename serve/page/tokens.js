// Tokens as spans that show their probabilities when the pointer or the focus is on them.

import { $, element } from "./dom.js";

const TOKEN_OF_SPAN = new WeakMap(); // the span of a token → { text, probability, alternatives: [[text, probability]] }
const MARGIN = 8; // pixels around the tooltip

// The tokens of a chunk, of chat completions or of completions.
export function tokensOf({ logprobs }) {
  if (logprobs?.content) {
    return logprobs.content.map(({ token, logprob, top_logprobs: top }) => ({
      text: token,
      probability: Math.exp(logprob),
      alternatives: (top ?? []).map((other) => [other.token, Math.exp(other.logprob)]),
    }));
  }
  return (logprobs?.tokens ?? []).map((text, index) => ({
    text,
    probability: Math.exp(logprobs.token_logprobs[index]),
    alternatives: Object.entries(logprobs.top_logprobs?.[index] ?? {}).map(([other, logprob]) => [other, Math.exp(logprob)]),
  }));
}

// The text of a token, or a part of it; only text where no token is known.
export function tokenSpan(text, token) {
  if (!token) return element("span", {}, text);
  const span = element("span", { className: "token", tabindex: -1 }, text);
  span.style.setProperty("--uncertainty", (1 - token.probability).toFixed(3));
  TOKEN_OF_SPAN.set(span, token);
  return span;
}

// Tokens below `root` show their probabilities. Arrow keys go from one to the next of an answer.
export function explainTokens(root) {
  const showToken = (event) => TOKEN_OF_SPAN.has(event.target) && explain(event.target);
  for (const type of ["pointerover", "focusin"]) root.addEventListener(type, showToken);
  for (const type of ["pointerout", "focusout", "scroll"]) root.addEventListener(type, hideToken);
  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !TOKEN_OF_SPAN.has(event.target)) return;
    const all = [...event.target.closest(".text").querySelectorAll(".token")];
    const next = all[all.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    moveFocus(event.target, next);
  });
}

// Only one token of an answer can be reached by the Tab key.
function moveFocus(from, to) {
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

export function hideToken() {
  $("token").hidden = true;
  document.querySelector("[aria-describedby='token']")?.removeAttribute("aria-describedby");
}

function explain(span) {
  hideToken();
  const { text, probability, alternatives } = TOKEN_OF_SPAN.get(span);
  const others = alternatives.filter(([other]) => other !== text);
  const rows = [probabilityRow(text, probability, "chosen"), ...others.map(([other, p]) => probabilityRow(other, p, "other"))];
  const tooltip = $("token");
  tooltip.replaceChildren(element("table", {}, element("caption", {}, "Probability here"), element("tbody", {}, ...rows)));
  tooltip.hidden = false;
  span.setAttribute("aria-describedby", "token");
  placeNextTo(tooltip, span.getClientRects()[0]);
}

function probabilityRow(text, probability, className) {
  const cells = [element("td", {}, percent(probability)), element("td", {}, probabilityBar(probability))];
  return element("tr", { className }, element("th", { scope: "row" }, visibleSpaces(text)), ...cells);
}

export function probabilityBar(probability) {
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--probability", probability.toFixed(4));
  return bar;
}

// Above the box, or below it if there is no room; always within the window's width.
function placeNextTo(tooltip, box) {
  const left = Math.min(box.left, innerWidth - tooltip.offsetWidth - MARGIN);
  const above = box.top - tooltip.offsetHeight - MARGIN;
  tooltip.style.setProperty("left", `${Math.max(MARGIN, left)}px`);
  tooltip.style.setProperty("top", `${above > MARGIN ? above : box.bottom + MARGIN}px`);
}

const visibleSpaces = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
export const percent = (p) => (p >= 0.9995 ? "100 %" : p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
