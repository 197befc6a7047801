// One model's answer: its words as they arrive, the probability of each, an error if it failed. It sends no requests.

import { element } from "./dom.js";
import { tokenSpan, tokensOf } from "./tokens.js";

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
    this.wait = element("div", { className: "wait", "aria-live": "off" });
    this.foot = element("p", { className: "foot" });
    this.element = element("article", { className: "answer" }, element("h3", {}, name), this.body, this.wait, this.foot);
    this.empty();
  }

  // Empties it.
  empty() {
    Object.assign(this, { pieces: [], failed: false, tooLong: false, tokenCount: 0, finishReason: "", version: "", progress: null });
    this.element.querySelector(".error")?.remove();
    this.draw([]);
    this.foot.replaceChildren();
  }

  // Before the first try, and before each further one.
  reset() {
    this.empty();
    this.startedAt = performance.now();
    this.element.setAttribute("aria-busy", "true");
    clearInterval(this.clock);
    this.clock = setInterval(() => this.#showProgress(), 250);
  }

  get text() {
    return this.pieces.map(({ text }) => text).join("");
  }

  get complete() {
    return !this.failed && !this.element.hasAttribute("aria-busy") && this.pieces.length > 0;
  }

  // Adds a chunk of a stream, of chat completions or of completions.
  add(chunk) {
    this.version = chunk.system_fingerprint ?? this.version;
    if (chunk.progress) {
      this.progress = chunk.progress;
      this.#showProgress();
    }
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const text = choice.delta?.content ?? choice.text ?? "";
    this.finishReason = choice.finish_reason ?? this.finishReason;
    const tokens = tokensOf(choice);
    this.tokenCount += tokens.length;
    if (tokens.length) this.#endWait();
    // A character may be spread over several tokens. Then the text comes with the last of them, and that one's probability is shown.
    const onePieceEach = tokens.map((token) => token.text).join("") === text;
    if (onePieceEach) for (const token of tokens) this.#append({ text: token.text, tokens: [token] });
    else this.#append({ text, tokens });
  }

  #append(piece) {
    if (!piece.text) return;
    this.pieces.push(piece);
    this.body.append(tokenSpan(piece.text, piece.tokens.at(-1)));
    this.#makeReachable();
  }

  // Shows elements in place of its text, or the text token by token.
  draw(elements = this.pieces.map(({ text, tokens }) => tokenSpan(text, tokens.at(-1)))) {
    const echo = this.prompt ? [element("span", { className: "echoed-prompt" }, this.prompt)] : [];
    this.body.replaceChildren(...echo, ...elements);
    this.#makeReachable();
  }

  #makeReachable() {
    const first = this.body.querySelector(".token");
    if (first && !this.body.querySelector(".token[tabindex='0']")) first.tabIndex = 0;
  }

  // What the model is at before its first token: the place in the queue, the tokens read, the seconds.
  #showProgress() {
    const { queue = 0, read_tokens: read = 0, prompt_tokens: count = 0 } = this.progress ?? {};
    const reading = count ? `reading: ${read} of ${count} tokens` : "waiting";
    const seconds = `${Math.round((performance.now() - this.startedAt) / 1000)} s`;
    const bar = count && !queue ? [element("progress", { max: count, value: read, "aria-label": "Tokens read" })] : [];
    this.wait.replaceChildren(...bar, element("span", {}, `${queue ? `place ${queue} in the queue` : reading} · ${seconds}`));
  }

  #endWait() {
    clearInterval(this.clock);
    this.wait.replaceChildren();
  }

  // Shows an answer as it was kept, without the probabilities of its words.
  show({ text, version, finishReason, failed }) {
    Object.assign(this, { pieces: text ? [{ text, tokens: [] }] : [], version, finishReason, failed });
    this.draw();
    this.foot.textContent = [version && `version ${version}`, failed ? "not complete" : ""].filter(Boolean).join(" · ");
  }

  // `note`: why it ended, if not by itself.
  finish(note) {
    this.#endWait();
    this.element.removeAttribute("aria-busy");
    const seconds = (performance.now() - this.startedAt) / 1000;
    const version = this.version && `version ${this.version}`;
    const speed = this.tokenCount ? `${this.tokenCount} tokens, ${(this.tokenCount / seconds).toFixed(1)}/s` : "";
    const reason = note ?? (this.finishReason === "length" ? "cut at the length asked for" : "");
    const empty = this.pieces.length || note ? "" : "the model answered nothing";
    this.foot.textContent = [version, speed, reason, empty].filter(Boolean).join(" · ");
  }

  // Shows an ApiError, with a button for another try.
  fail(error) {
    this.failed = true;
    this.tooLong = error.kind === "long";
    this.finish("not complete");
    if (!this.pieces.length) this.foot.textContent = "";
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
