/**
 * What a client throws when a server did not answer as it should.
 *
 *     Error
 *     └── RemoteError                  the remote run did not succeed, or nobody can tell
 *         ├── RemoteStatusError        the server says why
 *         ├── StreamInterruptedError   a stream's terminal event never came
 *         └── UnexpectedAnswerError    what came is nothing that such a server answers
 */

/** The remote run did not succeed, or nobody can tell. */
export class RemoteError extends Error {
  name = "RemoteError";

  /**
   * @param {string} message
   * @param {{ cause?: unknown, code?: string }} [options]
   */
  constructor(message, { cause, code = "remote_error" } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    /** Its stable name; `connection_failed` or `timeout` where no answer came. */
    this.code = code;
  }
}

/** The server answered with an error, or told of one in its stream. */
export class RemoteStatusError extends RemoteError {
  name = "RemoteStatusError";

  /**
   * @param {string} message
   * @param {{ status: number, code?: unknown, detail?: unknown }} told
   */
  constructor(message, { status, code, detail }) {
    super(message, { code: typeof code === "string" ? code : "http_error" });
    /** The HTTP status, or the one that the stream's event names. */
    this.status = status;
    /** What is wrong, as the server tells it; of an invalid input, the list of its errors. */
    this.detail = detail;
  }
}

/** The stream ended, and its terminal event never came: what was read may not be all. */
export class StreamInterruptedError extends RemoteError {
  name = "StreamInterruptedError";

  /**
   * @param {string} message
   * @param {{ cause?: unknown }} [options]
   */
  constructor(message, { cause } = {}) {
    super(message, { cause, code: "stream_interrupted" });
  }
}

/** What came is nothing that such a server answers, such as a page of a proxy. */
export class UnexpectedAnswerError extends RemoteError {
  name = "UnexpectedAnswerError";

  /** @param {string} message */
  constructor(message) {
    super(message, { code: "unexpected_answer" });
  }
}

/** What may go well when it is done again: thrown and caught inside, never by a caller. */
export class Setback {
  /**
   * @param {RemoteError} error What the caller gets if it does not go well.
   * @param {{ silent?: boolean, unsent?: boolean, floorMs?: number }} [about]
   */
  constructor(error, { silent = false, unsent = false, floorMs = 0 } = {}) {
    this.error = error;
    /** Whether nothing was heard in time. */
    this.silent = silent;
    /** Whether the request certainly reached nobody. */
    this.unsent = unsent;
    /** How long to wait at least. */
    this.floorMs = floorMs;
  }
}
