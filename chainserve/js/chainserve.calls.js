/** One call of a caller: how far it has come, how long it may take, and how often it is tried. */

import { RemoteError, Setback } from "./chainserve.errors.js";

/** @typedef {Record<string, any>} Data A JSON object. */
/** @typedef {"pending"|"running"|"success"|"error"|"cancelled"|"timeout"|"lost"} RunStatus */
/** @typedef {Data} Usage The tokens that models counted, as LangChain's `UsageMetadata`. */

const MAX_PAUSE_MS = 10_000;
const MAX_TIMER_MS = 2 ** 31 - 1;

/** What a client knows of a run on the server. */
export class RemoteRun {
  /** @type {string[]} Its ids, of a batch one for each input; empty while none is known. */
  runIds = [];
  /** @type {RunStatus} Its state, as far as the client can tell; `lost` of a stream that broke. */
  status = "pending";
  /** @type {Usage | null} The tokens that its models counted, if that is known. */
  usage = null;
  /** @type {Data[]} With which feedback may be given, if the server gives such tokens. */
  feedbackTokens = [];
  /** The id of the last event that was read; `join` goes on from there. */
  lastEventId = "";

  /** Its id; of a batch the first, null while the server has told none. */
  get runId() {
    return this.runIds[0] ?? null;
  }
}

/** The reason with which a call ends whose iterator was closed. */
export const LEFT = new DOMException("The iterator was closed.", "AbortError");

/** One call: what it asks for, what may end it, and how far it has come. */
export class Call {
  run = new RemoteRun();
  /** Whether a request has set out that may start a run. */
  isSent = false;
  /** Whether a stream has begun to answer. */
  isAnswered = false;
  /** Whether a stream that was cut can be gone on with. */
  isResumable = true;
  /** @type {Promise<void> | undefined} What cancels the run of a call that was left. */
  cancelling;

  #controller = new AbortController();
  /** @type {AbortSignal[]} */
  #signals;
  #cancel;
  #isOver = false;
  #listener = () => this.end(this.#signals.find((signal) => signal.aborted)?.reason);

  /**
   * @param {string} method
   * @param {URL} url
   * @param {{
   *   body?: Data, headers?: Record<string, string>, signals?: (AbortSignal | undefined)[],
   *   cancel?: () => Promise<void>,
   * }} [options] `cancel` ends, on the server, the run that the call starts; others start none.
   */
  constructor(method, url, { body, headers, signals = [], cancel } = {}) {
    this.method = method;
    this.url = url;
    this.body = body && JSON.stringify(body);
    /** By which the server knows a start that comes again. */
    this.key = cancel && newId();
    /** @type {Record<string, string>} */
    this.headers = {
      ...headers,
      ...(body && { "content-type": "application/json" }),
      ...(this.key && { "idempotency-key": this.key }),
    };
    this.#signals = signals.filter((signal) => signal !== undefined);
    this.#cancel = cancel;
  }

  /** Whether it starts a run. */
  get isStart() {
    return this.#cancel !== undefined;
  }

  get signal() {
    return this.#controller.signal;
  }

