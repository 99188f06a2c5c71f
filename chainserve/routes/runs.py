"""The run routes: start in the background, look at, read, cancel and forget runs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from chainserve.cross_site import refuse_cross_site_write
from chainserve.errors import (
    PrincipalRequiredError,
    RunNotEndedError,
    RunNotFoundError,
)
from chainserve.responses import wait_for_end
from chainserve.routes.reading import (
    accepted,
    cursor_of,
    cursor_text,
    location,
    read_log,
    wants_text_events,
    wire_of,
)
from chainserve.routes.requests import (
    answers_errors,
    checked_idempotency_key,
    idempotency_key_of,
    preferences,
)
from chainserve.routes.starting import Asked, RunStarter
from chainserve.runtime import runtime_of
from chainserve.stores.base import RunRecord
from chainserve.types import RunId
from chainserve.validation import CancelEnvelope, RunEnvelope, input_error, validate_envelope
from chainserve.work import Work

_MAX_LISTED = 100
"""How many runs are listed."""


class RunRoutes:
    """The handlers of one chain's runs.

    Args:
        starter: Starts and finds the chain's runs.
    """

    def __init__(self, starter: RunStarter) -> None:
        self._starter = starter

    @answers_errors
    async def create(self, request: Request) -> Response:
        """Start a run and answer where it is; it goes on when nobody reads it."""
        read = await self._starter.read(request)
        body = validate_envelope(RunEnvelope, read.data)
        asked = Asked(
            endpoint="runs",
            content=read.text,
            idempotency_key=idempotency_key_of(request),
            on_disconnect=body.on_disconnect or self._starter.chain.on_disconnect or "continue",
            resumable=True,
            log=True,
        )
        work = await self._work(body, read.request)
        run = await self._starter.start(request, work, asked)
        record, applied = await self._wait(request, await self._record(request, run.id))
        headers = {"location": location(request, run.id), **applied}
        return _json(_shown(request, record), 200 if record.ended else 202, headers)

    @answers_errors
    async def list(self, request: Request) -> Response:
        """Answer the caller's runs, the newest first."""
        await self._check(request)
        runtime = runtime_of(request)
        owner = await self._starter.owner(request, runtime)
        if owner is None and not runtime.settings.list_all_runs:
            raise PrincipalRequiredError
        path = self._starter.path(request, 1)
        records = await runtime.store.list_runs(path, owner=owner, limit=_MAX_LISTED)
        return _json({"runs": [_shown(request, record, brief=True) for record in records]})

    @answers_errors
    async def show(self, request: Request) -> Response:
        """Answer what is known of a run; `Prefer: wait=N` waits for its end."""
        await self._check(request)
        record = await self._find(request, segments=2)
        record, applied = await self._wait(request, record)
        return _json(_shown(request, record, segments=2), headers=applied)

    @answers_errors
    async def stream(self, request: Request) -> Response:
        """Answer the run's log from a cursor, or from the start."""
        media_type = accepted(request, strict=True)
        text_events = wants_text_events(request)
        await self._check(request)
        record = await self._find(request, segments=3)
        after = cursor_of(cursor_text(request), record)
        runtime = runtime_of(request)
        wire = wire_of(media_type, record.run_id, record.epoch, runtime, text_events=text_events)
        return await read_log(request, record, after, wire)

    @answers_errors
    async def cancel(self, request: Request) -> Response:
        """Cancel a run, wait for its end, and answer what is known of it; twice is once."""
        refuse_cross_site_write(request.headers, origins=runtime_of(request).settings.cors_origins)
        await self._check(request)
        record = await self._find(request, segments=3)
        return await self._cancel(request, record, segments=3)

    @answers_errors
    async def cancel_by_key(self, request: Request) -> Response:
        """Cancel the run that an idempotency key started, for a caller who knows no run id."""
        read = await self._starter.read(request)
        await self._check(read.request)
        body = validate_envelope(CancelEnvelope, read.data)
        key = checked_idempotency_key(body.idempotency_key)
        record = await self._starter.find_by_key(request, body.endpoint, key, segments=2)
        return await self._cancel(request, record, segments=2)

    async def _cancel(self, request: Request, record: RunRecord, *, segments: int) -> Response:
        runtime, applied = runtime_of(request), dict[str, str]()
        if (run := runtime.executor.find(record.run_id)) is not None:
            runtime.executor.cancel(run, "requested")
            longest = runtime.settings.cancel_timeout + 1
            if (wait := preferences(request).wait) is not None and wait < longest:
                longest, applied = wait, _applied(wait)
            record = await self._ended(request, record, longest)
        return _json(_shown(request, record, segments=segments), headers=applied)

    @answers_errors
    async def delete(self, request: Request) -> Response:
        """Forget a run that has ended."""
        await self._check(request)
        record = await self._find(request, segments=2)
        if not record.ended:
            raise RunNotEndedError(record.run_id)
        await runtime_of(request).store.delete(record.run_id)
        return Response(status_code=204)

    async def _check(self, request: Request) -> None:
        """Refuse a config in the URL that cannot be used, and what the chain's modifier refuses."""
        await self._starter.config(None, request, "runs")

    async def _find(self, request: Request, *, segments: int) -> RunRecord:
        return await self._starter.find(request, request.path_params["run_id"], segments)

    async def _work(self, body: RunEnvelope, request: Request) -> Work:
        """Return what a run in the asked mode does."""
        modes = {str(mode): mode for mode in self._starter.chain.modes}
        mode = next(iter(modes.values())) if body.mode is None else modes.get(body.mode)
        if mode is None:
            message = f"The modes of this chain are: {', '.join(modes)}"
            raise input_error("literal_error", ("mode",), message, body.mode)
        config = await self._starter.config(body.config, request, "runs")
        return self._starter.work(mode, body, config, request)

    async def _record(self, request: Request, run_id: RunId) -> RunRecord:
        """Return the record of a run that was started or found just now."""
        runtime = runtime_of(request)
        if (run := runtime.executor.find(run_id)) is not None:
            return run.record(run_id)
        record = await runtime.store.get(run_id)
        if record is None:
            raise RunNotFoundError
        return record

    async def _wait(
        self, request: Request, record: RunRecord
    ) -> tuple[RunRecord, Mapping[str, str]]:
        """Wait for the run's end as long as the caller prefers, and return what says so."""
        wait = preferences(request).wait
        if wait is None:
            return record, {}
        seconds = min(wait, runtime_of(request).settings.max_wait)
        record = await self._ended(request, record, seconds)
        return record, _applied(seconds)

    async def _ended(self, request: Request, record: RunRecord, seconds: float) -> RunRecord:
        """Return the record of a run when it has ended, or as it is after some time."""
        runtime, run_id = runtime_of(request), record.run_id
        run = runtime.executor.find(run_id)
        await wait_for_end(
            runtime.executor, run_id, request.receive, resumable=True, seconds=seconds
        )
        if run is not None:
            return run.record(run_id)  # Where nothing is retained, the store has forgotten it.
        return await runtime.store.get(run_id) or record


def _applied(seconds: float) -> dict[str, str]:
    """Return the header that says for how long an answer was held back at most."""
    return {"preference-applied": f"wait={seconds:g}"}


def _shown(
    request: Request, record: RunRecord, *, segments: int = 1, brief: bool = False
) -> dict[str, Any]:
    """Return what a caller may know of a run; what is not known is left out."""
    shown: dict[str, Any] = {
        "run_id": record.run_id,
        "status": record.status,
        "mode": record.mode,
        "stream_url": location(request, record.run_id, segments=segments, below="/stream"),
        "created_at": _time(record.created_at),
        "ended_at": _time(record.ended_at),
        "error": record.error,
        "usage": record.usage,
    }
    if record.output is not None and not brief:
        shown["output"] = orjson.Fragment(record.output)
    return {name: value for name, value in shown.items() if value is not None}


def _time(seconds: float | None) -> str | None:
    """Return a time as RFC 3339 writes it, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _json(
    data: Mapping[str, Any], status_code: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        orjson.dumps(data),
        status_code=status_code,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type="application/json",
    )
