/** What a client makes of a stream: its chunks, where it goes on, and whether all has come. */

import {
  chunkOf,
  interrupted,
  members,
  noteEnd,
  noteMetadata,
  streamError,
  unexpected,
} from "./chainserve.answers.js";
import { LEFT, within } from "./chainserve.calls.js";
import { RemoteError, Setback } from "./chainserve.errors.js";
import { EventParser } from "./chainserve.events.js";

/** @typedef {import("./chainserve.calls.js").Attempt} Attempt */
/** @typedef {import("./chainserve.calls.js").Call} Call */
/** @typedef {import("./chainserve.calls.js").Retries} Retries */
/** @typedef {import("./chainserve.events.js").ReceivedEvent} ReceivedEvent */
/** @typedef {{ attempt: Attempt, response: Response, after: string }} Connection */

const DRAIN_TIMEOUT_MS = 1000;

/** What an id must be to be sent in a header. */
const PRINTABLE = /^[\x21-\x7e]{1,1024}$/;

/**
 * The chunks of a stream: `for await (const chunk of stream)`. The request is sent for the first of
 * them. Leaving the loop before the end cancels the run, unless it was joined.
 *
 * @template [Chunk=any]
 * @implements {AsyncIterableIterator<Chunk>}
 */
export class RemoteStream {
  #call;
  #chunks;

  /**
   * @param {Call} call
   * @param {AsyncGenerator<Chunk, void, void>} chunks
   */
  constructor(call, chunks) {
    this.#call = call;
    this.#chunks = chunks;
  }

  /** What is known of the run; kept up to date. */
  get run() {
    return this.#call.run;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @returns {Promise<IteratorResult<Chunk, undefined>>} */
  async next() {
    const { done, value } = await this.#chunks.next();
    return done ? { done, value: undefined } : { done, value };
  }

  /**
   * Leaves the stream, also while a chunk is awaited.
   *
   * @returns {Promise<IteratorResult<Chunk, undefined>>}
   */
  async return() {
    this.#call.end(LEFT);
    await this.#chunks.return();
    await this.#call.cancelling;
    return { done: true, value: undefined };
  }
}

/**
 * Yields the chunks of one connection; returns whether the stream is over.
 *
 * @param {Connection} connection
 * @param {Retries} retries
 * @param {number} [maxEventBytes]
 * @returns {AsyncGenerator<any, boolean, void>}
 */
export async function* read(connection, retries, maxEventBytes) {
  const { attempt } = connection;
  const { call } = attempt;
  try {
    for await (const event of events(connection, retries, maxEventBytes)) {
      if (notePosition(call, event, connection.after)) retries.noteEvent();
      if (event.event === "data") yield chunkOf(call, event.data);
      else note(call, event);
      call.signal.throwIfAborted(); // It may be while the caller had the chunk.
    }
    return true;
  } catch (error) {
    if (!(error instanceof Setback)) throw error;
    if (call.isResumable && (await retries.wait(error, call.signal))) return false;
    throw interrupted(call, error.error);
  } finally {
    attempt.close();
  }
}

/**
 * Yields the events of one connection, to the one that says that all has come.
 *
 * @param {Connection} connection
 * @param {Retries} retries
 * @param {number} [maxEventBytes]
 * @returns {AsyncGenerator<ReceivedEvent, void, void>}
 */
async function* events({ attempt, response }, retries, maxEventBytes) {
  const parser = new EventParser(maxEventBytes);
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  for (;;) {
    const { done, value } = await attempt.bound(reader.read());
    if (done) throw new Setback(new RemoteError("The connection was closed."));
    retries.noteBytes();
    for (const event of fed(parser, value, attempt.call)) {
      retries.retryMs = parser.retryMs ?? retries.retryMs;
      yield event;
      if (event.event === "end") return drain(reader);
    }
  }
}

/**
 * @param {EventParser} parser
 * @param {Uint8Array} bytes
 * @param {Call} call
 */
function fed(parser, bytes, call) {
  try {
    return parser.feed(bytes);
  } catch (error) {
    throw unexpected(call, `no event stream: ${/** @type {Error} */ (error).message}`);
  }
}

/**
 * Notes from where the stream goes on after a cut; tells whether that is another place now.
 *
 * @param {Call} call
 * @param {ReceivedEvent} event
 * @param {string} after The id of the event which those of this connection follow.
 */
function notePosition(call, { event, lastEventId }, after) {
  const { run } = call;
  const isChunk = event === "data";
  const isRepeated = isChunk && (lastEventId === "" || lastEventId === after);
  if (after !== "" && (event === "metadata" || isRepeated)) {
    throw interrupted(call, new RemoteError("It was not resumed but started anew."));
  }
  const isNew = PRINTABLE.test(lastEventId) && lastEventId !== run.lastEventId;
  if (isNew) run.lastEventId = lastEventId;
  else if (isChunk) call.isResumable = false; // This chunk would come twice.
  return isNew;
}

/**
 * Notes what an event says that is no chunk; what is unknown says nothing.
 *
 * @param {Call} call
 * @param {ReceivedEvent} event
 */
function note(call, { event, data }) {
  if (event === "metadata") noteMetadata(call.run, members(data));
  if (event === "end") {
    noteEnd(call.run, members(data));
    call.close();
  }
  if (event === "error") throw streamError(call, data);
  if (event === "gap") {
    throw interrupted(call, new RemoteError(`${members(data).lost} of its events are gone.`));
  }
}

/**
 * Reads what follows the end of a stream: with its body read, the connection can be used again.
 *
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 */
function drain(reader) {
  return within(DRAIN_TIMEOUT_MS, async () => {
    while (!(await reader.read()).done);
  });
}
