// What to extract from a note: one of the tasks that the model was trained on, or the user's own instruction and JSON Schema.

import { request } from "./api.js";
import { $, element } from "./dom.js";

const OWN = "own";
const TRAINED = "The model was trained on this task, asked in these words.";
const NOT_TRAINED = "Nothing says that the model was trained on this: the answer fits the schema, but its values may be poor.";
const tasksOf = new Map(); // by model: what its passport lists
let tasks = {};

// Offers the tasks of a model.
export async function offerTasks(model) {
  if (!tasksOf.has(model)) {
    const response = await request(`passport?model=${encodeURIComponent(model)}`);
    tasksOf.set(model, (await response.json()).tasks ?? {});
  }
  if ($("model").value !== model) return; // another one was chosen meanwhile
  tasks = tasksOf.get(model);
  const options = Object.keys(tasks).map((name) => element("option", { value: name }, name.replaceAll("_", " ")));
  $("task").replaceChildren(...options, element("option", { value: OWN }, "my own"));
  $("extraction-details").open = !options.length;
  fillIn();
}

function fillIn() {
  const task = tasks[$("task").value];
  $("instruction").value = task?.instructions[0] ?? $("instruction").value;
  $("schema").value = task ? JSON.stringify(task.schema, null, 1) : $("schema").value;
  showState();
}

function showState() {
  const trained = Boolean(tasks[$("task").value]);
  $("trained").textContent = trained ? TRAINED : NOT_TRAINED;
  $("schema").setCustomValidity("");
}

// The task as it is chosen; undefined, with a message at the field, where something is missing.
export function chosenTask() {
  const [name, instruction] = [$("task").value || OWN, $("instruction").value.trim()];
  const schema = parsed($("schema").value);
  $("instruction").setCustomValidity(instruction ? "" : "Say what to extract.");
  $("schema").setCustomValidity(schema ? "" : "This is no JSON Schema: it must be a JSON object.");
  if (instruction && schema) return { name, instruction, schema, grounded: $("grounded").checked, stated: tasks[name]?.stated ?? {} };
  $("extraction-details").open = true;
  $(instruction ? "schema" : "instruction").reportValidity();
  return undefined;
}

function parsed(text) {
  try {
    const schema = JSON.parse(text);
    return schema && typeof schema === "object" && !Array.isArray(schema) ? schema : undefined;
  } catch {
    return undefined;
  }
}

export function listenToExtraction() {
  $("task").addEventListener("change", fillIn);
  for (const id of ["instruction", "schema"])
    $(id).addEventListener("input", () => {
      $("task").value = OWN;
      showState();
    });
}

// Puts a turn's task back, to be edited.
export function useTask({ name, instruction, schema, grounded }) {
  $("grounded").checked = Boolean(grounded);
  $("task").value = tasks[name] ? name : OWN;
  $("instruction").value = instruction;
  $("schema").value = JSON.stringify(schema, null, 1);
  showState();
}
