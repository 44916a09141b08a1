import { createClient, GatewayError, type Reconnect, type Turn, type TurnEvent } from "agent-gateway-client";
import { afterEach, describe, expect, test } from "vitest";
import { CuttingProxy, type Plan } from "./support/proxy.js";
import { endBehindItsBack, GATEWAY, KEY, open, runsWith } from "./support/world.js";

/** Bytes within the events of the first half of a long answer, and within the head of its response. */
const IN_EVENTS = 3000;
const IN_HEAD = 40;
const WORDS = Array.from({ length: 40 }, (_, number) => `word${number}`).join(" ");

const proxies: CuttingProxy[] = [];
let users = 0;

afterEach(async () => {
  for (const proxy of proxies.splice(0)) await proxy.stop();
});

/** A client whose connections go by way of a proxy, and all that it was told of reconnects. */
async function through(plan: Plan, options: { silenceSeconds?: number; retrySeconds?: number } = {}) {
  const proxy = await CuttingProxy.start(GATEWAY, plan);
  proxies.push(proxy);
  const reconnects: Reconnect[] = [];
  const client = createClient({ baseUrl: proxy.url, apiKey: KEY, backoff: () => 0, ...options });
  return { client, proxy, reconnects, onReconnect: (reconnect: Reconnect) => reconnects.push(reconnect) };
}

/** Only the first connections have a fate. */
function first(...fates: ReturnType<Plan>[]): Plan {
  return (connection) => fates[connection];
}

function direct() {
  return createClient({ baseUrl: GATEWAY, apiKey: KEY });
}

function nextUser(): string {
  users += 1;
  return `turn-${process.pid}-${users}`;
}

async function eventsOf(turn: AsyncIterable<TurnEvent>): Promise<TurnEvent[]> {
  const events: TurnEvent[] = [];
  for await (const event of turn) events.push(event);
  return events;
}

function kindsOf(events: TurnEvent[]): string[] {
  return events.map(({ event }) => event);
}

/** Reads until there is an event of this kind. */
async function until(turn: Turn, kind: TurnEvent["event"]): Promise<TurnEvent> {
  for await (const event of turn) if (event.event === kind) return event;
  throw new Error(`there was no ${kind}`);
}

/** The error with which something ends. */
async function errorOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => expect.fail("it did not fail"),
    (error: unknown) => error,
  );
}

describe("a turn without faults", () => {
  test("is iterated to its message_end, and its text is the whole answer", async () => {
    const turn = direct().chat({ query: "Hello there", user: nextUser() });
    const events = await eventsOf(turn);
    expect(kindsOf(events)).toEqual(["message", "message", "message", "message", "message_end"]);
    expect(await turn.text()).toBe("You said: Hello there.");
    expect(turn.answer).toBe("You said: Hello there.");
    const { task_id, message_id, conversation_id } = await turn.ids;
    expect(events[0]).toMatchObject({ task_id, message_id, conversation_id });
    expect(turn.eventsUrl).toContain(`/chat-messages/${task_id}/events?ticket=`);
  });

  test("is read without being iterated, and each iteration gets all of its events", async () => {
    const turn = direct().chat({ query: "Hello", user: nextUser() });
    expect(await turn.text()).toBe("You said: Hello.");
    const events = await eventsOf(turn);
    expect(kindsOf(events)).toEqual(["message", "message", "message", "message_end"]);
    expect(await eventsOf(turn)).toEqual(events);
  });

  test("goes on while an iteration is left early, beside another one", async () => {
    const gate = nextUser();
    const turn = direct().chat({ query: `live ${gate} one two three four`, user: gate });
    await until(turn, "message");
    const [all] = await Promise.all([eventsOf(turn), open(gate)]);
    expect(kindsOf(all)).toEqual(["message", "message", "message", "message", "message_end"]);
    expect(await turn.text()).toBe("one two three four ");
  });

  test("continues its conversation", async () => {
    const user = nextUser();
    const client = direct();
    const { conversation_id } = await client.chat({ query: "Hello", user }).ids;
    const second = await client.chat({ query: "Again", user, conversation_id }).ids;
    expect(second.conversation_id).toBe(conversation_id);
  });

  test("shows steps in the mode that was asked for", async () => {
    const turn = direct().chat({ query: "think", user: nextUser() }, { mode: "agent-chat" });
    const thoughts = (await eventsOf(turn)).filter((event) => event.event === "agent_thought");
    expect(thoughts.at(-1)).toMatchObject({ tool: "clock", observation: "12:00" });
    expect(await turn.text()).toBe("It is noon.");
  });

  test("has its text once in mode agent, which sends the whole answer again", async () => {
    const turn = direct().chat({ query: "think", user: nextUser() }, { mode: "agent" });
    const events = await eventsOf(turn);
    expect(events.at(-2)).toMatchObject({ event: "message", answer: "It is noon." });
    expect(await turn.text()).toBe("It is noon.");
  });
});

