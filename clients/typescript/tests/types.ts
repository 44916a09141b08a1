// Compiled, never run: what the types must allow and refuse.
import {
  type Client,
  ConnectionError,
  type ErrorCode,
  GatewayError,
  type TurnEvent,
} from "agent-gateway-client";

export function show(event: TurnEvent): string {
  switch (event.event) {
    case "message":
    case "agent_message":
    case "message_replace":
      return event.answer;
    case "agent_thought":
      return `${event.tool}: ${event.observation}`;
    case "human_input_required":
      return event.data.actions.map(({ title }) => title).join();
    case "human_input_form_filled":
      return event.data.action_text;
    case "human_input_form_timeout":
      return event.data.node_title;
    case "message_file":
      return event.url;
    case "message_end":
      return event.metadata.usage.total_price;
    case "error":
      return event.code;
    default:
      return event satisfies never;
  }
}

export function careless(event: TurnEvent): string {
  // @ts-expect-error not every event has an answer
  return event.answer;
}

export async function calls(client: Client): Promise<void> {
  const blocking = await client.sendChatMessage({ body: { query: "Hi", user: "ada" } });
  blocking.answer satisfies string;
  const background = await client.sendChatMessage({
    body: { query: "Hi", user: "ada", response_mode: "background" },
  });
  background.events_url satisfies string;
  // @ts-expect-error a blocking call has no URL of events
  blocking.events_url;
  // @ts-expect-error a stream is read by `chat`
  await client.sendChatMessage({ body: { query: "Hi", user: "ada", response_mode: "streaming" } });
  // @ts-expect-error a message has a user
  client.chat({ query: "Hi" });
  // @ts-expect-error the conversation is needed
  await client.listMessages({ query: { user: "ada" } });
  // @ts-expect-error no such order
  await client.listConversations({ query: { sort_by: "name" } });
  // @ts-expect-error it has no body
  await client.getAppInfo({ body: {} });
  (await client.listConversations()).data[0]?.name satisfies string | undefined;
  (await client.deleteConversation({
    path: { conversation_id: "1" },
    body: { user: "ada" },
  })) satisfies undefined;
  (await client.downloadFile({ path: { file_id: "1" }, query: { ticket: "t" } })) satisfies Response;
  // @ts-expect-error the file is no text
  await client.uploadFile({ body: { file: "text", user: "ada" } });
}

export function explain(error: unknown): string {
  if (error instanceof ConnectionError) return error.message;
  if (!(error instanceof GatewayError)) return "";
  switch (error.code) {
    case "conversation_busy":
      return error.details.events_url ?? "";
    case "too_many_requests":
      return `${error.retryAfter}`;
    default:
      return error.code;
  }
}

export const known: ErrorCode = "conversation_busy";
// @ts-expect-error no such code
export const unknown: ErrorCode = "conversation_bussy";
