/**
 * `RemoteRunnable` for browsers and Node 20 or newer: a chain on a server, called as in Python.
 *
 * It talks to chainserve and to LangServe. What chainserve streams, it resumes by itself when a
 * connection breaks, and each chunk comes once. What was cut and cannot be resumed is an error,
 * never a short answer.
 */

import { noteOutputs } from "./chainserve.answers.js";
import { RemoteRun, sleep } from "./chainserve.calls.js";
import { Exchanges, pathOf } from "./chainserve.exchanges.js";
import { RemoteStream } from "./chainserve.streams.js";

export { RemoteRun, RemoteStream };
export { EventParser } from "./chainserve.events.js";
export {
  RemoteError,
  RemoteStatusError,
  StreamInterruptedError,
  UnexpectedAnswerError,
} from "./chainserve.errors.js";

/** @typedef {import("./chainserve.calls.js").Call} Call */
/** @typedef {import("./chainserve.calls.js").Data} Data */
/** @typedef {import("./chainserve.calls.js").RunStatus} RunStatus */
/** @typedef {import("./chainserve.calls.js").Usage} Usage */
/** @typedef {import("./chainserve.events.js").ReceivedEvent} ReceivedEvent */
/** @typedef {"stream"|"invoke"|"stream_log"|"stream_events"} RunMode */

/**
 * @typedef {object} RemoteOptions
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] Sent with each
 *   request; a function is called for each, so that it can refresh a token.
 * @property {number} [maxRetries] How many attempts in a row may bring nothing: 5.
 * @property {number} [timeout] For how many milliseconds a server may say nothing, `Infinity` for
 *   no bound. Without it 60,000 in a stream, 600,000 for an answer.
 * @property {typeof fetch} [fetch] Used in the place of the global one.
 * @property {RequestCredentials} [credentials] Whether cookies are sent, as `fetch` takes it.
 * @property {AbortSignal} [signal] Ends all calls.
 * @property {number} [maxEventBytes] How large an event of a stream may be: 64 MiB.
 */

/**
 * @typedef {object} CallOptions
 * @property {Data} [config] The config of the run, such as `{ tags: ["a"] }`.
 * @property {Data} [kwargs] More arguments for the runnable, as far as the server takes them.
 * @property {AbortSignal} [signal] Ends the call, and cancels its run on the server.
 */

/** @typedef {Omit<CallOptions, "config"> & { config?: Data | Data[] }} BatchOptions */

/**
 * @typedef {object} Steps Which steps are told of.
 * @property {string[]} [includeNames]
 * @property {string[]} [includeTypes]
 * @property {string[]} [includeTags]
 * @property {string[]} [excludeNames]
 * @property {string[]} [excludeTypes]
 * @property {string[]} [excludeTags]
 */

/**
 * @typedef {object} Background
 * @property {RunMode} [mode] What the run does: what the chain has first, which is `stream`.
 * @property {"cancel" | "continue"} [onDisconnect] What becomes of it when its readers leave; it
 *   continues, unless the chain says otherwise.
 */

/**
 * @typedef {object} RunState What a server tells of a run; what is not known is missing.
 * @property {string} runId
 * @property {RunStatus} status
 * @property {RunMode | "batch"} mode
 * @property {string} streamUrl Where its events are.
 * @property {string} createdAt
 * @property {string} [endedAt]
 * @property {any} [output]
 * @property {{ status_code: number, message: string, code: string }} [error]
 * @property {Usage} [usage]
 */

const MAX_WAIT_SECONDS = 30;
const POLL_PAUSE_MS = 250; // Where a server does not hold its answers back.

/**
 * A chain on a server.
 *
 * @template [Input=any]
 * @template [Output=any]
 */
export class RemoteRunnable {
  /** @type {RemoteRun | null} The run of the last call that started, or joined, one. */
  lastRun = null;

  #url;
  #signal;
  #exchanges;

  /**
   * @param {string | URL} url The URL below which the chain's routes are; in a page it may be
   *   relative to the page's.
   * @param {RemoteOptions} [options]
   * @throws {TypeError} It is no URL of the web.
   */
  constructor(url, options = {}) {
    const { timeout = Infinity } = options;
    if (!(timeout > 0)) throw new TypeError("timeout is a number of milliseconds, above 0.");
    this.#url = baseOf(url);
    this.#signal = options.signal;
    this.#exchanges = new Exchanges(this.#url, options);
  }

  /** The URL, with a slash at the end of its path. */
  get url() {
    return this.#url.href;
  }

  /**
   * Runs the chain once.
   *
   * @param {Input} input
   * @param {CallOptions} [options]
   * @returns {Promise<Output>}
   * @throws {RemoteError}
   */
  async invoke(input, options = {}) {
    const call = this.#start("invoke", { input }, options);
    const what = "JSON object with an output";
    const told = await this.#exchanges.answer(call, (told) => told?.output !== undefined, what);
    noteOutputs(call.run, told, [told.output]);
    return told.output;
  }

  /**
   * Runs the chain for each input, all in one request; one that fails fails it.
   *
   * @param {Input[]} inputs
   * @param {BatchOptions} [options]
   * @returns {Promise<Output[]>}
   * @throws {RemoteError}
   */
  async batch(inputs, options = {}) {
    const call = this.#start("batch", { inputs }, options);
    const count = inputs.length;
    const isRight = (/** @type {any} */ told) =>
      Array.isArray(told?.output) && told.output.length === count;
    const told = await this.#exchanges.answer(call, isRight, `list of ${count} outputs`);
    noteOutputs(call.run, told, told.output);
    return told.output;
  }

