// A chat as a developer would write it with the hook. The test drives it and reads its text.
import { createClient } from "agent-gateway-client";
import { useTurn } from "agent-gateway-client/react";
import { StrictMode, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";

/** What the test looks at: every status there was, and the signals of all requests. */
const statuses = new Set<string>();
const signals: (AbortSignal | null | undefined)[] = [];
Object.assign(globalThis, { statuses, signals });

const given = new URLSearchParams(location.search);
const user = given.get("user") ?? "";

function Chat() {
  const [query, setQuery] = useState("");
  const client = useMemo(
    () =>
      createClient({
        baseUrl: given.get("url") ?? "",
        apiKey: given.get("key") ?? "",
        backoff: () => 0,
        fetch: (input, init) => {
          signals.push(init?.signal);
          return fetch(input, init);
        },
      }),
    [],
  );
  const turn = useTurn(client);
  const { question } = turn;
  statuses.add(turn.status);
  const approve = () =>
    question &&
    turn.answer(question.data.form_token, { action: "approve", inputs: {}, user }, { mode: "agent-chat" });
  return (
    <main>
      <input id="query" value={query} onChange={({ target }) => setQuery(target.value)} />
      <button
        id="send"
        type="button"
        onClick={() =>
          turn.send({ query, user, conversation_id: turn.conversationId ?? null }, { mode: "agent-chat" })
        }
      />
      <button id="stop" type="button" onClick={() => turn.stop()} />
      <button
        id="resume"
        type="button"
        onClick={() => turn.ids && turn.resume({ task_id: turn.ids.task_id, user })}
      />
      <button id="approve" type="button" onClick={approve} />
      <p id="status">{turn.status}</p>
      <p id="text">{turn.text}</p>
      <p id="error">{turn.error instanceof Error ? turn.error.message : ""}</p>
      <p id="files">{turn.files.map(({ type }) => type).join(" ")}</p>
      <ol>
        {turn.steps.map((step) => (
          <li key={step.id}>{step.tool ? `${step.tool}: ${step.observation}` : step.thought}</li>
        ))}
      </ol>
    </main>
  );
}

function Page() {
  const [isShown, setShown] = useState(true);
  return (
    <StrictMode>
      <button id="leave" type="button" onClick={() => setShown(false)} />
      {isShown && <Chat />}
    </StrictMode>
  );
}

createRoot(document.body.appendChild(document.createElement("div"))).render(<Page />);
