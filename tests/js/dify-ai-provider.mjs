// npm `dify-ai-provider` under the Vercel AI SDK, as in its README. Prints what it got as JSON.
import { generateText, streamText } from "ai";
import { createDifyProvider } from "dify-ai-provider";

const [baseUrl, key, user, part] = process.argv.slice(2);

function model(apiKey = key) {
  return createDifyProvider({ baseURL: `${baseUrl}/v1` })("app", { apiKey, logger: false });
}

function options(query, conversation, apiKey) {
  const headers = { "user-id": user, ...(conversation && { "chat-id": conversation }) };
  return { model: model(apiKey), messages: [{ role: "user", content: query }], headers, maxRetries: 0 };
}

async function stream(query, conversation) {
  let answer = "";
  let failure = null;
  const events = [];
  const result = streamText({ ...options(query, conversation), onError: () => {} });
  for await (const part of result.fullStream) {
    events.push(part.type);
    if (part.type === "text-delta") answer += part.text;
    if (part.type === "error") failure = String(part.error?.message ?? part.error);
  }
  if (failure !== null) return { answer, events, failure };
  const { conversationId, messageId } = (await result.providerMetadata).difyWorkflowData;
  const { totalTokens } = await result.usage;
  return { answer, events, conversation_id: conversationId, message_id: messageId, total_tokens: totalTokens };
}

async function block(query, conversation) {
  const { text, providerMetadata, usage } = await generateText(options(query, conversation));
  const { conversationId, messageId } = providerMetadata.difyWorkflowData;
  return {
    answer: text,
    conversation_id: conversationId,
    message_id: messageId,
    metadata: { usage: { total_tokens: usage.totalTokens } },
  };
}

async function refusal(query, { conversation, apiKey } = {}) {
  try {
    await generateText(options(query, conversation, apiKey));
  } catch (error) {
    return { ...error.data, http_status: error.statusCode };
  }
  return {};
}

// Leaves in the middle, as when a page is closed; the turn continues without it.
async function leave(query) {
  const leaving = new AbortController();
  const result = streamText({ ...options(query), abortSignal: leaving.signal, onError: () => {} });
  const events = [];
  for await (const part of result.fullStream) {
    events.push(part.type);
    if (part.type === "text-delta") leaving.abort();
  }
  return { events };
}

async function story() {
  const streamed = await stream("Hello");
  return {
    streamed,
    recalled: await stream("What did I say?", streamed.conversation_id),
    unicode: await stream("Unicode"),
    thought: await stream("Think"),
    blocking: await block("Hello again"),
    broken: await stream("Break"),
    bad_key: await refusal("Hello", { apiKey: "app-wrong" }),
    no_query: await refusal(" "),
    no_conversation: await refusal("Hello", { conversation: "00000000-0000-4000-8000-000000000000" }),
    rate_limit: await refusal("Rate limit"),
  };
}

console.log(JSON.stringify(part === "leave" ? await leave("Leave me") : await story()));
