import { errorOf } from "./errors.js";
import type { components, operations as Operations } from "./generated/api.js";
import { operations } from "./generated/operations.js";
import { type Http, withQuery } from "./http.js";

type Table = typeof operations;
type Simplify<T> = { [K in keyof T]: T[K] };

/** One part of the arguments: absent when there is none, optional when all in it is. */
type Part<Name extends string, T> = [T] extends [never]
  ? unknown
  : Record<never, never> extends T
    ? { [N in Name]?: T }
    : { [N in Name]: T };

type Content<T> = T extends { content: infer C } ? C[keyof C] : never;

/** What a call gets: the parts of its request, and a signal that ends it. */
type Arguments<Operation extends { parameters: object }> = Simplify<
  Part<"path", NonNullable<Get<Operation["parameters"], "path">>> &
    Part<"query", NonNullable<Get<Operation["parameters"], "query">>> &
    Part<"headers", NonNullable<Get<Operation["parameters"], "header">>> &
    Part<"body", Content<NonNullable<Get<Operation, "requestBody">>>> & { signal?: AbortSignal }
>;
type Get<T, K extends string> = K extends keyof T ? T[K] : undefined;

type Success = 200 | 201 | 204;
type Json<R> = R extends { content: { "application/json": infer Body } } ? Body : undefined;
type Result<Name extends keyof Table> = Table[Name] extends readonly [string, string, "raw"]
  ? Response
  : Operations[Name] extends { responses: infer R }
    ? Json<R[keyof R & Success]>
    : never;

type Call<Args, R> =
  Record<never, never> extends Args ? (args?: Args) => Promise<R> : (args: Args) => Promise<R>;

type Modes = {
  blocking: components["schemas"]["ChatMessage"];
  background: components["schemas"]["BackgroundTurn"];
};
type MessageArguments = Arguments<Operations["sendChatMessage"]>;

/** Every call of the API that is no stream, by its name in the OpenAPI document. Errors are GatewayErrors. */
export type Calls = {
  [Name in keyof Omit<Table, "sendChatMessage">]: Call<Arguments<Operations[Name]>, Result<Name>>;
} & {
  /** Send a message, and wait for its answer or only for its beginning: POST /chat-messages */
  sendChatMessage<Mode extends keyof Modes = "blocking">(
    args: Omit<MessageArguments, "body"> & {
      body: Omit<MessageArguments["body"], "response_mode"> & { response_mode?: Mode };
    },
  ): Promise<Modes[Mode]>;
};

interface AnyArguments {
  path?: Record<string, string>;
  query?: object;
  headers?: Record<string, string>;
  body?: Record<string, unknown>;
  signal?: AbortSignal;
}

/** All calls of one gateway. */
export function callsOf(http: Http): Calls {
  const entries = Object.entries(operations).map(([name, row]) => [
    name,
    (args: AnyArguments = {}) => call(http, row, args),
  ]);
  return Object.fromEntries(entries);
}

async function call(
  http: Http,
  [method, path, kind]: Table[keyof Table],
  args: AnyArguments,
): Promise<unknown> {
  const filled = path.replace(/{(\w+)}/g, (_, name) => encodeURIComponent(args.path?.[name] ?? ""));
  const headers = new Headers(args.headers);
  const init: RequestInit = { method, headers, signal: args.signal ?? null };
  if (args.body) {
    init.body = kind === "form" ? form(args.body) : JSON.stringify(args.body);
    // Of a form, fetch itself sets the type, with the boundary of its parts.
    if (kind !== "form") headers.set("Content-Type", "application/json");
  }
  const response = await http.send(withQuery(filled, args.query ?? {}), init);
  // The answer to a condition of a request for a file is no error.
  if (kind === "raw" && response.status === 304) return response;
  if (!response.ok) throw await errorOf(response);
  if (kind === "raw") return response;
  return response.status === 204 ? undefined : response.json();
}

function form(body: Record<string, unknown>): FormData {
  const data = new FormData();
  for (const [name, value] of Object.entries(body)) {
    data.append(name, value instanceof Blob ? value : String(value));
  }
  return data;
}
