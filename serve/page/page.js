// The page: sends what the user writes to one model or two, with the chosen settings. The conversation is in this tab's memory only.

import { Answer, explainTokens, hideToken } from "./answer.js";
import { events, request, saveKey } from "./api.js";
import { $, element } from "./dom.js";
import { contentOf, keep, restore } from "./keep.js";
import { showPassport } from "./passport.js";

const MODES = {
  chat: { label: "Question", placeholder: "Ask a medical question", path: "v1/chat/completions", bodyOf: chatBody },
  text: { label: "Text to complete", placeholder: "Begin a text; the model goes on with it", path: "v1/completions", bodyOf: textBody },
};
const ALTERNATIVES = 4; // shown for each token
const NEAR_END = 80; // pixels
let turns = []; // { mode, prompt, answers: [Answer] }
let aborter = null; // the AbortController of the answers that are streaming now

const mode = () => document.querySelector("[name=mode]:checked").value;

async function loadModels() {
  $("problem").hidden = true;
  try {
    const { data } = await (await request("v1/models")).json();
    showModels(data);
    $("key-form").hidden = true;
  } catch (error) {
    if (error.kind === "key") askForKey(error);
    else showProblem(error.message, loadModels);
  }
}

function showModels(models) {
  const options = () => models.map(({ id }) => element("option", { value: id }, id));
  $("model").replaceChildren(...options());
  $("second-model").replaceChildren(...options());
  $("second-model").selectedIndex = models.length - 1;
  $("compare-option").hidden = models.length < 2;
  $("length").max = Math.min($("length").max, ...models.map((model) => model.max_model_len ?? Infinity));
  updateView();
  $("model").hidden = $("open-passport").disabled = $("send").disabled = !models.length;
}

function showProblem(message, retry) {
  const button = element("button", { type: "button", className: "secondary" }, "Try again");
  button.addEventListener("click", retry);
  $("problem").replaceChildren(element("span", {}, message), button);
  $("problem").hidden = false;
}

function askForKey(error) {
  if (!$("key-form").hidden) return;
  $("key-form").querySelector("label").textContent = error.message;
  $("key-form").hidden = false;
  $("key").focus();
}

function send() {
  const prompt = $("prompt").value;
  if (!prompt.trim() || aborter || $("send").disabled) return;
  const turn = newTurn(mode(), prompt, $("compare").checked ? [$("model").value, $("second-model").value] : [$("model").value]);
  $("turns").append(turnElement(turn));
  turns.push(turn);
  $("prompt").value = "";
  fitPrompt();
  updateView();
  streamAnswers(turn, turn.answers);
}

function newTurn(turnMode, prompt, models) {
  const turn = { mode: turnMode, prompt };
  const options = {
    prompt: turnMode === "text" ? prompt : undefined,
    passport: showPassport,
    retry: (answer) => streamAnswers(turn, [answer]),
  };
  turn.answers = models.map((model) => new Answer(model, options));
  return turn;
}

function turnElement(turn) {
  const answers = element("div", { className: "answers" }, ...turn.answers.map((answer) => answer.element));
  const question = turn.mode === "chat" ? [element("p", { className: "question" }, turn.prompt)] : [];
  const className = turn.answers.length > 1 ? "turn compared" : "turn";
  turn.element = element("section", { className }, ...question, answers, turnActions(turn));
  return turn.element;
}

function turnActions(turn) {
  const actions = [
    ["Again", () => streamAnswers(turn, turn.answers)],
    ["Edit", () => edit(turn)],
    ["Delete", () => remove([turn])],
  ];
  // Browsers let only pages of this machine or over TLS write to the clipboard.
  if (navigator.clipboard) actions.unshift(["Copy", () => navigator.clipboard.writeText(turn.answers.map(({ text }) => text).join("\n\n"))]);
  const buttons = actions.map(([label, action]) => {
    const button = element("button", { type: "button", className: "secondary" }, label);
    button.addEventListener("click", () => aborter || action());
    return button;
  });
  return element("div", { className: "turn-actions" }, ...buttons);
}

// Takes a question and all that came after it out of the conversation, and back into the text field.
function edit(turn) {
  remove(turns.slice(turns.indexOf(turn)));
  document.querySelector(`[name=mode][value=${turn.mode}]`).checked = true;
  putBack(turn.prompt);
}

function putBack(prompt) {
  $("prompt").value = prompt;
  fitPrompt();
  updateView();
  $("prompt").focus();
}

function remove(gone) {
  turns = turns.filter((turn) => !gone.includes(turn));
  for (const turn of gone) turn.element.remove();
  updateView();
  keep(turns);
}

// The conversation as a file, made here.
function exportConversation() {
  const shown = turns.map(({ mode, prompt, answers }) => ({
    mode,
    prompt,
    answers: answers.map(contentOf),
  }));
  const href = URL.createObjectURL(new Blob([JSON.stringify(shown, null, 1)], { type: "application/json" }));
  element("a", { href, download: "conversation.json" }).click();
  URL.revokeObjectURL(href);
}

async function streamAnswers(turn, answers) {
  if (aborter) return;
  aborter = new AbortController();
  updateView();
  $("status").textContent = "Answering";
  $("conversation").scrollTop = $("conversation").scrollHeight;
  await Promise.all(answers.map((answer) => streamAnswer(turn, answer, aborter.signal)));
  $("status").textContent = answers.some((answer) => answer.failed) ? "No complete answer" : "The answer is complete";
  aborter = null;
  updateView();
  keep(turns);
  if (answers.every((answer) => answer.tooLong) && !$("prompt").value) putBack(turn.prompt); // to be shortened
}

