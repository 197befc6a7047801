// The page: which note is shown, what a key or a button does, and when it is saved. The server has the truth: what it answered is shown.

import { request } from "./api.js";
import { $, element } from "./dom.js";
import { showFigures } from "./figures.js";
import { actionOf, keysOfTypes } from "./keys.js";
import { describe, familyOf, overlaps, render } from "./note.js";
import { Offsets } from "./offsets.js";
import { TextSelection } from "./selection.js";

const selection = new TextSelection($("note"));
const before = []; // what to undo: {index, marks, done}
let done = []; // of all notes, which are finished
let fresh = []; // and which of those have masks that nobody has judged
let keys = {}; // of the types that there are
let index = 0;
let note = null; // with offsets in units
let items = [];
let queue = Promise.resolve(); // actions work one after the other

// Notes

async function open(number) {
  const loaded = await request(`notes/${number}`);
  const offsets = new Offsets(loaded.text);
  const inUnits = (span) => ({ ...span, start: offsets.toUnits(span.start), end: offsets.toUnits(span.end) });
  index = number;
  note = { ...loaded, offsets, masks: loaded.masks.map(inUnits), repairs: loaded.repairs.map(inUnits) };
  take(loaded);
  history.replaceState(null, "", `#${number + 1}`);
  selection.clear();
  show();
  $("note").scrollTop = 0;
  $("note").focus();
}

// What the server says of the note now.
function take({ marks, states, done: isDone, revision }) {
  const { offsets } = note;
  const inUnits = (mark) => ({ ...mark, start: offsets.toUnits(mark.start), end: offsets.toUnits(mark.end) });
  Object.assign(note, { marks: marks.map(inUnits), states, done: isDone, revision });
  done[index] = isDone;
  fresh[index] = isDone && states.includes("unjudged");
}

// Saves marks in place of those of the note; `accept`: masks that nobody has judged are right.
async function save(marks, isDone, accept = false) {
  const points = marks.map(({ start, end, verdict, type }) => ({
    start: note.offsets.toPoints(start), end: note.offsets.toPoints(end), verdict, type: type ?? "",
  }));
  try {
    take(await request(`notes/${index}`, { method: "PUT", body: { revision: note.revision, done: isDone, accept, marks: points } }));
  } catch (error) {
    if (error.status === 409) await open(index);
    throw error;
  }
  show();
  $("saved").textContent = "Saved";
}

async function change(marks, isDone = note.done, accept = false) {
  const earlier = { index, marks: note.marks, done: note.done };
  await save(marks, isDone, accept);
  before.push(earlier);
}

// What is under the keyboard

const focused = () => items.find((item) => item.node === document.activeElement);

// Where the keyboard is in the text, for what begins there.
const place = () => selection.get()?.end ?? focused()?.start ?? 0;

function show() {
  const was = focused();
  const selected = selection.get();
  const shown = render(note);
  $("text").replaceWith(shown.container);
  items = shown.items;
  selection.show(shown.container, note.text);
  if (was) items.find((item) => item.start === was.start && item.kind === was.kind)?.node.focus({ preventScroll: true });
  else if (selected) selection.set(selected.start, selected.end);
  showFrame();
  showCurrent();
}

function showFrame() {
  const finished = done.filter(Boolean).length;
  const toJudge = note.done ? note.states.filter((state) => state === "unjudged").length : 0;
  $("number").textContent = index + 1;
  $("total").textContent = done.length;
  $("origin").textContent = `${note.source}, ${note.position}`;
  $("progress").max = done.length;
  $("progress").value = finished;
  const changed = fresh.filter(Boolean).length;
  $("finished").textContent = `${finished} finished${changed ? `, ${changed} with new masks` : ""}`;
  $("badge").hidden = !note.done;
  $("badge").className = toJudge ? "fresh" : "";
  $("badge").textContent = toJudge ? `${toJudge} new mask${toJudge > 1 ? "s" : ""} to judge` : "Finished";
  document.querySelector("[data-action=reopen]").hidden = !note.done;
  document.title = `Note ${index + 1} of ${done.length}`;
}

function showCurrent() {
  const selected = selection.get();
  const item = selected ? null : focused();
  const text = (span) => note.text.slice(span.start, span.end).replace(/\s+/g, " ").slice(0, 120);
  const lines = [];
  if (selected) lines.push(element("h2", {}, "Selected"), element("q", {}, text(selected)), element("p", {}, "Press the key of its type; m is NAME."));
  else if (item) lines.push(element("h2", {}, item.kind === "repair" ? "Repair" : item.trueType ?? item.type), element("q", {}, text(item)), element("p", {}, `${describe(item, note)}.`));
  else {
    const masks = `${note.masks.length} mask${note.masks.length === 1 ? "" : "s"}`;
    const missed = note.marks.filter((mark) => mark.verdict === "missed").length;
    lines.push(element("h2", {}, "This note"), element("p", {}, `${masks}, ${missed} that you marked as missed. j goes to the first, ← and → select words.`));
  }
  $("current").replaceChildren(...lines);
}

