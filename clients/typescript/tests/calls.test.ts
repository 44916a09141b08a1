import { type Client, createClient, type GatewayError } from "agent-gateway-client";
import { expect, test } from "vitest";
import { operations } from "../src/generated/operations.js";
import { GATEWAY, KEY, STRICT } from "./support/world.js";

const client = createClient({ baseUrl: GATEWAY, apiKey: KEY });
const called = new Set<string>();

/** Remembers which calls were made. */
const recording = new Proxy(client, {
  get: (target, name: keyof Client & string) => {
    called.add(name);
    return target[name];
  },
});

async function refusal(work: Promise<unknown>): Promise<GatewayError> {
  return work.then(
    () => expect.fail("it was not refused"),
    (error: GatewayError) => error,
  );
}

test("every call of the API works, with its arguments and its result", async () => {
  const user = `calls-${process.pid}`;
  const api = recording;

  const file = await api.uploadFile({
    body: { file: new File(["Milk"], "list.txt", { type: "text/plain" }), user },
  });
  expect(file).toMatchObject({ name: "list.txt", size: 4 });
  const preview = await api.previewFile({ path: { file_id: file.id }, query: { user } });
  expect(await preview.text()).toBe("Milk");
  const part = await api.previewFile({
    path: { file_id: file.id },
    query: { user },
    headers: { Range: "bytes=0-1" },
  });
  expect([part.status, await part.text()]).toEqual([206, "Mi"]);
  const etag = preview.headers.get("ETag") ?? "";
  const same = await api.previewFile({
    path: { file_id: file.id },
    query: { user },
    headers: { "If-None-Match": etag },
  });
  expect(same.status).toBe(304);

  const answer = await api.sendChatMessage({
    body: {
      query: "Hello",
      user,
      files: [{ type: "document", transfer_method: "local_file", upload_file_id: file.id }],
    },
  });
  expect(answer.answer).toContain("You said: Hello");
  const { conversation_id, message_id } = answer;
  const begun = await api.sendChatMessage({
    body: { query: "Later", user, conversation_id, response_mode: "background" },
    headers: { "Idempotency-Key": `${user}-later` },
  });
  expect(begun.events_url).toContain(begun.task_id);
  expect(await api.stopChatMessage({ path: { task_id: begun.task_id }, body: { user } })).toEqual({
    result: "success",
  });

  const listed = await api.listConversations({ query: { user, limit: 1, sort_by: "-updated_at" } });
  expect(listed.data.map(({ id }) => id)).toEqual([conversation_id]);
  const messages = await api.listMessages({ query: { user, conversation_id } });
  expect(messages.data[0]?.query).toBe("Hello");
  const url = new URL(messages.data[0]?.message_files[0]?.url ?? "", GATEWAY);
  const ticket = url.searchParams.get("ticket") ?? "";
  const keyless = createClient({ baseUrl: GATEWAY });
  called.add("downloadFile");
  const download = await keyless.downloadFile({ path: { file_id: file.id }, query: { ticket } });
  expect(await (await download.blob()).text()).toBe("Milk");

  expect(
    await api.rateMessage({ path: { message_id }, body: { rating: "like", content: "Good", user } }),
  ).toEqual({ result: "success" });
  const ratings = await api.listFeedbacks({ query: { page: 1, limit: 20 } });
  const rating = ratings.data.find((item) => item.message_id === message_id);
  expect(rating?.content).toBe("Good");
  const person = await api.getEndUser({ path: { end_user_id: rating?.from_end_user_id ?? "" } });
  expect(person.external_user_id).toBe(user);

  const named = await api.renameConversation({
    path: { conversation_id },
    body: { name: "Greetings", user },
  });
  expect(named.name).toBe("Greetings");
  const variables = await api.listConversationVariables({ path: { conversation_id }, query: { user } });
  expect(variables.data).toEqual([]);
  const variable = api.updateConversationVariable({
    path: { conversation_id, variable_id: "00000000-0000-0000-0000-000000000001" },
    body: { value: 1, user },
  });
  expect((await refusal(variable)).code).toBe("not_found");
  const suggested = await refusal(api.getSuggestedQuestions({ path: { message_id }, query: { user } }));
  expect([suggested.code, suggested.status]).toEqual(["bad_request", 400]);
  expect(await api.deleteConversation({ path: { conversation_id }, body: { user } })).toBe(undefined);

  const form = await refusal(api.getHumanInputForm({ path: { form_token: "a?b#c" } }));
  expect([form.code, form.message]).toEqual(["not_found", "Form not found."]);
  const submitted = api.submitHumanInputForm({
    path: { form_token: "none" },
    body: { action: "approve", inputs: {}, user },
  });
  expect((await refusal(submitted)).code).toBe("not_found");

  expect((await api.getAppInfo()).mode).toBe("chat");
  expect((await api.getAppMeta()).tool_icons).toEqual({});
  expect((await api.getAppSite()).default_language).toBe("en-US");
  expect((await api.getAppParameters()).system_parameters.file_size_limit).toBe(15);
  expect((await api.getHealth()).status).toBe("ok");
  expect((await api.getReadiness()).status).toBeTypeOf("string");
  const heard = api.audioToText({ body: { file: new Blob(["sound"]), user } });
  expect((await refusal(heard)).code).toBe("app_unavailable");
  expect((await refusal(api.textToAudio({ body: { text: "Hi", user } }))).code).toBe("app_unavailable");

  expect([...called].sort()).toEqual(Object.keys(operations).sort());
});

test("a refused message names the turn that runs, which can be followed", async () => {
  const strict = createClient({ baseUrl: STRICT, apiKey: KEY, retrySeconds: 0, backoff: () => 1 });
  const user = `strict-${process.pid}`;
  const running = strict.chat({ query: "hold", user });
  const { conversation_id, task_id } = await running.ids;
  const busy = await refusal(strict.chat({ query: "More", user, conversation_id }).text());
  expect([busy.code, busy.status, busy.details.task_id]).toEqual(["conversation_busy", 409, task_id]);
  const followed = createClient({ baseUrl: STRICT }).follow(busy.details.events_url ?? "");
  // The third request of this minute.
  const many = await refusal(strict.chat({ query: "Many", user }).text());
  expect([many.code, many.status]).toEqual(["too_many_requests", 429]);
  expect(many.retryAfter).toBeGreaterThan(0);
  await running.stop();
  expect(await followed.text()).toBe(await running.text());
});

test("a call ends with its signal", async () => {
  const reason = new Error("too late");
  const signal = AbortSignal.abort(reason);
  expect(await refusal(client.getAppInfo({ signal }))).toBe(reason);
});
