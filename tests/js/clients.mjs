// Prints what clients of LangServe in JavaScript get of a server's chains, as JSON: `node clients.mjs URL`.
// nlux and fetch-event-source are the packages themselves. chat-ui and assistant-ui are programs, so
// the way in which they read LangServe's answers is written anew here.
import { RemoteRunnable } from "@langchain/core/runnables/remote";
import { fetchEventSource } from "@microsoft/fetch-event-source";
import { createChatAdapter } from "@nlux/langchain";
import { setImmediate } from "node:timers/promises";
import "./page.mjs";

const base = process.argv[2];

async function told(call) {
  try {
    return { value: await call() };
  } catch (error) {
    return { error: error.message };
  }
}

// Below `/paced`, the server holds each write back until the last one was read.
async function* reads(response) {
  for await (const read of response.body.pipeThrough(new TextDecoderStream())) {
    yield read;
    await fetch(`${base}/read`);
  }
}

// chat-ui judges each read by how it begins: data counts in a read that begins with the event
// `data`, and a read that begins with the event `end` is the end. Lines are whole over reads.
async function chatUi(path, prompt) {
  const response = await fetch(`${base}/paced/${path}/stream`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ input: { text: prompt } }),
  });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const tokens = [];
  let unread = "";
  for await (const read of reads(response)) {
    if (read.startsWith("event: end")) return { tokens, text: tokens.join("") };
    const lines = (unread + read).split("\n");
    unread = lines.pop();
    if (!read.startsWith("event: data")) continue;
    for (const line of lines.map((line) => line.trim()).filter((line) => line.startsWith("data: "))) {
      const token = JSON.parse(line.slice("data: ".length));
      if (token) tokens.push(token);
    }
  }
  return { tokens, text: null }; // It shows no answer as complete.
}

// assistant-ui has a route that gives its messages to LangChain.js's RemoteRunnable, and an adapter
// that takes texts, messages or model events of the stream for parts of its own protocol.
async function assistantUi(path, text) {
  const message = { id: "m1", role: "user", content: text, parts: [{ type: "text", text }] };
  const chain = new RemoteRunnable({ url: `${base}/${path}`, options: { timeout: 20000 } });
  const parts = [];
  for await (const chunk of await chain.stream({ messages: [message] })) {
    const shown = typeof chunk === "string" ? chunk : textOf(chunk.event ? chunk.data.chunk : chunk);
    if (shown) parts.push(`0:${JSON.stringify(shown)}`);
  }
  return parts;
}

const textOf = ({ content }) =>
  typeof content === "string"
    ? content
    : content.filter((block) => block.type === "text").map((block) => block.text).join("");

function nluxAdapter(path, mode) {
  return createChatAdapter().withUrl(`${base}/${path}`).withDataTransferMode(mode).create();
}

async function nlux(path, text) {
  const adapter = nluxAdapter(path, "stream");
  while (!adapter.inputSchema) await setImmediate();
  const parts = await new Promise((complete, error) => {
    const seen = [];
    const observer = { next: (part) => seen.push(part), complete: () => complete(seen), error };
    adapter.streamText(text, observer, { conversationHistory: [] });
  });
  return parts.map((part) => adapter.preProcessAiStreamedChunk(part, {}));
}

async function nluxBatch(path, text) {
  const adapter = nluxAdapter(path, "batch");
  while (!adapter.inputSchema) await setImmediate();
  return adapter.preProcessAiBatchedMessage(await adapter.batchText(text, { conversationHistory: [] }), {});
}

async function messages(path, input) {
  const seen = [];
  await fetchEventSource(`${base}/${path}/stream`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ input }),
    onmessage({ event, data }) {
      const value = data && JSON.parse(data);
      seen.push([event, event === "metadata" ? Object.keys(value) : value]);
    },
    onerror: (error) => {
      throw error;
    },
  });
  return seen;
}

const text = "a é 😀\n\n b";
const results = {
  chatUi: await told(() => chatUi("words", text)),
  chatUiLong: await told(() => chatUi("words", "word ".repeat(200))),
  chatUiSeparators: await told(() => chatUi("words", "a\u2028 b\u0085 c")),
  chatUiBroken: await told(() => chatUi("broken", "a")),
  chatUiInvalid: await told(() => chatUi("strict", "a")),
  assistantUi: await told(() => assistantUi("texts", "hi")),
  assistantUiMessages: await told(() => assistantUi("model", "hi")),
  assistantUiBlocks: await told(() => assistantUi("blocks", "hi")),
  nlux: await told(() => nlux("words", text)),
  nluxSeparators: await told(() => nlux("words", "a\u2028 b\u0085 c")),
  nluxMessages: await told(() => nlux("textModel", "hi")),
  nluxBatch: await told(() => nluxBatch("words", text)),
  nluxBatchMessage: await told(() => nluxBatch("textModel", "hi")),
  nluxInvalid: await told(() => nlux("strict", "a")),
  fetchEventSource: await told(() => messages("words", { text })),
  fetchEventSourceSeparators: await told(() => messages("words", { text: "a\u2028 b\u0085 c" })),
  fetchEventSourceBroken: await told(() => messages("broken", { text: "a" })),
  fetchEventSourceInvalid: await told(() => messages("strict", { text: "a" })),
};
console.log(JSON.stringify(results));
