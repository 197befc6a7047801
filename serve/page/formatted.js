// An answer's Markdown as elements in which its tokens are still spans, each with its probability.

import { element } from "./dom.js";
import { toElements } from "./markdown.js";
import { tokenSpan } from "./tokens.js";

export function formatted(pieces) {
  const root = element("div", { className: "formatted" }, ...toElements(pieces.map(({ text }) => text).join("")));
  const reader = readPieces(pieces);
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const nodes = [];
  while (walker.nextNode()) nodes.push(walker.currentNode);
  for (const node of nodes) node.replaceWith(...spansOf(node.data, reader));
  return [root];
}

// What is shown is the source without its marks, so each of its characters is found in the source, in order.
function spansOf(text, next) {
  const runs = []; // { piece, text }
  for (const character of text) {
    const piece = next(character);
    if (runs.at(-1)?.piece === piece) runs.at(-1).text += character;
    else runs.push({ piece, text: character });
  }
  return runs.map((run) => tokenSpan(run.text, run.piece?.tokens.at(-1)));
}

// A function that gives the piece of the next place where a character stands.
function readPieces(pieces) {
  const characters = pieces.flatMap((piece) => [...piece.text].map((character) => [character, piece]));
  let at = 0;
  return (wanted) => {
    while (at < characters.length && characters[at][0] !== wanted) at += 1;
    return characters[at++]?.[1];
  };
}
