/** What a client makes of the answers of a server, and of their events. */

import { shown } from "./chainserve.calls.js";
import {
  RemoteStatusError,
  StreamInterruptedError,
  UnexpectedAnswerError,
} from "./chainserve.errors.js";

/** @typedef {import("./chainserve.calls.js").Attempt} Attempt */
/** @typedef {import("./chainserve.calls.js").Call} Call */
/** @typedef {import("./chainserve.calls.js").Data} Data */
/** @typedef {import("./chainserve.calls.js").RemoteRun} RemoteRun */
/** @typedef {import("./chainserve.calls.js").RunStatus} RunStatus */
/** @typedef {import("./chainserve.errors.js").RemoteError} RemoteError */

const MAX_ANSWER_BYTES = 256 * 2 ** 20;
const MAX_ERROR_BYTES = 2 ** 20;
const MAX_SHOWN = 500;
const MAX_MESSAGE = 2000;
const MAX_RETRY_AFTER_MS = 60_000;

/** @type {Record<number, RunStatus>} How a run ended whose stream names this status. */
const STATUS_OF = { 499: "cancelled", 503: "lost" };

/**
 * Returns the text of a body within a bound; of an error, as much as came.
 *
 * @param {Attempt} attempt
 * @param {Response} response
 */
export async function textOf(attempt, response) {
  const bound = response.ok ? MAX_ANSWER_BYTES : MAX_ERROR_BYTES;
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = "";
  try {
    for (let size = 0; reader !== undefined; ) {
      const { done, value } = await attempt.bound(reader.read());
      if (done) break;
      size += value.length;
      if (size > bound) throw unexpected(attempt.call, `more than ${bound} bytes`);
      text += decoder.decode(value, { stream: true });
    }
  } catch (error) {
    if (response.ok || attempt.call.signal.aborted) throw error;
  }
  return text + decoder.decode();
}

/**
 * Returns the error that a response tells: a problem document, LangServe's JSON, or text.
 *
 * @param {Attempt} attempt
 * @param {Response} response
 */
export async function statusError({ call }, response, text = "") {
  const told = members(text);
  const detail = "detail" in told ? told.detail : text.slice(0, MAX_SHOWN);
  const location = locationOf(response, call.url);
  const leads = location && `It leads to ${shown(location)}, where this client does not follow.`;
  const message = leads || readable(told.message || detail);
  const status = `${response.status} ${response.statusText}`.trim();
  return new RemoteStatusError(
    `${status} for ${shown(call.url)}${message && `: ${message}`}`,
    { status: response.status, code: told.code, detail },
  );
}

/**
 * Returns the error that the `error` event of a stream tells, and notes how the run has ended.
 *
 * @param {Call} call
 * @param {string | null} data
 */
export function streamError({ run }, data) {
  const told = members(data);
  const status = /^[1-5][0-9][0-9]$/.test(told.status_code) ? Number(told.status_code) : 500;
  const message = readable("message" in told ? told.message : (data ?? "").slice(0, MAX_SHOWN));
  run.status = STATUS_OF[status] ?? "error";
  return new RemoteStatusError(message, { status, code: told.code, detail: message });
}

/**
 * Returns the error of a stream of which something is missing.
 *
 * @param {Call} call
 * @param {RemoteError} cause
 */
export function interrupted({ run, url }, cause) {
  run.status = "lost";
  const message = `The stream of ${shown(url)} broke off, and what was read may not be all.`;
  return new StreamInterruptedError(`${message} ${cause.message}`, { cause });
}

/**
 * @param {Call} call
 * @param {string} what
 * @param {string} [text] What came.
 */
export function unexpected({ url }, what, text = "") {
  const message = `${shown(url)} answered ${what}. Is it the URL of a chain?`;
  return new UnexpectedAnswerError(`${message} ${text.slice(0, MAX_SHOWN)}`.trimEnd());
}

/**
 * Returns a chunk, and notes the tokens that it tells of.
 *
 * @param {Call} call
 * @param {string | null} data
 */
export function chunkOf(call, data) {
  const chunk = parsed(data ?? "");
  if (chunk === undefined) throw unexpected(call, "a chunk that is no JSON", data ?? "");
  addUsage(call.run, chunk);
  return chunk;
}

/**
 * Notes what an answer's `metadata` says.
 *
 * @param {RemoteRun} run
 * @param {Data} metadata
 */
export function noteMetadata(run, { run_id, run_ids, feedback_tokens }) {
  const ids = Array.isArray(run_ids) ? run_ids : [run_id];
  run.runIds = ids.filter((id) => typeof id === "string");
  run.feedbackTokens = Array.isArray(feedback_tokens) ? feedback_tokens : [];
}

/**
 * Notes the success that a stream's `end` tells.
 *
 * @param {RemoteRun} run
 * @param {Data} told
 */
export function noteEnd(run, { usage }) {
  run.status = "success";
  if (isObject(usage)) run.usage = usage;
}

/**
 * Notes the answer to an invoke or a batch.
 *
 * @param {RemoteRun} run
 * @param {Data} told
 * @param {any[]} outputs
 */
export function noteOutputs(run, told, outputs) {
  run.status = "success";
  if (isObject(told.metadata)) noteMetadata(run, told.metadata);
  for (const output of outputs) addUsage(run, output);
}

/**
 * Adds what a message, or a piece of one, says of its model's tokens.
 *
 * @param {RemoteRun} run
 * @param {any} chunk
 */
function addUsage(run, chunk) {
  if (isObject(chunk?.usage_metadata)) run.usage = sum(run.usage ?? {}, chunk.usage_metadata);
}

/**
 * @param {Data} one
 * @param {Data} other
 * @returns {Data}
 */
function sum(one, other) {
  const total = { ...one };
  for (const [name, value] of Object.entries(other)) {
    if (isObject(value)) total[name] = sum(total[name] ?? {}, value);
    else if (typeof value === "number") total[name] = (total[name] ?? 0) + value;
  }
  return total;
}

/** @param {any} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Returns what JSON stands for; undefined if it is none.
 *
 * @param {string} text
 * @returns {any}
 */
export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Returns the members of a JSON object; none of what is no such object.
 *
 * @param {string | null} text
 * @returns {Data}
 */
export function members(text) {
  const told = parsed(text ?? "");
  return isObject(told) ? told : {};
}

/** @param {any} told */
function readable(told) {
  return (typeof told === "string" ? told : JSON.stringify(told)).slice(0, MAX_MESSAGE);
}

/** @param {Response} response */
export function mediaTypeOf(response) {
  return (response.headers.get("content-type") ?? "").split(";")[0].trim().toLowerCase();
}

/**
 * Returns for how long a server wants to be left alone, within a bound.
 *
 * @param {Response} response
 */
export function retryAfterMs(response) {
  const after = response.headers.get("retry-after") ?? "";
  const ms = /^\s*[0-9]+\s*$/.test(after) ? Number(after) * 1000 : Date.parse(after) - Date.now();
  return Math.min(Math.max(ms || 0, 0), MAX_RETRY_AFTER_MS);
}

/**
 * Returns where a redirect leads; null where it leads nowhere.
 *
 * @param {Response} response
 * @param {URL} url What was asked.
 */
export function locationOf(response, url) {
  const location = response.headers.get("location");
  if (location === null || response.status < 300 || response.status > 399) return null;
  try {
    return new URL(location, url);
  } catch {
    return null;
  }
}
