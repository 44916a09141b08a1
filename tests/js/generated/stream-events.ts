// Compiled under --strict against each generator's code: `event` tells the shapes of a stream apart.
import type { ChatMessageBody, ChatStreamEvent, ErrorBody } from "./client";

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
      // @ts-expect-error other kinds of events are left
      return event satisfies never;
  }
}

export function careless(event: ChatStreamEvent): string {
  // @ts-expect-error not every event has an answer
  return event.answer;
}

// What a request needs and may leave out.
export const least: ChatMessageBody = { query: "Hello", user: "ada" };
// @ts-expect-error a query is required
export const tooLittle: ChatMessageBody = { user: "ada" };

// Every error has the same body.
export function explain({ code, message, status }: ErrorBody): string {
  return `${status.toFixed()} ${code}: ${message}`;
}
