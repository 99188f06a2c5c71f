"""From a request to a run: whose it is, what it runs, and under which key."""

import inspect
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from starlette.requests import Request

from chainserve.bodies import BodyModels, documented
from chainserve.chain import Chain
from chainserve.config import ConfigPipeline
from chainserve.errors import InvalidConfigError, RunNotFoundError
from chainserve.execution import Execution
from chainserve.feedback import tracing_is_on
from chainserve.intermediate import StreamEventsWork, StreamLogWork
from chainserve.observability import request_id_of
from chainserve.opening import AskForToken
from chainserve.routes.requests import Body, preferences, read_json
from chainserve.runs import PastRun, Run
from chainserve.runtime import Runtime, runtime_of
from chainserve.stores.base import IdempotencyKey, RunRecord
from chainserve.types import DisconnectMode, EndpointName, RunId, RunMode
from chainserve.validation import InvokeEnvelope
from chainserve.work import InvokeWork, StreamWork, Work

SERVER_CONFIG = "chainserve.server_config"
"""Where a request's scope has the config with which the application calls a handler."""


class Asked(NamedTuple):
    """How a request asks for a run.

    Attributes:
        endpoint: The verb, which an idempotency key belongs to.
        content: What is asked for, as bytes that tell it from anything else.
        idempotency_key: The caller's key.
        on_disconnect: The caller's policy.
        resumable: Whether the caller can come back after a cut.
        log: Whether the run writes an event log in any case.
        segments: How many segments of the request's path are the route's own.
    """

    endpoint: EndpointName
    content: bytes
    idempotency_key: str | None = None
    on_disconnect: DisconnectMode | None = None
    resumable: bool = False
    log: bool = False
    segments: int = 1


