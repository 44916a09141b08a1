import { type Calls, callsOf } from "./calls.js";
import type { components } from "./generated/api.js";
import { Http, type HttpOptions, post, withQuery } from "./http.js";
import type { ReadOptions, Reconnect, Target } from "./reader.js";
import { Turn } from "./turn.js";

type Schemas = components["schemas"];

/** Where the gateway is, who calls it, and how connections are held. */
export interface ClientOptions extends HttpOptions, ReadOptions {}

/** What every turn takes. */
export interface TurnOptions {
  /** Which events the stream shows, instead of the app's own mode. */
  mode?: "chat" | "agent-chat" | "agent" | undefined;
  /** Ends the reading with its reason. The turn itself continues: `turn.stop()` stops it. */
  signal?: AbortSignal | undefined;
  /** Called after a connection was cut, before the next try. */
  onReconnect?: ((reconnect: Reconnect) => void) | undefined;
  /** Called when the gateway has answered: at first, and after each cut. */
  onConnect?: (() => void) | undefined;
}

/** A message. Without a `conversation_id` it begins a conversation. */
export type ChatBody = Omit<Schemas["ChatMessageBody"], "response_mode">;

/** What `chat` also takes. */
export interface ChatOptions extends TurnOptions {
  /** The same key and body never make a second turn. Default: a random one for each call. */
  idempotencyKey?: string | undefined;
}

/** What `follow` also takes. */
export interface FollowOptions extends TurnOptions {
  /** The `event_id` of the last event that was seen. Default: 0, all events. */
  after?: number | undefined;
  /** Whose turn an `events_url` is. Only `turn.stop()` needs it. */
  user?: string | undefined;
}

/** A turn of another page or process: its `events_url`, or its id and the user to whom it belongs. */
export type TurnReference = string | { task_id: string; user: string };

/** The turns of one gateway. Each is read at once, and continues by itself after a cut. */
export interface Turns {
  /** Send a message and read its answer. However often its connection is cut, it makes one turn. */
  chat(body: ChatBody, options?: ChatOptions): Turn;
  /** Read a turn that was begun elsewhere, or the rest of one. An `events_url` needs no key. */
  follow(turn: TurnReference, options?: FollowOptions): Turn;
  /**
   * Submit the form of a question, and read the turn that carries the answer. It is submitted once: when the
   * response is lost, call `followAnswer`.
   */
  answer(formToken: string, body: Schemas["FormSubmitBody"], options?: TurnOptions): Promise<Turn>;
  /** Wait until somebody answers a question (its `workflow_run_id`), and read the turn that carries the answer. */
  followAnswer(
    question: { workflow_run_id: string; user: string },
    options?: Omit<TurnOptions, "mode">,
  ): Turn;
}

/** Turns, and every call of the API. */
export type Client = Turns & Calls;

/** A client of one gateway; with a key, of one app. */
export function createClient(options: ClientOptions): Client {
  const http = new Http(options);
  const calls = callsOf(http);

  const read = (target: Partial<Target>, { mode, signal, onReconnect, onConnect }: TurnOptions) =>
    new Turn(
      http,
      {
        path: "",
        init: {},
        begins: false,
        after: 0,
        user: undefined,
        taskId: undefined,
        eventsUrl: undefined,
        signal: signal ?? new AbortController().signal,
        mode,
        onReconnect,
        onConnect,
        ...target,
      },
      options,
    );

  const follow = (turn: TurnReference, { after = 0, user, ...rest }: FollowOptions = {}) =>
    read(
      typeof turn === "string"
        ? { eventsUrl: turn, user, after }
        : { taskId: turn.task_id, user: turn.user, after },
      rest,
    );

  return {
    ...calls,
    chat: (body, { idempotencyKey = randomKey(), ...rest } = {}) =>
      read(
        {
          path: withQuery("/chat-messages", { mode: rest.mode }),
          init: post({ ...body, response_mode: "streaming" }, { "Idempotency-Key": idempotencyKey }),
          begins: true,
          user: body.user,
        },
        rest,
      ),
    follow,
    answer: async (formToken, body, rest = {}) => {
      const { signal } = rest;
      const { events_url } = await calls.submitHumanInputForm({
        path: { form_token: formToken },
        body,
        ...(signal && { signal }),
      });
      return follow(events_url, rest);
    },
    followAnswer: ({ workflow_run_id, user }, rest = {}) =>
      read(
        { path: withQuery(`/workflow/${encodeURIComponent(workflow_run_id)}/events`, { user }), user },
        rest,
      ),
  };
}

/** Not `crypto.randomUUID`, which pages without TLS do not have. */
function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
