// Prints the events that fetch-event-source gets from URLs, as JSON: `node resume.mjs`, with a JSON list
// of URLs on stdin. Each is asked by POST with a key of its own, and again after it was cut.
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { randomUUID } from "node:crypto";
import { text } from "node:stream/consumers";
import "./page.mjs";

async function follow(url) {
  const seen = [];
  const leaving = new AbortController();
  await fetchEventSource(url, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Prefer: "resumable",
      "Idempotency-Key": randomUUID(),
    },
    body: JSON.stringify({ input: 1 }),
    signal: leaving.signal,
    // There is nothing behind the last event. Without this it would ask for it again for ever.
    onopen: async ({ status }) => status === 204 && leaving.abort(),
    onmessage(message) {
      seen.push([message.event, message.data, message.id]);
      if (message.event === "end") leaving.abort();
    },
  });
  return seen;
}

const urls = JSON.parse(await text(process.stdin));
console.log(JSON.stringify(await Promise.all(urls.map(follow))));