describe("a cut", () => {
  test("in the middle of a turn is followed by exactly the rest, live", async () => {
    const { client, reconnects, onReconnect } = await through(first({ after: IN_EVENTS, how: "reset" }));
    const gate = nextUser();
    let connects = 0;
    const onConnect = () => {
      connects += 1;
    };
    const turn = client.chat({ query: `live ${gate} ${WORDS}`, user: gate }, { onReconnect, onConnect });
    // The first half is on the wire before the gate: the cut was before it opens.
    await until(turn, "message");
    for await (const event of turn) if (event.event_id === 20) break;
    await open(gate);
    expect(await turn.text()).toBe(`${WORDS} `);
    const positions = (await eventsOf(turn)).map((event) => event.event_id);
    expect(positions).toEqual([...new Set(positions)].sort((one, other) => one - other));
    expect([reconnects.length, connects]).toEqual([1, 2]);
    expect(reconnects[0]).toMatchObject({ failures: 1, delay: 0 });
    expect(reconnects[0]?.after).toBeGreaterThan(0);
  });

  test.each(["reset", "end", "stall"] as const)(
    "before the response (%s) does not make a second turn",
    async (how) => {
      const { client, reconnects, onReconnect } = await through(
        first({ after: IN_HEAD, how }, { after: 1, how }),
        {
          silenceSeconds: 0.5,
        },
      );
      const user = nextUser();
      const turn = client.chat({ query: `Hello ${user}`, user }, { onReconnect });
      expect(await turn.text()).toBe(`You said: Hello ${user}.`);
      expect([...new Set(reconnects.map(({ after }) => after))]).toEqual([0]);
      expect(await runsWith(user)).toBe(1);
    },
  );

  test("is noticed when the connection only falls silent", async () => {
    const { client, reconnects, onReconnect } = await through(first({ after: IN_EVENTS, how: "stall" }), {
      silenceSeconds: 0.5,
    });
    const turn = client.chat({ query: WORDS, user: nextUser() }, { onReconnect });
    expect(await turn.text()).toBe(`You said: ${WORDS}.`);
    expect(String(reconnects[0]?.cause)).toContain("silent");
  });

  test("within a long text does not double its pieces", async () => {
    const cut = { after: 60_000, how: "reset" } as const;
    const { client, reconnects, onReconnect } = await through(first(cut, cut, undefined));
    const user = nextUser();
    const plain = direct().chat({ query: "long", user }, { mode: "agent" });
    const whole = await eventsOf(plain);
    const { task_id } = await plain.ids;
    // The closing message has three pieces; what follows the last chunk of the answer begins with it.
    const before = whole.filter((event) => event.event === "agent_message").at(-1);
    const turn = client.follow({ task_id, user }, { mode: "agent", after: before?.event_id, onReconnect });
    const rest = await eventsOf(turn);
    expect(kindsOf(rest)).toEqual(["message", "message", "message", "message_end"]);
    expect(rest).toEqual(whole.slice(-4));
    expect(reconnects.length).toBe(2);
  });

  test("within a text that replaces the old one leaves exactly the new one", async () => {
    const cut = { after: 60_000, how: "end" } as const;
    const { client, reconnects, onReconnect } = await through(first(cut, cut, undefined));
    const user = nextUser();
    const lost = direct().chat({ query: "lose", user });
    expect(await errorOf(lost.text())).toMatchObject({ code: "turn_interrupted" });
    const { task_id } = await lost.ids;
    // This reader says that it has seen more than was stored.
    const turn = client.follow({ task_id, user }, { after: 1000, onReconnect });
    const kinds: string[] = [];
    const error = await errorOf(
      (async () => {
        for await (const event of turn) kinds.push(event.event);
      })(),
    );
    expect(kinds).toEqual(["message_replace", "message", "message", "error"]);
    expect(error).toMatchObject({ code: "turn_interrupted", status: 500 });
    expect(turn.answer).toBe("x".repeat(80_000));
    expect(reconnects.length).toBe(2);
  });

  test("is answered with Retry-After by what is before the gateway: the client waits as long", async () => {
    const head =
      "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    const { client, reconnects, onReconnect } = await through(
      first({ answer: head }, { after: 1500, how: "end" }, { answer: head }),
    );
    const turn = client.chat({ query: WORDS, user: nextUser() }, { onReconnect });
    expect(await turn.text()).toBe(`You said: ${WORDS}.`);
    expect(reconnects.map(({ delay }) => delay)).toEqual([1000, 0, 1000]);
  });

  test("is answered with a page of a proxy: the client tries again", async () => {
    const page = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 6\r\n\r\n<html>";
    const { client, reconnects, onReconnect } = await through(first({ answer: page }));
    const turn = client.chat({ query: "Hello", user: nextUser() }, { onReconnect });
    expect(await turn.text()).toBe("You said: Hello.");
    expect(reconnects[0]?.cause).toMatchObject({ code: "unexpected_response", status: 502 });
  });

  test("that lasts too long ends the turn with a ConnectionError", async () => {
    const { client, proxy } = await through(() => ({ after: 0.5, how: "reset" }), { retrySeconds: 0.2 });
    const turn = client.chat({ query: "Hello", user: nextUser() });
    const error = await errorOf(turn.text());
    expect(error).toMatchObject({ name: "ConnectionError" });
    expect((error as Error).cause).toBeInstanceOf(Error);
    expect(await errorOf(turn.ids)).toBe(error);
    expect(await errorOf(turn.stop())).toBe(error);
    expect(proxy.cuts).toBeGreaterThan(1);
  });

  test("is waited for by default at random, at first at most half a second", async () => {
    const proxy = await CuttingProxy.start(
      GATEWAY,
      first({ after: 1, how: "reset" }, { after: 1, how: "reset" }),
    );
    proxies.push(proxy);
    const delays: number[] = [];
    const client = createClient({ baseUrl: proxy.url, apiKey: KEY });
    const onReconnect = ({ delay }: Reconnect) => delays.push(delay);
    await client.chat({ query: "Hello", user: nextUser() }, { onReconnect }).text();
    expect(delays.length).toBe(2);
    expect(delays[0]).toBeLessThanOrEqual(500);
    expect(delays[1]).toBeLessThanOrEqual(1000);
    expect(delays[0]).not.toBe(delays[1]);
  });
});

