// orval makes functions around fetch.
import { listMessages, sendChatMessage } from "./api";
import type { ChatMessageBody, ChatStreamEvent, ErrorBody } from "./api";

export type { ChatMessageBody, ChatStreamEvent, ErrorBody };

export async function ask(body: ChatMessageBody): Promise<string> {
  const answer = await sendChatMessage(body, { mode: "chat" });
  if (answer.status === 202) return answer.data.events_url;
  return answer.status === 409 ? (answer.data.events_url ?? answer.data.message) : "";
}

export async function queries(conversation_id: string): Promise<string[]> {
  const page = await listMessages({ conversation_id, limit: 100 });
  return page.status === 200 ? page.data.data.map((message) => message.query) : [];
}
