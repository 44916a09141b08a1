// The events of one turn, over as many connections as that takes.

import { backoff, here, pause } from "./api.js";

const LAST = new Set(["message_end", "error"]);

/**
 * Follows a turn from its first event to its last. Each event is handed out once, in order: what a new
 * connection repeats is dropped by its number.
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
    this._last = 0;
    this._attempt = 0;
    this._ended = false;
    this._connect();
  }

  /** Hear no more. */
  close() {
    this._ended = true;
    this._source?.close();
  }

  _connect() {
    const url = new URL(this._url);
    if (this._last) url.searchParams.set("after", String(this._last));
    const source = new EventSource(url);
    this._source = source;
    source.onopen = () => {
      this._attempt = 0;
      this._listeners.onState("open");
    };
    source.onmessage = (message) => this._hear(message);
    source.onerror = () => {
      if (this._ended) return;
      this._listeners.onState("lost");
      // The browser comes back by itself after a cut, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) this._ask();
    };
  }

  /** @param {MessageEvent} message */
  _hear(message) {
    const event = JSON.parse(message.data);
    if (this._ended || event.event_id <= this._last) return;
    this._last = event.event_id;
    const last = LAST.has(event.event);
    if (last) this.close();
    this._listeners.onEvent(event, { id: message.lastEventId, data: message.data });
  }

  /** Learn why the stream was refused, which EventSource does not tell, and go on or give up. */
  async _ask() {
    await pause(backoff(this._attempt++));
    while (!this._ended) {
      const stop = new AbortController();
      try {
        const url = new URL(this._url);
        if (this._last) url.searchParams.set("after", String(this._last));
        const response = await fetch(url, { signal: stop.signal, cache: "no-store" });
        stop.abort();
        if (this._ended) return;
        if (response.status === 200) return this._connect();
        if (response.status === 204) return this._give("The turn has ended.");
        if (response.status < 500 && response.status !== 429) {
          return this._give(response.status === 404 ? "This answer was deleted." : "This answer can no longer be followed.");
        }
      } catch {
        // Still unreachable.
      }
      await pause(backoff(this._attempt++));
    }
  }

  /** @param {string} reason */
  _give(reason) {
    this.close();
    this._listeners.onGone(reason);
  }
}
