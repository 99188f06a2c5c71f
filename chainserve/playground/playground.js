// The playground of one chain. All URLs are relative, so it works below any prefix. Whatever comes
// from the chain or its caller goes into text nodes and never becomes markup.

const LABEL_LENGTH = 80;
const MAX_SKELETON_DEPTH = 6;
const CLOCK_MS = 100;

const $ = (id) => document.getElementById(id);

/** What the page tells its user; anything else that is thrown is a defect of the page. */
class Failure extends Error {}

/** Server-sent events out of text in pieces, as the HTML standard reads them. */
class EventParser {
  #line = "";
  #afterCarriageReturn = false;
  #event = "";
  #data = [];

  /** Returns the events that a piece of text completes; it may end anywhere. */
  feed(text) {
    if (text === "") return [];
    if (this.#afterCarriageReturn && text[0] === "\n") text = text.slice(1);
    this.#afterCarriageReturn = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    return lines.map((line) => this.#take(line)).filter(Boolean);
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (field === "event") this.#event = value ?? "";
    if (field === "data") this.#data.push(value ?? "");
    return null; // A comment has an empty name; `id` and `retry` are for who reconnects.
  }

  /** Returns the event, if there is one: `end` comes without data, which a browser would drop. */
  #dispatch() {
    const event = { event: this.#event || "message", data: this.#data.join("\n") };
    const nothing = this.#event === "" && this.#data.length === 0;
    this.#event = "";
    this.#data = [];
    return nothing ? null : event;
  }
}

/** The answer as text: strings as they are, messages by their text, the rest as lines of JSON. */
class Answer {
  #element;
  #text = new Text();
  #pending = "";
  #lineStart = true;
  #message = null;
  #call = null;

  constructor(element) {
    this.#element = element;
    element.replaceChildren(this.#text);
  }

  /** Adds a chunk; `json` is how it is shown when it is neither text nor a message. */
  add(chunk, json) {
    if (typeof chunk === "string") this.#write(chunk);
    else if (isMessage(chunk)) this.#addMessage(chunk);
    else this.#writeLine(json);
  }

  /** Shows what was added, and keeps the end in view if it was. */
  show() {
    const element = this.#element;
    const follows = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
    this.#text.appendData(this.#pending);
    this.#pending = "";
    if (follows) element.scrollTop = element.scrollHeight;
  }

  /** Closes what is open; nothing more is added. */
  end() {
    this.#endCall();
    this.show();
  }

  #addMessage(message) {
    const key = `${message.type} ${message.id}`;
    if (this.#message !== null && this.#message !== key) this.#startLine();
    this.#message = key;
    if (message.type === "tool") this.#write("← ");
    for (const block of [message.content].flat()) this.#addBlock(block);
    const { tool_call_chunks: pieces, tool_calls: calls = [] } = message;
    if (pieces?.length) pieces.forEach((piece) => this.#addCallPiece(piece));
    else calls.forEach((call) => this.#addCall(call));
  }

  #addBlock(block) {
    if (typeof block === "string") this.#write(block);
    else if (block?.type?.startsWith("text")) this.#write(block.text ?? "");
    else if (!TOOL_BLOCKS.has(block?.type)) this.#writeLine(JSON.stringify(block));
  }

  /** A call comes as its name, then its arguments' JSON in pieces. */
  #addCallPiece({ name, args, index }) {
    if (name || this.#call === null || this.#call.index !== index) {
      this.#startLine();
      this.#append(`→ ${name ?? ""}(`);
      this.#call = { index };
    }
    this.#append(args ?? "");
  }

  #addCall({ name, args }) {
    this.#writeLine(`→ ${name}(${JSON.stringify(args)})`);
  }

  #endCall() {
    if (this.#call === null) return;
    this.#call = null;
    this.#append(")\n");
  }

  #write(text) {
    if (text === "") return;
    this.#endCall();
    this.#append(text);
  }

  #writeLine(text) {
    this.#startLine();
    this.#append(`${text}\n`);
  }

  #startLine() {
    this.#endCall();
    if (!this.#lineStart) this.#append("\n");
  }

  #append(text) {
    if (text === "") return;
    this.#pending += text;
    this.#lineStart = text.endsWith("\n");
  }
}

const MESSAGE_TYPES = /^(ai|human|system|tool|function|chat|\w+MessageChunk)$/;

/** Content blocks that repeat what is in the message's tool calls. */
const TOOL_BLOCKS = new Set(["tool_use", "tool_call", "tool_call_chunk", "input_json_delta"]);

function isMessage(chunk) {
  const content = chunk?.content;
  return MESSAGE_TYPES.test(chunk?.type) && (typeof content === "string" || Array.isArray(content));
}

/** The figures below the answer. */
class Figures {
  #start = performance.now();
  #first = null;
  #chunks = 0;
  #timer = setInterval(() => this.#show(), CLOCK_MS);

  constructor() {
    this.runId = null;
    this.#show();
  }

  addChunk() {
    this.#first ??= performance.now();
    this.#chunks += 1;
  }