async function streamAnswer(turn, answer, signal) {
  answer.reset();
  try {
    const { path, bodyOf } = MODES[turn.mode];
    const body = { model: answer.model, stream: true, ...settings(), ...bodyOf(turn, answer.model) };
    const response = await request(path, { body, signal });
    for await (const chunk of events(response)) keepingScroll(() => answer.add(chunk));
    answer.finish();
  } catch (error) {
    if (error.name === "AbortError") return answer.finish("stopped");
    answer.fail(error);
    if (error.kind === "key") askForKey(error);
  }
}

// The conversation stays scrolled to its end, except when the user has scrolled back.
function keepingScroll(change) {
  const area = $("conversation");
  const atEnd = area.scrollHeight - area.scrollTop - area.clientHeight < NEAR_END;
  change();
  if (atEnd) area.scrollTop = area.scrollHeight;
}

// The conversation so far with this model, without answers that failed.
function chatBody(turn, model) {
  const messages = $("system").value.trim() ? [{ role: "system", content: $("system").value }] : [];
  for (const earlier of turns.slice(0, turns.indexOf(turn)).filter((other) => other.mode === "chat")) {
    const answer = earlier.answers.find((other) => other.model === model && other.text && !other.failed);
    if (answer) messages.push({ role: "user", content: earlier.prompt }, { role: "assistant", content: answer.text });
  }
  return { messages: [...messages, { role: "user", content: turn.prompt }], logprobs: true, top_logprobs: ALTERNATIVES };
}

function textBody(turn) {
  return { prompt: turn.prompt, logprobs: ALTERNATIVES };
}

function settings() {
  const chosen = { temperature: $("temperature").valueAsNumber, top_p: $("top-p").valueAsNumber, max_tokens: $("length").valueAsNumber };
  for (const input of document.querySelectorAll("[data-field]")) if (input.value !== "") chosen[input.dataset.field] = input.valueAsNumber;
  return $("seed").value === "" ? chosen : { ...chosen, seed: $("seed").valueAsNumber };
}

// Shows and hides controls, by what has been asked, what is streaming, and what is chosen.
function updateView() {
  const streaming = Boolean(aborter);
  $("welcome").hidden = turns.length > 0;
  $("clear").hidden = $("export").hidden = !turns.length;
  $("clear").disabled = streaming;
  $("send").hidden = streaming;
  $("stop").hidden = !streaming;
  $("second-model").hidden = !$("compare").checked;
  document.body.classList.toggle("shaded", $("shade").checked);
  document.documentElement.dataset.theme = $("theme").value;
  const { label, placeholder } = MODES[mode()];
  $("prompt-label").textContent = label;
  $("prompt").placeholder = placeholder;
  for (const output of document.querySelectorAll("output")) output.value = $(output.htmlFor.value).value;
}

// Makes the text field as high as its text, up to a third of the window.
function fitPrompt() {
  const area = $("prompt");
  area.style.setProperty("height", "auto");
  area.style.setProperty("height", `${Math.min(area.scrollHeight, innerHeight / 3)}px`);
}

function clearConversation() {
  turns = [];
  $("turns").replaceChildren();
  updateView();
  keep(turns);
  $("prompt").focus();
}

// Tries the new key, and then the answers that failed for want of it.
async function useKey() {
  saveKey($("key").value);
  $("key").value = "";
  $("key-form").hidden = true;
  await loadModels();
  const last = turns.at(-1);
  const failed = last?.answers.filter((answer) => answer.failed) ?? [];
  if (failed.length && $("key-form").hidden) streamAnswers(last, failed);
}

function toggleSettings() {
  $("settings").hidden = !$("settings").hidden;
  $("open-settings").setAttribute("aria-expanded", String(!$("settings").hidden));
}

function useExample(button) {
  document.querySelector(`[name=mode][value=${button.dataset.mode}]`).checked = true;
  $("prompt").value = button.textContent;
  updateView();
  $("prompt").focus();
}

function onKeyDown(event) {
  const passportOpen = $("passport").open;
  const sends = event.ctrlKey || event.metaKey || (event.target === $("prompt") && !event.shiftKey);
  if (event.key === "Enter" && sends && !event.isComposing && !passportOpen) {
    event.preventDefault();
    send();
  }
  if (event.key !== "Escape") return;
  hideToken();
  if (!passportOpen) aborter?.abort();
}

function onSubmit(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

onSubmit($("composer"), send);
onSubmit($("key-form"), useKey);
$("composer").addEventListener("input", updateView);
$("composer").addEventListener("change", () => keep(turns));
$("prompt").addEventListener("input", fitPrompt);
$("compare").addEventListener("change", updateView);
$("stop").addEventListener("click", () => aborter?.abort());
$("clear").addEventListener("click", clearConversation);
$("export").addEventListener("click", exportConversation);
$("open-settings").addEventListener("click", toggleSettings);
$("open-passport").addEventListener("click", () => showPassport($("model").value));
$("close-passport").addEventListener("click", () => $("passport").close());
for (const button of $("examples").querySelectorAll("button")) button.addEventListener("click", () => useExample(button));
document.addEventListener("keydown", onKeyDown);

function showKept() {
  for (const { mode: turnMode, prompt, answers } of restore()) {
    const turn = newTurn(turnMode, prompt, answers.map(({ model }) => model));
    $("turns").append(turnElement(turn));
    turns.push(turn);
    turn.answers.forEach((answer, index) => answer.show(answers[index]));
  }
}

explainTokens($("conversation"));
showKept();
updateView();
loadModels();
