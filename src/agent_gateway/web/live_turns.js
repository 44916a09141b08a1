// The turns that run now, known to all tabs of this browser: after a reload each of them goes on.

const STORE = "agent-gateway-turns";
const DAY = 24 * 3600 * 1000;

/**
 * @typedef {object} LiveTurn
 * @property {string} task_id
 * @property {string} message_id
 * @property {string} conversation_id
 * @property {string} events_url
 * @property {string} query
 * @property {any[]} files
 * @property {number} began milliseconds since 1970
 */

export class LiveTurns {
  /** @param {(turn: LiveTurn) => void} onBegun called for a turn that another tab began @param {() => void} onChange */
  constructor(onBegun, onChange) {
    this._channel = new BroadcastChannel(STORE);
    this._channel.onmessage = ({ data }) => (data.begun ? onBegun(data.begun) : onChange());
  }

  /** @returns {LiveTurn[]} */
  all() {
    try {
      const turns = JSON.parse(localStorage.getItem(STORE) ?? "[]");
      return turns.filter((/** @type {LiveTurn} */ turn) => Date.now() - turn.began < DAY);
    } catch {
      return [];
    }
  }

  /** @param {LiveTurn} turn */
  add(turn) {
    this._write([...this.all(), turn]);
    this._channel.postMessage({ begun: turn });
  }

  /** @param {string} taskId */
  remove(taskId) {
    this._write(this.all().filter((turn) => turn.task_id !== taskId));
    this.tell();
  }

  /** Let the other tabs know that conversations have changed. */
  tell() {
    this._channel.postMessage({});
  }

  /** @param {LiveTurn[]} turns */
  _write(turns) {
    try {
      localStorage.setItem(STORE, JSON.stringify(turns));
    } catch {
      // Without storage a reload shows the answer when it is complete.
    }
  }
}
