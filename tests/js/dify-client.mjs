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

async function upload() {
  const form = new FormData();
  form.append("file", new Blob(["A note."], { type: "text/plain" }), "note.txt");
  form.append("user", user);
  return (await client.fileUpload(form)).data;
}

const nothing = "00000000-0000-4000-8000-000000000000";
const stranger = new ChatClient("app-wrong", `${baseUrl}/v1`);
const streamed = await stream("Hello");
const { conversation_id: conversation, message_id: message } = streamed;
const uploaded = await upload();
const note = { type: "document", transfer_method: "local_file", upload_file_id: uploaded.id };
const report = {
  streamed,
  recalled: await stream("What did I say?", { conversation }),
  unicode: await stream("Unicode"),
  thought: await stream("Think"),
  blocking: (await client.createChatMessage({}, "Hello again", user)).data,
  broken: await stream("Break"),
  stopped: await stream("Stop me", { stop: true }),
  uploaded,
  shown: (await client.createChatMessage({}, "Look", user, false, null, [note])).data,
  rated: (await client.messageFeedback(message, "like", user)).data,
  renamed: (await client.renameConversation(conversation, "All about hello", user, false)).data,
  conversations: (await client.getConversations(user, null, 2)).data,
  messages: (await client.getConversationMessages(user, conversation)).data,
  parameters: (await client.getApplicationParameters(user)).data,
  unrated: (await client.messageFeedback(message, null, user)).data,
  named: (await client.renameConversation(conversation, null, user, true)).data,
  bad_key: await refusal(() => stranger.createChatMessage({}, "Hello", user)),
  no_query: await refusal(() => client.createChatMessage({}, "", user)),
  no_conversation: await refusal(() => client.createChatMessage({}, "Hello", user, false, nothing)),
  rate_limit: await refusal(() => stream("Rate limit")),
  deleted: (await client.deleteConversation(conversation, user)).data,
  gone: await refusal(() => client.getConversationMessages(user, conversation)),
};
console.log(JSON.stringify(report));
