// npm `@microsoft/fetch-event-source`: posts a message and posts it again when the connection is cut.
// Prints what it got as JSON.
import { createRequire } from "node:module";

// The library is for pages and wants to know whether its page can be seen.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");

const [baseUrl, key, user, idempotencyKey] = process.argv.slice(2);
class Refused extends Error {}
const report = { messages: [], refused: null };
const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
if (idempotencyKey) headers["Idempotency-Key"] = idempotencyKey;

try {
  await fetchEventSource(`${baseUrl}/v1/chat-messages?ids=1`, {
    method: "POST",
    headers,
    body: JSON.stringify({ query: "Tell me", user, inputs: {}, response_mode: "streaming" }),
    openWhenHidden: true,
    async onopen(response) {
      if (!response.ok) {
        report.refused = await response.json();
        throw new Refused();
      }
    },
    onmessage(message) {
      // A ping is a message without data to this library.
      if (message.data) report.messages.push({ id: message.id, data: JSON.parse(message.data) });
    },
    onerror(error) {
      if (error instanceof Refused) throw error;
    },
  });
} catch (error) {
  if (!(error instanceof Refused)) throw error;
}
console.log(JSON.stringify(report));
