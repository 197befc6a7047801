// Two answers side by side: the words in which they differ, and which of them the user finds better.

import { request } from "./api.js";
import { element } from "./dom.js";

const CHOICES = { first: "First", second: "Second", tie: "Tie", both_bad: "Both bad" };
const OWN_PART = ["model", "stream", "stream_options", "messages", "prompt", "logprobs", "top_logprobs"]; // of a request; no setting

// A seed for a turn whose answers are compared.
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;

// The elements of both texts; words that the other text does not have are marked.
export function differences(left, right) {
  const [ours, theirs] = [left, right].map((text) => text.match(/\w+|\s+|[^\w\s]/gu) ?? []);
  const [mine, other] = commonWords(ours, theirs);
  return [render(ours, mine), render(theirs, other)];
}

// Of each list, the indices of the longest common subsequence.
function commonWords(a, b) {
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width); // of the rests from i and j on
  for (let i = a.length - 1; i >= 0; i -= 1)
    for (let j = b.length - 1; j >= 0; j -= 1)
      lengths[i * width + j] =
        a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
  const common = [new Set(), new Set()];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) {
      common[0].add(i++);
      common[1].add(j++);
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return common;
}

function render(words, common) {
  const runs = []; // { same, text }
  words.forEach((word, index) => {
    const same = common.has(index);
    if (runs.at(-1)?.same === same) runs.at(-1).text += word;
    else runs.push({ same, text: word });
  });
  return runs.map(({ same, text }) => (same ? text : element("mark", { className: "only" }, text)));
}

// The buttons of a vote on a turn. With `stores` the server gets it, once; otherwise it is part of the exported conversation.
export function voteElement(turn, stores, onVote) {
  const state = element("span", { className: "muted", role: "status" });
  const buttons = Object.entries(CHOICES).map(([choice, label]) => {
    const button = element("button", { type: "button", className: "secondary", "aria-pressed": String(turn.vote === choice) }, label);
    button.addEventListener("click", () => vote(choice));
    return button;
  });
  const vote = async (choice) => {
    const store = stores && !turn.stored;
    try {
      if (store) for (const button of buttons) button.disabled = true;
      if (store) await request("preferences", { body: preferenceOf(turn, choice) });
      turn.stored = stores;
      turn.vote = choice;
      state.textContent = stores ? "stored by the server" : "in the exported file";
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(Object.keys(CHOICES)[index] === choice)));
      onVote();
    } catch (error) {
      for (const button of buttons) button.disabled = false;
      state.textContent = error.message;
    }
  };
  if (turn.stored) for (const button of buttons) button.disabled = true;
  const attributes = { className: "vote", role: "group", "aria-label": "Vote" };
  return element("div", attributes, element("span", {}, "Which is better?"), ...buttons, state);
}

function preferenceOf(turn, choice) {
  const answers = turn.answers.map(({ model, version, text, request: body }) => ({
    model,
    fingerprint: version,
    prompt: body.messages ?? body.prompt,
    text,
  }));
  const settings = Object.fromEntries(Object.entries(turn.answers[0].request).filter(([name]) => !OWN_PART.includes(name)));
  return { choice, answers, settings };
}
