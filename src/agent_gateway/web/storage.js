// What the browser keeps for the page; where it may keep nothing, until the page is closed.

const kept = /** @type {Map<string, string>} */ (new Map());

/** @param {string} name */
export function read(name) {
  try {
    return localStorage.getItem(name) ?? kept.get(name) ?? "";
  } catch {
    return kept.get(name) ?? "";
  }
}

/** @param {string} name @param {string} value */
export function write(name, value) {
  kept.set(name, value);
  try {
    localStorage.setItem(name, value);
  } catch {
    // Forbidden, or full.
  }
}
