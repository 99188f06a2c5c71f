// Reads event streams that come as base64 in a JSON object on stdin, each in pieces of many sizes, and
// prints what each way to cut them gave.
import { EventParser } from "../../chainserve/js/chainserve.js";

let text = "";
for await (const piece of process.stdin) text += piece;

function parse(pieces, ...bound) {
  const parser = new EventParser(...bound);
  const events = pieces.flatMap((piece) => parser.feed(piece));
  return { events, retryMs: parser.retryMs, lastEventId: parser.lastEventId };
}

function* randomPieces(bytes, seed) {
  let state = seed + 1;
  for (let at = 0; at < bytes.length; ) {
    state = (state * 48271) % 2147483647;
    const size = [0, 1, 1, 2, 3, 7][state % 6];
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

function inPiecesOf(bytes, size) {
  const starts = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => index * size);
  return starts.map((start) => bytes.subarray(start, start + size));
}

/** Returns every different result; they should all be the same. */
function results(bytes) {
  const ways = [[bytes], inPiecesOf(bytes, 1)];
  for (let cut = 0; cut < bytes.length; cut += 1) ways.push([bytes.subarray(0, cut), bytes.subarray(cut)]);
  for (let seed = 0; seed < 20; seed += 1) ways.push([...randomPieces(bytes, seed)]);
  return [...new Set(ways.map((pieces) => JSON.stringify(parse(pieces))))].map((one) => JSON.parse(one));
}

/** Returns how events of too many bytes are refused, in pieces of some sizes, and others are not. */
function bounds() {
  const line = `data: ${"x".repeat(60)}\n`;
  const bytes = (string) => new TextEncoder().encode(string);
  const refused = [1, 100, 10000].map((size) => {
    try {
      return parse(inPiecesOf(bytes(line.repeat(30)), size), 1000);
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
  });
  return { refused, read: parse([bytes(`${line.repeat(10)}\n`.repeat(50))], 1000).events.length };
}

const cases = Object.entries(JSON.parse(text)).map(([name, encoded]) => [name, results(Buffer.from(encoded, "base64"))]);
console.log(JSON.stringify({ cases: Object.fromEntries(cases), bounds: bounds() }));
