// One model's answer: its words as they arrive, the probability of each, an error where it failed. It sends nothing.

import { $, element } from "./dom.js";

const OF_TOKEN = new WeakMap(); // the span of a token → { probability, alternatives: [[text, probability]] }

export class Answer {
  constructor(model, { prompt, passport, retry }) {
    this.model = model;
    this.retry = retry;
    const name = element("button", { type: "button", className: "quiet model", title: `Passport of ${model}` }, model);
    name.addEventListener("click", () => passport(model));
    this.body = element("div", { className: "text", role: "group", "aria-label": `Answer of ${model}. Arrow keys go through its words.` });
    this.foot = element("p", { className: "foot" });
    this.element = element("article", { className: "answer" }, element("h3", {}, name), this.body, this.foot);
    this.prompt = prompt;
    this.begin();
  }

  begin() {
    this.text = "";
    this.failed = false;
    this.tokens = 0;
    this.started = performance.now();
    this.reason = "";
    this.version = "";
    this.element.querySelector(".error")?.remove();
    this.body.replaceChildren(...(this.prompt ? [element("span", { className: "given" }, this.prompt)] : []));
    this.foot.replaceChildren();
    this.element.setAttribute("aria-busy", "true");
  }

  // A chunk of a stream, of chat or of text.
  add(chunk) {
    this.version = chunk.system_fingerprint ?? this.version;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const text = choice.delta?.content ?? choice.text ?? "";
    this.text += text;
    this.reason = choice.finish_reason ?? this.reason;
    const tokens = tokensOf(choice);
    this.tokens += tokens.length;
    // A letter may be spread over several tokens. It then comes with the last of them, and stands for it.
    const apart = tokens.map((token) => token.text).join("") === text;
    if (apart) for (const token of tokens) this.#append(token.text, token);
    else this.#append(text, tokens.at(-1));
  }

  #append(text, token) {
    if (!text) return;
    const span = element("span", {}, text);
    if (token) {
      span.className = "token";
      span.tabIndex = this.body.querySelector("[tabindex='0']") ? -1 : 0;
      span.style.setProperty("--doubt", (1 - token.probability).toFixed(3));
      OF_TOKEN.set(span, token);
    }
    this.body.append(span);
  }

  end(how) {
    this.element.removeAttribute("aria-busy");
    const seconds = (performance.now() - this.started) / 1000;
    const speed = this.tokens ? `${this.tokens} tokens, ${(this.tokens / seconds).toFixed(1)}/s` : "";
    const why = how ?? (this.reason === "length" ? "cut at the length asked for" : "");
    const empty = this.text || how ? "" : "the model answered nothing";
    const version = this.version && `version ${this.version}`;
    this.foot.textContent = [version, speed, why, empty].filter(Boolean).join(" · ");
  }

  fail(refusal) {
    this.failed = true;
    this.end("not complete");
    if (!this.text) this.foot.textContent = "";
    const words = element("span", {}, refusal.message);
    const again = element("button", { type: "button", className: "quiet" }, "Try again");
    again.addEventListener("click", () => this.retry(this));
    this.element.append(element("div", { className: "error", role: "alert" }, words, again));
    if (refusal.wait)
      countDown(refusal.wait, (left) => {
        words.textContent = left ? `${refusal.message} Try again in ${left} s.` : refusal.message;
        again.disabled = left > 0;
      });
  }
}

function countDown(seconds, tell) {
  tell(seconds);
  if (seconds > 0) setTimeout(() => countDown(seconds - 1, tell), 1000);
}

// The tokens of a chunk, in the shape of chat completions or in that of completions.
function tokensOf({ logprobs }) {
  if (logprobs?.content) {
    return logprobs.content.map((t) => ({
      text: t.token,
      probability: Math.exp(t.logprob),
      alternatives: (t.top_logprobs ?? []).map((a) => [a.token, Math.exp(a.logprob)]),
    }));
  }
  return (logprobs?.tokens ?? []).map((text, n) => ({
    text,
    probability: Math.exp(logprobs.token_logprobs[n]),
    alternatives: Object.entries(logprobs.top_logprobs?.[n] ?? {}).map(([other, logprob]) => [other, Math.exp(logprob)]),
  }));
}

// Tokens below `root` show their probabilities when they are pointed at or have the focus, and arrow keys go from one to the next.
export function explainTokens(root) {
  const over = (event) => OF_TOKEN.has(event.target) && explain(event.target);
  root.addEventListener("pointerover", over);
  root.addEventListener("focusin", over);
  root.addEventListener("pointerout", hideToken);
  root.addEventListener("focusout", hideToken);
  root.addEventListener("scroll", hideToken);
  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    const next = step && event.target[step];
    if (!OF_TOKEN.has(event.target) || !OF_TOKEN.has(next)) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

export function hideToken() {
  $("token").hidden = true;
  document.querySelector("[aria-describedby='token']")?.removeAttribute("aria-describedby");
}

function explain(span) {
  hideToken();
  const { text, probability, alternatives } = OF_TOKEN.get(span);
  const others = alternatives.filter(([other]) => other !== text);
  const row = ([other, p], kind) => {
    const bar = element("span", { className: "bar" });
    bar.style.setProperty("--share", p.toFixed(4));
    return element(
      "tr",
      { className: kind },
      element("th", { scope: "row" }, seen(other)),
      element("td", {}, percent(p)),
      element("td", {}, bar),
    );
  };
  const rows = [row([text, probability], "chosen"), ...others.map((other) => row(other, "other"))];
  const box = $("token");
  box.replaceChildren(element("table", {}, element("caption", {}, "Probability here"), element("tbody", {}, ...rows)));
  box.hidden = false;
  span.setAttribute("aria-describedby", "token");
  const at = span.getClientRects()[0];
  const left = Math.min(at.left, innerWidth - box.offsetWidth - 8);
  const above = at.top - box.offsetHeight - 8;
  box.style.setProperty("left", `${Math.max(8, left)}px`);
  box.style.setProperty("top", `${above > 8 ? above : at.bottom + 8}px`);
}

const seen = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
const percent = (p) => (p >= 0.9995 ? "100 %" : p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
