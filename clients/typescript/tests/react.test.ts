import { createClient } from "agent-gateway-client";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { launch, publish } from "./support/chromium.js";
import { CuttingProxy } from "./support/proxy.js";
import { GATEWAY, KEY, open, PAGES, runsWith } from "./support/world.js";

let browser: Browser;
let page: Page;
let user = "";
let users = 0;
const complaints: string[] = [];

beforeAll(async () => {
  await publish("chat", "chat.tsx");
  browser = await launch();
});

afterAll(() => browser?.close());

beforeEach(async () => {
  users += 1;
  user = `react-${process.pid}-${users}`;
  await show(GATEWAY);
});

afterEach(async () => {
  await page.close();
  // React complains there when a component that was removed is changed, or two steps have one key.
  expect(complaints.splice(0)).toEqual([]);
});

async function show(url: string): Promise<void> {
  page = await browser.newPage();
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // A cut connection and a refused request are told there by the browser itself.
    if (message.type() === "error" && !/Failed to load|favicon/.test(message.text()))
      complaints.push(message.text());
  });
  await page.goto(`${PAGES}/chat.html?${new URLSearchParams({ url, key: KEY, user })}`);
  await page.waitForSelector("#status");
}

async function send(query: string): Promise<void> {
  await page.fill("#query", query);
  await page.click("#send");
}

/** Waits until the element has exactly this text. */
async function shows(selector: string, text: string): Promise<void> {
  await page.locator(`${selector}:text-is("${text}")`).waitFor({ timeout: 20_000 });
}

test("shows the text while it grows, and that it is complete", async () => {
  await shows("#status", "idle");
  await send(`live ${user} one two three four`);
  await shows("#text", "one two");
  await shows("#status", "running");
  await open(user);
  await shows("#status", "completed");
  await shows("#text", "one two three four");
});

test("shows each step once, as it was last told", async () => {
  await send("think");
  await shows("#status", "completed");
  expect(await page.locator("li").allTextContents()).toEqual(["Hm, the time.", "clock: 12:00"]);
  await shows("#text", "It is noon.");
});

test("shows the files that the agent makes", async () => {
  await send("draw");
  await shows("#status", "completed");
  await shows("#files", "image");
});

test("goes on with its conversation, also after a turn that failed before it began", async () => {
  for (const query of ["One", "refuse", "Two"]) {
    await send(query);
    await shows("#status", query === "refuse" ? "failed" : "completed");
  }
  const client = createClient({ baseUrl: GATEWAY, apiKey: KEY });
  const { data } = await client.listConversations({ query: { user } });
  const lists = data.map(({ id }) => client.listMessages({ query: { user, conversation_id: id } }));
  const queries = (await Promise.all(lists)).map((list) => list.data.map(({ query }) => query));
  expect(queries).toEqual([["One", "refuse", "Two"]]);
});

test("stops a turn, whose text stays", async () => {
  await send("hold");
  await shows("#text", "One two");
  await page.click("#stop");
  await shows("#status", "completed");
  await shows("#text", "One two");
});

test("shows why a turn failed, and then the next one", async () => {
  await send("fail");
  await shows("#status", "failed");
  await shows("#text", "Half an");
  expect(await page.textContent("#error")).not.toBe("");
  await send("Hello");
  await shows("#status", "completed");
  await shows("#text", "You said: Hello.");
  expect(await page.textContent("#error")).toBe("");
});

test("shows a turn again from its start when it is resumed", async () => {
  await send(`Hello ${user}`);
  await shows("#status", "completed");
  await page.click("#resume");
  await shows("#status", "completed");
  await shows("#text", `You said: Hello ${user}.`);
  expect(await runsWith(user)).toBe(1);
});

test("answers a question, and shows the turn of the answer", async () => {
  await send("ask");
  await shows("#status", "completed");
  await page.click("#approve");
  await page.locator("#text", { hasText: "approve" }).waitFor({ timeout: 20_000 });
  await shows("#status", "completed");
});

test("tells that it reconnects, and then shows the rest", async () => {
  await page.close();
  // The browser chooses which of its connections it sends the message on.
  const proxy = await CuttingProxy.start(GATEWAY, (connection) =>
    connection < 3 ? { after: 3000, how: "reset" } : undefined,
  );
  try {
    await show(proxy.url);
    const words = Array.from({ length: 60 }, (_, number) => `word${number}`).join(" ");
    await send(`live ${user} ${words}`);
    await page.waitForFunction("globalThis.statuses.has('reconnecting')");
    await open(user);
    await shows("#status", "completed");
    await shows("#text", words);
    expect(await runsWith(user)).toBe(1);
  } finally {
    await proxy.stop();
  }
});

test("tells that it is connected again, before there is an event", async () => {
  await page.close();
  const proxy = await CuttingProxy.start(GATEWAY, (connection) =>
    connection < 3 ? { after: 40, how: "reset" } : undefined,
  );
  try {
    await show(proxy.url);
    await send(`late ${user} one two`);
    await page.waitForFunction("globalThis.statuses.has('reconnecting')");
    await shows("#status", "running");
    expect(await page.textContent("#text")).toBe("");
    await open(user);
    await shows("#status", "completed");
    await shows("#text", "one two");
    expect(await runsWith(user)).toBe(1);
  } finally {
    await proxy.stop();
  }
});

test("ends its reading when it is removed, and the turn continues", async () => {
  await send(`live ${user} one two`);
  await shows("#text", "one");
  await page.click("#leave");
  await page.waitForSelector("#status", { state: "detached" });
  await page.waitForFunction("globalThis.signals.at(-1).aborted");
  await open(user);
  const client = createClient({ baseUrl: GATEWAY, apiKey: KEY });
  const { data } = await client.listConversations({ query: { user } });
  const query = { user, conversation_id: data[0]?.id ?? "" };
  await expect.poll(async () => (await client.listMessages({ query })).data[0]?.answer).toBe("one two ");
});
