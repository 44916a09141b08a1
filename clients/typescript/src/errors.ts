import type { components } from "./generated/api.js";
import type { ErrorCode } from "./generated/operations.js";

export type { ErrorCode };

/** The body of an error. A 409 also names the turn that runs, or the question that is open. */
export type ErrorDetails = components["schemas"]["BusyBody"];

/** Not the gateway answered but something before it, for example a proxy. */
const UNEXPECTED = "unexpected_response";

/** The gateway refused a request, or a turn failed. `code` says why. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  /** For programs. A newer gateway may send codes that this version does not know. */
  readonly code: ErrorCode | typeof UNEXPECTED | (string & {});
  /** The HTTP status. */
  readonly status: number;
  /** The whole body. */
  readonly details: ErrorDetails;
  /** Seconds after which it is worth to try again, if the gateway said so. */
  readonly retryAfter: number | undefined;

  constructor(details: ErrorDetails, retryAfter?: number) {
    super(details.message);
    this.code = details.code;
    this.status = details.status;
    this.details = details;
    this.retryAfter = retryAfter;
  }

  /** Whether the gateway itself answered, and not something before it. */
  get isFromGateway(): boolean {
    return this.code !== UNEXPECTED;
  }
}

/** The gateway could not be reached for longer than `retrySeconds`. `cause` is the last failure. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

/** The error of a response that is no success. */
export async function errorOf(response: Response): Promise<GatewayError> {
  const { status, headers } = response;
  const text = await response.text();
  const after = headers.get("Retry-After");
  return new GatewayError(
    detailsIn(text) ?? { code: UNEXPECTED, message: `The response has status ${status}.`, status },
    after && /^\d+$/.test(after) ? Number(after) : undefined,
  );
}

function detailsIn(text: string): ErrorDetails | undefined {
  try {
    const body = JSON.parse(text);
    return typeof body?.code === "string" ? body : undefined;
  } catch {
    return undefined;
  }
}
