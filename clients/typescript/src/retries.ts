import { ConnectionError, GatewayError } from "./errors.js";

/** How long and how often a turn is tried again after its connection was cut. */
export interface RetryOptions {
  /** Seconds without success after which a ConnectionError is thrown. Default: 60. */
  retrySeconds?: number | undefined;
  /** Milliseconds before the next try, after this number of failures in a row (from 0). Default: random, growing. */
  backoff?: ((failures: number) => number) | undefined;
}

const FIRST_MS = 500;
const LONGEST_MS = 10_000;

/** By chance between nothing and a bound that doubles, because many clients are cut at the same moment. */
function jittered(failures: number): number {
  return Math.random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** failures);
}

/** Whether the same request may work later. */
function isPassing(failure: unknown, mayFailForGood: boolean): boolean {
  // Everything else is what `fetch` throws when the network fails.
  if (!(failure instanceof GatewayError)) return true;
  if (failure.retryAfter !== undefined || failure.status === 408) return true;
  // The error of a turn that failed at once has the status of its code. Its key gets the same again.
  return failure.status >= 500 && !(mayFailForGood && failure.isFromGateway);
}

/** The failures of one task since its last success. */
export class Retries {
  readonly #milliseconds: number;
  readonly #backoff: ((failures: number) => number) | undefined;
  #failures = 0;
  #since = 0;
  /** What the gateway asked for (the `retry:` of a stream), in milliseconds. */
  hint: number | undefined;

  constructor({ retrySeconds = 60, backoff }: RetryOptions) {
    this.#milliseconds = retrySeconds * 1000;
    this.#backoff = backoff;
  }

  /** The last try was a success. */
  reset(): void {
    this.#failures = 0;
  }

  /** How many milliseconds to wait after a failure. Throws when there shall be no other try. */
  delayAfter(failure: unknown, mayFailForGood: boolean): number {
    if (!isPassing(failure, mayFailForGood)) throw failure;
    const now = performance.now();
    if (this.#failures === 0) this.#since = now;
    const delay = this.#pause() + 1000 * ((failure instanceof GatewayError && failure.retryAfter) || 0);
    if (now + delay - this.#since > this.#milliseconds) {
      if (failure instanceof GatewayError) throw failure;
      throw new ConnectionError("The gateway cannot be reached.", { cause: failure });
    }
    this.#failures += 1;
    return delay;
  }

  get failures(): number {
    return this.#failures;
  }

  #pause(): number {
    if (this.#backoff) return this.#backoff(this.#failures);
    if (this.#failures === 0 && this.hint !== undefined) return this.hint;
    return jittered(this.#failures);
  }
}

/** Waits; rejects with the reason of the signal when that is aborted. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", leave);
      resolve();
    }, milliseconds);
    if (signal?.aborted) leave();
    else signal?.addEventListener("abort", leave, { once: true });
  });
}
