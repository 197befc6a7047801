// What stays in this browser where the user allows it: the conversation and the settings, until the box is unchecked. Off by default.

import { $ } from "./dom.js";

const KEPT = "kept"; // in localStorage
const FIELDS = ["temperature", "top-p", "length", "seed", "top-k", "min-p", "repetition", "frequency", "presence", "system", "theme"];

export function keep(turns) {
  try {
    write(turns);
  } catch {
    // The browser keeps nothing, or has no room for it; the conversation is in the tab all the same.
  }
}

function write(turns) {
  if (!$("keep").checked) return localStorage.removeItem(KEPT);
  const settings = Object.fromEntries(FIELDS.map((name) => [name, $(name).value]));
  localStorage.setItem(KEPT, JSON.stringify({ settings, shade: $("shade").checked, turns: turns.map(contentOf) }));
}

// What a turn holds, to be kept or exported.
export function contentOf({ mode, prompt, task, seed, vote, stored, answers }) {
  const contents = answers.map(({ model, version, text, finishReason, failed }) => ({ model, version, text, finishReason, failed }));
  return { mode, prompt, task, seed, vote, stored, answers: contents };
}

// Fills in the settings that were kept; the turns that were, or none.
export function restore() {
  try {
    return read();
  } catch {
    return []; // nothing that this page wrote
  }
}

function read() {
  const kept = JSON.parse(localStorage.getItem(KEPT) ?? "null");
  if (kept === null) return [];
  $("keep").checked = true;
  for (const name of FIELDS) $(name).value = kept.settings[name] ?? $(name).value;
  $("shade").checked = kept.shade;
  return kept.turns;
}