  /** Begins to listen to the signals. */
  open() {
    for (const signal of this.#signals) signal.addEventListener("abort", this.#listener);
    if (this.#signals.some((signal) => signal.aborted)) this.#listener();
    this.signal.throwIfAborted();
  }

  /**
   * Leaves the call before its end, and cancels the run that it has started.
   *
   * @param {unknown} reason
   */
  end(reason) {
    if (this.#isOver) return;
    this.close();
    this.#controller.abort(reason);
    if (this.#cancel === undefined || !this.isSent) return;
    this.run.status = "cancelled";
    this.cancelling = this.#cancel();
  }

  /** Notes that there is nothing left to wait for, or to cancel. */
  close() {
    this.#isOver = true;
    for (const signal of this.#signals) signal.removeEventListener("abort", this.#listener);
  }
}

/** One request of a call, and how long it may say nothing. */
export class Attempt {
  #controller = new AbortController();
  #listener = () => this.#controller.abort(this.call.signal.reason);
  #timeoutMs;

  /**
   * @param {Call} call
   * @param {number} timeoutMs
   */
  constructor(call, timeoutMs) {
    this.call = call;
    this.#timeoutMs = Math.min(timeoutMs, MAX_TIMER_MS);
    call.signal.throwIfAborted();
    call.signal.addEventListener("abort", this.#listener);
  }

  get signal() {
    return this.#controller.signal;
  }

  /**
   * Waits for the next sign of life.
   *
   * @template T
   * @param {Promise<T>} awaited
   * @returns {Promise<T>}
   * @throws {Setback} It did not come.
   */
  async bound(awaited) {
    let isSilent = false;
    const timer = setTimeout(() => {
      isSilent = true;
      this.#controller.abort();
    }, this.#timeoutMs);
    try {
      return await awaited;
    } catch (cause) {
      this.call.signal.throwIfAborted();
      throw isSilent ? silence(this.call.url, this.#timeoutMs) : failure(this.call.url, cause);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes the connection, unless all was read. */
  close() {
    this.call.signal.removeEventListener("abort", this.#listener);
    this.#controller.abort();
  }
}

/**
 * @param {URL} url
 * @param {number} timeoutMs
 */
function silence(url, timeoutMs) {
  const message = `${shown(url)} said nothing for ${timeoutMs / 1000} s.`;
  return new Setback(new RemoteError(message, { code: "timeout" }), { silent: true });
}

/**
 * @param {URL} url
 * @param {any} cause What `fetch`, or the reader of a body, has thrown; Node's has a cause itself.
 */
function failure(url, cause) {
  const told = [cause?.message ?? String(cause), cause?.cause?.message || cause?.cause?.code];
  const message = `The connection to ${shown(url)} failed: ${told.filter(Boolean).join(": ")}.`;
  const error = new RemoteError(message, { cause, code: "connection_failed" });
  return new Setback(error, { unsent: cause?.cause?.code === "ECONNREFUSED" });
}

/** How often a call is tried again, and after what time. */
export class Retries {
  /** What the server has asked for last. */
  retryMs = 1000;

  #count = 0;
  #silences = 0;
  #max;
  #maxSilences;

  /**
   * @param {number} max How many attempts in a row may bring no event.
   * @param {number} maxSilences How many of them may follow a time-out.
   */
  constructor(max, maxSilences) {
    this.#max = max;
    this.#maxSilences = maxSilences;
  }

  /** Notes that bytes have come. */
  noteBytes() {
    this.#silences = 0;
  }

  /** Notes that an event has come which none before was. */
  noteEvent() {
    this.#count = 0;
  }

  /**
   * Waits for the next attempt; tells whether there is one.
   *
   * @param {Setback} setback
   * @param {AbortSignal} signal
   */
  async wait(setback, signal) {
    if (this.#count >= this.#max || (setback.silent && this.#silences >= this.#maxSilences)) {
      return false;
    }
    const longest = Math.min(MAX_PAUSE_MS, this.retryMs * 2 ** this.#count);
    this.#count += 1;
    if (setback.silent) this.#silences += 1;
    await sleep(Math.max(setback.floorMs, Math.random() * longest), [signal]);
    return true;
  }
}

/**
 * Waits for some time.
 *
 * @param {number} ms
 * @param {(AbortSignal | undefined)[]} signals What ends it early, with their reason as the error.
 */
export async function sleep(ms, signals) {
  /** @type {() => void} */
  let wake = () => {};
  /** @type {Promise<void>} */
  const woken = new Promise((resolve) => (wake = resolve));
  const timer = setTimeout(wake, ms);
  for (const signal of signals) signal?.addEventListener("abort", wake);
  if (signals.some((signal) => signal?.aborted)) wake();
  await woken;
  clearTimeout(timer);
  for (const signal of signals) signal?.removeEventListener("abort", wake);
  for (const signal of signals) signal?.throwIfAborted();
}

/**
 * Does what is no trouble if it fails, or takes longer than so many milliseconds.
 *
 * @param {number} ms
 * @param {(signal: AbortSignal) => Promise<unknown>} work
 */
export async function within(ms, work) {
  const controller = new AbortController();
  const waiting = new AbortController();
  const done = work(controller.signal).catch(() => {});
  await Promise.race([done, sleep(ms, [waiting.signal]).catch(() => {})]);
  waiting.abort();
  controller.abort();
}

/** Returns a random UUID; `crypto.randomUUID` is missing where a page came by plain http. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/**
 * Returns a URL without what may be secret in it.
 *
 * @param {URL} url
 */
export function shown(url) {
  return url.origin + url.pathname;
}
