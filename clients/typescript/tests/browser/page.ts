// What the pages of browser.test.ts run.
import { createClient } from "agent-gateway-client";
import { runTurns } from "../support/cut-turns.js";

/** A page has no key: its server began the turn, and gave it the URL of the events. */
async function follow(baseUrl: string, eventsUrl: string): Promise<string> {
  return createClient({ baseUrl }).follow(eventsUrl).text();
}

const program = { runTurns, follow };

/** The global names of the page. */
export type Program = typeof program;

Object.assign(globalThis, program);
