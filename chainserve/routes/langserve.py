"""LangServe's `invoke` and `batch`, with its bodies, status codes and bytes."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import orjson
from langchain_core.runnables import RunnableConfig
from starlette.requests import Request
from starlette.responses import Response

from chainserve.errors import (
    BatchTooLargeError,
    ChainServeError,
    InvalidConfigError,
    OutputNotKeptError,
    RunCancelledError,
    RunFailedError,
)
from chainserve.opening import Tokens
from chainserve.problems import handles, has_handler_for, problem_response
from chainserve.responses import OutputResponse, wait_for_end
from chainserve.routes.requests import answers_errors, idempotency_key_of
from chainserve.routes.starting import Asked, RunStarter
from chainserve.runs import PastRun, Run
from chainserve.runtime import Runtime, runtime_of
from chainserve.schema import FeedbackToken
from chainserve.types import RunId
from chainserve.validation import BatchEnvelope, InvokeEnvelope, validate_envelope
from chainserve.work import BatchWork, Work


class LangServeRoutes:
    """The handlers of one chain's `invoke` and `batch`.

    Args:
        starter: Starts the chain's runs.
    """

    def __init__(self, starter: RunStarter) -> None:
        self._starter = starter
        self._execution = starter.execution

    @answers_errors
    async def invoke(self, request: Request) -> Response:
        """Run the chain once and answer its output."""
        read = await self._starter.read(request)
        body = validate_envelope(InvokeEnvelope, read.data)
        config = await self._starter.config(body.config, read.request, "invoke")
        work = self._starter.work("invoke", body, config, request)
        asked = Asked(
            endpoint="invoke",
            content=read.text,
            idempotency_key=idempotency_key_of(request),
            on_disconnect=body.on_disconnect,
        )
        return await self._answer(request, work, asked, _invoke_body)

    @answers_errors
    async def batch(self, request: Request) -> Response:
        """Run the chain for each input and answer the outputs in order."""
        runtime = runtime_of(request)
        read = await self._starter.read(request)
        self._check_size(read.data, runtime)
        body = validate_envelope(BatchEnvelope, read.data)
        configs = await self._configs(body, read.request, runtime)
        values = [
            self._execution.parse_input(value, config, loc=("inputs", index))
            for index, (value, config) in enumerate(zip(body.inputs, configs, strict=True))
        ]
        if not values:
            none: list[bytes] | None = [] if self._execution.includes_callback_events else None
            return OutputResponse(_batch_body((), (), (), none), runtime.settings.send_timeout)
        asked = Asked(
            endpoint="batch",
            content=read.text,
            idempotency_key=idempotency_key_of(request),
            on_disconnect=body.on_disconnect,
        )
        kwargs = self._starter.kwargs(body.kwargs, request)
        work = BatchWork(self._execution, values, configs, kwargs)
        return await self._answer(request, work, asked, _batch_body)

    def _check_size(self, body: object, runtime: Runtime) -> None:
        """Refuse too many inputs or configs before any is looked at."""
        members = body if isinstance(body, dict) else {}
        bound = self._starter.chain.max_batch_size or runtime.settings.max_batch_size
        for listed in (members.get("inputs"), members.get("config")):
            if isinstance(listed, list) and len(listed) > bound:
                raise BatchTooLargeError(len(listed), bound)

    async def _configs(
        self, body: BatchEnvelope, request: Request, runtime: Runtime
    ) -> list[RunnableConfig]:
        """Return a config for each input, with the bound on how many run at once."""
        size = len(body.inputs)
        if isinstance(body.config, list):
            if len(body.config) != size:
                raise InvalidConfigError(
                    f"Number of configs ({len(body.config)}) must match number of inputs ({size})"
                )
            configs = [await self._starter.config(sent, request, "batch") for sent in body.config]
        else:
            configs = _repeated(await self._starter.config(body.config, request, "batch"), size)
        bound = self._starter.chain.max_concurrency or runtime.settings.max_concurrency
        for config in configs:
            config["max_concurrency"] = min(config.get("max_concurrency") or bound, bound)
        return configs

    async def _answer(self, request: Request, work: Work, asked: Asked, body: "_Body") -> Response:
        """Answer a run's outputs, or its error; the run is left if the client does not wait."""
        runtime = runtime_of(request)
        run = await self._starter.start(request, work, asked)
        if isinstance(run, Run):
            resumable = asked.idempotency_key is not None
            await wait_for_end(runtime.executor, run.id, request.receive, resumable=resumable)
            if not run.is_over:
                return problem_response(RunCancelledError())  # The client is gone.
        if run.error is None:
            events = self._callback_events(run)
            answer = body(run.ids, _known(run), run.feedback_tokens, events)
            return OutputResponse(answer, runtime.settings.send_timeout)
        if run.exception is not None and _is_for_the_application(request, run.exception, run.error):
            raise run.exception
        return problem_response(run.error)

    def _callback_events(self, run: Run | PastRun) -> Sequence[bytes] | None:
        """Return what happened in each of the runs; of those that ended before, it is not kept."""
        if isinstance(run, Run):
            return run.work.callback_events()
        return [b"[]"] * len(run.ids) if self._execution.includes_callback_events else None


_Body: TypeAlias = Callable[
    [Sequence[RunId], Sequence[bytes], Tokens, Sequence[bytes] | None], bytes
]


def _known(run: Run | PastRun) -> Sequence[bytes]:
    """Return the outputs of a run.

    Raises:
        OutputNotKeptError: It ended before, and not all of its outputs were kept.
    """
    outputs = [output for output in run.outputs if output is not None]
    if len(outputs) < len(run.ids):
        raise OutputNotKeptError(run.id)
    return outputs


def _is_for_the_application(
    request: Request, raised: BaseException, error: ChainServeError
) -> bool:
    """Tell whether the application, not this route, answers what the chain raised."""
    if isinstance(error, RunFailedError):
        return handles(request.app, raised)
    return has_handler_for(request.app, raised)


def _repeated(config: RunnableConfig, size: int) -> list[RunnableConfig]:
    """Return one config for each input; a run id names the first run alone."""
    others = config.copy()
    others.pop("run_id", None)
    return [(others if index else config).copy() for index in range(size)]


def _invoke_body(
    run_ids: Sequence[RunId],
    outputs: Sequence[bytes],
    tokens: Tokens,
    events: Sequence[bytes] | None,
) -> bytes:
    metadata = orjson.dumps({"run_id": run_ids[0], "feedback_tokens": _plain(tokens[0])})
    if events is None:
        return b'{"output":%b,"metadata":%b}' % (outputs[0], metadata)
    members = (outputs[0], metadata, events[0])
    return b'{"output":%b,"metadata":%b,"callback_events":%b}' % members


def _plain(tokens: Sequence[FeedbackToken]) -> list[Any]:
    return [token.model_dump(mode="json") for token in tokens]


def _batch_body(
    run_ids: Sequence[RunId],
    outputs: Sequence[bytes],
    tokens: Tokens,
    events: Sequence[bytes] | None,
) -> bytes:
    responses = [
        {"run_id": run_id, "feedback_tokens": _plain(given)}
        for run_id, given in zip(run_ids, tokens, strict=True)
    ]
    metadata = orjson.dumps({"responses": responses, "run_ids": run_ids})
    joined = b",".join(outputs)
    if events is None:
        return b'{"output":[%b],"metadata":%b}' % (joined, metadata)
    members = (joined, metadata, b",".join(events))
    return b'{"output":[%b],"metadata":%b,"callback_events":[%b]}' % members
