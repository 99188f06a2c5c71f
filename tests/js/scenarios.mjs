// Does one thing with a chain and prints what came of it: `node scenarios.mjs NAME URL OPTIONS`.
import { RemoteRunnable } from "../../chainserve/js/chainserve.js";

const [name, url, given = "{}"] = process.argv.slice(2);
const { verb = "stream", input = 1, args, client: clientOptions, call, count = 1 } = JSON.parse(given);
Math.random = () => 0; // Waits for no back-off.

const chain = new RemoteRunnable(url, clientOptions);

function shown(error) {
  if (!(error instanceof Error)) return error && { name: String(error) };
  const { name, code, status, detail, message, cause } = error;
  return { name, code, status, detail, message, cause: cause && shown(cause) };
}

/** Returns the value, or the chunks, of a call, its error, and what is known of its run. */
async function outcome(made) {
  const told = {};
  try {
    const called = await made();
    if (called?.[Symbol.asyncIterator]) {
      told.chunks = [];
      for await (const chunk of called) told.chunks.push(chunk);
    } else told.value = called ?? null;
  } catch (error) {
    told.error = shown(error);
  }
  const run = chain.lastRun;
  return { ...told, run: run && { ...run, runId: run.runId } };
}

const ask = () => chain[verb](...(args ?? [input]), call);

const scenarios = {
  /** Calls a method once. */
  ask: () => outcome(ask),

  /** Calls a method for each of several arguments. */
  async each() {
    const results = [];
    for (const one of args) results.push(await outcome(() => chain[verb](one, call)));
    return results;
  },

  /** Reads some chunks and leaves the loop. */
  async leave() {
    const chunks = [];
    const stream = ask();
    for await (const chunk of stream) if (chunks.push(chunk) === count) break;
    return { chunks, run: stream.run, after: await stream.next() };
  },

  /** Closes the iterator while a chunk is awaited. */
  async closeWhileReading() {
    const stream = ask();
    for (let read = 0; read < count; read += 1) await stream.next();
    const awaited = stream.next();
    return [await stream.return(), await awaited, await stream.next()];
  },

  /** Throws in the loop. */
  throwInLoop: () =>
    outcome(async () => {
      for await (const chunk of ask()) throw new Error(`of the caller, at ${chunk}`);
    }),

  /** Aborts while a chunk, or an answer, is awaited. */
  async abort() {
    const controller = new AbortController();
    const made = chain[verb](input, { signal: controller.signal });
    const stream = made[Symbol.asyncIterator] && made;
    for (let read = 0; stream && read < count; read += 1) await stream.next();
    const awaited = stream ? stream.next() : made;
    await until(() => verb === "stream" || started());
    controller.abort(new Error("enough"));
    return { ...(await outcome(() => awaited)), again: stream && (await stream.next()) };
  },

  /** Aborts while the caller has a chunk, by the signal of all calls. */
  async abortBetween() {
    const controller = new AbortController();
    const other = new RemoteRunnable(url, { signal: controller.signal });
    const stream = other.stream(input);
    await stream.next();
    controller.abort(new Error("enough"));
    const { error } = await outcome(() => stream.next());
    return { error, after: await stream.next(), later: (await outcome(() => other.invoke(1))).error };
  },

  /** Makes streams that nobody reads. */
  async unread() {
    ask();
    return ask().return();
  },

  /** Starts a run, joins it, leaves it, joins it again from there, and waits for its end. */
  async background() {
    const started = await chain.start(input, call);
    const first = [];
    const stream = chain.join(started.runId);
    for await (const chunk of stream) if (first.push(chunk) === count) break;
    await fetch(`${url}/../open`, { method: "POST" });
    const rest = [];
    const { lastEventId } = stream.run;
    for await (const chunk of chain.join(started.runId, { lastEventId })) rest.push(chunk);
    const end = chain.lastRun.lastEventId;
    const none = await outcome(() => chain.join(started.runId, { lastEventId: end }));
    return { started, first, rest, none: none.chunks, ended: await chain.wait(started.runId) };
  },

  /** Starts a run, cancels it and reads its end. */
  async cancel() {
    const { runId } = await chain.start(input);
    const cancelled = await chain.cancel(runId);
    const joined = await outcome(() => chain.join(runId));
    return { cancelled, joined, waited: await chain.wait(runId) };
  },

  /** Sends headers that a function makes, which are other ones each time. */
  async headers() {
    let count = 0;
    const headers = async () => ({ authorization: `Bearer ${(count += 1)}` });
    const other = new RemoteRunnable(url, { headers });
    const chunks = [];
    for await (const chunk of other.stream(1)) chunks.push(chunk);
    return chunks;
  },

  /** Tells for how long it would have waited before each attempt, with the longest chance. */
  async pauses() {
    const pauses = [];
    const { setTimeout } = globalThis;
    globalThis.setTimeout = (done, ms, ...rest) => {
      // Others are those of Node's own fetch, and the bound of an answer.
      const isPause = rest.length === 0 && ms >= 1000 && ms < 2 ** 30;
      if (isPause) pauses.push(ms);
      return setTimeout(done, isPause ? 0 : ms, ...rest);
    };
    Math.random = () => 1;
    const { error } = await outcome(ask);
    return { pauses, error };
  },

  /** Makes clients that cannot be. */
  refused: () =>
    [["/relative"], ["ftp://host/"], ["http://me:secret@host/"], ["http://host/", { timeout: 0 }]].map((made) => {
      try {
        return new RemoteRunnable(...made).url;
      } catch (error) {
        return shown(error);
      }
    }),

  /** Sends what is no JSON. */
  unsendable: () =>
    Promise.all([undefined, () => {}, 1n].map(async (value) => (await outcome(() => chain.invoke(value))).error.name)),
};

/** Waits until the server says that the chain runs. */
async function until(condition) {
  while (!(await condition())) await new Promise((done) => setTimeout(done, 5));
}

async function started() {
  return (await fetch(`${url}/../started`)).json();
}

console.log(JSON.stringify(await scenarios[name]()));
