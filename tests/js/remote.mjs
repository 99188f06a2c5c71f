// Prints what LangChain.js's RemoteRunnable gets of a server's chains, as JSON: `node remote.mjs URL`.
import { RemoteRunnable } from "@langchain/core/runnables/remote";
import { HumanMessage } from "@langchain/core/messages";

const base = process.argv[2];
const chain = (path) => new RemoteRunnable({ url: `${base}/${path}`, options: { timeout: 20000 } });

async function all(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

async function told(call) {
  try {
    return { value: await call() };
  } catch (error) {
    return { error: error.message };
  }
}

const plain = (message) => ({ type: message.constructor.name, content: message.content });

const results = {
  invoke: await told(() => chain("echo").invoke({ a: [1, "é"] })),
  batch: await told(() => chain("echo").batch([1, "two", null])),
  stream: await told(() => all(chain("words").stream(1))),
  config: await told(() => chain("prompt").invoke({ topic: "cats" }, { configurable: { template: "No {topic}" } })),
  message: await told(async () => plain(await chain("model").invoke([new HumanMessage("hi")]))),
  messages: await told(async () => (await all(chain("model").stream("hi"))).map(plain)),
  separators: await told(() => all(chain("separators").stream(1))),
  log: await told(async () => (await all(chain("words").streamLog(1))).flatMap((log) => log.ops.map((op) => op.path))),
  events: await told(async () =>
    (await all(chain("words").streamEvents(1, { version: "v2" }))).map((event) => [event.event, event.name])),
  invalid: await told(() => chain("model").invoke(5)),
  invalidStream: await told(() => all(chain("model").stream(5))),
  refused: await told(() => chain("busy").invoke(1)),
  broken: await told(() => chain("broken").invoke(1)),
  brokenStream: await told(() => all(chain("broken").stream(1))),
  nowhere: await told(() => chain("nowhere").invoke(1)),
};
console.log(JSON.stringify(results));
