// Elements from data. All text goes in as text nodes, so that markup in it stays text.

export function element(tag, options = {}, ...children) {
  const { className, ...attributes } = options;
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const $ = (id) => document.getElementById(id);
