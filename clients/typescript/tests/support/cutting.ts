import { createClient } from "agent-gateway-client";
import { expect } from "vitest";
import type { Course, Seen } from "./cut-turns.js";
import { CuttingProxy } from "./proxy.js";
import { seeded } from "./random.js";
import { GATEWAY, KEY, PAGES, runsWith } from "./world.js";

const CUTS = 1000;
/** Less than the head of a response, up to many events. */
const MOST_BYTES = 6000;

/** Runs rounds of turns until a thousand connections were cut, and checks all that was seen. */
export async function cutAThousandTimes(
  name: string,
  atOnce: number,
  run: (course: Course, first: number, count: number) => Promise<Seen[]>,
): Promise<void> {
  const random = seeded(1000);
  const proxy = await CuttingProxy.start(GATEWAY, () => ({
    after: 1 + Math.floor(random() * MOST_BYTES),
    how: random() < 0.5 ? "end" : "reset",
  }));
  const seen: Seen[] = [];
  try {
    const course = { url: proxy.url, pages: PAGES, key: KEY, name };
    // A browser also has connections that are cut while no turn needs them: only noticed cuts count.
    while (reconnectsOf(seen) < CUTS) seen.push(...(await run(course, seen.length, atOnce)));
  } finally {
    await proxy.stop();
  }
  console.log(`${name}: ${proxy.cuts} cuts, ${seen.length} turns, ${reconnectsOf(seen)} reconnects`);
  expect(proxy.cuts).toBeGreaterThanOrEqual(CUTS);
  for (const turn of seen) check(turn);
  expect(await runsWith(name)).toBe(seen.length);
  await eachUserHasOneMessage(seen);
}

function reconnectsOf(seen: Seen[]): number {
  return seen.reduce((sum, { reconnects }) => sum + reconnects, 0);
}

function check({ text, iterated, expected, positions, lastEvent }: Seen): void {
  expect(text).toBe(expected);
  expect(iterated).toBe(expected);
  expect(lastEvent).toBe("message_end");
  const growing = [...new Set(positions)].sort((one, other) => one - other);
  expect(positions).toEqual(growing);
}

async function eachUserHasOneMessage(seen: Seen[]): Promise<void> {
  const client = createClient({ baseUrl: GATEWAY, apiKey: KEY });
  for (const { user } of seen) {
    const { data } = await client.listConversations({ query: { user } });
    expect(data.length).toBe(1);
    const query = { user, conversation_id: data[0]?.id ?? "" };
    expect((await client.listMessages({ query })).data.length).toBe(1);
  }
}
