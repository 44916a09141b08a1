// The conversation on the page: its messages, and the turns that run in it.

import { byId, h } from "./dom.js";
import { MessageView } from "./message_view.js";
import { TurnEvents } from "./turn_events.js";

/** @typedef {{view: MessageView, events: TurnEvents, firstToken: number | null}} Running */

export class Chat {
  /**
   * @param {import("./api.js").Api} api
   * @param {import("./live_turns.js").LiveTurns} live
   * @param {{
   *   frame: (frame: {id: string, data: string}) => void,
   *   running: (count: number) => void,
   *   begun: (conversation: string) => void,
   *   ended: () => void,
   *   ask: (query: string) => void,
   *   problem: (text: string) => void,
   * }} listeners
   */
  constructor(api, live, listeners) {
    this._api = api;
    this._live = live;
    this._listeners = listeners;
    /** Empty: the next message begins a conversation. */
    this.conversation = "";
    this._views = /** @type {Map<string, MessageView>} */ (new Map());
    this._running = /** @type {Map<string, Running>} */ (new Map());
    this._opened = 0;
    this._shown = Promise.resolve();
    this._opening = { statement: "", questions: /** @type {string[]} */ ([]) };
    this._suggests = false;
    this._list = byId("messages");
    this._scroller = byId("scroller");
    this._older = byId("older-messages");
    this._connection = byId("connection");
    this._status = byId("status");
    this._lost = /** @type {Set<string>} */ (new Set());
    this._atEnd = true;
    new IntersectionObserver(([entry]) => (this._atEnd = entry.isIntersecting), {
      root: this._scroller,
      rootMargin: "0px 0px 80px 0px",
    }).observe(byId("end"));
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
    this._shown = this._open(id);
    return this._shown;
  }

  /** @param {string} id */
  async _open(id) {
    const opened = ++this._opened;
    for (const { events } of this._running.values()) events.close();
    this._running.clear();
    this._views.clear();
    this._lost.clear();
    this._tellState();
    this.conversation = id;
    this._older.hidden = true;
    this._list.replaceChildren();
    this._showOpening();
    this._toEnd();
    if (!id) return;
    try {
      const page = await this._api.messages(id, "");
      if (opened !== this._opened) return;
      const turns = new Map(this._live.all().map((turn) => [turn.message_id, turn]));
      for (const item of page.data) this._addStored(item, turns.get(item.id));
      this._older.hidden = !page.has_more;
      this._toEnd();
    } catch (error) {
      if (opened !== this._opened) return;
      if (error.status === 404 || error.status === 400) await this._open("");
      else this._list.append(h("p", { class: "problem", role: "alert" }, error.message, " ", this._retry(id)));
    }
  }

  /** @param {string} id */
  _retry(id) {
    return h("button", { type: "button", onclick: () => this.open(id) }, "Try again");
  }

