// A turn of the conversation: what was asked, the answers to it in the view that is chosen, and what can be done with them.

import { Answer } from "./answer.js";
import { differences, voteElement } from "./compare.js";
import { element } from "./dom.js";
import { fieldsOf } from "./fields.js";
import { formatted } from "./formatted.js";
import { Note } from "./note.js";
import { showPassport } from "./passport.js";

const VIEWS = { formatted: "Text", fields: "Fields", tokens: "Tokens", differences: "Differences" };
const VIEWS_OF = { chat: ["formatted", "tokens"], extract: ["fields", "tokens"], text: ["tokens"] };
let preferred = ["formatted", "fields"]; // views that turns get where they have them

// `mode`: chat, text or extract; `task`: of an extraction; `actions`: { retry(turn, answers), edit(turn), remove(turn), voted() }.
export class Turn {
  constructor({ mode, prompt, task, models, actions, storesVotes = false }) {
    Object.assign(this, { mode, prompt, task, actions, storesVotes, seed: undefined, vote: undefined, stored: false });
    const options = { prompt: mode === "text" ? prompt : undefined, passport: showPassport };
    this.answers = models.map((model) => new Answer(model, { ...options, retry: (answer) => actions.retry(this, [answer]) }));
    const answers = element("div", { className: "answers" }, ...this.answers.map((answer) => answer.element));
    this.note = mode === "extract" ? new Note(prompt) : undefined;
    this.foot = element("div", { className: "turn-actions" });
    const className = `turn ${mode}${models.length > 1 ? " compared" : ""}`;
    this.element = element("section", { className }, ...this.#asked(answers), this.foot);
    this.note?.listen(this.element);
    const views = VIEWS_OF[mode];
    this.view = views.find((view) => preferred.includes(view)) ?? views[0];
  }

  #asked(answers) {
    if (this.mode === "chat") return [element("p", { className: "question" }, this.prompt), answers];
    return this.mode === "extract" ? [element("div", { className: "sides" }, this.note.body, answers)] : [answers];
  }

  // Empties answers before another try. A vote was on the answers before it.
  reset(answers) {
    for (const answer of answers) answer.reset();
    Object.assign(this, { vote: undefined, stored: false });
    this.foot.replaceChildren();
  }

  // Shows the answers in the chosen view, and what can be done with the turn.
  draw() {
    for (const answer of this.answers) this.note?.link(answer, []);
    if (this.view === "differences" && !this.#complete) this.view = VIEWS_OF[this.mode][0];
    if (this.view === "differences") {
      const marked = differences(...this.answers.map(({ text }) => text));
      this.answers.forEach((answer, index) => answer.draw(marked[index]));
    } else for (const answer of this.answers) this.#drawAnswer(answer);
    this.foot.replaceChildren(...this.#controls());
  }

  get #complete() {
    return this.answers.every((answer) => answer.complete);
  }

  #drawAnswer(answer) {
    if (this.view === "fields") {
      const { elements, values } = fieldsOf(answer.pieces, this.prompt, this.task);
      this.note.link(answer, values);
      answer.draw(elements.length ? elements : undefined);
    } else answer.draw(this.view === "formatted" ? formatted(answer.pieces) : undefined);
  }

  #controls() {
    const compared = this.answers.length > 1;
    const complete = this.#complete;
    const views = [...VIEWS_OF[this.mode], ...(compared && complete ? ["differences"] : [])];
    const canVote = compared && complete && (this.vote || this.answers.every(({ request }) => request));
    const seed = compared && this.seed !== undefined ? [element("span", { className: "muted" }, `both with seed ${this.seed}`)] : [];
    return [
      ...(views.length > 1 ? [this.#viewControl(views)] : []),
      ...this.#buttons(),
      ...seed,
      ...(canVote ? [voteElement(this, this.storesVotes, this.actions.voted)] : []),
    ];
  }

  #viewControl(views) {
    const buttons = views.map((view) => {
      const button = element("button", { type: "button", "aria-pressed": String(view === this.view) }, VIEWS[view]);
      button.addEventListener("click", () => this.#show(view));
      return button;
    });
    return element("div", { className: "views", role: "group", "aria-label": "View" }, ...buttons);
  }

  #show(view) {
    this.view = view;
    if (view !== "differences") preferred = view === "tokens" ? ["tokens"] : ["formatted", "fields"];
    this.draw();
    [...this.foot.querySelectorAll(".views button")].find((button) => button.ariaPressed === "true").focus();
  }

  #buttons() {
    const actions = [
      ["Again", () => this.actions.retry(this, this.answers)],
      ["Edit", () => this.actions.edit(this)],
      ["Delete", () => this.actions.remove(this)],
    ];
    // Browsers let only pages of this machine or over TLS write to the clipboard.
    const copy = () => navigator.clipboard.writeText(this.answers.map(({ text }) => text).join("\n\n"));
    if (navigator.clipboard) actions.unshift(["Copy", copy]);
    return actions.map(([label, action]) => {
      const button = element("button", { type: "button", className: "secondary" }, label);
      button.addEventListener("click", action);
      return button;
    });
  }
}
