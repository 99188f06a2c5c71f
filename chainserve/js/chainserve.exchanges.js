/** Requests and their answers over HTTP, again and again where that is safe and of use. */

import {
  interrupted,
  locationOf,
  mediaTypeOf,
  parsed,
  retryAfterMs,
  statusError,
  textOf,
  unexpected,
} from "./chainserve.answers.js";
import { Attempt, Call, LEFT, newId, Retries, within } from "./chainserve.calls.js";
import { RemoteError, Setback } from "./chainserve.errors.js";
import { read, RemoteStream } from "./chainserve.streams.js";

/** @typedef {import("./chainserve.js").RemoteOptions} RemoteOptions */
/** @typedef {import("./chainserve.streams.js").Connection} Connection */

const STREAM_TIMEOUT_MS = 60_000; // A server sends a comment every 15 s if it has nothing else.
const ANSWER_TIMEOUT_MS = 600_000;
const CANCEL_TIMEOUT_MS = 2000;
const MAX_RETRIES = 5;
const MAX_REDIRECTS = 5;

/** The statuses that a proxy may answer in the place of the server, for a while. */
const REPEATED = new Set([502, 503, 504]);
const REPEATED_WHEN_RESUMING = new Set([429, 500, ...REPEATED]);

/** Sends the requests of one `RemoteRunnable`. */
export class Exchanges {
  #base;
  #options;
  /** Whether it has shown that a start that comes again starts no second run. */
  #isChainserve = false;

  /**
   * @param {URL} base The URL of the chain, with a slash at the end of its path.
   * @param {RemoteOptions} options
   */
  constructor(base, options) {
    this.#base = base;
    this.#options = options;
  }

  /**
   * Returns a call of an endpoint.
   *
   * @param {string} method
   * @param {string} endpoint
   * @param {{
   *   body?: Record<string, any>, headers?: Record<string, string>, signal?: AbortSignal,
   *   isStart?: boolean,
   * }} options
   * @returns {Call}
   */
  call(method, endpoint, { body, headers, signal, isStart = false }) {
    const signals = [this.#options.signal, signal];
    /** @type {Call} */
    const call = new Call(method, this.#below(endpoint), {
      body,
      headers,
      signals,
      cancel: isStart ? () => this.#cancel(call, endpoint) : undefined,
    });
    return call;
  }

  /** For how many milliseconds an answer may not come. */
  get answerTimeoutMs() {
    return this.#options.timeout ?? ANSWER_TIMEOUT_MS;
  }

