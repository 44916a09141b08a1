import { createClient } from "agent-gateway-client";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Program } from "./browser/page.js";
import { launch, publish } from "./support/chromium.js";
import { cutAThousandTimes } from "./support/cutting.js";
import { GATEWAY, KEY, PAGES } from "./support/world.js";

let browser: Browser;
let page: Page;

beforeAll(async () => {
  await publish("cuts", "page.ts");
  browser = await launch();
  page = await browser.newPage();
  await page.goto(`${PAGES}/cuts.html`);
  await page.waitForFunction("globalThis.runTurns");
});

afterAll(() => browser?.close());

test("in Chromium, too, every answer is whole after a thousand cuts", async () => {
  // A page has at most six connections to a server.
  await cutAThousandTimes("chromium", 6, (course, first, count) =>
    page.evaluate((given) => (globalThis as unknown as Program).runTurns(...given), [
      course,
      first,
      count,
    ] as const),
  );
  expect.hasAssertions();
});

test("a page without a key follows a turn by its URL", async () => {
  const server = createClient({ baseUrl: GATEWAY, apiKey: KEY });
  const begun = await server.sendChatMessage({
    body: { query: "Hello page", user: "page", response_mode: "background" },
  });
  const text = await page.evaluate((given) => (globalThis as unknown as Program).follow(...given), [
    GATEWAY,
    begun.events_url,
  ] as const);
  expect(text).toBe("You said: Hello page.");
});
