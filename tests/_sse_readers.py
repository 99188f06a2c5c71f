"""Parsers of event streams, of this project and of others: pieces of a stream in, events out."""

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx_sse
from langserve.server_sent_events import EventSource
from playwright.async_api import Page

from chainserve.wire.parser import EventParser
from tests._js import FOLDER
from tests._sse import EventDecoder
from tests._sse_corpus import Told

Pieces = Sequence[bytes]


def by_chainserve(pieces: Pieces) -> list[Told]:
    """Read as `RemoteRunnable` does, which also tells of events without data."""
    parser = EventParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return [Told(one.event, one.data, one.last_event_id) for one in events if one.data is not None]


def by_the_standard(pieces: Pieces) -> list[Told]:
    """Read as the tests do, by a parser that was written for them from the standard."""
    decoder, told = EventDecoder(), []
    last_event_id = ""
    for block in [block for piece in pieces for block in decoder.feed(piece)]:
        last_event_id = last_event_id if block.id is None else block.id
        if block.data is not None:
            told.append(Told(block.event, block.data, last_event_id))
    return told


def _response(pieces: Pieces) -> httpx.Response:
    headers = {"content-type": "text/event-stream"}
    request = httpx.Request("GET", "http://test")
    return httpx.Response(200, headers=headers, content=iter(pieces), request=request)


def by_httpx_sse(pieces: Pieces) -> list[Told]:
    events = httpx_sse.EventSource(_response(pieces)).iter_sse()
    return [Told(one.event, one.data, one.id) for one in events]


def by_langserve(pieces: Pieces) -> list[Told]:
    """Read as LangServe's client does."""
    events: Any = EventSource(_response(pieces)).iter_sse()
    return [Told(one["event"] or "message", one["data"], one["id"]) for one in events]


def in_node(node: str, parser: str, streams: Sequence[Pieces]) -> list[list[Told]]:
    """Read streams by one of the parsers of `parse.mjs`."""
    encoded = [[base64.b64encode(piece).decode() for piece in pieces] for pieces in streams]
    command = [node, "parse.mjs", parser]
    done = subprocess.run(
        command, cwd=FOLDER, input=json.dumps(encoded), capture_output=True, text=True, check=True
    )
    return [[Told(*event) for event in events] for events in json.loads(done.stdout)]


_LISTEN = """([urls, names]) => Promise.all(urls.map((url) => new Promise((done) => {
  const seen = [];
  const source = new EventSource(url);
  for (const name of names)
    source.addEventListener(name, ({ data, lastEventId }) => seen.push([name, data, lastEventId]));
  source.onerror = () => { source.close(); done(seen); };
})))"""


async def by_chromium(page: Page, streams: Sequence[Pieces], names: set[str]) -> list[list[Told]]:
    """Read streams by `EventSource`, each from a connection of its own, in a page that is ours."""
    async with _sockets(streams) as url:
        await page.goto(url)
        urls = [f"{url}/{number}" for number in range(len(streams))]
        seen = await page.evaluate(_LISTEN, [urls, sorted(names)])
    return [[Told(*event) for event in events] for events in seen]


@asynccontextmanager
async def _sockets(streams: Sequence[Pieces]) -> AsyncIterator[str]:
    """Send a page at `/`, and at each number its stream, piece by piece, until it is closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request_line = (await reader.readuntil(b"\r\n\r\n")).split(b" ")
        number = request_line[1].removeprefix(b"/")
        kind = b"text/event-stream" if number.isdigit() else b"text/html"
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: %b\r\n\r\n" % kind)
        for piece in streams[int(number)] if number.isdigit() else ():
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
