import { GatewayError } from "./errors.js";
import { Answer, type TurnEvent } from "./events.js";
import { type Http, post } from "./http.js";
import { CONNECTED, type ReadOptions, readTurn, type Target } from "./reader.js";
import { pause, Retries } from "./retries.js";

/** The ids of a turn, as every event has them. */
export type TurnIds = Pick<TurnEvent, "task_id" | "message_id" | "conversation_id">;

/**
 * One message and its answer, while it is made. It is read from the moment it is made, whether somebody iterates
 * or not, and keeps its events: each iteration gets all of them, in order, each once.
 *
 * An iteration that ends has seen `message_end`. An `error` event is the last one of its iteration, which then
 * throws it as a GatewayError.
 */
export class Turn implements AsyncIterable<TurnEvent> {
  /** The ids, from the first event. Rejects when the turn fails before it. */
  readonly ids: Promise<TurnIds>;
  readonly #events: TurnEvent[] = [];
  readonly #answer = new Answer();
  readonly #http: Http;
  readonly #target: Target;
  readonly #options: ReadOptions;
  readonly #known = deferred<string>();
  readonly #first = deferred<TurnIds>();
  readonly #end = deferred<void>();
  #news = deferred<void>();
  #hasEnded = false;

  /** @internal */
  constructor(http: Http, target: Target, options: ReadOptions) {
    this.#http = http;
    this.#target = target;
    this.#options = options;
    this.ids = this.#first.promise;
    this.#read();
  }

  /** The answer so far. */
  get answer(): string {
    return this.#answer.text;
  }

  /** Follows this turn without a key, for a limited time: give it to a page. Known once the gateway has answered. */
  get eventsUrl(): string | undefined {
    return this.#target.eventsUrl;
  }

  /** The whole answer, once the turn has ended. Rejects with the GatewayError of a turn that failed. */
  async text(): Promise<string> {
    await this.#end.promise;
    return this.#answer.text;
  }

  /** Stop the turn: its answer so far stays, and the iteration ends with `message_end`. */
  async stop(): Promise<void> {
    const { user } = this.#target;
    if (user === undefined) throw new Error("To stop a turn that is followed by its URL, give its `user`.");
    const path = `/chat-messages/${encodeURIComponent(await this.#known.promise)}/stop`;
    const retries = new Retries(this.#options);
    for (;;) {
      try {
        await this.#http.request(path, post({ user }));
        return;
      } catch (error) {
        await pause(retries.delayAfter(error, false));
      }
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<TurnEvent, void, undefined> {
    for (let next = 0; ; next += 1) {
      while (next === this.#events.length && !this.#hasEnded) await this.#news.promise;
      const event = this.#events[next];
      if (event === undefined) break;
      yield event;
    }
    // Throws what ended the turn, if that was no `message_end`.
    await this.#end.promise;
  }

  async #read(): Promise<void> {
    try {
      for await (const event of readTurn(this.#http, this.#target, this.#options)) {
        if (this.#target.taskId !== undefined) this.#known.resolve(this.#target.taskId);
        if (event === CONNECTED) {
          this.#target.onConnect?.();
          continue;
        }
        const { task_id, message_id, conversation_id } = event;
        this.#first.resolve({ task_id, message_id, conversation_id });
        this.#answer.add(event);
        this.#events.push(event);
        if (event.event === "error") throw new GatewayError(event);
        this.#tell();
      }
      this.#end.resolve();
    } catch (error) {
      this.#end.reject(error);
    }
    const neverSeen = new Error("The turn had no events.");
    this.#end.promise.then(
      () => this.#first.reject(neverSeen),
      (error) => this.#first.reject(error),
    );
    this.#first.promise.catch((error) => this.#known.reject(error));
    this.#hasEnded = true;
    this.#tell();
  }

  #tell(): void {
    this.#news.resolve();
    this.#news = deferred();
  }
}

interface Deferred<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (reason: unknown) => void;
}

function deferred<T>(): Deferred<T> {
  let settle: Omit<Deferred<T>, "promise"> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  // Nobody may be interested; a promise that is rejected then must not end the process.
  promise.catch(() => {});
  return { promise, ...(settle as Omit<Deferred<T>, "promise">) };
}
