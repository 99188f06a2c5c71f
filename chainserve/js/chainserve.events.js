/** Reading Server-Sent Events: bytes in, events out (WHATWG HTML Standard, section 9.2.6). */

/**
 * @typedef {object} ReceivedEvent
 * @property {string} event Its type; `message` where the block names none.
 * @property {string | null} data Null where it has no `data` line, as LangServe's `end`.
 * @property {string} lastEventId The id of this event, or of the last one before that has one.
 */

const MAX_EVENT_BYTES = 64 * 2 ** 20;
const LF = 10;
const CR = 13;

/**
 * Turns a stream of bytes, in pieces of any size, into events.
 *
 * Lines end at CR, LF or CRLF and nowhere else. Comments, unknown fields, bad values, and what is
 * left unfinished at the end of the stream count for nothing, as the standard has it. Time grows
 * with the bytes, memory with the event that is being read.
 */
export class EventParser {
  /** The id of the last event that had one. */
  lastEventId = "";
  /** @type {number | null} The reconnection time that the stream has asked for, in milliseconds. */
  retryMs = null;

  #maxEventBytes;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** @type {Uint8Array[]} */
  #pieces = []; // Of a line that has not ended.
  #size = 0; // Of the event's lines, and of the pieces.
  #isAfterCR = false;
  #isAtStart = true;
  #event = "";
  /** @type {string | null} */
  #id = null;
  /** @type {string[]} */
  #data = [];
  #isBlank = true;

  /** @param {number} [maxEventBytes] The most that an event, or a line, may have. */
  constructor(maxEventBytes = MAX_EVENT_BYTES) {
    this.#maxEventBytes = maxEventBytes;
  }

  /**
   * Returns the events that the next bytes of the stream complete.
   *
   * @param {Uint8Array} bytes
   * @returns {ReceivedEvent[]}
   * @throws {RangeError} An event is over the bound; the stream is of no more use.
   */
  feed(bytes) {
    /** @type {ReceivedEvent[]} */
    const events = [];
    if (bytes.length === 0) return events;
    let start = this.#isAfterCR && bytes[0] === LF ? 1 : 0;
    this.#isAfterCR = bytes[bytes.length - 1] === CR;
    const lineEnd = lineEnds(bytes);
    for (let end = lineEnd(start); end < bytes.length; end = lineEnd(start)) {
      this.#hold(bytes.subarray(start, end));
      this.#endLine(events);
      start = end + (bytes[end] === CR && bytes[end + 1] === LF ? 2 : 1);
    }
    this.#hold(bytes.slice(start)); // A copy: of a large piece, only what is needed is held.
    return events;
  }

  /** @param {Uint8Array} piece */
  #hold(piece) {
    if (piece.length === 0) return;
    this.#size += piece.length;
    if (this.#size > this.#maxEventBytes) {
      throw new RangeError(`An event is larger than ${this.#maxEventBytes} bytes.`);
    }
    this.#pieces.push(piece);
  }

  /** @param {ReceivedEvent[]} events */
  #endLine(events) {
    let line = this.#decoder.decode(joined(this.#pieces));
    this.#pieces = [];
    if (this.#isAtStart && line.startsWith("\ufeff")) line = line.slice(1);
    this.#isAtStart = false;
    if (line === "") this.#dispatch(events);
    else this.#take(line);
  }

  /**
   * Notes what a line says.
   *
   * @param {string} line
   */
  #take(line) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
    if (field === "data" || field === "event") this.#isBlank = false;
  }

  /**
   * Ends a block: tells of its event, if it has a name or data.
   *
   * @param {ReceivedEvent[]} events
   */
  #dispatch(events) {
    this.lastEventId = this.#id ?? this.lastEventId;
    if (!this.#isBlank) {
      const data = this.#data.length > 0 ? this.#data.join("\n") : null;
      events.push({ event: this.#event || "message", data, lastEventId: this.lastEventId });
    }
    [this.#size, this.#event, this.#id, this.#data, this.#isBlank] = [0, "", null, [], true];
  }
}

/**
 * Returns what finds the end of the line that starts at a place; places only grow.
 *
 * @param {Uint8Array} bytes
 * @returns {(start: number) => number} The length of the bytes where the line does not end.
 */
function lineEnds(bytes) {
  let cr = -1;
  let lf = -1;
  return (start) => {
    if (cr < start) cr = indexOf(bytes, CR, start);
    if (lf < start) lf = indexOf(bytes, LF, start);
    return Math.min(cr, lf);
  };
}

/**
 * @param {Uint8Array} bytes
 * @param {number} value
 * @param {number} start
 */
function indexOf(bytes, value, start) {
  const found = bytes.indexOf(value, start);
  return found < 0 ? bytes.length : found;
}

/**
 * @param {Uint8Array[]} pieces
 * @returns {Uint8Array}
 */
function joined(pieces) {
  if (pieces.length === 1) return pieces[0];
  const all = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
