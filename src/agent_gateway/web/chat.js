// The conversation on the page: its messages, and the turns that run in it.

import { byId, h } from "./dom.js";
import { MessageView } from "./message_view.js";
import { TurnEvents } from "./turn_events.js";

/**
 * @typedef {object} Turn a turn that runs or waits
 * @property {string} task_id
 * @property {string} message_id
 * @property {string} events_url
 * @property {MessageView} view
 * @property {number | null} sent when its message was sent from this page
 * @property {number | null} firstToken seconds from then to its first token
 */

export class Chat {
  /**
   * @param {import("./api.js").Api} api
   * @param {{
   *   frame: (frame: {id: string, data: string}) => void,
   *   opened: () => void,
   *   running: (count: number) => void,
   *   begun: (conversation: string) => void,
   *   ended: () => void,
   *   ask: (query: string) => void,
   *   problem: (text: string) => void,
   * }} listeners
   */
  constructor(api, listeners) {
    this._api = api;
    this._listeners = listeners;
    /** Empty: the next message begins a conversation. */
    this.conversation = "";
    this._views = /** @type {Map<string, MessageView>} */ (new Map());
    // In the order in which they run. Only the first one says anything, so only that one is followed.
    this._turns = /** @type {Turn[]} */ ([]);
    this._followed = /** @type {{turn: Turn, events: TurnEvents} | null} */ (null);
    this._generation = 0;
    this._shown = Promise.resolve();
    this._opening = { statement: "", questions: /** @type {string[]} */ ([]) };
    this._suggests = false;
    this._list = byId("messages");
    this._scroller = byId("scroller");
    this._older = byId("older-messages");
    this._connection = byId("connection");
    this._status = byId("status");
    this._atEnd = true;
    this._seen = { top: 0, height: 0 };
    this._scroller.onscroll = () => this._scrolled();
    // Whatever grows late, such as an image, moves the end, and a reader who is there goes with it.
    new ResizeObserver(() => this._stick()).observe(this._list);
    this._older.onclick = () => this._loadOlder();
    this._actions = {
      again: (/** @type {string} */ query, /** @type {any[]} */ files) => this.send(query, files, {}),
      rate: (/** @type {string} */ id, /** @type {string | null} */ rating) => this._api.rate(id, rating),
      submit: (/** @type {string} */ token, /** @type {string} */ action, /** @type {any} */ values) =>
        this._submit(token, action, values),
    };
  }

  /** @param {any} parameters of the app */
  configure(parameters) {
    this._opening = { statement: parameters.opening_statement, questions: parameters.suggested_questions };
    this._suggests = parameters.suggested_questions_after_answer.enabled;
  }

  /** Show a conversation, or an empty page for a new one. @param {string} id */
  open(id) {
    this._generation++;
    this._followed?.events.close();
    this._followed = null;
    this._turns = [];
    this._views.clear();
    this.conversation = id;
    this._older.hidden = true;
    this._atEnd = true;
    this._list.replaceChildren();
    this._tell("");
    this._showOpening();
    this._toEnd();
    this._tellTurns();
    this._listeners.opened();
    this._shown = id ? this._load() : Promise.resolve();
    return this._shown;
  }

  /** The messages of the conversation, for the first time. */
  async _load() {
    const generation = this._generation;
    try {
      const page = await this._api.messages(this.conversation, "");
      if (generation !== this._generation) return;
      this._take(page.data);
      this._older.hidden = !page.has_more;
      this._toEnd();
    } catch (error) {
      if (generation !== this._generation) return;
      if (error.status === 404 || error.status === 400) {
        this._listeners.problem(error.message);
        this.open("");
      } else {
        const again = h("button", { type: "button", onclick: () => this.open(this.conversation) }, "Try again");
        this._list.append(h("p", { class: "problem", role: "alert" }, error.message, " ", again));
      }
    }
  }

  /** Look whether anything has changed elsewhere: in another tab or browser. */
  async refresh() {
    await this._shown;
    const { conversation, _generation: generation } = this;
    if (!conversation) return;
    try {
      const page = await this._api.messages(conversation, "");
      if (generation === this._generation) this._take(page.data);
    } catch {
      // The next time, then: nothing on the page is wrong because of it.
    }
  }

  /** Show these messages, the newest of the conversation, if they are new or have changed. @param {any[]} items */
  _take(items) {
    for (const item of items) {
      const turn = this._turns.find((one) => one.message_id === item.id);
      if (item.events_url) {
        if (!turn) this._add({ ...item, message_id: item.id }, null);
      } else if (!turn) {
        const known = this._views.get(item.id);
        if (known) known.showStored(item);
        else this._list.append(this._stored(item).element);
      }
      // Of a turn on the page that has ended, its events tell the end.
    }
  }

