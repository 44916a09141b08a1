// The list of conversations: paged, searched, renamed and deleted.

import { byId, h, iconButton, timeOf } from "./dom.js";

/** Pages that a search loads by itself. */
const SEARCHED_PAGES = 20;

export class ConversationList {
  /**
   * @param {import("./api.js").Api} api
   * @param {{open: (id: string) => void, removed: (id: string) => void, changed: () => void}} listeners
   */
  constructor(api, listeners) {
    this._api = api;
    this._listeners = listeners;
    this._items = /** @type {any[]} */ ([]);
    this._hasMore = false;
    this._generation = 0;
    this._current = "";
    this._loading = false;
    this._list = byId("conversations");
    this._more = byId("more-conversations");
    this._search = byId("search");
    this._empty = byId("no-conversations");
    this._problem = byId("list-problem");
    this._more.onclick = () => this._load();
    this._search.oninput = () => this._find();
  }

  /** Forget all: another user, or another app. */
  reset() {
    this._items = [];
    this._hasMore = false;
    this._generation++;
    this._search.value = "";
    this._draw();
  }

  /** Read the first page anew. */
  async refresh() {
    const generation = this._generation;
    try {
      const page = await this._api.conversations("");
      if (generation !== this._generation) return;
      const last = page.data.at(-1);
      const known = new Set(page.data.map((/** @type {any} */ item) => item.id));
      // What should be on this page and is not was deleted elsewhere.
      const isOlder = (/** @type {any} */ item) => item.updated_at <= last.updated_at && !known.has(item.id);
      const older = page.has_more ? this._items.filter(isOlder) : [];
      if (!older.length) this._hasMore = page.has_more;
      this._items = [...page.data, ...older];
      this._problem.textContent = "";
    } catch (error) {
      if (generation === this._generation) this._problem.textContent = error.message;
    }
    this._draw();
  }

  /** @param {string} id the conversation that is shown */
  select(id) {
    this._current = id;
    this._draw();
  }

  /** @param {string} id */
  nameOf(id) {
    return this._items.find((item) => item.id === id)?.name ?? "";
  }

  async _load() {
    if (this._loading) return;
    this._loading = true;
    const generation = this._generation;
    try {
      const page = await this._api.conversations(this._items.at(-1)?.id ?? "");
      if (generation !== this._generation) return;
      const known = new Set(this._items.map((item) => item.id));
      this._items.push(...page.data.filter((/** @type {any} */ item) => !known.has(item.id)));
      this._hasMore = page.has_more;
      this._problem.textContent = "";
    } catch (error) {
      this._problem.textContent = error.message;
    } finally {
      this._loading = false;
    }
    this._draw();
  }

  /** Search the names: those that are not loaded yet are loaded, up to a bound. */
  async _find() {
    this._draw();
    for (let pages = 0; pages < SEARCHED_PAGES && this._search.value && this._hasMore && !this._loading; pages++) {
      const before = this._items.length;
      await this._load();
      if (this._items.length === before) break;
    }
  }

  _draw() {
    const wanted = this._search.value.trim().toLocaleLowerCase();
    const shown = this._items.filter((item) => item.name.toLocaleLowerCase().includes(wanted));
    // The focus stays where it is, though the rows are new.
    const focused = this._list.contains(document.activeElement) ? document.activeElement : null;
    const place = [focused?.closest("li")?.dataset.id, focused?.className];
    this._list.replaceChildren(...shown.map((item) => this._row(item)));
    if (focused) {
      const row = [...this._list.children].find((one) => one.dataset.id === place[0]);
      (row?.getElementsByClassName(place[1])[0] ?? this._search).focus();
    }
    this._more.hidden = !this._hasMore;
    this._empty.hidden = shown.length > 0 || this._hasMore;
    this._empty.textContent = wanted ? "No conversation has this in its name." : "No conversations yet.";
  }

  /** @param {any} item */
  _row(item) {
    const current = item.id === this._current;
    const name = item.name || "Untitled";
    return h(
      "li",
      { class: current ? "current" : "", data: { id: item.id } },
      h(
        "button",
        {
          type: "button",
          class: "conversation",
          dir: "auto",
          title: name,
          aria: current ? { current: "page" } : {},
          onclick: () => this._listeners.open(item.id),
        },
        h("span", { class: "name" }, name),
        h("time", {}, timeOf(item.updated_at)),
      ),
      iconButton("rename", `Rename ${name}`, () => this._rename(item), { class: "icon rename" }),
      iconButton("remove", `Delete ${name}`, () => this._remove(item), { class: "icon remove" }),
    );
  }

  /** @param {any} item */
  async _rename(item) {
    const dialog = byId("rename-dialog");
    const input = byId("new-name");
    const problem = byId("rename-problem");
    input.value = item.name;
    problem.textContent = "";
    dialog.showModal();
    input.select();
    dialog.querySelector("form").onsubmit = async (/** @type {Event} */ event) => {
      event.preventDefault();
      try {
        Object.assign(item, await this._api.rename(item.id, input.value));
        dialog.close();
        this._draw();
        this._listeners.changed();
      } catch (error) {
        problem.textContent = error.message;
      }
    };
  }

  /** @param {any} item */
  async _remove(item) {
    const dialog = byId("delete-dialog");
    const problem = byId("delete-problem");
    byId("deleted-name").textContent = item.name;
    problem.textContent = "";
    dialog.showModal();
    dialog.querySelector("form").onsubmit = async (/** @type {Event} */ event) => {
      event.preventDefault();
      try {
        await this._api.remove(item.id);
        this._items = this._items.filter((other) => other !== item);
        dialog.close();
        this._draw();
        this._listeners.removed(item.id);
      } catch (error) {
        problem.textContent = error.message;
      }
    };
  }
}
