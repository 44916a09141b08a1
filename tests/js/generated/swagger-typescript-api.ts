// swagger-typescript-api makes a class.
import { Api } from "./api";
import type { ChatMessageBody, ChatStreamEvent, ErrorBody } from "./api";

export type { ChatMessageBody, ChatStreamEvent, ErrorBody };

const api = new Api({ baseUrl: "http://127.0.0.1" });

export async function ask(body: ChatMessageBody): Promise<string> {
  const { data } = await api.chatMessages.sendChatMessage(body);
  return data.answer;
}

export async function queries(conversation_id: string): Promise<string[]> {
  const { data } = await api.messages.listMessages({ conversation_id, limit: 100 });
  return data.data.map((message) => message.query);
}
