// Elements from data. All text goes in as text nodes, so that markup in it stays text.

export function element(tag, options = {}, ...children) {
  const { className, ...attributes } = options;
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const $ = (id) => document.getElementById(id);