// Actions

const isOpen = (i) => !done[i] || fresh[i];

const move = (step) => async () => {
  const target = index + step;
  if (target >= 0 && target < done.length) await open(target);
};

const moveItem = (step) => () => {
  const at = focused();
  const from = selection.get()?.start ?? (step > 0 ? -1 : Infinity);
  const beside = () => (step > 0 ? items.findIndex((item) => item.start >= from) : items.findLastIndex((item) => item.start < from));
  const target = items[at ? items.indexOf(at) + step : beside()];
  selection.clear();
  target?.node.focus();
  target?.node.scrollIntoView({ block: "nearest" });
};

// The marks without those that a person's word on a span takes the place of.
const without = (span, verdicts) => note.marks.filter((mark) => !(verdicts.includes(mark.verdict) && overlaps(mark, span)));

const actions = {
  next: move(1),
  previous: move(-1),
  nextItem: moveItem(1),
  previousItem: moveItem(-1),

  async wrong() {
    const item = focused();
    if (!item || item.kind === "missed") return;
    const span = { start: item.start, end: item.end };
    if (item.kind === "repair") {
      await change([...without(span, ["lost"]), ...(item.state === "wrong" ? [] : [{ ...span, verdict: "lost" }])]);
    } else {
      const mark = item.state === "wrong" ? { ...span, verdict: "right", type: item.type } : { ...span, verdict: "wrong" };
      await change([...without(span, ["right", "wrong"]), mark]);
    }
  },

  async type(type) {
    if (!(type in keys)) return;
    const selected = selection.get();
    const item = selected ? null : focused();
    const span = selected ?? (item && { start: item.start, end: item.end });
    if (!span || item?.kind === "repair") return;
    const mask = note.masks.find((one) => one.start === span.start && one.end === span.end);
    if (mask && item?.kind !== "missed") await change([...without(span, ["right", "wrong"]), { ...span, verdict: "right", type }]);
    else await change([...without(span, ["missed"]), { ...span, verdict: "missed", type }]);
    if (selected) selection.clear();
    items.find((one) => one.start === span.start)?.node.focus();
    showCurrent();
  },

  name: () => (selection.get() ? actions.type("NAME") : undefined),

  async clear() {
    const item = focused();
    if (!item) return;
    await change(without(item, item.kind === "mask" ? ["right", "wrong"] : item.kind === "repair" ? ["lost"] : ["missed"]));
  },

  async undo() {
    const last = before.at(-1);
    if (!last) return;
    if (last.index !== index) await open(last.index);
    await save(last.marks, last.done);
    before.pop();
  },

  async done() {
    await change(note.marks, true, true);
    const next = [...done.keys()].map((i) => (index + 1 + i) % done.length).find(isOpen);
    if (next === undefined) await actions.report();
    else await open(next);
  },

  reopen: () => (note.done ? change(note.marks, false) : undefined),

  word: (step, extend) => selection.moveWord(selection.isRightToLeft(place()) ? -step : step, extend, place()),
  line: (step, extend) => selection.moveLine(step, extend, place()),
  resize: (step, atStart) => selection.resize(step, atStart),

  unselect() {
    selection.clear();
    document.activeElement.blur();
    $("note").focus();
    showCurrent();
  },

  async report() {
    showFigures(await request("report", { method: "POST" }));
    $("report").showModal();
  },

  help: () => $("help").showModal(),
  close: () => document.querySelector("dialog[open]")?.close(),
};

function act(name, ...options) {
  queue = queue.then(async () => {
    $("problem").hidden = true;
    try {
      await actions[name](...options);
    } catch (error) {
      $("problem").textContent = error.message;
      $("problem").hidden = false;
    }
  });
}

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || (event.key === "Enter" && event.target.matches("button"))) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  act(...action);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action], [data-type]");
  if (button) act(...(button.dataset.type ? ["type", button.dataset.type] : [button.dataset.action]));
});
// A button leaves the keyboard where it was, so that it works on the mask one is on.
document.addEventListener("mousedown", (event) => event.target.closest("footer button, #types button") && event.preventDefault());
document.addEventListener("selectionchange", () => note && showCurrent());
document.addEventListener("focusin", () => note && showCurrent());

// The beginning

function showTypes(types) {
  keys = keysOfTypes(Object.keys(types));
  const order = Object.keys(keys).sort((a, b) => keys[a].length - keys[b].length || keys[a].localeCompare(keys[b]));
  $("types").replaceChildren(...order.map((type) => element("li", {},
    element("button", { type: "button", "data-type": type, className: familyOf(type), title: types[type] }, element("kbd", {}, keys[type]), ` ${type}`))));
}

try {
  const sample = await request("sample");
  ({ done, fresh } = sample);
  showTypes(sample.types);
  const named = Number(location.hash.slice(1)) - 1;
  await open(named >= 0 && named < done.length ? named : Math.max(0, [...done.keys()].findIndex(isOpen)));
} catch (error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}
