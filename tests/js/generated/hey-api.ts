// @hey-api/openapi-ts makes functions, and reads event streams itself.
import { followTurn, listMessages, sendChatMessage } from "./api";
import type { ChatMessageBody, ChatStreamEvent, ErrorBody } from "./api";

export type { ChatMessageBody, ChatStreamEvent, ErrorBody };

export async function ask(body: ChatMessageBody): Promise<string> {
  const { data, error } = await sendChatMessage({ body, auth: "key" });
  if (error !== undefined) return error.message;
  return data === undefined || !("answer" in data) ? "" : data.answer;
}

export async function* follow(task_id: string, user: string): AsyncGenerator<ChatStreamEvent> {
  const { stream } = await followTurn({ path: { task_id }, query: { user }, auth: "key" });
  for await (const event of stream) if (event) yield event;
}

export async function queries(conversation_id: string): Promise<string[]> {
  const { data } = await listMessages({ query: { conversation_id, limit: 100 }, throwOnError: true });
  return data.data.map((message) => message.query);
}
