// What is sent to the models: a chat, a text to complete, or a note to extract from, with the settings that the user chose.

import { $ } from "./dom.js";

export const MODES = {
  chat: { label: "Question", placeholder: "Ask a medical question", path: "v1/chat/completions", bodyOf: chatBody },
  text: { label: "Text to complete", placeholder: "Begin a text; the model goes on with it", path: "v1/completions", bodyOf: textBody },
  extract: { label: "Note", placeholder: "Paste a note; its values are extracted", path: "v1/chat/completions", bodyOf: extractBody },
};
const ALTERNATIVES = 4; // shown for each token
const SCORED = { logprobs: true, top_logprobs: ALTERNATIVES };

// The body of the request for one model's answer to a turn; `earlier`: the turns before it.
export function bodyOf(turn, model, earlier) {
  const shared = { model, stream: true, stream_options: { include_progress: true }, ...settings() };
  return { ...shared, ...(turn.seed === undefined ? {} : { seed: turn.seed }), ...MODES[turn.mode].bodyOf(turn, model, earlier) };
}

export const chosenSeed = () => ($("seed").value === "" ? undefined : $("seed").valueAsNumber);

function settings() {
  const chosen = { temperature: $("temperature").valueAsNumber, top_p: $("top-p").valueAsNumber, max_tokens: $("length").valueAsNumber };
  for (const input of document.querySelectorAll("[data-field]")) if (input.value !== "") chosen[input.dataset.field] = input.valueAsNumber;
  return chosen;
}

// The conversation so far with this model, without answers that failed.
function chatBody(turn, model, earlier) {
  const messages = $("system").value.trim() ? [{ role: "system", content: $("system").value }] : [];
  for (const { prompt, answers } of earlier.filter(({ mode }) => mode === "chat")) {
    const answer = answers.find((other) => other.model === model && other.text && !other.failed);
    if (answer) messages.push({ role: "user", content: prompt }, { role: "assistant", content: answer.text });
  }
  return { messages: [...messages, { role: "user", content: turn.prompt }], ...SCORED };
}

function textBody(turn) {
  return { prompt: turn.prompt, logprobs: ALTERNATIVES };
}

// As in training: the instruction, an empty line, the note. Greedy, as what is wanted is in the note.
function extractBody({ prompt, task }) {
  const format = { type: "json_schema", json_schema: { name: task.name, schema: task.schema }, grounded: Boolean(task.grounded) };
  return { messages: [{ role: "user", content: `${task.instruction}\n\n${prompt}` }], temperature: 0, response_format: format, ...SCORED };
}
