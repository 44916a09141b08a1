// The events of one turn, over as many connections as that takes.

import { backoff, here, pause } from "./api.js";

const LAST = new Set(["message_end", "error"]);
/** Milliseconds without a sign of life, not even a ping, after which a connection counts as lost. */
const SILENCE = 30_000;

/**
 * Follows a turn from its first event to its last. Each connection asks for what comes after the last event
 * that was heard, so each event is handed out once, in order.
 */
export class TurnEvents {
  /**
   * @param {string} eventsUrl
   * @param {{
   *   onEvent: (event: any, frame: {id: string, data: string}) => void,
   *   onState: (state: "open" | "lost") => void,
   *   onGone: (reason: string) => void,
   * }} listeners `onGone`: there is no last event, and none will come
   */
  constructor(eventsUrl, listeners) {
    this._url = here(eventsUrl);
    // Steps are shown, whatever the app's own mode is.
    this._url.searchParams.set("mode", "agent-chat");
    this._listeners = listeners;
    this._failures = 0; // in a row
    this._ended = false;
    this._retryNow = () => {};
    this._waiting = false;
    this._watch = 0;
    this._source = /** @type {EventSource | null} */ (null);
    // After a sleep or in another network, the old connection is dead and does not say so.
    this._online = () => (this._listeners.onState("lost"), this._reconnect());
    addEventListener("online", this._online);
    this._connect();
  }

  /** Hear no more. */
  close() {
    this._ended = true;
    this._source?.close();
    clearTimeout(this._watch);
    removeEventListener("online", this._online);
  }

  _connect() {
    this._source?.close();
    const source = new EventSource(this._url);
    let opened = false;
    this._source = source;
    this._alive();
    source.onopen = () => {
      opened = true;
      this._failures = 0;
      this._alive();
      this._listeners.onState("open");
    };
    source.addEventListener("ping", () => this._alive());
    source.onmessage = (message) => this._hear(message);
    source.onerror = () => {
      if (this._ended) return;
      // Not by itself: it would repeat the URL, whose `after` is the one from before.
      source.close();
      clearTimeout(this._watch);
      this._listeners.onState("lost");
      this._again(opened);
    };
  }

  /** The connection lives. */
  _alive() {
    clearTimeout(this._watch);
    this._watch = setTimeout(() => {
      this._listeners.onState("lost");
      this._reconnect();
    }, SILENCE);
  }

  /** Connect at once, unless that is tried already. */
  _reconnect() {
    if (this._ended) return;
    if (this._waiting) this._retryNow();
    else this._connect();
  }

  /** @param {MessageEvent} message */
  _hear(message) {
    if (this._ended) return;
    this._alive();
    const event = JSON.parse(message.data);
    this._url.searchParams.set("after", event.event_id);
    if (LAST.has(event.event)) this.close();
    this._listeners.onEvent(event, { id: message.lastEventId, data: message.data });
  }

  /** Connect again, after a pause. @param {boolean} opened whether the connection was a stream before it ended */
  async _again(opened) {
    await this._pause();
    while (!this._ended) {
      if (opened) return this._connect();
      // EventSource does not tell why it was refused.
      const status = await this._status();
      if (this._ended) return;
      if (status === 200) return this._connect();
      if (status === 204) return this._give("The turn has ended.");
      if (status === 404) return this._give("This answer was deleted.");
      if (status > 204 && status < 500 && status !== 429) return this._give("This answer can no longer be followed.");
      await this._pause();
    }
  }

  /** Wait before the next try; it grows, and ends at once when the network is back. */
  async _pause() {
    this._waiting = true;
    await Promise.race([
      pause(backoff(this._failures++)),
      new Promise((done) => (this._retryNow = () => done(undefined))),
    ]);
    this._waiting = false;
  }

  /** The status with which the stream would begin; 0 without an answer. */
  async _status() {
    const leave = new AbortController();
    const late = setTimeout(() => leave.abort(), SILENCE);
    try {
      return (await fetch(this._url, { signal: leave.signal, cache: "no-store" })).status;
    } catch {
      return 0;
    } finally {
      clearTimeout(late);
      leave.abort();
    }
  }

  /** @param {string} reason */
  _give(reason) {
    this.close();
    this._listeners.onGone(reason);
  }
}
