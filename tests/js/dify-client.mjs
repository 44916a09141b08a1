// npm `dify-client`: the official client (axios), used as its README does. Prints what it got as JSON.
import { ChatClient } from "dify-client";

const [baseUrl, key, user] = process.argv.slice(2);
const client = new ChatClient(key, `${baseUrl}/v1`);

async function stream(query, { conversation = null, stop = false } = {}) {
  const response = await client.createChatMessage({}, query, user, true, conversation);
  let [answer, event, result, buffer] = ["", {}, null, ""];
  const events = [];
  for await (const data of response.data) {
    // Every chunk is turned into text on its own, as its users do: only ASCII survives any cut.
    const lines = (buffer + String(data)).split("\n");
    buffer = lines.pop();
    for (const line of lines.filter((line) => line.startsWith("data: "))) {
      event = JSON.parse(line.slice(6));
      events.push(event.event);
      answer += event.answer ?? "";
      if (stop && result === null) {
        const stopped = await client.sendRequest("POST", `/chat-messages/${event.task_id}/stop`, { user });
        result = stopped.data.result;
      }
    }
  }
  return { ...event, answer, events, result };
}

async function refusal(call) {
  try {
    await call();
  } catch (error) {
    const { data, status } = error.response;
    // A refused stream is still a stream to this client.
    const chunks = data.code ? [] : await data.toArray();
    return { ...(data.code ? data : JSON.parse(Buffer.concat(chunks))), http_status: status };
  }
  return {};
}

const nothing = "00000000-0000-4000-8000-000000000000";
const stranger = new ChatClient("app-wrong", `${baseUrl}/v1`);
const streamed = await stream("Hello");
const report = {
  streamed,
  recalled: await stream("What did I say?", { conversation: streamed.conversation_id }),
  unicode: await stream("Unicode"),
  thought: await stream("Think"),
  blocking: (await client.createChatMessage({}, "Hello again", user)).data,
  broken: await stream("Break"),
  stopped: await stream("Stop me", { stop: true }),
  conversations: (await client.getConversations(user, null, 2)).data,
  messages: (await client.getConversationMessages(user, streamed.conversation_id)).data,
  parameters: (await client.getApplicationParameters(user)).data,
  bad_key: await refusal(() => stranger.createChatMessage({}, "Hello", user)),
  no_query: await refusal(() => client.createChatMessage({}, "", user)),
  no_conversation: await refusal(() => client.createChatMessage({}, "Hello", user, false, nothing)),
  rate_limit: await refusal(() => stream("Rate limit")),
};
console.log(JSON.stringify(report));
