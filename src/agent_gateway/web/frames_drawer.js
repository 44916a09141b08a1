// The drawer with the raw frames of the turns on the page, for who builds a client.

import { byId, h } from "./dom.js";

/** Frames that are shown; older ones are counted. */
const SHOWN = 500;

export class FramesDrawer {
  constructor() {
    this._frames = /** @type {{id: string, data: string}[]} */ ([]);
    this._count = 0;
    this._drawn = 0;
    this._frame = 0;
    this._drawer = byId("events");
    this._list = byId("frames");
    this._summary = byId("frames-summary");
    this._button = byId("show-events");
    this._button.onclick = () => this.toggle();
    byId("hide-events").onclick = () => this.toggle(false);
    byId("clear-events").onclick = () => this.clear();
  }

  /** @param {boolean} [open] */
  toggle(open = this._drawer.hidden) {
    this._drawer.hidden = !open;
    this._button.setAttribute("aria-expanded", String(open));
    if (open) {
      this._draw();
      this._list.scrollTop = 1e9;
    }
    else this._button.focus();
  }

  /** @param {{id: string, data: string}} frame */
  add(frame) {
    this._frames.push(frame);
    this._count++;
    if (this._frames.length > SHOWN) this._frames.shift();
    if (!this._drawer.hidden) this._frame ||= requestAnimationFrame(() => this._draw());
  }

  /** Forget all frames: of another conversation, say. */
  clear() {
    this._frames = [];
    this._count = this._drawn = 0;
    this._list.replaceChildren();
    this._draw();
  }

  _draw() {
    this._frame = 0;
    const fresh = this._frames.slice(Math.max(0, this._frames.length - (this._count - this._drawn)));
    this._drawn = this._count;
    this._list.append(...fresh.map(({ id, data }) => h("li", {}, h("code", {}, `id: ${id}\ndata: ${data}`))));
    while (this._list.childElementCount > SHOWN) this._list.firstElementChild.remove();
    this._summary.textContent =
      this._count > SHOWN ? `${this._count} events, the last ${SHOWN} are shown` : `${this._count} events`;
  }
}