  stop() {
    clearInterval(this.#timer);
    this.#show();
  }

  #show() {
    $("first-chunk").textContent = this.#first === null ? "–" : this.#since(this.#first);
    $("elapsed").textContent = this.#since(performance.now());
    $("chunks").textContent = this.#chunks;
    $("run-id").textContent = this.runId ?? "–";
  }

  #since(time) {
    return `${((time - this.#start) / 1000).toFixed(2)} s`;
  }
}

/** Posts a body; returns the response if it is a success. */
async function post(url, body, signal) {
  const headers = { "content-type": "application/json" };
  let response;
  try {
    response = await fetch(url, { method: "POST", headers, body, signal });
  } catch (error) {
    throw new Failure(`The server was not reached: ${error.message}`);
  }
  if (!response.ok) throw new Failure(await problemOf(response));
  return response;
}

/** Returns what an answer other than a success says. */
async function problemOf(response) {
  const problem = parsedOrNull(await response.text().catch(() => ""));
  const detail = problem?.detail;
  const status = `${response.status} ${problem?.title || response.statusText || ""}`.trim();
  if (Array.isArray(detail) && detail.every((item) => item?.msg)) {
    const lines = detail.map(({ loc, msg }) => `${loc?.join(".") || "input"}: ${msg}`);
    return [status, ...lines].join("\n");
  }
  const said = problem?.message ?? (typeof detail === "string" ? detail : null);
  return said === null ? `The server answered ${status}.` : `${status}\n${said}`;
}

function parsedOrNull(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Yields the events of each piece of a response, as they come. */
async function* eventsOf(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Runs the chain by `stream`. Only an `end` event is a success. */
async function stream(body, signal, answer, figures) {
  const response = await post("../stream", body, signal);
  const type = response.headers.get("content-type") ?? "nothing";
  if (!type.startsWith("text/event-stream")) {
    throw new Failure(`The server answered ${type}, which is not an event stream.`);
  }
  let ended = false;
  try {
    for await (const events of eventsOf(response)) {
      ended = events.some((event) => handle(event, answer, figures));
      answer.show();
      if (ended) return;
    }
  } catch (error) {
    if (error instanceof Failure || signal.aborted) throw error;
    throw new Failure(`The connection broke before the end of the answer: ${error.message}`);
  }
  throw new Failure("The connection was closed before the end of the answer.");
}

/** Takes an event; returns whether it is the end. */
function handle({ event, data }, answer, figures) {
  if (event === "end") return true;
  if (event === "metadata") figures.runId = parsedOrNull(data)?.run_id ?? null;
  if (event === "error") throw new Failure(errorOf(data));
  if (event === "data") {
    figures.addChunk();
    answer.add(parsedChunk(data), data);
  }
  return false;
}

function errorOf(data) {
  const error = parsedOrNull(data);
  return [error?.status_code, error?.message ?? data].filter(Boolean).join(" ");
}

function parsedChunk(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Failure(`The server sent a chunk that is not JSON: ${data}`);
  }
}

/** Runs the chain by `invoke`, where `stream` is not mounted. */
async function invoke(body, signal, answer, figures) {
  const response = await post("../invoke", body, signal);
  const { output, metadata } = await response.json();
  figures.runId = metadata?.run_id ?? null;
  figures.addChunk();
  answer.add(output, JSON.stringify(output, null, 2));
}

/** Returns the request's body, or null. The texts go in as they are: large numbers stay exact. */
function bodyOf() {
  const members = [['"input"', checked("input", "The input")]];
  if ($("config").value.trim() !== "") members.push(['"config"', checked("config", "The config")]);
  else showError("config", null);
  if (members.some(([, text]) => text === null)) return null;
  return `{${members.map((member) => member.join(": ")).join(", ")}}`;
}

/** Returns the text of a field if it is JSON; else says so beside it and returns null. */
function checked(name, label) {
  try {
    JSON.parse($(name).value);
  } catch (error) {
    showError(name, `${label} is not valid JSON: ${error.message}`);
    $(name).focus();
    return null;
  }
  showError(name, null);
  return $(name).value;
}

function showError(name, text) {
  $(`${name}-error`).textContent = text;
  $(`${name}-error`).hidden = text === null;
  $(name).setAttribute("aria-invalid", String(text !== null));
}

function showStatus(state, text, failure = null) {
  $("status").dataset.state = state;
  $("status").textContent = text;
  $("failure").textContent = failure;
  $("failure").hidden = failure === null;
  $("answer").setAttribute("aria-busy", String(state === "running"));
  enable("run", state !== "running");
  enable("stop", state === "running");
}

// Not `disabled`: a button that is disabled while it has the focus loses it.
function enable(name, enabled) {
  $(name).setAttribute("aria-disabled", String(!enabled));
}

let running = null;

/** Runs the chain with what is in the fields and shows how it goes. */
async function run(verb) {
  if (running !== null) return;
  const body = bodyOf();
  if (body === null) return showStatus("failed", "Not run");
  const { signal } = (running = new AbortController());
  const answer = new Answer($("answer"));
  const figures = new Figures();
  showStatus("running", "Running…");
  $("answer").scrollIntoView({ block: "nearest" });
  try {
    await verb(body, signal, answer, figures);
    showStatus("finished", "Finished");
  } catch (error) {
    if (signal.aborted) showStatus("stopped", "Stopped");
    else showStatus("failed", "Failed", error.message);
  } finally {
    running = null;
    answer.end();
    figures.stop();
  }
}

/** Returns an input that has the shape of a schema. */
function skeleton(schema, root = schema, depth = 0) {
  if (typeof schema !== "object" || depth > MAX_SKELETON_DEPTH) return null;
  const inner = (part) => skeleton(part, root, depth + 1);
  if ((schema.default ?? null) !== null) return schema.default;
  if (schema.$ref) return inner(resolved(schema.$ref, root));
  for (const name of ["default", "const"]) if (name in schema) return schema[name];
  for (const name of ["examples", "enum"]) if (schema[name]?.length) return schema[name][0];
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices?.length) return inner(choices.find(isHuman) ?? choices[0]);
  if (schema.type === "object") return object(schema, inner);
  if (schema.type === "array") return schema.items ? [inner(schema.items)] : [];
  return { integer: 0, number: 0, boolean: false, null: null }[schema.type] ?? "";
}

