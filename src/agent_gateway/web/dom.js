// Elements, made in one call.

import { icon } from "./icons.js";

/**
 * An element with these properties and children. A property that begins with "on" is a listener, `data` and
 * `aria` are mappings of attributes, and an undefined or null one is left out. Children are nodes and texts.
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") for (const [key, text] of Object.entries(value)) element.setAttribute(`aria-${key}`, text);
    else if (name === "class") element.className = value;
    else if (name in element) /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * A button that shows a symbol and is called by its label.
 * @param {Parameters<typeof icon>[0]} symbol
 * @param {string} label
 * @param {(event: Event) => void} onclick
 * @param {Record<string, any>} [more]
 */
export function iconButton(symbol, label, onclick, more = {}) {
  return h("button", { type: "button", class: "icon", title: label, aria: { label }, onclick, ...more }, icon(symbol));
}

/**
 * The element of the page with this id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** A time as people of this browser's language write it. @param {number} seconds since 1970 */
export function timeOf(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}

/** A size as people write it. @param {number} bytes */
export function sizeOf(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}
