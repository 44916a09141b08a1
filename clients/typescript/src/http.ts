import { errorOf } from "./errors.js";

/** Where the gateway is, and who calls it. */
export interface HttpOptions {
  /** Where the gateway is, with or without `/v1`; in a browser also a path of your own server. */
  baseUrl: string;
  /** The key of an app. Never in a browser: let your server add it, or follow a turn by its `events_url`. */
  apiKey?: string | undefined;
  /** Sends the requests instead of the global `fetch`, for example with headers of your own. */
  fetch?: typeof fetch | undefined;
}

/** Sends requests to one gateway. */
export class Http {
  readonly #base: string;
  readonly #key: string | undefined;
  readonly #fetch: typeof fetch;

  constructor({ baseUrl, apiKey, fetch: send }: HttpOptions) {
    this.#base = baseUrl.replace(/\/+$/, "");
    this.#key = apiKey;
    // Not bound now: pages and tests replace the global one later.
    this.#fetch = send ?? ((input, init) => fetch(input, init));
  }

  get hasKey(): boolean {
    return this.#key !== undefined;
  }

  /** The response to a request, whatever its status. The key is not sent to URLs from elsewhere. */
  send(path: string, { headers, ...init }: RequestInit = {}): Promise<Response> {
    const isAbsolute = /^https?:/.test(path);
    const all = new Headers(headers);
    if (this.#key !== undefined && !isAbsolute) all.set("Authorization", `Bearer ${this.#key}`);
    return this.#fetch(isAbsolute ? path : this.#base + path, { ...init, headers: all });
  }

  /** The same, but a response that is no success is thrown as a GatewayError. */
  async request(path: string, init?: RequestInit): Promise<Response> {
    const response = await this.send(path, init);
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}

/** A POST of JSON. */
export function post(body: unknown, headers: Record<string, string> = {}): RequestInit {
  return {
    method: "POST",
    headers: { ...headers, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
}

/** A path with these parameters added; those without a value are left out. */
export function withQuery(path: string, query: object): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  if (given.length === 0) return path;
  const added = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return `${path}${path.includes("?") ? "&" : "?"}${added}`;
}
