// The calls of the API that the page makes, in the name of one end user.

/** An error as the gateway says it, or status 0 when it did not answer. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   * @param {number | null} [retryAfter] seconds
   */
  constructor(status, code, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may work later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** A text that nobody guesses; `randomUUID` is only there on secure origins. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {number} milliseconds */
export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A pause before try number `attempt`: it grows, is never the same, and is bounded. @param {number} attempt */
export const backoff = (attempt) => (0.5 + Math.random()) * Math.min(8000, 250 * 2 ** attempt);

/** Milliseconds after which a request that is no upload has failed: a dead connection says nothing. */
const PATIENCE = 30_000;

export class Api {
  /**
   * @param {string} user the end user in whose name all calls are made
   * @param {(message: string) => void} onRefused called when the key, or the session, opens nothing any more
   */
  constructor(user, onRefused) {
    this.user = user;
    this._onRefused = onRefused;
    /** The API key; empty: the cookie of the browser does. It is kept here and nowhere else. */
    this.key = "";
  }

  /**
   * The JSON of a response; null without a body.
   * @param {string} method
   * @param {string} path
   * @param {{query?: Record<string, string>, body?: any, headers?: Record<string, string>}} [options]
   * @returns {Promise<any>}
   */
  async call(method, path, { query = {}, body, headers = {} } = {}) {
    const url = new URL(path, document.baseURI);
    if (method === "GET") url.searchParams.set("user", this.user);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const isUpload = body instanceof FormData;
    const request = {
      method,
      headers: this.key ? { ...headers, Authorization: `Bearer ${this.key}` } : headers,
      body: body === undefined || isUpload ? body : JSON.stringify({ user: this.user, ...body }),
      cache: /** @type {const} */ ("no-store"),
      signal: isUpload ? null : AbortSignal.timeout(PATIENCE),
    };
    let response;
    try {
      response = await fetch(url, request);
      if (response.ok) return response.status === 204 ? null : await response.json();
    } catch {
      throw new ApiError(0, "unreachable", "The gateway does not answer.");
    }
    const error = await errorOf(response);
    if (error.status === 401) this._onRefused(error.message);
    throw error;
  }

  info = () => this.call("GET", "info");
  parameters = () => this.call("GET", "parameters");
  site = () => this.call("GET", "site");

  /** @param {string} lastId */
  conversations = (lastId) => this.call("GET", "conversations", { query: { limit: "30", ...(lastId && { last_id: lastId }) } });

  /** @param {string} id @param {string} name */
  rename = (id, name) => this.call("POST", `conversations/${id}/name`, { body: { name } });

  /** @param {string} id */
  remove = (id) => this.call("DELETE", `conversations/${id}`, { body: {} });

  /** @param {string} conversation @param {string} firstId */
  messages = (conversation, firstId) =>
    this.call("GET", "messages", {
      query: { conversation_id: conversation, limit: "20", ...(firstId && { first_id: firstId }) },
    });

  /** @param {string} message @param {string | null} rating */
  rate = (message, rating) => this.call("POST", `messages/${message}/feedbacks`, { body: { rating } });

  /** @param {string} message */
  suggested = (message) => this.call("GET", `messages/${message}/suggested`);

  /** @param {string} task */
  stop = (task) => this.call("POST", `chat-messages/${task}/stop`, { body: {} });

  /** @param {string} token @param {string} action @param {Record<string, any>} inputs */
  submit = (token, action, inputs) => this.call("POST", `form/human_input/${token}`, { body: { action, inputs } });

  /** @param {File} file */
  upload(file) {
    const form = new FormData();
    form.append("file", file, file.name);
    form.append("user", this.user);
    return this.call("POST", "files/upload", { body: form });
  }

  /**
   * Begin a turn. However often a response is lost on the way, there is one turn: every try has the same key.
   * @param {Record<string, any>} message
   * @param {(problem: string) => void} onWait called before each further try
   * @returns {Promise<{task_id: string, message_id: string, conversation_id: string, events_url: string}>}
   */
  async begin(message, onWait) {
    const headers = { "Idempotency-Key": newId() };
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.call("POST", "chat-messages", { body: { ...message, response_mode: "background" }, headers });
      } catch (error) {
        const passing = error instanceof ApiError && (error.status === 0 || error.status === 503);
        if (!passing || attempt === 12) throw error;
        onWait(error.message);
        await pause(error.retryAfter ? error.retryAfter * 1000 : backoff(attempt));
      }
    }
  }
}

/** @param {Response} response */
async function errorOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  try {
    const { code, message } = await response.json();
    return new ApiError(response.status, String(code), String(message), retryAfter);
  } catch {
    // A proxy in front of the gateway speaks in its own words.
    return new ApiError(response.status, "unknown", `The gateway answered ${response.status}.`, retryAfter);
  }
}

/**
 * A URL that the gateway gave out, below the path at which this page is reached.
 * @param {string} given a path, or an absolute URL if the gateway has a public one
 */
export function here(given) {
  const url = new URL(given, document.baseURI);
  const [, path] = /(?:^|\/)((?:chat-messages|files)\/.*)$/.exec(url.pathname) ?? [null, url.pathname];
  return new URL(path + url.search, document.baseURI);
}
