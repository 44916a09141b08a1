/** A React hook that shows a turn. */
import { useCallback, useEffect, useRef, useState } from "react";
import type { ChatBody, ChatOptions, Client, FollowOptions, TurnOptions, TurnReference } from "./client.js";
import type { TurnEvent } from "./events.js";
import type { Reconnect } from "./reader.js";
import type { Turn, TurnIds } from "./turn.js";

type EventOf<Name extends TurnEvent["event"]> = Extract<TurnEvent, { event: Name }>;

/** What a page shows of a turn. */
export interface TurnState {
  /** `reconnecting`: the connection was cut, and the gateway has not answered again yet. */
  status: "idle" | "running" | "reconnecting" | "completed" | "failed";
  /** The answer so far. */
  text: string;
  /** The steps in order, each as it was last told; only in the modes `agent-chat` and `agent`. */
  steps: EventOf<"agent_thought">[];
  /** The question with which the turn ended, with its form. */
  question: EventOf<"human_input_required"> | undefined;
  /** The files that the agent made. */
  files: EventOf<"message_file">[];
  ids: TurnIds | undefined;
  /** The conversation of the last turn that had one: to go on with it. Another `send` keeps it. */
  conversationId: string | undefined;
  /** Why it failed: a GatewayError, or a ConnectionError when the gateway cannot be reached. */
  error: unknown;
}

/** The state of a turn, and what can be done. The functions stay the same between renders. */
export interface UseTurn extends TurnState {
  /** Send a message. A turn that was shown before is left, and continues on the server. */
  send: (body: ChatBody, options?: Omit<ChatOptions, "signal">) => void;
  /** Show a turn that was begun elsewhere, or before the page was loaded again. */
  resume: (turn: TurnReference, options?: Omit<FollowOptions, "signal">) => void;
  /** Submit the form of a question, and show the turn that carries the answer. */
  answer: (
    formToken: string,
    body: Parameters<Client["answer"]>[1],
    options?: Omit<TurnOptions, "signal">,
  ) => void;
  /** Stop the turn that is shown: its text stays. */
  stop: () => Promise<void>;
}

const IDLE: TurnState = {
  status: "idle",
  text: "",
  steps: [],
  question: undefined,
  files: [],
  ids: undefined,
  conversationId: undefined,
  error: undefined,
};

/** Shows one turn at a time. The reading ends when the component is removed; the turn continues. */
export function useTurn(client: Client): UseTurn {
  const [state, setState] = useState(IDLE);
  const leaving = useRef<AbortController | undefined>(undefined);
  const shown = useRef<Promise<Turn> | undefined>(undefined);
  useEffect(() => () => leaving.current?.abort(), []);

  const show = useCallback(
    (open: (options: TurnOptions) => Turn | Promise<Turn>, given: TurnOptions = {}) => {
      leaving.current?.abort();
      leaving.current = new AbortController();
      const { signal } = leaving.current;
      const change = (next: (before: TurnState) => TurnState) => {
        if (!signal.aborted) setState(next);
      };
      const onReconnect = (reconnect: Reconnect) => {
        change((before) => ({ ...before, status: "reconnecting" }));
        given.onReconnect?.(reconnect);
      };
      const onConnect = () => {
        change((before) => ({ ...before, status: "running" }));
        given.onConnect?.();
      };
      setState(({ conversationId }) => ({ ...IDLE, status: "running", conversationId }));
      const opening = (async () => open({ ...given, signal, onReconnect, onConnect }))();
      shown.current = opening;
      watch(opening, change);
    },
    [],
  );

  const send = useCallback<UseTurn["send"]>(
    (body, options) => show((all) => client.chat(body, { ...options, ...all }), options),
    [client, show],
  );
  const resume = useCallback<UseTurn["resume"]>(
    (turn, options) => show((all) => client.follow(turn, { ...options, ...all }), options),
    [client, show],
  );
  const answer = useCallback<UseTurn["answer"]>(
    (formToken, body, options) =>
      show((all) => client.answer(formToken, body, { ...options, ...all }), options),
    [client, show],
  );
  const stop = useCallback(async () => (await shown.current)?.stop(), []);
  return { ...state, send, resume, answer, stop };
}

async function watch(
  opening: Promise<Turn>,
  change: (next: (before: TurnState) => TurnState) => void,
): Promise<void> {
  try {
    const turn = await opening;
    let text = "";
    for await (const event of turn) {
      text = turn.answer;
      change((before) => after({ ...before, text }, event));
    }
    change((before) => ({ ...before, status: "completed" }));
  } catch (error) {
    change((before) => ({ ...before, status: "failed", error }));
  }
}

function after(before: TurnState, event: TurnEvent): TurnState {
  const { task_id, message_id, conversation_id } = event;
  const state: TurnState = {
    ...before,
    status: "running",
    ids: before.ids ?? { task_id, message_id, conversation_id },
    conversationId: conversation_id,
  };
  switch (event.event) {
    case "agent_thought":
      // A step is told again as it grows.
      return { ...state, steps: [...state.steps.filter(({ id }) => id !== event.id), event] };
    case "message_file":
      return { ...state, files: [...state.files, event] };
    case "human_input_required":
      return { ...state, question: event };
    default:
      return state;
  }
}