describe("a turn that fails", () => {
  test("ends its iteration with the error event, and then throws it", async () => {
    const turn = direct().chat({ query: "fail", user: nextUser() });
    const seen: TurnEvent[] = [];
    const error = await errorOf(
      (async () => {
        for await (const event of turn) seen.push(event);
      })(),
    );
    expect(kindsOf(seen)).toEqual(["message", "error"]);
    expect(error).toBeInstanceOf(GatewayError);
    expect(error).toMatchObject({ code: "provider_unavailable", status: 503 });
    expect(await errorOf(turn.text())).toBe(error);
    expect(turn.answer).toBe("Half an ");
  });

  test("at once is not tried again: its key would get the same", async () => {
    const { client, proxy, onReconnect, reconnects } = await through(() => undefined);
    const user = nextUser();
    const error = await errorOf(client.chat({ query: `refuse ${user}`, user }, { onReconnect }).text());
    expect(error).toMatchObject({ code: "provider_unavailable", status: 503, retryAfter: undefined });
    expect(reconnects).toEqual([]);
    expect(proxy.connections).toBe(1);
    expect(await runsWith(user)).toBe(1);
  });

  test("because of its request has a code", async () => {
    const client = direct();
    expect(await errorOf(client.chat({ query: " ", user: "ada" }).text())).toMatchObject({
      code: "invalid_param",
      status: 400,
    });
    const stranger = createClient({ baseUrl: GATEWAY, apiKey: "wrong" });
    expect(await errorOf(stranger.chat({ query: "Hi", user: "ada" }).text())).toMatchObject({
      code: "unauthorized",
    });
  });

  test("because its key was used for another message has a code", async () => {
    const user = nextUser();
    const options = { idempotencyKey: user };
    await direct().chat({ query: "One", user }, options).text();
    expect(await direct().chat({ query: "One", user }, options).text()).toBe("You said: One.");
    expect(await errorOf(direct().chat({ query: "Two", user }, options).text())).toMatchObject({
      code: "idempotency_conflict",
      status: 409,
    });
  });
});

