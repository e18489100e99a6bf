export const at = (id) => document.getElementById(id);

// Texts become text nodes, never markup.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
