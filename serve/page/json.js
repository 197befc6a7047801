// The values of a JSON text and where they stand in it. Of a text that was cut off, those that are whole.

const WORD = /\s*([{}[\],:]|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)/y;

// [{ path: ["vital_signs", "heart_rate"], value, start, end }]; an empty list or object has no value.
export function leavesOf(text) {
  const reader = { text, at: 0, leaves: [] };
  try {
    readValue(reader, []);
  } catch {
    // The text ends here, or goes on as no JSON does.
  }
  return reader.leaves;
}

function next(reader) {
  WORD.lastIndex = reader.at;
  const match = WORD.exec(reader.text);
  // Nothing says whether a number at the very end is whole.
  if (!match || (WORD.lastIndex === reader.text.length && /\d$/.test(match[1]))) throw new SyntaxError();
  reader.at = WORD.lastIndex;
  return match[1];
}

function readValue(reader, path, word = next(reader)) {
  const start = reader.at - word.length;
  if (word === "{") readObject(reader, path, start);
  else if (word === "[") readList(reader, path, start);
  else reader.leaves.push({ path, value: JSON.parse(word), start, end: reader.at });
}

function readObject(reader, path, start) {
  let word = next(reader);
  if (word === "}") return reader.leaves.push({ path, start, end: reader.at });
  while (word !== "}") {
    const name = JSON.parse(word === "," ? next(reader) : word);
    next(reader); // :
    readValue(reader, [...path, name]);
    word = next(reader);
  }
}

function readList(reader, path, start) {
  let word = next(reader);
  if (word === "]") return reader.leaves.push({ path, start, end: reader.at });
  for (let index = 0; word !== "]"; index += 1) {
    readValue(reader, [...path, index], word === "," ? next(reader) : word);
    word = next(reader);
  }
}
