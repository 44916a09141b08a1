// Runs turns and reports what was seen of them. The same code runs in Node.js and in a page.
import { createClient, type TurnEvent } from "agent-gateway-client";
import { seeded } from "./random.js";

/** Where turns go; everything in it can be sent to a page. */
export interface Course {
  /** The gateway, by way of the proxy that cuts. */
  url: string;
  /** Where gates of the backend are opened. */
  pages: string;
  key: string;
  /** A word in all queries of this course. */
  name: string;
}

/** What was seen of one turn. */
export interface Seen {
  user: string;
  expected: string;
  text: string;
  /** The same, put together by whoever iterates. */
  iterated: string;
  positions: number[];
  lastEvent: string;
  reconnects: number;
}

// Characters of one to four bytes, and those that break readers which split lines in the wrong place.
const WORDS = ["plain", "naïve", "你好", "🎉", "sep\u2028arated", '"quoted"', "back\\slash", "data:", "ends"];

/** One turn, told to the end. Every second one goes on only after it was cut: it is read live. */
export async function runTurn(course: Course, seed: number): Promise<Seen> {
  const random = seeded(seed);
  const words = Array.from({ length: 200 }, () => WORDS[Math.floor(random() * WORDS.length)]);
  const user = `${course.name}-${seed}`;
  const isLive = seed % 2 === 0;
  const client = createClient({
    baseUrl: course.url,
    apiKey: course.key,
    backoff: () => 0,
    retrySeconds: 100,
  });
  let reconnects = 0;
  const query = isLive ? `live ${user} ${words.join(" ")}` : `${course.name} ${words.join(" ")}`;
  const turn = client.chat(
    { query, user },
    {
      onReconnect: ({ after }) => {
        reconnects += 1;
        if (isLive && after > 0) fetch(`${course.pages}/gates/${user}`, { method: "POST" }).catch(() => {});
      },
    },
  );
  let iterated = "";
  const positions: number[] = [];
  let last: TurnEvent | undefined;
  for await (const event of turn) {
    if (event.event === "message") iterated += event.answer;
    positions.push(event.event_id);
    last = event;
  }
  return {
    user,
    expected: isLive ? words.map((word) => `${word} `).join("") : `You said: ${query}.`,
    text: await turn.text(),
    iterated,
    positions,
    lastEvent: last?.event ?? "none",
    reconnects,
  };
}

/** Several turns at the same time. */
export function runTurns(course: Course, first: number, count: number): Promise<Seen[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => runTurn(course, first + index)));
}