/** Of the kinds of messages that a chain takes, a person writes this one. */
function isHuman(schema) {
  return schema.$ref?.endsWith("/HumanMessage");
}

/** Returns an object with its required members, or all if none is. */
function object({ properties = {}, required = [] }, inner) {
  const needed = ([name, member]) => required.includes(name) || (member.default ?? null) !== null;
  const members = Object.entries(properties);
  const chosen = required.length ? members.filter(needed) : members;
  return Object.fromEntries(chosen.map(([name, member]) => [name, inner(member)]));
}

function resolved(reference, root) {
  const names = reference.split("/").slice(1);
  return names.reduce((part, name) => part?.[name.replace("~1", "/").replace("~0", "~")], root);
}

async function load(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Failure(`${url}: ${await problemOf(response)}`);
  return response.json();
}

function fill(name, value) {
  const text = JSON.stringify(value, null, 2);
  $(name).value = text;
  $(name).rows = Math.min(Math.max(text.split("\n").length + 1, 4), 16);
}

/** Returns a few words by which to know an example: its first text that is more than a word. */
function labelOf(example) {
  const texts = textsIn(example).map((text) => text.trim());
  const label = texts.find((text) => text.includes(" ")) || texts[0] || JSON.stringify(example);
  return label.length > LABEL_LENGTH ? `${label.slice(0, LABEL_LENGTH - 1)}…` : label;
}

/** Returns the texts in an example; in a list the last item says most, as in a conversation. */
function textsIn(value) {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.toReversed().flatMap(textsIn);
  return Object.values(value ?? {}).flatMap(textsIn);
}

function exampleButton(example) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = labelOf(example);
  button.addEventListener("click", () => fill("input", example));
  return button;
}

function describe(chain) {
  document.title = `${chain.title} · Playground`;
  $("title").textContent = chain.title;
  $("description").textContent = chain.description;
  $("model").textContent = chain.model === "offline-demo" ? "offline demo" : chain.model;
  $("model").hidden = chain.model === null;
  $("examples").replaceChildren(...chain.examples.map(exampleButton));
  $("examples").hidden = chain.examples.length === 0;
  $("schema").hidden = !chain.endpoints.includes("input_schema");
}

async function prepareInput({ examples, endpoints }) {
  fill("input", examples.length ? examples[0] : "");
  if (examples.length || !endpoints.includes("input_schema")) return;
  fill("input", skeleton(await load("../input_schema")));
}

async function prepareConfig({ endpoints }) {
  if (!endpoints.includes("config_schema")) return;
  const schema = await load("../config_schema");
  if (Object.keys(schema.properties ?? {}).length === 0) return;
  $("config").placeholder = JSON.stringify(skeleton(schema), null, 2);
  $("configuration").hidden = false;
}

function listen(verb) {
  $("run").addEventListener("click", () => run(verb));
  $("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.repeat) return;
    event.preventDefault();
    run(verb);
  });
}

/** Returns the verb by which the page runs the chain. */
function verbOf({ endpoints }) {
  if (endpoints.includes("stream")) return stream;
  if (endpoints.includes("invoke")) return invoke;
  throw new Failure("This chain can be run neither by stream nor by invoke.");
}

async function start() {
  const chain = await load("chain.json");
  describe(chain);
  const verb = verbOf(chain);
  // Without its schemas a chain can still be run.
  const prepared = await Promise.allSettled([prepareInput(chain), prepareConfig(chain)]);
  const failures = prepared.filter(({ reason }) => reason).map(({ reason }) => reason.message);
  showStatus("idle", "Not run yet", failures.join("\n") || null);
  listen(verb);
}

start().catch((error) => {
  showStatus("failed", "Failed", error.message);
  enable("run", false);
});
