// The page: what is asked, of which models, with which settings. It keeps the conversation in this tab's memory only.

import { Answer, explainTokens, hideToken } from "./answer.js";
import { events, keep, request } from "./api.js";
import { $, element } from "./dom.js";
import { showPassport } from "./passport.js";

const MODES = {
  chat: { label: "Question", placeholder: "Ask a medical question" },
  text: { label: "Text to complete", placeholder: "Begin a text; the model goes on with it" },
};
const ALTERNATIVES = 4;
let turns = []; // { mode, prompt, answers: [Answer] }
let running = null; // the AbortController of the answers that are being written

const mode = () => document.querySelector("[name=mode]:checked").value;

async function loadModels() {
  $("problem").hidden = true;
  try {
    const { data } = await (await request("v1/models")).json();
    const choices = () => data.map(({ id }) => element("option", { value: id }, id));
    $("model").replaceChildren(...choices());
    $("second").replaceChildren(...choices());
    $("second").selectedIndex = data.length - 1;
    $("comparing").hidden = data.length < 2;
    $("length").max = Math.min($("length").max, ...data.map((model) => model.max_model_len ?? Infinity));
    layout();
    $("model").hidden = $("open-passport").disabled = $("send").disabled = !data.length;
    $("key-form").hidden = true;
  } catch (error) {
    refused(error);
    if (error.kind !== "key") problem(error.message, loadModels);
  }
}

function problem(message, again) {
  const button = element("button", { type: "button", className: "quiet" }, "Try again");
  button.addEventListener("click", again);
  $("problem").replaceChildren(element("span", {}, message), button);
  $("problem").hidden = false;
}

function refused(error) {
  if (error.kind !== "key" || !$("key-form").hidden) return;
  $("key-form").querySelector("label").textContent = error.message;
  $("key-form").hidden = false;
  $("key").focus();
}

function send() {
  const prompt = $("prompt").value;
  if (!prompt.trim() || running || $("send").disabled) return;
  const models = $("compare").checked ? [$("model").value, $("second").value] : [$("model").value];
  const turn = { mode: mode(), prompt };
  const given = turn.mode === "text" ? prompt : undefined;
  turn.answers = models.map(
    (model) => new Answer(model, { prompt: given, passport: showPassport, retry: (answer) => run(turn, [answer]) }),
  );
  const answers = element("div", { className: "answers" }, ...turn.answers.map((answer) => answer.element));
  const question = turn.mode === "chat" ? [element("p", { className: "question" }, prompt)] : [];
  $("turns").append(element("section", { className: models.length > 1 ? "turn compared" : "turn" }, ...question, answers));
  turns.push(turn);
  $("prompt").value = "";
  resize();
  layout();
  run(turn, turn.answers);
}

async function run(turn, answers) {
  if (running) return;
  running = new AbortController();
  layout();
  $("status").textContent = "Answering";
  $("talk").scrollTop = $("talk").scrollHeight;
  await Promise.all(answers.map((answer) => write(turn, answer, running.signal)));
  $("status").textContent = answers.some((answer) => answer.failed) ? "No complete answer" : "The answer is complete";
  running = null;
  layout();
}

async function write(turn, answer, signal) {
  answer.begin();
  try {
    const chat = turn.mode === "chat";
    const body = { model: answer.model, stream: true, ...settings(), ...(chat ? asked(turn, answer.model) : completed(turn)) };
    const response = await request(chat ? "v1/chat/completions" : "v1/completions", { body, signal });
    for await (const chunk of events(response)) {
      const talk = $("talk");
      const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80; // a reader who scrolled back stays there
      answer.add(chunk);
      if (atEnd) talk.scrollTop = talk.scrollHeight;
    }
    answer.end();
  } catch (error) {
    if (error.name === "AbortError") return answer.end("stopped");
    answer.fail(error);
    refused(error);
  }
}

// The conversation so far as this model has it: answers that failed, and other models' answers, are not part of it.
function asked(turn, model) {
  const messages = [];
  for (const earlier of turns.slice(0, turns.indexOf(turn)).filter((other) => other.mode === "chat")) {
    const answer = earlier.answers.find((other) => other.model === model && other.text && !other.failed);
    if (answer) messages.push({ role: "user", content: earlier.prompt }, { role: "assistant", content: answer.text });
  }
  return { messages: [...messages, { role: "user", content: turn.prompt }], logprobs: true, top_logprobs: ALTERNATIVES };
}

const completed = (turn) => ({ prompt: turn.prompt, logprobs: ALTERNATIVES });

function settings() {
  const chosen = { temperature: $("temperature").valueAsNumber, top_p: $("top-p").valueAsNumber, max_tokens: $("length").valueAsNumber };
  return $("seed").value === "" ? chosen : { ...chosen, seed: $("seed").valueAsNumber };
}

function layout() {
  $("welcome").hidden = turns.length > 0;
  $("clear").hidden = !turns.length;
  $("clear").disabled = Boolean(running);
  $("send").hidden = Boolean(running);
  $("stop").hidden = !running;
  $("second").hidden = !$("compare").checked;
  document.body.classList.toggle("shaded", $("shade").checked);
  const { label, placeholder } = MODES[mode()];
  $("prompt-label").textContent = label;
  $("prompt").placeholder = placeholder;
  for (const output of document.querySelectorAll("output")) output.value = $(output.htmlFor.value).value;
}

function resize() {
  const area = $("prompt");
  area.style.setProperty("height", "auto");
  area.style.setProperty("height", `${Math.min(area.scrollHeight, innerHeight / 3)}px`);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("composer").addEventListener("input", layout);
$("prompt").addEventListener("input", resize);
$("compare").addEventListener("change", layout);
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  turns = [];
  $("turns").replaceChildren();
  layout();
  $("prompt").focus();
});
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keep($("key").value);
  $("key").value = "";
  $("key-form").hidden = true;
  await loadModels();
  const last = turns.at(-1);
  const failed = last?.answers.filter((answer) => answer.failed) ?? [];
  if (failed.length && $("key-form").hidden) run(last, failed);
});
$("open-settings").addEventListener("click", () => {
  $("settings").hidden = !$("settings").hidden;
  $("open-settings").setAttribute("aria-expanded", String(!$("settings").hidden));
});
for (const button of $("examples").querySelectorAll("button")) {
  button.addEventListener("click", () => {
    document.querySelector(`[name=mode][value=${button.dataset.mode}]`).checked = true;
    $("prompt").value = button.textContent;
    layout();
    $("prompt").focus();
  });
}
$("open-passport").addEventListener("click", () => showPassport($("model").value));
$("close-passport").addEventListener("click", () => $("passport").close());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("passport").open) send();
  if (event.key === "Escape") {
    hideToken();
    if (!$("passport").open) running?.abort();
  }
});

explainTokens($("talk"));
layout();
loadModels();
