// What tests/clients/test_typescript_client.py has started: real gateways, their backend, and a web server.

function given(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run dev/test tests/clients/test_typescript_client.py`);
  return value;
}

/** The gateway of most tests. Its pages may call it (CORS). */
export const GATEWAY = given("GATEWAY_URL");
/** A gateway whose app refuses messages while a turn runs, and more than two requests in a minute. */
export const STRICT = given("STRICT_GATEWAY_URL");
/** A gateway with the built-in demo agent, as in README.md. */
export const DEMO = given("DEMO_GATEWAY_URL");
export const KEY = given("GATEWAY_KEY");
/** A web server for pages and for the control of the backend; files of FOLDER are its pages. */
export const PAGES = given("PAGES_URL");
export const FOLDER = given("PAGES_FOLDER");

/** How many turns with this word in their query have reached the backend. */
export async function runsWith(word: string): Promise<number> {
  const response = await fetch(`${PAGES}/runs/${encodeURIComponent(word)}`);
  return Number(await response.text());
}

/** The backend's scripts wait at gates; this one opens now. */
export async function open(gate: string): Promise<void> {
  await fetch(`${PAGES}/gates/${gate}`, { method: "POST" });
}

/** Ends a turn as another process of the gateway does, which took it for lost. */
export async function endBehindItsBack(taskId: string): Promise<void> {
  await fetch(`${PAGES}/ends/${taskId}`, { method: "POST" });
}
