// npm `eventsource`: follows an events URL until EventSource itself gives up. Prints what it got as JSON.
import { EventSource } from "eventsource";

const messages = [];
const source = new EventSource(process.argv[2]);
source.onmessage = (event) => {
  messages.push({ id: event.lastEventId, data: JSON.parse(event.data) });
};
source.onerror = (error) => {
  if (source.readyState === EventSource.CLOSED) {
    console.log(JSON.stringify({ messages, last_status: error.code }));
  }
};
