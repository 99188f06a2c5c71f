"""What the offline model says: pure functions from messages to text and tool calls.

Nothing is looked up, guessed or evaluated. A chain's prompt marks the parts of its input with tags,
such as `<task>…</task>`; which parts are there decides what is done with them, so that chains need
not know of the demo.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from keyword import iskeyword
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

NOTICE = "This is the offline demo: set OPENAI_API_KEY to let a real model answer."
"""How every answer begins."""

_TOKEN = re.compile(r"\s*\w{1,8}|\s*[^\w\s]|\s+")
_WORD = re.compile(r"[^\W_]+(?:(?:['\u2019-]|(?<=\d)[.,](?=\d))[^\W_]+)*")
# Neither half of "1,234" nor a part of "v2.1": a number is read whole or not at all.
_NUMBER = re.compile(r"(?<![\w.,])-?\d{1,15}(?:\.\d{1,9})?(?![\w%]|[.,]\d)")
_QUOTED = re.compile(r"[\"“«]([^\"“”«»]+)[\"”»]")

_OPERAND = r"[-(\s]*\d(?:[\d,]*\d)?(?:\.\d+)?[)\s]*"
_KINDS = (
    re.compile(rf"(?<![\w.,]){_OPERAND}(?:(?:\*\*|//|[-+*/%\u00d7\u00f7\u2212]){_OPERAND})+"),
    re.compile(r"\b[A-Z]\w+(?:/[A-Z][\w+-]+)+|\bUTC\b"),
)
"""Kinds of text that an argument can be: arithmetic, the name of a time zone."""

_SEARCHED = 2000
"""How many characters of a message are searched for numbers and arguments."""

_Parts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `args` is JSON text."""

    name: str
    args: str
    id: str


def tokens(text: str) -> list[str]:
    """Return a text in pieces of words and punctuation, as a model has it; joined they are it."""
    return _TOKEN.findall(text)


def answer(messages: Sequence[BaseMessage]) -> str:
    """Return the demo's answer to a conversation."""
    return "\n\n".join([NOTICE, *_paragraphs(messages)])


def fitting_calls(
    messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]]
) -> list[ToolCall]:
    """Return the calls of the tools whose required arguments all stand in the message to answer.

    Args:
        messages: The conversation; unless its last message is a human's, nothing is called.
        tools: Tools in OpenAI's format.
    """
    if not messages or not isinstance(messages[-1], HumanMessage):
        return []
    text = messages[-1].text[:_SEARCHED]
    functions = [tool["function"] for tool in tools]
    found = [(function["name"], _arguments(function, text)) for function in functions]
    return [
        # The id is unique in the conversation, and the same every time.
        ToolCall(name, json.dumps(args, ensure_ascii=False), f"call_{len(messages)}_{index}")
        for index, (name, args) in enumerate(found)
        if args is not None
    ]


def _paragraphs(messages: Sequence[BaseMessage]) -> Iterator[str]:
    """Choose what to say: a tool's results, the reply to a prompt's parts, or observations."""
    results = list(itertools.takewhile(_is_tool_message, reversed(messages)))
    if results:
        return map(_tool_result, reversed(results))
    asked = [message.text for message in messages if isinstance(message, HumanMessage)]
    text = asked[-1] if asked else ""
    parts = _parts(text)
    for name, reply in _REPLIES.items():
        if name in parts:
            return reply(parts)
    return itertools.chain(_observations(text), _recollection(asked[:-1]))


def _is_tool_message(message: BaseMessage) -> bool:
    return isinstance(message, ToolMessage)


def _tool_result(message: BaseMessage) -> str:
    failed = isinstance(message, ToolMessage) and message.status == "error"
    verb = "could not do it" if failed else "answered"
    return f"The tool {message.name or 'that was called'} {verb}: {message.text.strip()}"


def _parts(text: str) -> dict[str, str]:
    """Return the tagged parts of a prompt; the first of a name counts."""
    found = {}
    for name in _PART_NAMES:
        _, _, rest = text.partition(f"<{name}>")
        body, closed, _ = rest.partition(f"</{name}>")
        if closed:
            found[name] = body.strip()
    return found


def _observations(text: str) -> Iterator[str]:
    """Yield what anyone can check about a text: its words and its numbers."""
    words = _words(text)
    if not words:
        yield "There is no word in your message, so there is nothing to answer."
        return
    yield f"You wrote: {_quote(text)}"
    yield f"I count {_count(words, 'word')} in it. The longest: {_list(_longest(words, 3))}."
    numbers = sorted(Decimal(number) for number in _NUMBER.findall(text[:_SEARCHED])[:20])
    if len(numbers) > 1:
        yield f"Its numbers in order are {_list(map(str, numbers))}; their sum is {sum(numbers)}."


def _recollection(earlier: Sequence[str]) -> Iterator[str]:
    """Yield what was asked before, if anything."""
    if earlier:
        yield f"Before that you sent {_count(earlier, 'message')}, the last: {_quote(earlier[-1])}"


def _draft(parts: _Parts) -> Iterator[str]:
    """Yield an outline of a text, its length shared out over its sections."""
    kind, brief = parts.get("kind", "article"), parts["brief"]
    total = int(parts["words"]) if re.fullmatch(r"[0-9]{1,6}", parts.get("words", "")) else 300
    outer = total // 5
    sections = _SECTIONS.get(kind, _SECTIONS["article"])
    shares = zip(sections, (outer, total - 2 * outer, outer), strict=True)
    yield f"Here is an outline of your {kind}, from the words of the brief: {_quote(brief)}"
    yield "\n".join(f"- {section} (about {words} words)" for section, words in shares)
    yield f"Words of the brief that must not get lost: {_list(_longest(_words(brief), 5))}."


