// Which key does what, and which types have which keys.

// The most frequent types have the digits, in this order; the others Shift with a letter.
const BY_DIGIT = ["NAME", "DATE", "PHONE", "ADDRESS", "FACILITY", "MRN", "AGE", "ZIP", "EMAIL"];
const LETTERS = {
  FAX: "F", SSN: "S", PLAN: "P", ACCOUNT: "A", LICENSE: "L", NPI: "N", VEHICLE: "V", DEVICE: "D", URL: "U", IP: "I", BIOMETRIC: "B", OTHER: "O",
};
const ACTIONS = {
  n: "next", p: "previous", j: "nextItem", k: "previousItem", w: "wrong", m: "name", x: "clear", u: "undo", d: "done", r: "reopen",
  f: "report", "?": "help", Enter: "wrong", Delete: "clear", Backspace: "clear", Escape: "unselect",
};
const ARROWS = { ArrowLeft: ["word", -1], ArrowRight: ["word", 1], ArrowUp: ["line", -1], ArrowDown: ["line", 1] };

// {type: what to press}, of the types that there are.
export function keysOfTypes(types) {
  return Object.fromEntries(types.map((type) => [type, BY_DIGIT.includes(type) ? String(BY_DIGIT.indexOf(type) + 1) : `⇧${LETTERS[type]}`]));
}

// [action, …arguments] of a key, null for one that does nothing here. Letters are those that the layout has; digits and signs are places.
export function actionOf(event) {
  if (event.altKey || event.metaKey) return null;
  if (event.ctrlKey) return event.key.toLowerCase() === "z" && !event.shiftKey ? ["undo"] : null;
  const digit = /^Digit([1-9])$/.exec(event.code);
  if (digit) return ["type", BY_DIGIT[digit[1] - 1]];
  if (event.code === "Comma" || event.code === "Period") return ["resize", event.code === "Period" ? 1 : -1, event.shiftKey];
  if (event.key in ARROWS) return [...ARROWS[event.key], event.shiftKey];
  const type = event.shiftKey && Object.keys(LETTERS).find((name) => LETTERS[name] === event.key);
  if (type) return ["type", type];
  return event.key in ACTIONS ? [ACTIONS[event.key]] : null;
}