test("a text that is replaced is not what was told before", async () => {
  const gate = nextUser();
  const turn = direct().chat({ query: `live ${gate} one two three four`, user: gate });
  await until(turn, "message");
  await endBehindItsBack((await turn.ids).task_id);
  await open(gate);
  expect(await errorOf(turn.text())).toMatchObject({ code: "turn_interrupted" });
  const replaced = await until(turn, "message_replace");
  expect(replaced).toMatchObject({ answer: "" });
  expect(turn.answer).toBe("");
});

describe("a caller", () => {
  test("stops a turn: its text stays, and it ends normally", async () => {
    const turn = direct().chat({ query: "hold", user: nextUser() });
    await until(turn, "message");
    await turn.stop();
    expect((await eventsOf(turn)).at(-1)?.event).toBe("message_end");
    expect(await turn.text()).toMatch(/^One (two )?$/);
  });

  test("stops a turn through cuts, and before its first event", async () => {
    const cut = { after: IN_HEAD, how: "reset" } as const;
    const { client } = await through(first(undefined, cut, cut));
    const user = nextUser();
    const gate = `${user}-gate`;
    const { conversation_id } = await direct().chat({ query: "Hello", user }).ids;
    const running = direct().chat({ query: `live ${gate} one two`, user, conversation_id });
    await running.ids;
    // It waits behind the other one, so there is no event yet.
    const queued = client.chat({ query: "Never", user, conversation_id });
    await queued.stop();
    await open(gate);
    expect(await running.text()).toBe("one two ");
    expect(await queued.text()).toBe("");
    expect(await runsWith("Never")).toBe(0);
  });

  test("leaves with a signal, and the turn continues", async () => {
    const gate = nextUser();
    const leaving = new AbortController();
    const turn = direct().chat({ query: `live ${gate} one two`, user: gate }, { signal: leaving.signal });
    const { task_id } = await turn.ids;
    const reason = new Error("left the page");
    leaving.abort(reason);
    expect(await errorOf(turn.text())).toBe(reason);
    expect(await errorOf(eventsOf(turn))).toBe(reason);
    await open(gate);
    expect(await direct().follow({ task_id, user: gate }).text()).toBe("one two ");
  });

  test.each(["onConnect", "onReconnect"])("whose %s throws gets its error", async (name) => {
    const { client, proxy } = await through(first({ after: IN_HEAD, how: "reset" }));
    const mistake = new Error("a mistake of the page");
    const callback = () => {
      throw mistake;
    };
    const turn = client.chat({ query: "Hello", user: nextUser() }, { [name]: callback });
    expect(await errorOf(turn.text())).toBe(mistake);
    expect(proxy.cuts).toBe(1);
  });

  test("who has left before makes no turn", async () => {
    const user = nextUser();
    const turn = direct().chat({ query: user, user }, { signal: AbortSignal.abort() });
    expect(await errorOf(turn.text())).toMatchObject({ name: "AbortError" });
    expect(await runsWith(user)).toBe(0);
  });

  test("who leaves during a pause does not wait for its end", async () => {
    const leaving = new AbortController();
    const client = createClient({ baseUrl: "http://127.0.0.1:1", apiKey: KEY, backoff: () => 50_000 });
    const turn = client.chat(
      { query: "Hi", user: "ada" },
      { signal: leaving.signal, onReconnect: () => queueMicrotask(() => leaving.abort()) },
    );
    expect(await errorOf(turn.text())).toMatchObject({ name: "AbortError" });
  });

  test("follows a turn from where another one stopped reading", async () => {
    const user = nextUser();
    const turn = direct().chat({ query: "one two three", user });
    const events = await eventsOf(turn);
    const { task_id } = await turn.ids;
    const rest = await eventsOf(direct().follow({ task_id, user }, { after: events[1]?.event_id }));
    expect(rest).toEqual(events.slice(2));
    const last = events.at(-1)?.event_id;
    const nothing = direct().follow({ task_id, user }, { after: last });
    expect(await eventsOf(nothing)).toEqual([]);
    expect(await nothing.text()).toBe("");
    expect(await errorOf(nothing.ids)).toBeInstanceOf(Error);
  });

  test("follows a turn by its URL alone, through a cut", async () => {
    const begun = await direct().sendChatMessage({
      body: { query: WORDS, user: nextUser(), response_mode: "background" },
    });
    const proxy = await CuttingProxy.start(GATEWAY, first({ after: IN_EVENTS, how: "end" }));
    proxies.push(proxy);
    const page = createClient({ baseUrl: proxy.url, backoff: () => 0 });
    const turn = page.follow(begun.events_url);
    expect(await turn.text()).toBe(`You said: ${WORDS}.`);
    expect(proxy.cuts).toBe(1);
    expect(String(await errorOf(turn.stop()))).toContain("give its `user`");
  });

  test("with a key resumes without the ticket, which may have expired", async () => {
    const asked: string[] = [];
    const proxy = await CuttingProxy.start(GATEWAY, first({ after: IN_EVENTS, how: "end" }));
    proxies.push(proxy);
    const client = createClient({
      baseUrl: `${proxy.url}/v1/`,
      apiKey: KEY,
      backoff: () => 0,
      fetch: (input, init) => {
        asked.push(String(input));
        return fetch(input, init);
      },
    });
    const user = nextUser();
    await client.chat({ query: WORDS, user }).text();
    expect(asked.length).toBe(2);
    expect(asked[1]).toMatch(
      new RegExp(`^${proxy.url}/v1/chat-messages/[0-9a-f-]+/events\\?user=${user}&after=[0-9]+$`),
    );
  });

  test("does not send its key to another place", async () => {
    const { client, proxy } = await through(() => undefined);
    const elsewhere: (string | null)[] = [];
    const other = createClient({
      baseUrl: "http://127.0.0.1:1",
      apiKey: KEY,
      fetch: (input, init) => {
        elsewhere.push(new Headers(init?.headers).get("Authorization"));
        return fetch(input, init);
      },
    });
    const begun = await client.sendChatMessage({
      body: { query: "Hi", user: "ada", response_mode: "background" },
    });
    expect(await other.follow(proxy.url + begun.events_url).text()).toBe("You said: Hi.");
    expect(elsewhere).toEqual([null]);
  });
});