class RunStarter:
    """Starts and finds the runs of one chain.

    Args:
        chain: The declaration.
        prefix: What comes before the chain's path where it is mounted.
        path: The path that its runs belong to, wherever the requests for them are met; None is the
            one below which each request is met.

    Raises:
        ConfigurationError: The chain's runnable cannot be served.
    """

    def __init__(self, chain: Chain, prefix: str = "", path: str | None = None) -> None:
        self.chain = chain
        self.execution = Execution(chain)
        self.configs = ConfigPipeline(chain, self.execution.runnable, prefix + chain.path)
        self._path = path

    def models(self) -> BodyModels:
        """Return the models of the chain's bodies, for documents."""
        namespace = re.sub(r"[^a-zA-Z0-9]", "_", self.configs.run_name.strip("/"))
        return BodyModels.of(
            namespace,
            input_type=documented(self.execution.input_schema({}), f"{namespace}Input"),
            output_type=documented(self.execution.output_schema, f"{namespace}Output"),
            config=documented(self.configs.schema, f"{namespace}Config"),
            modes=self.chain.modes,
            include_callbacks=self.chain.include_callback_events,
        )

    async def read(self, request: Request) -> Body:
        """Read the request's JSON body within the chain's bound."""
        bound = self.chain.max_body_bytes or runtime_of(request).settings.max_body_bytes
        return await read_json(request, bound)

    async def config(
        self, sent: Mapping[str, Any] | None, request: Request, endpoint: EndpointName
    ) -> RunnableConfig:
        """Return the config of a run, from the URL's hash, the body and the server's own part."""
        return await self.configs.build(
            sent,
            request,
            endpoint=endpoint,
            config_hash=request.path_params.get("config_hash", ""),
            server_config=request.scope.get(SERVER_CONFIG),
        )

    def work(
        self,
        mode: RunMode,
        body: InvokeEnvelope,
        config: RunnableConfig,
        request: Request,
        *,
        as_text: bool = False,
    ) -> Work:
        """Return what a run for one input does.

        Args:
            mode: What it does with the runnable; not `batch`.
            body: The input as plain JSON data, and what else the caller sends for the runnable.
            config: The config of the run.
            request: The request.
            as_text: Whether the caller wants the text of the answer.

        Raises:
            InvalidInputError: The data does not fit the input schema.
            InvalidConfigError: An argument cannot be taken, or a graph's thread is missing.
        """
        chain, execution = self.chain, self.execution
        value, kwargs = execution.parse_input(body.input, config), self.kwargs(body.kwargs, request)
        if mode == "invoke":
            return InvokeWork(execution, [value], [config], kwargs)
        keep_chunks = chain.on_end is not None
        if mode == "stream":
            if as_text and execution.graph is not None:
                kwargs = {**execution.graph.text_arguments(), **kwargs}
            return StreamWork(execution, [value], [config], kwargs, keep_chunks=keep_chunks)
        steps: dict[str, Any] = {
            "filters": body.filters,
            "allowed": chain.stream_log_name_allow_list,
            "keep_chunks": keep_chunks,
        }
        if mode == "stream_log":
            return StreamLogWork(execution, value, config, kwargs, **steps)
        version = chain.astream_events_version
        return StreamEventsWork(execution, value, config, kwargs, version=version, **steps)

    def kwargs(
        self, sent: dict[str, Any] | list[dict[str, Any]] | None, request: Request
    ) -> dict[str, Any]:
        """Return the arguments for the runnable that the chain takes from callers.

        LangServe uses none. So others are left out, unless the chain or the request is strict.

        Raises:
            InvalidConfigError: An argument cannot be taken; or not all inputs have the same.
        """
        if isinstance(sent, list):  # LangChain.js sends those of a batch so.
            if any(one != sent[0] for one in sent):
                raise InvalidConfigError("All inputs of a batch must have the same kwargs.")
            sent = sent[0] if sent else None
        if not sent:
            return {}
        allowed = self.chain.kwargs_keys
        taken = {name: value for name, value in sent.items() if name in allowed}
        left = sorted(sent.keys() - taken.keys() - {"version"})  # LangChain.js sends it.
        if left and (self.chain.strict_config or preferences(request).strict):
            raise InvalidConfigError(
                f"This chain takes no argument {', '.join(left)} from a caller. The server can "
                f"allow it with Chain(kwargs_keys=[{left[0]!r}])."
            )
        return taken

    async def start(self, request: Request, work: Work, asked: Asked) -> Run | PastRun:
        """Start the run; or return the one that its idempotency key started before.

        Raises:
            RunIdInUseError: The caller chose the id of a run that has not ended.
            IdempotencyKeyReusedError: The key started a run for another request.
        """
        runtime = runtime_of(request)
        path, owner = self.path(request, asked.segments), await self.owner(request, runtime)
        key = None
        if asked.idempotency_key is not None:
            scope = _scope(owner, path, asked.endpoint, asked.idempotency_key)
            hashed = request.path_params.get("config_hash", "").encode()
            content = sha256(hashed + b"\n" + asked.content).hexdigest()
            key = IdempotencyKey(scope, content)
        options = runtime.run_options(
            self.chain,
            path=path,
            owner=owner,
            idempotency_key=key,
            on_disconnect=asked.on_disconnect,
            resumable=asked.resumable or key is not None,
            log=asked.log,
            request_id=request_id_of(request.scope),
            feedback_token=self._feedback_token(runtime),
        )
        work.takes_fast_paths = runtime.settings.fast_paths
        return await runtime.executor.start(work, options)

    async def find(self, request: Request, run_id: str, segments: int) -> RunRecord:
        """Return the record of a run of this chain and this caller.

        Args:
            request: The request.
            run_id: The run's id as the caller wrote it.
            segments: How many segments of the request's path are the route's own.

        Raises:
            RunNotFoundError: There is none; or it is another caller's, which nobody can tell.
        """
        runtime = runtime_of(request)
        if runtime.settings.stateless:
            raise RunNotFoundError  # This process may still know it; another one never would.
        owner, path = await self.owner(request, runtime), self.path(request, segments)
        record = await runtime.store.get(_canonical(run_id))
        if record is None or (record.owner, record.path) != (owner, path):
            raise RunNotFoundError
        return record

    async def find_by_key(
        self, request: Request, endpoint: str, key: str, segments: int
    ) -> RunRecord:
        """Return the record of the run that this caller's idempotency key started.

        Args:
            request: The request.
            endpoint: The verb with which it was started.
            key: The key.
            segments: How many segments of the request's path are the route's own.

        Raises:
            RunNotFoundError: There is none, or no longer.
        """
        runtime = runtime_of(request)
        owner, path = await self.owner(request, runtime), self.path(request, segments)
        record = await runtime.store.find(_scope(owner, path, endpoint, key))
        if record is None:
            raise RunNotFoundError
        return record

    def _feedback_token(self, runtime: Runtime) -> AskForToken | None:
        """Return what asks for a run's feedback token; None where callers get none."""
        key = self.chain.feedback_key
        if key is None or not tracing_is_on():
            return None
        return lambda run_id: runtime.langsmith.token(run_id, key)

    def has_owners(self, request: Request) -> bool:
        """Tell whether the chain's runs belong to principals."""
        return (self.chain.principal or runtime_of(request).principal) is not None

    def path(self, request: Request, segments: int) -> str:
        """Return the path that the runs belong to which the request may start and see.

        Unless it was given, it is the one below which the request met its chain's routes, as the
        caller wrote it: what prefixes of routers and mounted applications make of a chain's path
        keeps apart chains, and tenants that are named in a prefix, which share a store.

        Args:
            request: The request.
            segments: How many segments of its path are the route's own, a config hash aside.
        """
        if self._path is not None:
            return self._path
        if request.path_params.get("config_hash"):
            segments += 2
        path = str(request.scope["path"]).rstrip("/")
        return path.rsplit("/", segments)[0] if segments else path

    async def owner(self, request: Request, runtime: Runtime) -> str | None:
        """Return whose runs the request may start and see."""
        principal = self.chain.principal or runtime.principal
        if principal is None:
            return None
        owner = principal(request)
        if inspect.isawaitable(owner):
            owner = await owner
        return None if owner is None else str(owner)


def _scope(owner: str | None, path: str, endpoint: str, key: str) -> str:
    """Return what tells an idempotency key from those of other callers, chains and verbs."""
    return repr((owner, path, endpoint, key))


def _canonical(run_id: str) -> RunId:
    """Return a run id as records have it.

    Raises:
        RunNotFoundError: No run has such an id.
    """
    try:
        found = str(UUID(run_id))
    except ValueError:
        raise RunNotFoundError from None
    if found != run_id.lower():
        raise RunNotFoundError
    return RunId(found)
