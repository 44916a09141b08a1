// openapi-typescript makes types alone.
import type { components, operations, paths } from "./api";

export type ChatMessageBody = components["schemas"]["ChatMessageBody"];
export type ChatStreamEvent = components["schemas"]["ChatStreamEvent"];
export type ErrorBody = operations["listMessages"]["responses"]["default"]["content"]["application/json"];

// The stream of a POST and the one that follows a turn are the same union.
type Posted = paths["/chat-messages"]["post"]["responses"][200]["content"]["text/event-stream"];
type Followed = operations["followTurn"]["responses"][200]["content"]["text/event-stream"];
export const posted: (event: Posted) => ChatStreamEvent = (event) => event;
export const followed: (event: Followed) => ChatStreamEvent = (event) => event;