describe("a question to a human", () => {
  test("is answered with its form, and the turn of the answer is read", async () => {
    const user = nextUser();
    const client = direct();
    const asked = await until(client.chat({ query: "ask", user }), "human_input_required");
    if (asked.event !== "human_input_required") throw new Error("not a question");
    const { workflow_run_id, data } = asked;
    const waiting = client.followAnswer({ workflow_run_id, user });
    const turn = await client.answer(data.form_token, {
      action: "approve",
      inputs: { comment: "yes" },
      user,
    });
    const events = await eventsOf(turn);
    expect(kindsOf(events).slice(0, 2)).toEqual(["human_input_form_filled", "message"]);
    expect(await turn.text()).toContain("approve");
    expect(kindsOf(await eventsOf(waiting))).toEqual(kindsOf(events));
    const again = await errorOf(client.answer(data.form_token, { action: "approve", inputs: {}, user }));
    expect(again).toMatchObject({ code: "human_input_form_submitted", status: 412 });
  });

  test("is waited for through cuts, before and after its answer", async () => {
    const cut = { after: IN_HEAD, how: "reset" } as const;
    const { client, onReconnect, reconnects } = await through(first(cut, { after: 1200, how: "end" }));
    const user = nextUser();
    const asked = await until(direct().chat({ query: "ask", user }), "human_input_required");
    if (asked.event !== "human_input_required") throw new Error("not a question");
    const { workflow_run_id, data } = asked;
    await direct().answer(data.form_token, { action: "approve", inputs: {}, user });
    const turn = client.followAnswer({ workflow_run_id, user }, { onReconnect });
    const kinds = kindsOf(await eventsOf(turn));
    expect(kinds[0]).toBe("human_input_form_filled");
    expect(kinds.at(-1)).toBe("message_end");
    expect(reconnects.length).toBe(2);
  });
});