def _lesson(parts: _Parts) -> Iterator[str]:
    """Yield steps towards a task, and a question to check."""
    task, attempt = parts.get("task", ""), parts.get("attempt", "").casefold()
    words = _longest(_words(task), 3)
    yield f"The task: {_quote(task)} Where you stand: {_quote(parts['level'])}"
    yield _numbered(
        f"Say in your own words what is asked. The longest words in it: {_list(words)}.",
        *(f"Do this part by itself: {_quote(clause)}" for clause in _clauses(task)),
        "Try the smallest case you can think of, and compare it with what you expected.",
    )
    missing = [word for word in words if word.casefold() not in attempt]
    if attempt and missing:
        yield f"Your attempt does not mention: {_list(missing)}."
    yield f"To check: how would you explain “{words[0] if words else 'it'}” to a friend?"


def _code(parts: _Parts) -> Iterator[str]:
    """Yield a stub that states the task."""
    language, task = parts["language"], _one_line(parts.get("task", ""))
    name, stub = _identifier(task), _STUBS.get(language.casefold())
    if stub is None:
        yield f"I have no stub for {_quote(language)}. A name for the program: `{name}`."
        yield f"Its task, for the comment above it: {_quote(task)}"
        return
    # A string in JSON is a string literal in all these languages.
    code = stub.format(name=name, task=json.dumps(task, ensure_ascii=False))
    yield f"I cannot write the program, but here is where it goes, in {language}:"
    yield f"```{language.casefold()}\n{code}\n```"
    yield "It states the task and fails when it is called, until you write its body."


def _analysis(parts: _Parts) -> Iterator[str]:
    """Yield the figures that the chain computed, those the question names first."""
    question = parts.get("question", "")
    asked = {word.casefold() for word in _words(question)}
    lines = [line.removeprefix("- ") for line in parts["figures"].splitlines() if line.strip()]
    named = {line: len(asked & {word.casefold() for word in _words(line)}) for line in lines}
    yield f"You asked: {_quote(question)} I can only repeat what was computed from your data:"
    yield "\n".join(f"- {line}" for line in sorted(lines, key=named.__getitem__, reverse=True))


_PART_NAMES = (
    *("figures", "question", "kind", "words", "brief"),
    *("language", "level", "task", "attempt"),
)

_REPLIES = {"figures": _analysis, "brief": _draft, "language": _code, "level": _lesson}
"""The part of a prompt that decides what is done with it all: the first that is there."""

_SECTIONS = {
    "article": ("Opening: the one sentence to keep", "Middle: facts and examples", "End: what now"),
    "story": (
        "Opening: someone wants something",
        "Middle: what is in the way",
        "End: what changed",
    ),
}

_STUBS = {
    "python": "def {name}(*args: object) -> object:\n    raise NotImplementedError({task})",
    "javascript": "function {name}(...args) {{\n  throw new Error({task});\n}}",
    "typescript": "function {name}(...args: unknown[]): never {{\n  throw new Error({task});\n}}",
    "java": "static void {name}() {{\n    throw new UnsupportedOperationException({task});\n}}",
    "go": "func {name}() {{\n\tpanic({task})\n}}",
}


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _longest(words: Iterable[str], number: int) -> list[str]:
    """Return the longest different words, the longest first."""
    different = {word.casefold(): word for word in words}
    return sorted(different.values(), key=len, reverse=True)[:number]


def _clauses(text: str) -> list[str]:
    """Return the parts of a task, when it has more than one."""
    clauses = [clause for clause in re.split(r"[.;?!\n]+\s*|,\s+", text) if _words(clause)]
    return clauses[:5] if len(clauses) > 1 else []


def _identifier(text: str) -> str:
    """Return a name for a function that does what the text says."""
    name = "_".join(word.lower() for word in _words(text)[:4] if word.isascii() and word.isalnum())
    return name if name.isidentifier() and not iskeyword(name) else "solve"


def _one_line(text: str) -> str:
    """Return the start of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}…"


def _quote(text: str) -> str:
    return f"“{_one_line(text)}”"


def _list(things: Iterable[str]) -> str:
    return ", ".join(map(_one_line, things)) or "none"


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}" if len(things) == 1 else f"{len(things)} {name}s"


def _numbered(*steps: str) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


def _arguments(function: Mapping[str, Any], text: str) -> dict[str, Any] | None:
    """Return the arguments that stand in the text; None when a required one does not."""
    parameters = function.get("parameters", {})
    numbers = iter(_NUMBER.findall(text))
    found = {
        name: _argument(schema, text, numbers)
        for name, schema in parameters.get("properties", {}).items()
    }
    given = {name: value for name, value in found.items() if value is not None}
    return given if given and given.keys() >= set(parameters.get("required", ())) else None


def _argument(schema: Mapping[str, Any], text: str, numbers: Iterator[str]) -> Any:
    """Return the value that the text gives a parameter, or None."""
    if "enum" in schema:
        return next((choice for choice in schema["enum"] if str(choice) in text), None)
    if schema.get("type") in ("integer", "number"):
        number = next(numbers, None)
        return number and (float(number) if "." in number else int(number))
    return _text_argument(schema, text) if schema.get("type") == "string" else None


def _text_argument(schema: Mapping[str, Any], text: str) -> str | None:
    """Return the text of the kind that the parameter's description shows, or what is quoted."""
    for kind in _KINDS:
        if kind.search(schema.get("description", "")):
            match = kind.search(text)
            return match and match[0].strip()
    match = _QUOTED.search(text)
    return match and match[1]