  async _loadOlder() {
    const generation = this._generation;
    const first = this._list.querySelector(".message");
    this._older.disabled = true;
    try {
      const page = await this._api.messages(this.conversation, first.dataset.message);
      if (generation !== this._generation) return;
      const before = this._scroller.scrollHeight;
      const views = page.data.map((/** @type {any} */ item) => this._stored(item));
      first.before(...views.map((/** @type {MessageView} */ view) => view.element));
      this._scroller.scrollTop += this._scroller.scrollHeight - before;
      this._older.hidden = !page.has_more;
    } catch (error) {
      this._listeners.problem(error.message);
    } finally {
      this._older.disabled = false;
    }
  }

  /**
   * Send a message; false when it was refused.
   * @param {string} query @param {any[]} files as uploads or messages have them @param {Record<string, any>} inputs
   */
  async send(query, files, inputs) {
    // What was said before comes before it.
    await this._shown;
    const generation = this._generation;
    const sent = performance.now();
    this._listeners.problem("");
    try {
      const message = { query, inputs, files: files.map(sentFile), conversation_id: this.conversation };
      const begun = await this._api.begin(message, () =>
        this._tell("The gateway does not answer. The message is sent again…"),
      );
      if (generation === this._generation) this.conversation = begun.conversation_id;
      if (this.conversation === begun.conversation_id) {
        // It may have been opened anew in the meantime.
        await this._shown;
        this._add({ ...begun, query, message_files: files.map(shownFile), created_at: Date.now() / 1000 }, sent);
        this._toEnd();
      }
      this._listeners.begun(begun.conversation_id);
      return true;
    } catch (error) {
      this._listeners.problem(error.message);
      return false;
    } finally {
      if (!this._followed) this._tell("");
    }
  }

  /** Stop the turns of the conversation, those that wait first; what was written stays. */
  async stop() {
    for (const { task_id: task } of [...this._turns].reverse()) {
      try {
        await this._api.stop(task);
      } catch (error) {
        this._listeners.problem(error.message);
      }
    }
  }

  /** @param {string} token @param {string} action @param {Record<string, any>} values */
  async _submit(token, action, values) {
    const { _generation: generation } = this;
    const sent = performance.now();
    let begun;
    try {
      begun = await this._api.submit(token, action, values);
    } catch (error) {
      // It was answered, or has expired: the page shows how.
      if (error.status === 412) this.refresh();
      throw error;
    }
    if (generation === this._generation) {
      this._add({ ...begun, query: "", message_files: [], created_at: Date.now() / 1000 }, sent);
    }
    this._listeners.begun(begun.conversation_id);
  }

  /** @param {any} item */
  _stored(item) {
    const view = this._view(item);
    view.showStored(item);
    return view;
  }

  /** @param {any} item a message */
  _view(item) {
    const files = item.message_files.filter((/** @type {any} */ file) => file.belongs_to === "user");
    const view = new MessageView({ ...item, files }, this._actions);
    this._views.set(item.id, view);
    return view;
  }

  /** Show a message whose turn runs or waits. @param {any} item @param {number | null} sent */
  _add(item, sent) {
    if (this._views.has(item.message_id)) return;
    const view = this._view({ ...item, id: item.message_id });
    view.setLive(true);
    view.answer.onRender = () => this._stick();
    this._list.append(view.element);
    const { task_id, message_id, events_url } = item;
    this._turns.push({ task_id, message_id, events_url, view, sent, firstToken: null });
    this._tellTurns();
    this._followFirst();
  }

  /** Follow the turn that runs; those after it have nothing to say yet. */
  _followFirst() {
    const [turn] = this._turns;
    if (!turn || this._followed) return;
    this._status.textContent = "The answer begins.";
    const events = new TurnEvents(turn.events_url, {
      onEvent: (event, frame) => {
        this._listeners.frame(frame);
        if (turn.firstToken === null && turn.sent !== null && isToken(event)) {
          turn.firstToken = (performance.now() - turn.sent) / 1000;
        }
        this._show(turn, event);
      },
      onState: (state) => this._tell(state === "lost" ? "Connection lost. Reconnecting…" : ""),
      onGone: (reason) => this._gone(turn, reason),
    });
    this._followed = { turn, events };
  }

