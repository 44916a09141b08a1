// The events of one turn, over as many connections as that takes.

import { backoff, here, pause } from "./api.js";

const LAST = new Set(["message_end", "error"]);

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
    this._connect();
  }

  /** Hear no more. */
  close() {
    this._ended = true;
    this._source?.close();
  }

  _connect() {
    const source = new EventSource(this._url);
    let opened = false;
    this._source = source;
    source.onopen = () => {
      opened = true;
      this._failures = 0;
      this._listeners.onState("open");
    };
    source.onmessage = (message) => this._hear(message);
    source.onerror = () => {
      if (this._ended) return;
      // Not by itself: it would repeat the URL, whose `after` is the one from before.
      source.close();
      this._listeners.onState("lost");
      this._again(opened);
    };
  }

  /** @param {MessageEvent} message */
  _hear(message) {
    if (this._ended) return;
    const event = JSON.parse(message.data);
    this._url.searchParams.set("after", event.event_id);
    if (LAST.has(event.event)) this.close();
    this._listeners.onEvent(event, { id: message.lastEventId, data: message.data });
  }

  /** Connect again, after a pause. @param {boolean} opened whether the connection was a stream before it ended */
  async _again(opened) {
    await pause(backoff(this._failures++));
    while (!this._ended) {
      if (opened) return this._connect();
      // EventSource does not tell why it was refused.
      const status = await this._status();
      if (this._ended) return;
      if (status === 200) return this._connect();
      if (status === 204) return this._give("The turn has ended.");
      if (status === 404) return this._give("This answer was deleted.");
      if (status > 204 && status < 500 && status !== 429) return this._give("This answer can no longer be followed.");
      await pause(backoff(this._failures++));
    }
  }

  /** The status with which the stream would begin; 0 without an answer. */
  async _status() {
    const leave = new AbortController();
    try {
      return (await fetch(this._url, { signal: leave.signal, cache: "no-store" })).status;
    } catch {
      return 0;
    } finally {
      leave.abort();
    }
  }

  /** @param {string} reason */
  _give(reason) {
    this.close();
    this._listeners.onGone(reason);
  }
}