  async _loadOlder() {
    const opened = this._opened;
    const first = this._list.querySelector(".message");
    this._older.disabled = true;
    try {
      const page = await this._api.messages(this.conversation, first.dataset.message);
      if (opened !== this._opened) return;
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
   * @param {string} query @param {any[]} files as uploads have them @param {Record<string, any>} inputs
   */
  async send(query, files, inputs) {
    // What was said before comes before it.
    await this._shown;
    const opened = this._opened;
    const sent = performance.now();
    this._listeners.problem("");
    try {
      const message = {
        query,
        inputs,
        files: files.map((file) => ({
          type: kindOf(file),
          transfer_method: "local_file",
          upload_file_id: file.upload_file_id ?? file.id,
        })),
        conversation_id: this.conversation,
      };
      const begun = await this._api.begin(message, () => {
        this._connection.hidden = false;
        this._connection.textContent = "The gateway does not answer. The message is sent again…";
      });
      this._tellState();
      const shown = files.map((file) => ({
        filename: file.filename ?? file.name,
        url: file.url ?? file.source_url,
        type: kindOf(file),
        size: file.size,
        upload_file_id: file.upload_file_id ?? file.id,
        transfer_method: "local_file",
      }));
      const turn = { ...pick(begun), query, files: shown, began: Date.now() };
      this._live.add(turn);
      if (opened === this._opened) {
        this.conversation = turn.conversation_id;
        this._follow(turn, sent);
        this._toEnd();
      }
      this._listeners.begun(turn.conversation_id);
      return true;
    } catch (error) {
      this._tellState();
      this._listeners.problem(error.message);
      return false;
    }
  }

  /** Stop the turns of the conversation; what was written stays. */
  async stop() {
    for (const task of [...this._running.keys()]) {
      try {
        await this._api.stop(task);
      } catch (error) {
        this._listeners.problem(error.message);
      }
    }
  }

  /** A turn that another tab began. @param {import("./live_turns.js").LiveTurn} turn */
  join(turn) {
    if (turn.conversation_id === this.conversation && !this._running.has(turn.task_id)) this._follow(turn, null);
  }

  /** @param {string} token @param {string} action @param {Record<string, any>} values */
  async _submit(token, action, values) {
    const sent = performance.now();
    const begun = await this._api.submit(token, action, values);
    const turn = { ...pick(begun), query: "", files: [], began: Date.now() };
    this._live.add(turn);
    this._follow(turn, sent);
    this._listeners.begun(turn.conversation_id);
  }

  /** @param {any} item @param {import("./live_turns.js").LiveTurn} [turn] its turn, if that may still run */
  _addStored(item, turn) {
    if (turn) {
      // From its first event: the rows get the answer only when it is complete.
      this._follow({ ...turn, query: item.query }, null);
    } else if (!this._views.has(item.id)) this._list.append(this._stored(item).element);
  }

  /** @param {any} item */
  _stored(item) {
    const files = item.message_files.filter((/** @type {any} */ file) => file.belongs_to === "user");
    const view = new MessageView({ ...item, files }, this._actions);
    view.showStored(item);
    this._views.set(item.id, view);
    return view;
  }

  /** Show a turn, and all that comes of it. @param {import("./live_turns.js").LiveTurn} turn @param {number | null} sent */
  _follow(turn, sent) {
    const view = new MessageView({ id: turn.message_id, query: turn.query, files: turn.files, created_at: turn.began / 1000 }, this._actions);
    this._views.set(turn.message_id, view);
    this._list.append(view.element);
    view.setLive(true);
    view.answer.onRender = () => this._stick();
    this._status.textContent = "The answer begins.";
    const events = new TurnEvents(turn.events_url, {
      onEvent: (event, frame) => {
        this._listeners.frame(frame);
        if (running.firstToken === null && sent !== null && isToken(event)) {
          running.firstToken = (performance.now() - sent) / 1000;
        }
        this._show(turn, running, event);
      },
      onState: (state) => {
        if (state === "lost") this._lost.add(turn.task_id);
        else this._lost.delete(turn.task_id);
        this._tellState();
      },
      onGone: (reason) => {
        this._end(turn.task_id, view);
        view.answer.finish();
        view.showError(reason);
      },
    });
    const running = { view, events, firstToken: /** @type {number | null} */ (null) };
    this._running.set(turn.task_id, running);
    this._listeners.running(this._running.size);
  }

  /** @param {import("./live_turns.js").LiveTurn} turn @param {Running} running @param {any} event */
  _show(turn, { view, firstToken }, event) {
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
        view.setQuery(turn.query || answerText(event.data));
        break;
      case "human_input_form_timeout":
        this._views.get(event.workflow_run_id)?.closeQuestion("Nobody answered in time.");
        view.setQuery("No answer was given in time.");
        break;
      case "message_end":
        this._end(turn.task_id, view);
        view.answer.finish();
        view.showFiles(event.files);
        view.showEnd(event.metadata.usage, firstToken);
        this._status.textContent = "The answer is complete.";
        this._listeners.ended();
        if (this._suggests) this._suggest(view);
        this._stick();
        break;
      case "error":
        this._end(turn.task_id, view);
        view.answer.finish();
        view.showError(event.message);
        view.showEnd({}, firstToken);
        this._status.textContent = "The answer has failed.";
        this._listeners.ended();
        this._stick();
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

  /** @param {string} task @param {MessageView} view */
  _end(task, view) {
    view.setLive(false);
    this._running.delete(task);
    this._lost.delete(task);
    this._live.remove(task);
    this._listeners.running(this._running.size);
    this._tellState();
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

  _tellState() {
    this._connection.hidden = this._lost.size === 0;
    this._connection.textContent = "Connection lost. Reconnecting…";
  }

  /** Stay at the end, if the reader is there. */
  _stick() {
    if (this._atEnd) this._toEnd();
  }

  _toEnd() {
    // A number that is too large needs no layout to be known.
    this._scroller.scrollTop = 1e9;
  }
}

/** @param {any} begun @returns {{task_id: string, message_id: string, conversation_id: string, events_url: string}} */
function pick({ task_id, message_id, conversation_id, events_url }) {
  return { task_id, message_id, conversation_id, events_url };
}

/** @param {any} event */
function isToken(event) {
  return (event.event === "agent_message" || event.event === "message") && event.answer !== "";
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
