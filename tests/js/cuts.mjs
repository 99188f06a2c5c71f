// Reads the stream of a chain once for each of many URLs, which a proxy cuts at other places, and
// prints those that were not read whole: `node cuts.mjs URL NAMES CHUNKS`.
import { RemoteRunnable } from "../../chainserve/js/chainserve.js";

const [url, names, chunks] = [process.argv[2], ...process.argv.slice(3).map((one) => JSON.parse(one))];
const wrong = {};
Math.random = () => 0; // Waits for no back-off.

async function read(name) {
  const read = [];
  try {
    for await (const chunk of new RemoteRunnable(`${url}?cut=${name}.`).stream(1)) read.push(chunk);
  } catch (error) {
    read.push(String(error));
  }
  if (JSON.stringify(read) !== JSON.stringify(chunks)) wrong[name] = read;
}

async function worker() {
  while (names.length > 0) await read(names.pop());
}

await Promise.all(Array.from({ length: 16 }, worker));
console.log(JSON.stringify(wrong));
