// The page: sends what the user writes to one model or two, with the chosen settings. The conversation is in this tab's memory only.

import { events, request, saveKey } from "./api.js";
import { randomSeed } from "./compare.js";
import { $, element } from "./dom.js";
import { chosenTask, listenToExtraction, offerTasks, useTask } from "./extraction.js";
import { contentOf, keep, restore } from "./keep.js";
import { askForKey, loadModels, showProblem } from "./models.js";
import { showPassport } from "./passport.js";
import { bodyOf, chosenSeed, MODES } from "./requests.js";
import { explainTokens, hideToken } from "./tokens.js";
import { Turn } from "./turn.js";

const NEAR_END = 80; // pixels
const ACTIONS = { retry: streamAnswers, edit, remove: (turn) => aborter || remove([turn]), voted: () => keep(turns) };
let turns = []; // of Turn
let aborter = null; // the AbortController of the answers that are streaming now
let storesVotes = false; // whether the server stores them

const mode = () => document.querySelector("[name=mode]:checked").value;

async function start() {
  storesVotes = await loadModels(start);
  updateTasks();
}

function send() {
  const prompt = $("prompt").value;
  if (!prompt.trim() || aborter || $("send").disabled) return;
  const task = mode() === "extract" ? chosenTask() : undefined;
  if (mode() === "extract" && !task) return;
  const models = $("compare").checked ? [$("model").value, $("second-model").value] : [$("model").value];
  const turn = new Turn({ mode: mode(), prompt, task, models, actions: ACTIONS, storesVotes });
  $("turns").append(turn.element);
  turns.push(turn);
  $("prompt").value = "";
  fitPrompt();
  updateView();
  streamAnswers(turn, turn.answers);
}

// Takes a question and all that came after it out of the conversation, and back into the text field.
function edit(turn) {
  if (aborter) return;
  remove(turns.slice(turns.indexOf(turn)));
  document.querySelector(`[name=mode][value=${turn.mode}]`).checked = true;
  if (turn.task) useTask(turn.task);
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
  const href = URL.createObjectURL(new Blob([JSON.stringify(turns.map(contentOf), null, 1)], { type: "application/json" }));
  element("a", { href, download: "conversation.json" }).click();
  URL.revokeObjectURL(href);
}

async function streamAnswers(turn, answers) {
  if (aborter) return;
  aborter = new AbortController();
  turn.reset(answers);
  // Two answers are compared with one seed. One of them that is tried again gets the seed of the other.
  if (answers.length > 1) turn.seed = chosenSeed() ?? randomSeed();
  else if (turn.answers.length === 1) turn.seed = chosenSeed();
  updateView();
  $("status").textContent = "Answering";
  $("conversation").scrollTop = $("conversation").scrollHeight;
  await Promise.all(answers.map((answer) => streamAnswer(turn, answer, aborter.signal)));
  keepingScroll(() => turn.draw());
  if (turn.mode === "extract") turn.element.scrollIntoView(); // a table is read from its top
  $("status").textContent = answers.some((answer) => answer.failed) ? "No complete answer" : "The answer is complete";
  aborter = null;
  updateView();
  keep(turns);
  if (answers.every((answer) => answer.tooLong) && !$("prompt").value) putBack(turn.prompt); // to be shortened
}

async function streamAnswer(turn, answer, signal) {
  try {
    answer.request = bodyOf(turn, answer.model, turns.slice(0, turns.indexOf(turn)));
    const response = await request(MODES[turn.mode].path, { body: answer.request, signal });
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

// Shows and hides controls, by what has been asked, what is streaming, and what is chosen.
function updateView() {
  const streaming = Boolean(aborter);
  $("welcome").hidden = turns.length > 0;
  $("clear").hidden = $("export").hidden = !turns.length;
  $("clear").disabled = streaming;
  $("send").hidden = streaming;
  $("stop").hidden = !streaming;
  $("second-model").hidden = !$("compare").checked;
  $("extraction").hidden = mode() !== "extract";
  document.body.classList.toggle("shaded", $("shade").checked);
  document.documentElement.dataset.theme = $("theme").value;
  const { label, placeholder } = MODES[mode()];
  $("prompt-label").textContent = label;
  $("prompt").placeholder = placeholder;
  for (const output of document.querySelectorAll("output")) output.value = $(output.htmlFor.value).value;
}

// The tasks of the chosen model, where its values are to be extracted from a note.
async function updateTasks() {
  updateView();
  if (mode() !== "extract" || !$("model").value) return;
  try {
    await offerTasks($("model").value);
  } catch (error) {
    showProblem(error.message, () => ($("problem").hidden = true) && updateTasks());
  }
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
  await start();
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
  putBack(button.textContent);
  updateTasks();
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

function listen() {
  onSubmit($("composer"), send);
  onSubmit($("key-form"), useKey);
  $("composer").addEventListener("input", updateView);
  $("composer").addEventListener("change", () => keep(turns));
  for (const control of [$("model"), ...document.querySelectorAll("[name=mode]")]) control.addEventListener("change", updateTasks);
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
  listenToExtraction();
}

function showKept() {
  for (const { answers, seed, vote, stored, ...asked } of restore()) {
    const turn = new Turn({ ...asked, models: answers.map(({ model }) => model), actions: ACTIONS });
    Object.assign(turn, { seed, vote, stored });
    $("turns").append(turn.element);
    turns.push(turn);
    turn.answers.forEach((answer, index) => answer.show(answers[index]));
    turn.draw();
  }
}

explainTokens($("conversation"));
listen();
showKept();
updateView();
start();
