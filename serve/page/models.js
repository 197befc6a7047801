// The models that the server offers, and what stands in the way: a key that is asked for, a server that does not answer.

import { request } from "./api.js";
import { $, element } from "./dom.js";

// Fills in the models; whether the server stores votes. Where it does not answer, a button calls `retry`.
export async function loadModels(retry) {
  $("problem").hidden = true;
  try {
    const { data, stores_preferences: storesVotes = false } = await (await request("v1/models")).json();
    showModels(data);
    $("key-form").hidden = true;
    return storesVotes;
  } catch (error) {
    if (error.kind === "key") askForKey(error);
    else showProblem(error.message, retry);
    return false;
  }
}

function showModels(models) {
  const options = () => models.map(({ id }) => element("option", { value: id }, id));
  $("model").replaceChildren(...options());
  $("second-model").replaceChildren(...options());
  $("second-model").selectedIndex = models.length - 1;
  $("compare-option").hidden = models.length < 2;
  $("length").max = Math.min($("length").max, ...models.map((model) => model.max_model_len ?? Infinity));
  $("model").hidden = $("open-passport").disabled = $("send").disabled = !models.length;
}

export function showProblem(message, retry) {
  const button = element("button", { type: "button", className: "secondary" }, "Try again");
  button.addEventListener("click", retry);
  $("problem").replaceChildren(element("span", {}, message), button);
  $("problem").hidden = false;
}

export function askForKey(error) {
  if (!$("key-form").hidden) return;
  $("key-form").querySelector("label").textContent = error.message;
  $("key-form").hidden = false;
  $("key").focus();
}
