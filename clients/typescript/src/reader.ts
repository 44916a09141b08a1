import { Connection } from "./connection.js";
import { Cursor, isLast, type TurnEvent } from "./events.js";
import { type Http, withQuery } from "./http.js";
import { pause, Retries, type RetryOptions } from "./retries.js";

/** How connections of turns are held. */
export interface ReadOptions extends RetryOptions {
  /** Seconds without a byte, not even a ping, after which a connection counts as cut. Default: 20. */
  silenceSeconds?: number | undefined;
}

/** Why and how a turn is connected again. */
export interface Reconnect {
  /** How many tries in a row have failed. */
  failures: number;
  /** The `event_id` after which the turn goes on; 0 before its first event. */
  after: number;
  /** What ended the connection before. */
  cause: unknown;
  /** Milliseconds until the next try. */
  delay: number;
}

/** Which turn is read, and what is known of it. */
export interface Target {
  /** The request that begins the turn, or finds it. It is repeated until there is an event. */
  path: string;
  init: RequestInit;
  /** Whether that request begins a turn, which may fail for good before its first event. */
  begins: boolean;
  after: number;
  mode: string | undefined;
  user: string | undefined;
  taskId: string | undefined;
  eventsUrl: string | undefined;
  signal: AbortSignal;
  onReconnect: ((reconnect: Reconnect) => void) | undefined;
  onConnect: (() => void) | undefined;
}

/** Stands among the events where a connection begins; more of the target is known then. */
export const CONNECTED = "connected";

/** The events of a turn to its end, each once, over as many connections as that takes. */
export async function* readTurn(
  http: Http,
  target: Target,
  options: ReadOptions,
): AsyncGenerator<TurnEvent | typeof CONNECTED> {
  const { signal } = target;
  const cursor = new Cursor(target.after);
  const retries = new Retries(options);
  for (;;) {
    let cause: unknown;
    let resumes = false;
    const connection = new Connection(options.silenceSeconds ?? 20, signal);
    try {
      const next = requestOf(target, cursor, http.hasKey);
      resumes = next.resumes;
      const response = await http.request(next.path, { ...next.init, signal: connection.signal });
      learn(target, response);
      yield CONNECTED;
      // The turn has ended, and the reader has seen all of it.
      if (response.status === 204) return;
      cursor.begin();
      for await (const data of connection.data(response, (hint) => (retries.hint = hint))) {
        const event: TurnEvent = JSON.parse(data);
        retries.reset();
        if (!cursor.take(event.event_id, data)) continue;
        target.taskId = event.task_id;
        yield event;
        if (isLast(event)) return;
      }
      cause = new Error("The stream ended before its turn.");
    } catch (error) {
      cause = signal.aborted ? signal.reason : connection.signal.aborted ? connection.signal.reason : error;
    } finally {
      connection.close();
    }
    if (signal.aborted) throw cause;
    if (connection.hasLived) retries.reset();
    const delay = retries.delayAfter(cause, target.begins && !resumes);
    target.onReconnect?.({ failures: retries.failures, after: cursor.position, cause, delay });
    await pause(delay, signal);
  }
}

/** The next request: for the rest of the turn, once the turn is known. */
function requestOf(target: Target, { position }: Cursor, hasKey: boolean) {
  const { taskId, eventsUrl, user, mode } = target;
  // With a key there is no ticket to expire, and the way to the gateway is the one that worked before.
  const byKey = taskId !== undefined && user !== undefined && (hasKey || eventsUrl === undefined);
  const path = byKey ? `/chat-messages/${encodeURIComponent(taskId)}/events` : eventsUrl;
  if (path === undefined) return { path: target.path, init: target.init, resumes: false };
  const query = { user: byKey ? user : undefined, mode, after: position || undefined };
  return { path: withQuery(path, query), init: {}, resumes: true };
}

function learn(target: Target, { headers }: Response): void {
  target.taskId ??= headers.get("X-Task-Id") ?? undefined;
  target.eventsUrl ??= headers.get("X-Turn-Events-URL") ?? undefined;
}
