// Markdown as it comes, token by token: what is complete is never rendered again.

import DOMPurify from "./vendor/dompurify.js";
import hljs from "./vendor/highlight.js";
import { Marked } from "./vendor/marked.js";

/** Characters of a block that are parsed again and again while it is written. */
const LONGEST_OPEN = 2000;
/** Characters of code that is coloured: more would stop the page for a moment. */
const LONGEST_COLOURED = 15_000;
/** Milliseconds of rendering after which the next one waits. */
const SLOW = 4;

/** @typedef {any} Token what marked makes of a block */

const marked = new Marked({
  gfm: true,
  renderer: {
    // An image of another host would tell it that this answer was read, and what it says.
    image({ href, text }) {
      return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
    html({ text }) {
      return escaped(text);
    },
    code({ text, lang }) {
      return `<pre><code class="language-${escaped((lang ?? "").split(/\s/)[0])}">${escaped(text)}</code></pre>`;
    },
  },
});

const ALLOWED = {
  ALLOWED_TAGS:
    "a b blockquote br code del em h1 h2 h3 h4 h5 h6 hr i input li ol p pre s span strong sub sup table tbody td th thead tr ul".split(" "),
  ALLOWED_ATTR: ["href", "title", "class", "start", "type", "checked", "disabled", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  // What may be too wide is scrolled with the keyboard, too.
  if (node.tagName === "PRE" || node.tagName === "TABLE") node.setAttribute("tabindex", "0");
  if (node.tagName === "INPUT") {
    node.setAttribute("type", "checkbox");
    node.setAttribute("disabled", "");
    node.setAttribute("aria-label", "done");
  }
  for (const name of [...node.classList]) {
    if (!/^(?:language-|hljs)/.test(name)) node.classList.remove(name);
  }
});

/** @param {string} text */
function escaped(text) {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

/** Safe nodes of HTML. @param {string} html @returns {DocumentFragment} */
function safe(html) {
  return /** @type {any} */ (DOMPurify.sanitize(html, { ...ALLOWED, RETURN_DOM_FRAGMENT: true }));
}

/** Safe nodes of a whole text in Markdown. @param {string} text */
export function rendered(text) {
  const nodes = safe(/** @type {string} */ (marked.parse(text)));
  for (const code of nodes.querySelectorAll("pre code")) colour(code);
  return nodes;
}

/** Colour the code of a block whose language is known. @param {Element} code */
function colour(code) {
  const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
  const text = code.textContent ?? "";
  if (!hljs.getLanguage(language) || text.length > LONGEST_COLOURED) return;
  code.replaceChildren(safe(hljs.highlight(text, { language, ignoreIllegals: true }).value));
  code.classList.add("hljs");
}

/**
 * A text in Markdown that grows.
 *
 * Blocks that are complete are never looked at again. Of the open one only what is new is parsed and rendered:
 * the last item of a list, the last row of a table, the end of a long paragraph, the new letters of code. So a
 * token costs the same, however long the answer is.
 */
export class MarkdownView {
  /** @param {HTMLElement} root gets one child for each block that is complete, and a last one with the open block */
  constructor(root) {
    this.root = root;
    this.text = "";
    /** @type {() => void} called after each rendering */
    this.onRender = () => {};
    this._open = document.createElement("div");
    this._done = 0; // characters that need no parsing any more
    this._head = ""; // of an open table: its first two lines, without which its rows are none
    this._kind = ""; // type of the token that is shown
    this._kept = 0; // its parts that are complete
    this._parts = /** @type {string[]} */ ([]); // what was rendered of the other ones
    this._parsed = 0; // characters of the open block that are shown
    this._frame = 0;
    this._earliest = 0;
    this._begin();
  }

  _begin() {
    this.root.replaceChildren();
    this._done = 0;
    this._next();
  }

  /** The open block, if there is one, stays where it is, and another one begins. */
  _next() {
    this._open.classList.remove("open");
    this._open = document.createElement("div");
    this._open.className = "open";
    this.root.append(this._open);
    this._head = "";
    this._kind = "";
    this._kept = 0;
    this._parts = [];
    this._parsed = 0;
  }

  /** More text. @param {string} piece */
  append(piece) {
    this.text += piece;
    this._frame ||= requestAnimationFrame((now) => this._render(now));
  }

  /** Other text in place of all. @param {string} text */
  replace(text) {
    this.text = "";
    this._begin();
    this.append(text);
  }

  /** The text is complete. */
  finish() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
    if (/^ {0,3}\[[^\]\n]+\]:/m.test(this.text)) {
      // A link that is defined at the end may be used anywhere before.
      this.root.replaceChildren(rendered(this.text));
    } else {
      for (const token of marked.lexer(this._head + this.text.slice(this._done))) this._freeze(token);
      this._open.remove();
    }
    this.onRender();
  }

  /** @param {number} now */
  _render(now) {
    if (now < this._earliest) {
      this._frame = requestAnimationFrame((later) => this._render(later));
      return;
    }
    this._frame = 0;
    const began = performance.now();
    this._advance();
    this.onRender();
    const took = performance.now() - began;
    if (took > SLOW) this._earliest = now + took * 4;
  }

  /** Freeze the blocks that are complete, and show the open one. */
  _advance() {
    const tail = this.text.slice(this._done);
    if (this._kind === "code" && this._growCode(tail)) return;
    const tokens = /** @type {Token[]} */ (marked.lexer(this._head + tail));
    let last = tokens.length - 1;
    while (last > 0 && tokens[last].type === "space") last--;
    for (const token of tokens.slice(0, last)) this._freeze(token);
    const open = tokens[last];
    if (!open) return;
    this._show(open);
    this._parsed = this.text.length - this._done;
    if (open.raw.length > LONGEST_OPEN) this._keep(open);
  }

  /** Show a block for the last time. @param {Token} token */
  _freeze(token) {
    this._done += token.raw.length - this._head.length;
    if (token.type !== "space") {
      this._show(token);
      const code = this._open.querySelector("pre code");
      // Colours can wait until the page has nothing else to do.
      if (code) requestIdleCallback(() => colour(code));
      this._next();
    }
  }

  /** @param {Token} token */
  _show(token) {
    const isSame = token.type === this._kind;
    this._kind = token.type;
    if (isSame && token.type === "code") this._showCode(token);
    else if (isSame && token.type === "list") this._showParts(token.items, (item) => listItem(token, item));
    else if (isSame && token.type === "table" && this._open.querySelector("tbody")) {
      this._showParts(token.rows, (row) => tableRow(token, row));
    } else if (isSame && token.type === "paragraph" && this._kept) this._showRest(token);
    else {
      this._open.replaceChildren(safe(marked.parser([token])));
      this._parts = (token.items ?? token.rows ?? []).map((/** @type {any} */ part) => partKey(part));
    }
  }

  /** Of a block that becomes long, keep what is complete as it is, and parse only the rest from now on. @param {Token} token */
  _keep(token) {
    if (token.type === "list" && token.items.length > 1) {
      const kept = token.items.slice(0, -1);
      for (const item of kept) this._done += item.raw.length;
      this._drop(kept.length);
    } else if (token.type === "table" && token.rows.length > 1) {
      const lines = token.raw.trimEnd().split("\n");
      const head = `${lines[0]}\n${lines[1]}\n`;
      const kept = lines.slice(2, -1).join("\n").length + 1;
      this._done += head.length - this._head.length + kept;
      this._head = head;
      this._drop(token.rows.length - 1);
    } else if (token.type === "paragraph") {
      // Before a letter, or the rest could begin another block. What spans this place, such as bold text, ends here.
      const kept = /^([^]*\s)(?=\p{L})/u.exec(token.raw)?.[1];
      if (!kept) return;
      this._show({ ...token, ...marked.lexer(kept)[0] });
      this._kept = this._open.querySelector("p")?.childNodes.length ?? 0;
      this._done += kept.length;
    }
    this._parsed = this.text.length - this._done;
  }

  /** @param {number} count parts that are complete */
  _drop(count) {
    this._kept += count;
    this._parts.splice(0, count);
  }

  /**
   * Code grows by its new letters alone, if they cannot end it.
   * @param {string} tail
   */
  _growCode(tail) {
    const line = tail.slice(tail.lastIndexOf("\n", this._parsed - 1) + 1);
    const text = this._open.querySelector("pre code")?.firstChild;
    if (/^[ \t]|[`~]/.test(tail[0] === " " ? tail : line) || !(text instanceof Text)) return false;
    text.appendData(tail.slice(this._parsed));
    this._parsed = tail.length;
    return true;
  }

  /** @param {Token} token */
  _showCode(token) {
    const text = this._open.querySelector("pre code")?.firstChild;
    if (!(text instanceof Text)) this._open.replaceChildren(safe(marked.parser([token])));
    else if (token.text.startsWith(text.data)) text.appendData(token.text.slice(text.data.length));
    else if (text.data.startsWith(token.text)) text.deleteData(token.text.length, text.length);
    else text.data = token.text;
  }

  /**
   * Of a list or a table, render the parts that have changed.
   * @param {any[]} parts those that are not kept
   * @param {(part: any) => Element | null} render
   */
  _showParts(parts, render) {
    const parent = this._open.querySelector("ol, ul, tbody");
    parts.forEach((part, index) => {
      const key = partKey(part);
      if (this._parts[index] === key) return;
      this._parts[index] = key;
      const fresh = render(part);
      const old = parent?.children[this._kept + index];
      if (fresh && old) old.replaceWith(fresh);
      else if (fresh) parent?.append(fresh);
    });
  }

  /** The end of a long paragraph. @param {Token} token */
  _showRest(token) {
    const paragraph = this._open.querySelector("p");
    while (paragraph && paragraph.childNodes.length > this._kept) paragraph.lastChild?.remove();
    paragraph?.append(...(safe(marked.parser([token])).querySelector("p")?.childNodes ?? []));
  }
}

/** What tells one state of a part from another. @param {any} part an item of a list, a row of a table */
const partKey = (part) => (Array.isArray(part) ? part.map((cell) => cell.text).join("|") : `${part.loose} ${part.raw}`);

/** @param {Token} list @param {any} item */
const listItem = (list, item) => safe(marked.parser([{ ...list, items: [item] }])).querySelector("li");

/** @param {Token} table @param {any[]} row */
const tableRow = (table, row) => safe(marked.parser([{ ...table, rows: [row] }])).querySelector("tbody tr");
