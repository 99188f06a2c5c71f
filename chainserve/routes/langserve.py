"""invoke, batch and stream, with LangServe's bodies, status codes and bytes."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import orjson
from langchain_core.runnables import RunnableConfig
from starlette.requests import Request
from starlette.responses import Response

from chainserve.chain import Chain
from chainserve.config import ConfigPipeline, ensure_run_id
from chainserve.errors import (
    BatchTooLargeError,
    ChainServeError,
    InvalidConfigError,
    RunCancelledError,
    RunFailedError,
)
from chainserve.execution import Execution
from chainserve.observability import request_id_of
from chainserve.problems import handles, has_handler_for, problem_response
from chainserve.responses import EventStreamResponse, OutputResponse, wait_for_end
from chainserve.routes.requests import Body, answers_errors, read_json
from chainserve.runs import Run
from chainserve.runtime import Runtime, runtime_of
from chainserve.types import EndpointName, RunId
from chainserve.validation import BatchEnvelope, InvokeEnvelope, validate_envelope
from chainserve.wire.projections import LangServeWire


class LangServeRoutes:
    """The handlers of one chain.

    Args:
        chain: The declaration.
        execution: Its runnable.
        configs: Its config pipeline.
        path: Where it is mounted, the router's prefix included, as far as that is known.
    """

    def __init__(
        self, chain: Chain, execution: Execution, configs: ConfigPipeline, path: str
    ) -> None:
        self._chain = chain
        self._execution = execution
        self._configs = configs
        self._path = path

    @answers_errors
    async def invoke(self, request: Request) -> Response:
        """Run the chain once and answer its output."""
        runtime = runtime_of(request)
        value, config = await self._input_and_config(request, runtime, "invoke")
        run_id = ensure_run_id(config)
        run = await runtime.executor.start_call(
            [run_id],
            "invoke",
            self._execution.invoke(value, config),
            runtime.run_options(self._chain, self._path),
            request_id=request_id_of(request.scope),
        )
        return await self._answer(request, runtime, run, _invoke_body)

    @answers_errors
    async def stream(self, request: Request) -> Response:
        """Run the chain once and stream its chunks."""
        runtime = runtime_of(request)
        value, config = await self._input_and_config(request, runtime, "stream")
        run_id = ensure_run_id(config)
        run = await runtime.executor.start_stream(
            run_id,
            self._execution.stream(value, config),
            runtime.run_options(self._chain, self._path),
            request_id=request_id_of(request.scope),
        )
        return EventStreamResponse(runtime.executor, run, LangServeWire(), runtime.pace)

    @answers_errors
    async def batch(self, request: Request) -> Response:
        """Run the chain for each input and answer the outputs in order."""
        runtime = runtime_of(request)
        read = await self._read(request, runtime)
        self._check_size(read.data, runtime)
        body = validate_envelope(BatchEnvelope, read.data)
        configs = await self._batch_configs(body, read.request, runtime)
        values = [
            self._execution.parse_input(value, config, loc=("inputs", index))
            for index, (value, config) in enumerate(zip(body.inputs, configs, strict=True))
        ]
        run_ids = [ensure_run_id(config) for config in configs]
        if not run_ids:
            return OutputResponse(_batch_body((), ()), runtime.settings.send_timeout)
        run = await runtime.executor.start_call(
            run_ids,
            "batch",
            self._execution.batch(values, configs),
            runtime.run_options(self._chain, self._path),
            request_id=request_id_of(request.scope),
        )
        return await self._answer(request, runtime, run, _batch_body)

    async def _read(self, request: Request, runtime: Runtime) -> Body:
        bound = self._chain.max_body_bytes or runtime.settings.max_body_bytes
        return await read_json(request, bound)

    async def _input_and_config(
        self, request: Request, runtime: Runtime, endpoint: EndpointName
    ) -> tuple[object, RunnableConfig]:
        """Return what an invoke or stream body asks for, checked."""
        read = await self._read(request, runtime)
        body = validate_envelope(InvokeEnvelope, read.data)
        config = await self._configs.build(body.config, read.request, endpoint=endpoint)
        return self._execution.parse_input(body.input, config), config

    def _check_size(self, body: object, runtime: Runtime) -> None:
        """Refuse too many inputs or configs before any is looked at."""
        members = body if isinstance(body, dict) else {}
        bound = self._chain.max_batch_size or runtime.settings.max_batch_size
        for listed in (members.get("inputs"), members.get("config")):
            if isinstance(listed, list) and len(listed) > bound:
                raise BatchTooLargeError(len(listed), bound)

    async def _batch_configs(
        self, body: BatchEnvelope, request: Request, runtime: Runtime
    ) -> list[RunnableConfig]:
        """Return a config for each input, with the bound on how many run at once."""
        size = len(body.inputs)
        if isinstance(body.config, list):
            if len(body.config) != size:
                raise InvalidConfigError(
                    f"Number of configs ({len(body.config)}) must match number of inputs ({size})"
                )
            configs = [
                await self._configs.build(sent, request, endpoint="batch") for sent in body.config
            ]
        else:
            configs = _repeated(
                await self._configs.build(body.config, request, endpoint="batch"), size
            )
        bound = self._chain.max_concurrency or runtime.settings.max_concurrency
        for config in configs:
            config["max_concurrency"] = min(config.get("max_concurrency") or bound, bound)
        return configs

    async def _answer(
        self, request: Request, runtime: Runtime, run: Run, body: "_Body"
    ) -> Response:
        """Answer a run's outputs, or its error; the run is left if the client does not wait."""
        await wait_for_end(runtime.executor, run, request.receive)
        if run.status == "success":
            return OutputResponse(body(run.ids, run.outputs), runtime.settings.send_timeout)
        if run.error is None:
            return problem_response(RunCancelledError())
        if run.exception is not None and _is_for_the_application(request, run.exception, run.error):
            raise run.exception
        return problem_response(run.error)


_Body: TypeAlias = Callable[[Sequence[RunId], Sequence[bytes]], bytes]


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


def _invoke_body(run_ids: Sequence[RunId], outputs: Sequence[bytes]) -> bytes:
    metadata = {"run_id": run_ids[0], "feedback_tokens": []}
    return b'{"output":%s,"metadata":%s}' % (outputs[0], orjson.dumps(metadata))


def _batch_body(run_ids: Sequence[RunId], outputs: Sequence[bytes]) -> bytes:
    metadata = {
        "responses": [{"run_id": run_id, "feedback_tokens": []} for run_id in run_ids],
        "run_ids": run_ids,
    }
    return b'{"output":[%s],"metadata":%s}' % (b",".join(outputs), orjson.dumps(metadata))
