// Compiled under --strict against types generated from the OpenAPI document: `event` tells the shapes apart.
import type { components, operations, paths } from "./api";

type ChatStreamEvent = components["schemas"]["ChatStreamEvent"];

// The stream of a POST and the one that follows a turn are the same union.
type Posted = paths["/chat-messages"]["post"]["responses"][200]["content"]["text/event-stream"];
type Followed = operations["followTurn"]["responses"][200]["content"]["text/event-stream"];
export const posted: (event: Posted) => ChatStreamEvent = (event) => event;
export const followed: (event: Followed) => ChatStreamEvent = (event) => event;

export function show(event: ChatStreamEvent): string {
  switch (event.event) {
    case "message":
    case "agent_message":
      return event.answer;
    case "agent_thought":
      return `${event.position}. ${event.tool || event.thought}: ${event.observation}`;
    case "message_replace":
      return `${event.reason}: ${event.answer}`;
    case "human_input_required":
      return `${event.data.form_content} ${event.data.actions.map((action) => action.title).join("|")}`;
    case "human_input_form_filled":
      return `${event.data.action_text}: ${event.data.rendered_content}`;
    case "human_input_form_timeout":
      return `${event.workflow_run_id} expired at ${event.data.expiration_time.toFixed()}`;
    case "message_file":
      return `${event.type} of the ${event.belongs_to}: ${event.url}`;
    case "message_end":
      return `${event.metadata.usage.total_tokens} tokens, ${event.metadata.usage.total_price}`;
    case "error": {
      const { status, code, message } = event;
      return `${status.toFixed()} ${code}: ${message}`;
    }
    default:
      return event satisfies never;
  }
}

export function forgetful(event: ChatStreamEvent): string {
  switch (event.event) {
    case "message":
      return event.answer;
    default:
      // @ts-expect-error nine kinds of events are left
      return event satisfies never;
  }
}

export function careless(event: ChatStreamEvent): string {
  // @ts-expect-error not every event has an answer
  return event.answer;
}

// What a request needs and may leave out.
export const least: components["schemas"]["ChatMessageBody"] = { query: "Hello", user: "ada" };
// @ts-expect-error a query is required
export const tooLittle: components["schemas"]["ChatMessageBody"] = { user: "ada" };

// Every error has the same body.
export function explain(error: operations["listMessages"]["responses"]["default"]): string {
  const { code, message, status } = error.content["application/json"];
  return `${status.toFixed()} ${code}: ${message}`;
}
