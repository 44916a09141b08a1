import type { components } from "./generated/api.js";

/** An event of a turn. `event` says which one it is. */
export type TurnEvent = components["schemas"]["ChatStreamEvent"];

/** Whether an event is the last one of its turn. */
export function isLast({ event }: TurnEvent): boolean {
  return event === "message_end" || event === "error";
}

/** The text of an answer, from the events of its turn. */
export class Answer {
  text = "";
  #isAgent = false;

  add(event: TurnEvent): void {
    switch (event.event) {
      case "agent_thought":
        this.#isAgent = true;
        break;
      case "agent_message":
        this.#isAgent = true;
        this.text += event.answer;
        break;
      case "message":
        // In mode `agent` it is the whole answer once more.
        if (!this.#isAgent) this.text += event.answer;
        break;
      case "message_replace":
        this.text = event.answer;
        break;
      default:
    }
  }
}

/** Where a reader is in a turn: it takes each event once, however often it is sent. */
export class Cursor {
  /** The `event_id` after which to go on. */
  position: number;
  /** A long text is sent in several events. All but the last have the same `event_id`, and come again after a cut. */
  #pieces: string[] = [];
  #next = 0;

  constructor(after: number) {
    this.position = after;
  }

  /** Called before the events of each connection. */
  begin(): void {
    this.#next = 0;
  }

  /** Whether an event is new; `data` is its text. */
  take(position: number, data: string): boolean {
    if (position < this.position) return false;
    if (position > this.position) {
      this.position = position;
      this.#pieces = [];
    } else {
      const again = this.#pieces.indexOf(data, this.#next);
      if (again >= 0) {
        this.#next = again + 1;
        return false;
      }
    }
    this.#next = this.#pieces.push(data);
    return true;
  }
}
