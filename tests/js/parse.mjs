// Prints the events that a parser finds in streams: `node parse.mjs PARSER`. On stdin JSON, each
// stream a list of pieces in Base64; on stdout JSON, each event as its name, its data and the last id.
import { EventParser } from "../../chainserve/js/chainserve.js";
import { createParser } from "eventsource-parser";
import { getLines, getMessages } from "@microsoft/fetch-event-source/lib/cjs/parse.js";
import { text } from "node:stream/consumers";

const parsers = {
  "chainserve.js": (pieces) => {
    const parser = new EventParser();
    const events = pieces.flatMap((piece) => parser.feed(piece));
    const told = events.filter(({ data }) => data !== null);  // It tells of LangServe's end, too.
    return told.map(({ event, data, lastEventId }) => [event, data, lastEventId]);
  },
  "eventsource-parser": (pieces) => {
    const events = [];
    let last = "";
    const onEvent = ({ event, data, id }) => events.push([event ?? "message", data, (last = id ?? last)]);
    const parser = createParser({ onEvent });
    const decoder = new TextDecoder();
    for (const piece of pieces) parser.feed(decoder.decode(piece, { stream: true }));
    parser.feed(decoder.decode());
    return events;
  },
  "fetch-event-source": (pieces) => {
    const events = [];
    let last = "";
    // It has a message at each blank line, so its users skip those without data.
    const onMessage = ({ event, data }) => data && events.push([event || "message", data, last]);
    const onChunk = getLines(getMessages((id) => (last = id), () => {}, onMessage));
    for (const piece of pieces) onChunk(piece);
    return events;
  },
};

const streams = JSON.parse(await text(process.stdin));
const decoded = streams.map((pieces) => pieces.map((piece) => new Uint8Array(Buffer.from(piece, "base64"))));
console.log(JSON.stringify(decoded.map(parsers[process.argv[2]])));