  /**
   * Runs the chain once and yields its chunks as they come.
   *
   * @param {Input} input
   * @param {CallOptions} [options]
   * @returns {RemoteStream<Output>}
   */
  stream(input, options = {}) {
    return this.#exchanges.stream(this.#start("stream", { input }, options));
  }

  /**
   * Runs the chain once and yields patches of its run log.
   *
   * @param {Input} input
   * @param {CallOptions & Steps} [options]
   * @returns {RemoteStream<{ ops: Data[] }>}
   */
  streamLog(input, options = {}) {
    const body = { input, diff: true, ...filters(options) };
    return this.#exchanges.stream(this.#start("stream_log", body, options));
  }

  /**
   * Runs the chain once and yields LangChain's events of its steps.
   *
   * @param {Input} input
   * @param {CallOptions & Steps} [options]
   * @returns {RemoteStream<Data>}
   */
  streamEvents(input, options = {}) {
    const body = { input, ...filters(options) };
    return this.#exchanges.stream(this.#start("stream_events", body, options));
  }

  /**
   * Starts a run in the background, which goes on when nobody reads it.
   *
   * @param {Input} input
   * @param {CallOptions & Background} [options]
   * @returns {Promise<RunState>}
   * @throws {RemoteError}
   */
  async start(input, options = {}) {
    const body = { input, mode: options.mode, on_disconnect: options.onDisconnect };
    const call = this.#start("runs", body, options);
    const state = await this.#state(call);
    call.run.runIds = [state.runId];
    call.run.status = state.status;
    call.run.usage = state.usage ?? null;
    return state;
  }

  /**
   * Waits until a run has ended, and tells how: with an `output` or an `error`.
   *
   * @param {string} runId
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<RunState>}
   * @throws {RemoteError}
   */
  async wait(runId, { signal } = {}) {
    const seconds = Math.min(MAX_WAIT_SECONDS, this.#exchanges.answerTimeoutMs / 2000);
    const headers = { prefer: `wait=${seconds.toFixed(3)}` };
    for (;;) {
      const call = this.#exchanges.call("GET", pathOf(runId), { headers, signal });
      const state = await this.#state(call);
      if (state.status !== "pending" && state.status !== "running") return state;
      await sleep(POLL_PAUSE_MS, [this.#signal, signal]);
    }
  }

  /**
   * Yields the chunks of a run that is there, from its start or from after an event. Leaving it
   * does not cancel the run.
   *
   * @param {string} runId
   * @param {{ lastEventId?: string, signal?: AbortSignal }} [options]
   * @returns {RemoteStream<Output>}
   */
  join(runId, { lastEventId = "", signal } = {}) {
    const headers = { accept: "text/event-stream" };
    const call = this.#exchanges.call("GET", `${pathOf(runId)}/stream`, { headers, signal });
    this.lastRun = call.run;
    call.run.runIds = [runId];
    call.run.lastEventId = lastEventId;
    return this.#exchanges.stream(call);
  }

  /**
   * Cancels a run; one that has ended stays as it is.
   *
   * @param {string} runId
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<RunState>}
   * @throws {RemoteError}
   */
  async cancel(runId, { signal } = {}) {
    return this.#state(this.#exchanges.call("POST", `${pathOf(runId)}/cancel`, { signal }));
  }

  /**
   * Returns a call that starts a run.
   *
   * @param {string} endpoint
   * @param {Data} body
   * @param {CallOptions | BatchOptions} options
   */
  #start(endpoint, body, { config = {}, kwargs = {}, signal }) {
    if (JSON.stringify(Object.values(body)[0]) === undefined) {
      throw new TypeError("The input cannot be sent as JSON.");
    }
    const isStream = endpoint.startsWith("stream");
    // A server that cannot pass arguments on shall say so.
    const isStrict = Object.keys(kwargs).length > 0;
    const prefer = [isStream && "resumable", isStrict && "handling=strict"].filter(Boolean);
    const headers = {
      accept: isStream ? "text/event-stream" : "application/json",
      ...(prefer.length > 0 && { prefer: prefer.join(", ") }),
    };
    const sent = { body: { ...body, config, kwargs }, headers, signal, isStart: true };
    const call = this.#exchanges.call("POST", endpoint, sent);
    this.lastRun = call.run;
    return call;
  }

  /**
   * @param {Call} call
   * @returns {Promise<RunState>}
   */
  async #state(call) {
    const isRight = (/** @type {any} */ told) =>
      typeof told?.run_id === "string" && typeof told.status === "string";
    const told = await this.#exchanges.answer(call, isRight, "JSON object with a run_id and a status");
    const camelCase = (/** @type {string} */ name) =>
      name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
    told.stream_url &&= new URL(told.stream_url, call.url).href;
    const entries = Object.entries(told).map(([name, value]) => [camelCase(name), value]);
    return Object.fromEntries(entries);
  }
}

/**
 * @param {string | URL} url
 * @returns {URL} With a slash at the end of its path; a query stays.
 */
function baseOf(url) {
  const page = globalThis.document?.baseURI ?? globalThis.location?.href;
  const base = new URL(url, page);
  if (!base.protocol.startsWith("http")) {
    throw new TypeError(`${base.href} is no URL of a chain: it starts with http:// or https://`);
  }
  if (base.username || base.password) {
    throw new TypeError("A URL with a password cannot be fetched: send an Authorization header.");
  }
  base.hash = "";
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

/** @param {Steps} steps */
function filters(steps) {
  return {
    include_names: steps.includeNames,
    include_types: steps.includeTypes,
    include_tags: steps.includeTags,
    exclude_names: steps.excludeNames,
    exclude_types: steps.excludeTypes,
    exclude_tags: steps.excludeTags,
  };
}
