import { createParser } from "eventsource-parser";

/** One connection: aborted by its caller, or by itself when no byte has come for too long. */
export class Connection {
  readonly #controller = new AbortController();
  readonly #milliseconds: number;
  readonly #outer: AbortSignal;
  readonly #opened = performance.now();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(silenceSeconds: number, outer: AbortSignal) {
    this.#milliseconds = silenceSeconds * 1000;
    this.#outer = outer;
    if (outer.aborted) this.#leave();
    outer.addEventListener("abort", this.#leave);
    this.#heard();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether it lived so long that pings must have come. */
  get hasLived(): boolean {
    return performance.now() - this.#opened > this.#milliseconds;
  }

  /** The data of the events of a stream, until it ends or is cut; `onRetry` gets its `retry:`. */
  async *data(response: Response, onRetry: (milliseconds: number) => void): AsyncGenerator<string> {
    if (!response.body) return;
    const ready: string[] = [];
    const parser = createParser({ onEvent: ({ data }) => ready.push(data), onRetry });
    const reader = response.body.getReader();
    // It keeps the first bytes of a character until the others have come.
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.#heard();
      parser.feed(decoder.decode(value, { stream: true }));
      yield* ready.splice(0);
    }
  }

  /** Ends it, in whatever state it is. */
  close(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.#leave);
    this.#controller.abort();
  }

  readonly #leave = () => this.#controller.abort(this.#outer.reason);

  #heard(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#controller.abort(new Error("The connection is silent."));
    }, this.#milliseconds);
  }
}