  /** @param {Turn} turn @param {any} event */
  _show(turn, event) {
    const { view } = turn;
    switch (event.event) {
      case "message":
      case "agent_message":
        view.answer.append(event.answer);
        break;
      case "message_replace":
        view.answer.replace(event.answer);
        break;
      case "agent_thought":
        view.showStep(event);
        this._stick();
        break;
      case "human_input_required":
        view.showQuestion(event.data);
        this._stick();
        break;
      case "human_input_form_filled":
        this._views.get(event.workflow_run_id)?.closeQuestion(
          event.data.action_text ? `Answered: ${event.data.action_text}` : "Answered.",
        );
        if (!view.query) view.setQuery(answerText(event.data));
        break;
      case "human_input_form_timeout":
        this._views.get(event.workflow_run_id)?.closeQuestion("Nobody answered in time.");
        view.setQuery("No answer was given in time.");
        break;
      case "message_end":
        view.answer.finish();
        view.showFiles(event.files);
        view.showEnd(event.metadata.usage, timesOf(turn));
        this._end(turn, "The answer is complete.");
        if (this._suggests) this._suggest(view);
        break;
      case "error":
        view.answer.finish();
        view.showError(event.message);
        view.showEnd({}, timesOf(turn));
        this._end(turn, "The answer has failed.");
        break;
    }
  }

  /** @param {MessageView} view */
  async _suggest(view) {
    try {
      const { data } = await this._api.suggested(view.id);
      view.showSuggestions(data, this._listeners.ask);
      this._stick();
    } catch {
      // Suggestions are a convenience: without them nothing is wrong.
    }
  }

  /** Its events cannot be read any more: what is stored is the answer. @param {Turn} turn @param {string} reason */
  async _gone(turn, reason) {
    turn.view.answer.finish();
    this._end(turn, "");
    const generation = this._generation;
    try {
      const { data } = await this._api.messages(this.conversation, "");
      const item = data.find((/** @type {any} */ one) => one.id === turn.message_id);
      if (generation === this._generation && item && !item.events_url) return turn.view.showStored(item);
    } catch {
      // Then there is only the reason.
    }
    turn.view.showError(reason);
  }

  /** @param {Turn} turn @param {string} status for screen readers */
  _end(turn, status) {
    turn.view.setLive(false);
    this._turns = this._turns.filter((one) => one !== turn);
    this._followed?.events.close();
    this._followed = null;
    this._tell("");
    this._tellTurns();
    this._status.textContent = status;
    this._listeners.ended();
    this._stick();
    this._followFirst();
  }

  _tellTurns() {
    this._turns.forEach(({ view }, index) => view.setWaiting(index > 0));
    this._listeners.running(this._turns.length);
  }

  _showOpening() {
    const { statement, questions } = this._opening;
    if (!statement && !questions.length) return;
    const buttons = this.conversation
      ? []
      : questions.map((question) =>
          h("button", { type: "button", class: "suggestion", dir: "auto", onclick: () => this._listeners.ask(question) }, question),
        );
    this._list.append(
      h("section", { class: "opening", dir: "auto" }, statement && h("p", {}, statement), h("div", { class: "suggestions" }, ...buttons)),
    );
  }

  /** Tell of the connection. @param {string} text empty: all is well */
  _tell(text) {
    this._connection.textContent = text;
  }

  /** The reader leaves the end by moving up, never by what grows or shrinks. */
  _scrolled() {
    const { scrollTop: top, scrollHeight: height, clientHeight } = this._scroller;
    if (height - top - clientHeight < 80) this._atEnd = true;
    else if (top < this._seen.top && height >= this._seen.height) this._atEnd = false;
    this._seen = { top, height };
  }

  /** Stay at the end, if the reader is there. */
  _stick() {
    if (this._atEnd) this._toEnd();
  }

  _toEnd() {
    this._atEnd = true;
    // A number that is too large needs no layout to be known.
    this._scroller.scrollTop = 1e9;
  }
}

/** How long a turn took, as its reader saw it; null of one that was not sent from here. @param {Turn} turn */
function timesOf({ sent, firstToken }) {
  return sent === null ? null : { firstToken, all: (performance.now() - sent) / 1000 };
}

/** @param {any} event */
function isToken(event) {
  return (event.event === "agent_message" || event.event === "message") && event.answer !== "";
}

/** A file of a message as it is sent. @param {any} file */
function sentFile(file) {
  return file.transfer_method === "remote_url"
    ? { type: file.type, transfer_method: "remote_url", url: file.url }
    : { type: kindOf(file), transfer_method: "local_file", upload_file_id: file.upload_file_id ?? file.id };
}

/** The same as GET /messages will have it. @param {any} file */
function shownFile(file) {
  if (file.transfer_method) return file;
  return {
    filename: file.name,
    url: file.source_url,
    type: kindOf(file),
    size: file.size,
    upload_file_id: file.id,
    transfer_method: "local_file",
    belongs_to: "user",
  };
}

/** @param {any} file */
function kindOf(file) {
  if (file.type) return file.type;
  const [kind] = file.mime_type.split("/");
  return ["image", "audio", "video"].includes(kind) ? kind : "document";
}

/** What a human answered, in words. @param {any} submission */
function answerText({ action_text: action, submitted_data: values }) {
  const lines = Object.entries(values).map(([name, value]) => `${name}: ${value}`);
  return [action, ...lines].filter(Boolean).join("\n");
}
