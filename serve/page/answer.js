// One model's answer: its words as they arrive, the probability of each, an error if it failed. It sends no requests.

import { $, element } from "./dom.js";

const TOKEN_OF_SPAN = new WeakMap(); // the span of a token → { text, probability, alternatives: [[text, probability]] }
const MARGIN = 8; // pixels around the tooltip

export class Answer {
  // `prompt`: text to show before the answer, if any. `passport(model)` and `retry(answer)`: what the buttons do.
  constructor(model, { prompt, passport, retry }) {
    this.model = model;
    this.prompt = prompt;
    this.retry = retry;
    const name = element("button", { type: "button", className: "secondary model", title: `Passport of ${model}` }, model);
    name.addEventListener("click", () => passport(model));
    const label = `Answer of ${model}. Arrow keys go through its words.`;
    this.body = element("div", { className: "text", role: "group", "aria-label": label });
    this.foot = element("p", { className: "foot" });
    this.element = element("article", { className: "answer" }, element("h3", {}, name), this.body, this.foot);
    this.reset();
  }

  // Empties it before the first try, and before each further one.
  reset() {
    this.text = "";
    this.failed = false;
    this.tooLong = false;
    this.tokenCount = 0;
    this.startedAt = performance.now();
    this.finishReason = "";
    this.version = "";
    this.element.querySelector(".error")?.remove();
    this.body.replaceChildren(...(this.prompt ? [element("span", { className: "echoed-prompt" }, this.prompt)] : []));
    this.foot.replaceChildren();
    this.element.setAttribute("aria-busy", "true");
  }

  // Adds a chunk of a stream, of chat completions or of completions.
  add(chunk) {
    this.version = chunk.system_fingerprint ?? this.version;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const text = choice.delta?.content ?? choice.text ?? "";
    this.text += text;
    this.finishReason = choice.finish_reason ?? this.finishReason;
    const tokens = tokensOf(choice);
    this.tokenCount += tokens.length;
    // A character may be spread over several tokens. Then the text comes with the last of them, and that one's probability is shown.
    const oneSpanPerToken = tokens.map((token) => token.text).join("") === text;
    if (oneSpanPerToken) for (const token of tokens) this.#append(token.text, token);
    else this.#append(text, tokens.at(-1));
  }

  #append(text, token) {
    if (!text) return;
    const span = element("span", {}, text);
    if (token) {
      span.className = "token";
      span.tabIndex = this.body.querySelector("[tabindex='0']") ? -1 : 0;
      span.style.setProperty("--uncertainty", (1 - token.probability).toFixed(3));
      TOKEN_OF_SPAN.set(span, token);
    }
    this.body.append(span);
  }

  // Shows an answer as it was kept, without the probabilities of its words.
  show({ text, version, finishReason, failed }) {
    Object.assign(this, { text, version, finishReason, failed });
    this.body.append(text);
    this.element.removeAttribute("aria-busy");
    this.foot.textContent = [version && `version ${version}`, failed ? "not complete" : ""].filter(Boolean).join(" · ");
  }

  // `note`: why it ended, if not by itself.
  finish(note) {
    this.element.removeAttribute("aria-busy");
    const seconds = (performance.now() - this.startedAt) / 1000;
    const version = this.version && `version ${this.version}`;
    const speed = this.tokenCount ? `${this.tokenCount} tokens, ${(this.tokenCount / seconds).toFixed(1)}/s` : "";
    const reason = note ?? (this.finishReason === "length" ? "cut at the length asked for" : "");
    const empty = this.text || note ? "" : "the model answered nothing";
    this.foot.textContent = [version, speed, reason, empty].filter(Boolean).join(" · ");
  }

  // Shows an ApiError, with a button for another try.
  fail(error) {
    this.failed = true;
    this.tooLong = error.kind === "long";
    this.finish("not complete");
    if (!this.text) this.foot.textContent = "";
    const message = element("span", {}, error.message);
    const retry = element("button", { type: "button", className: "secondary" }, "Try again");
    retry.addEventListener("click", () => this.retry(this));
    this.element.append(element("div", { className: "error", role: "alert" }, message, retry));
    if (error.wait)
      countDown(error.wait, (secondsLeft) => {
        message.textContent = secondsLeft ? `${error.message} Try again in ${secondsLeft} s.` : error.message;
        retry.disabled = secondsLeft > 0;
      });
  }
}

function countDown(seconds, onTick) {
  onTick(seconds);
  if (seconds > 0) setTimeout(() => countDown(seconds - 1, onTick), 1000);
}

// The tokens of a chunk, of chat completions or of completions.
function tokensOf({ logprobs }) {
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

// Tokens below `root` show their probabilities when the pointer or the focus is on them. Arrow keys go from one to the next.
export function explainTokens(root) {
  const showToken = (event) => TOKEN_OF_SPAN.has(event.target) && explain(event.target);
  for (const type of ["pointerover", "focusin"]) root.addEventListener(type, showToken);
  for (const type of ["pointerout", "focusout", "scroll"]) root.addEventListener(type, hideToken);
  root.addEventListener("keydown", (event) => {
    const sibling = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    const next = sibling && event.target[sibling];
    if (!TOKEN_OF_SPAN.has(event.target) || !TOKEN_OF_SPAN.has(next)) return;
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
  const bar = element("span", { className: "bar" });
  bar.style.setProperty("--probability", probability.toFixed(4));
  const cells = [element("td", {}, percent(probability)), element("td", {}, bar)];
  return element("tr", { className }, element("th", { scope: "row" }, visibleSpaces(text)), ...cells);
}

// Above the box, or below it if there is no room; always within the window's width.
function placeNextTo(tooltip, box) {
  const left = Math.min(box.left, innerWidth - tooltip.offsetWidth - MARGIN);
  const above = box.top - tooltip.offsetHeight - MARGIN;
  tooltip.style.setProperty("left", `${Math.max(MARGIN, left)}px`);
  tooltip.style.setProperty("top", `${above > MARGIN ? above : box.bottom + MARGIN}px`);
}

const visibleSpaces = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
const percent = (p) => (p >= 0.9995 ? "100 %" : p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