  get #streamTimeoutMs() {
    return this.#options.timeout ?? STREAM_TIMEOUT_MS;
  }

  /** @param {number} maxSilences */
  #retries(maxSilences) {
    return new Retries(this.#options.maxRetries ?? MAX_RETRIES, maxSilences);
  }

  /**
   * Returns the JSON that a call is answered.
   *
   * @param {Call} call
   * @param {(told: any) => boolean} isRight
   * @param {string} what What is right, for people.
   * @returns {Promise<any>}
   */
  async answer(call, isRight, what) {
    try {
      call.open();
      return await this.#repeat(call, this.#retries(0), async () => {
        const text = await this.#text(call);
        const told = parsed(text);
        if (isRight(told)) return told;
        throw unexpected(call, `no ${what}`, text);
      });
    } catch (error) {
      call.run.status = call.signal.aborted ? "cancelled" : "error";
      // Nobody waits any more for what has said nothing in time, but it may go on.
      if (error instanceof RemoteError && error.code === "timeout") call.end(error);
      throw error;
    } finally {
      call.close();
    }
  }

  /** @param {Call} call */
  async #text(call) {
    const attempt = new Attempt(call, this.answerTimeoutMs);
    try {
      const response = await this.#fetch(attempt, call);
      if (!response.ok) await this.#refuse(attempt, response, REPEATED);
      return await textOf(attempt, response);
    } finally {
      attempt.close();
    }
  }

  /**
   * Returns the chunks of a call that streams.
   *
   * @param {Call} call
   * @returns {RemoteStream<any>}
   */
  stream(call) {
    return new RemoteStream(call, this.#chunks(call));
  }

  /**
   * @param {Call} call
   * @returns {AsyncGenerator<any, void, void>}
   */
  async *#chunks(call) {
    const retries = this.#retries(1);
    try {
      call.open();
      for (let isOver = false; !isOver; ) {
        const connection = await this.#repeat(call, retries, () => this.#connect(call));
        if (connection === null) return;
        isOver = yield* read(connection, retries, this.#options.maxEventBytes);
      }
    } catch (error) {
      if (error === LEFT) return;
      if (call.run.status === "running" && !call.signal.aborted) call.run.status = "lost";
      throw error;
    } finally {
      call.close();
    }
  }

  /**
   * Opens a stream, or goes on with it; returns null where nothing follows.
   *
   * @param {Call} call
   * @returns {Promise<Connection | null>}
   */
  async #connect(call) {
    const attempt = new Attempt(call, this.#streamTimeoutMs);
    const { isAnswered: isResumed, isStart, run } = call;
    try {
      const after = run.lastEventId;
      const more = after ? { "last-event-id": after } : undefined;
      const response = await this.#fetch(attempt, call, more);
      const repeated = isResumed ? REPEATED_WHEN_RESUMING : REPEATED;
      if (!response.ok) await this.#refuse(attempt, response, repeated);
      if (response.status === 204 && !isStart && !isResumed) return null;
      this.#checkStream(call, response);
      return { attempt, response, after };
    } catch (error) {
      attempt.close();
      if (!(error instanceof RemoteError)) throw error;
      if (isResumed) throw interrupted(call, error);
      run.status = "error";
      throw error;
    }
  }

  /**
   * Checks that a response is a stream of events, and notes whether it can be resumed.
   *
   * @param {Call} call
   * @param {Response} response
   */
  #checkStream(call, response) {
    const mediaType = mediaTypeOf(response);
    if (mediaType !== "text/event-stream" || response.body === null) {
      throw unexpected(call, `no event stream but ${mediaType || "untyped"}`);
    }
    if (call.isStart && !call.isAnswered) {
      const applied = response.headers.get("preference-applied") ?? "";
      call.isResumable = applied.toLowerCase().split(/[\s,;]+/).includes("resumable");
      this.#isChainserve ||= call.isResumable;
    }
    call.isAnswered = true;
    call.run.status = "running";
  }

  /**
   * Does what may fail on its way, and again while that is safe and of use.
   *
   * @template T
   * @param {Call} call
   * @param {Retries} retries
   * @param {() => Promise<T>} attempt
   * @returns {Promise<T>}
   */
  async #repeat(call, retries, attempt) {
    for (let isDoubtful = false, failed; ; ) {
      try {
        const isSafe = !isDoubtful || !call.isStart || call.isAnswered || this.#isChainserve;
        if (failed && !isSafe && !(await this.#probe(call))) throw failed.error;
        return await attempt();
      } catch (error) {
        if (!(error instanceof Setback)) throw error;
        failed = error;
      }
      isDoubtful ||= !failed.unsent;
      if (await retries.wait(failed, call.signal)) continue;
      throw call.isAnswered ? interrupted(call, failed.error) : failed.error;
    }
  }

  /**
   * Tells whether the server is chainserve, which starts no second run for one that comes again.
   *
   * @param {Call} call
   */
  async #probe(call) {
    const attempt = new Attempt(call, this.#streamTimeoutMs);
    try {
      const response = await this.#fetch(attempt, new Call("GET", this.#below(`runs/${newId()}`)));
      if (!response.ok) await this.#refuse(attempt, response, REPEATED);
    } catch (error) {
      if (!(error instanceof RemoteError)) throw error;
      this.#isChainserve = error.code === "run_not_found";
    } finally {
      attempt.close();
    }
    return this.#isChainserve;
  }

  /**
   * Sends a request and returns its response; redirects are followed within the origin.
   *
   * @param {Attempt} attempt
   * @param {Call} request
   * @param {Record<string, string>} [more] More headers.
   */
  async #fetch(attempt, request, more) {
    const { method, body } = request;
    const headers = await this.#headers({ ...request.headers, ...more });
    const init = this.#init({ method, body, headers, signal: attempt.signal });
    attempt.call.isSent = true;
    for (let { url } = request, left = MAX_REDIRECTS; ; left -= 1) {
      const response = await attempt.bound(this.#send(url, init));
      if (response.type === "opaqueredirect") {
        throw unexpected(request, "a redirect, which no page can follow; use the URL it leads to");
      }
      const target = followed(method, url, response);
      if (target === null || left === 0) return response;
      await response.body?.cancel();
      url = target;
    }
  }

  /**
   * @param {URL} url
   * @param {RequestInit} init
   */
  #send(url, init) {
    const { fetch = globalThis.fetch } = this.#options;
    return fetch(url.href, init);
  }

  /**
   * @param {RequestInit} init
   * @returns {RequestInit}
   */
  #init(init) {
    const { credentials } = this.#options;
    return { ...init, ...(credentials && { credentials }), redirect: "manual", cache: "no-store" };
  }

  /** @param {Record<string, string>} own */
  async #headers(own) {
    const { headers } = this.#options;
    const all = new Headers(typeof headers === "function" ? await headers() : headers);
    for (const [name, value] of Object.entries(own)) all.set(name, value);
    return all;
  }

  /**
   * Throws what a response that is no success says.
   *
   * @param {Attempt} attempt
   * @param {Response} response
   * @param {Set<number>} repeated After which it may go well, unless the server itself says it.
   * @returns {Promise<never>}
   */
  async #refuse(attempt, response, repeated) {
    const error = await statusError(attempt, response, await textOf(attempt, response));
    const isFinal = mediaTypeOf(response) === "application/problem+json";
    if (isFinal || !repeated.has(response.status)) throw error;
    throw new Setback(error, { floorMs: retryAfterMs(response) });
  }

  /**
   * Cancels the run of a call that was left, as far as that can be done in a short time.
   *
   * @param {Call} call
   * @param {string} endpoint
   */
  async #cancel({ run: { runId }, key, isResumable }, endpoint) {
    if (!isResumable) return; // It ends with its connection.
    const byKey = runId === null && { endpoint, idempotency_key: key };
    await within(CANCEL_TIMEOUT_MS, async (signal) => {
      const url = this.#below(`${byKey ? "runs" : pathOf(runId)}/cancel`);
      const body = byKey ? JSON.stringify(byKey) : undefined;
      const own = { prefer: "wait=0", ...(body && { "content-type": "application/json" }) };
      const headers = await this.#headers(own);
      // A page that is being left takes other requests with it.
      const init = this.#init({ method: "POST", body, headers, signal, keepalive: true });
      await (await this.#send(url, init)).body?.cancel();
    });
  }

  /** @param {string} path */
  #below(path) {
    const url = new URL(this.#base);
    url.pathname += path;
    return url;
  }
}

/**
 * Returns the path of a run below its chain's.
 *
 * @param {string | null} runId
 */
export function pathOf(runId) {
  if (!runId || /^\.{1,2}$/.test(runId)) throw new TypeError(`${runId} is no id of a run.`);
  return `runs/${encodeURIComponent(runId)}`;
}

/**
 * Returns where to follow a redirect: within the origin, and with the same method.
 *
 * @param {string} method
 * @param {URL} url
 * @param {Response} response
 */
function followed(method, url, response) {
  const target = locationOf(response, url);
  const statuses = method === "GET" ? [301, 302, 303, 307, 308] : [307, 308];
  return target?.origin === url.origin && statuses.includes(response.status) ? target : null;
}
