"""`APIHandler`: a chain's endpoints for routes of one's own, the counterpart of LangServe's."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import HTTPException
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from chainserve.chain import (
    Chain,
    PerKeyFeedbackConfig,
    PerRequestConfigModifier,
    TokenFeedbackConfig,
)
from chainserve.errors import ChainServeError
from chainserve.feedback import LangSmith, require_tracing, tracing_is_on
from chainserve.observability import make_logger
from chainserve.registry import refuse_options
from chainserve.routes.langserve import LangServeRoutes
from chainserve.routes.playground import PlaygroundRoutes
from chainserve.routes.schemas import SchemaRoutes
from chainserve.routes.starting import SERVER_CONFIG, RunStarter
from chainserve.routes.streams import StreamRoutes
from chainserve.schema import (
    Feedback,
    FeedbackCreateRequest,
    FeedbackCreateRequestTokenBased,
    PublicTraceLink,
    PublicTraceLinkCreateRequest,
)
from chainserve.serialization import Serializer
from chainserve.settings import read_settings
from chainserve.types import PlaygroundType

__all__ = ["APIHandler", "PerKeyFeedbackConfig", "PerRequestConfigModifier", "TokenFeedbackConfig"]


class APIHandler:
    """The endpoints of one chain as methods, for an application that mounts them by itself.

    A method takes the request, whose body it reads, and returns the response: what `add_routes`
    would answer, errors included. Runs belong to the application that the request came to; they
    can be resumed where they were started.

    Args:
        runnable: A runnable, or a `Chain` that declares everything itself but its endpoints.
        path: The path under which runs are traced, and to which they belong.
        prefix: What comes before it, such as a router's prefix.
        input_type: See `Chain`, as for all other arguments.
        output_type: See `Chain`.
        config_keys: See `Chain`.
        include_callback_events: See `Chain`.
        enable_feedback_endpoint: See `Chain`.
        token_feedback_config: See `Chain`.
        enable_public_trace_link_endpoint: See `Chain`.
        per_req_config_modifier: See `Chain`.
        stream_log_name_allow_list: See `Chain`.
        playground_type: See `Chain`.
        astream_events_version: See `Chain`.
        serializer: See `Chain`.

    Every endpoint's method takes two more arguments:

    - `config_hash`: a config as in LangServe's share links, where the route has one.
    - `server_config`: a config that goes before all that the caller sends, whatever
      `config_keys` are.

    Raises:
        ConfigurationError: An option cannot work, or a schema cannot be made.
    """

    def __init__(
        self,
        runnable: Runnable[Any, Any] | Chain,
        *,
        path: str = "",
        prefix: str = "",
        input_type: Any = "auto",
        output_type: Any = "auto",
        config_keys: Sequence[str] = ("configurable",),
        include_callback_events: bool = False,
        enable_feedback_endpoint: bool = False,
        token_feedback_config: TokenFeedbackConfig | Mapping[str, Any] | None = None,
        enable_public_trace_link_endpoint: bool = False,
        per_req_config_modifier: PerRequestConfigModifier | None = None,
        stream_log_name_allow_list: Sequence[str] | None = None,
        playground_type: PlaygroundType = "default",
        astream_events_version: Literal["v1", "v2"] = "v2",
        serializer: Serializer | None = None,
    ) -> None:
        chain = (
            runnable
            if isinstance(runnable, Chain)
            else Chain(
                path=path,
                runnable=runnable,
                input_type=input_type,
                output_type=output_type,
                config_keys=config_keys,
                include_callback_events=include_callback_events,
                enable_feedback_endpoint=enable_feedback_endpoint,
                token_feedback_config=token_feedback_config,
                enable_public_trace_link_endpoint=enable_public_trace_link_endpoint,
                per_req_config_modifier=per_req_config_modifier,
                stream_log_name_allow_list=stream_log_name_allow_list,
                playground_type=playground_type,
                astream_events_version=astream_events_version,
                serializer=serializer,
            )
        )
        refuse_options(chain)
        starter = RunStarter(chain, prefix, path=prefix + chain.path)
        self._chain = chain
        self._log = make_logger(read_settings(listens=False))
        self._verbs = LangServeRoutes(starter)
        self._streams = StreamRoutes(starter, tells_location=False)
        self._logs = StreamRoutes(starter, "stream_log", tells_location=False)
        self._events = StreamRoutes(starter, "stream_events", tells_location=False)
        self._schemas = SchemaRoutes(starter)
        self._playground = PlaygroundRoutes(chain)
        self._models = starter.models()

    async def invoke(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Response:
        """Run the chain once and answer its output; leaving cancels the run."""
        return await self._verbs.invoke(_configured(request, config_hash, server_config))

    async def batch(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Response:
        """Run the chain for each input and answer the outputs in order; leaving cancels all."""
        return await self._verbs.batch(_configured(request, config_hash, server_config))

    async def stream(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Response:
        """Run the chain once and stream its chunks; or resume, as `POST stream` does."""
        return await self._streams.post(_configured(request, config_hash, server_config))

    async def stream_log(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Response:
        """Run the chain once and stream patches of its run log; or resume."""
        return await self._logs.post(_configured(request, config_hash, server_config))

    async def astream_events(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Response:
        """Run the chain once and stream LangChain's events of it; or resume."""
        return await self._events.post(_configured(request, config_hash, server_config))

    async def input_schema(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Any:
        """Return the JSON schema of the input as data; a response where the config is wrong."""
        configured = _configured(request, config_hash, server_config)
        return _data(await self._schemas.input_schema(configured))

    async def output_schema(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Any:
        """Return the JSON schema of the output as data; a response where the config is wrong."""
        configured = _configured(request, config_hash, server_config)
        return _data(await self._schemas.output_schema(configured))

    async def config_schema(
        self,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Any:
        """Return the JSON schema of the config as data; a response where the config is wrong."""
        configured = _configured(request, config_hash, server_config)
        return _data(await self._schemas.config_schema(configured))

    async def playground(
        self,
        file_path: str,
        request: Request,
        *,
        config_hash: str = "",
        server_config: RunnableConfig | None = None,
    ) -> Response:
        """Answer the playground's page (`file_path` is empty), or a file beside it.

        The page asks the endpoints that are beside it: mount this at `…/playground/{file_path}`.
        """
        request.scope.setdefault("path_params", {})["file"] = file_path
        return await self._playground.page(_configured(request, config_hash, server_config))

    async def create_feedback(self, feedback_create_req: FeedbackCreateRequest) -> Feedback:
        """Send feedback on a run to LangSmith, and return it as it was sent.

        Whose run it is is not looked at: that is for the endpoint that calls this.

        Raises:
            HTTPException: 400 if it is not enabled or nothing is traced; or what LangSmith does.
        """
        async with self._asking() as langsmith:
            self._require(await self.check_feedback_enabled(), "enable_feedback_endpoint")
            return await langsmith.create_feedback(feedback_create_req)

    async def create_feedback_from_token(
        self, create_request: FeedbackCreateRequestTokenBased
    ) -> None:
        """Send the feedback to LangSmith that a token allows.

        Raises:
            HTTPException: 400 if no tokens are given or nothing is traced; or what LangSmith does.
        """
        async with self._asking() as langsmith:
            self._require(self._chain.feedback_key is not None, "token_feedback_config")
            await langsmith.create_feedback_from_token(create_request)

    async def create_public_trace_link(
        self, public_trace_link_create_req: PublicTraceLinkCreateRequest
    ) -> PublicTraceLink:
        """Make the trace of a run public, and return where it is.

        Whose run it is is not looked at: that is for the endpoint that calls this.

        Raises:
            HTTPException: 400 if it is not enabled or nothing is traced; or what LangSmith does.
        """
        async with self._asking() as langsmith:
            enabled = await self.check_public_trace_link_enabled()
            self._require(enabled, "enable_public_trace_link_endpoint")
            url = await langsmith.share_run(public_trace_link_create_req.run_id)
            return PublicTraceLink(public_url=url)

    async def check_feedback_enabled(self) -> bool:
        """Tell whether feedback may be sent now."""
        return self._chain.enable_feedback_endpoint and tracing_is_on()

    async def check_public_trace_link_enabled(self) -> bool:
        """Tell whether traces may be made public now."""
        return self._chain.enable_public_trace_link_endpoint and tracing_is_on()

    def _require(self, enabled: bool, option: str) -> None:
        require_tracing(enabled=enabled, option=option)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[LangSmith]:
        """Yield what asks LangSmith, for one call: no application's end would close it.

        Errors are raised as those that FastAPI answers, for the call returns no response of ours.
        """
        langsmith = LangSmith(self._log)
        try:
            yield langsmith
        except ChainServeError as error:
            raise HTTPException(error.status_code, error.detail) from error
        finally:
            await langsmith.close()

    @property
    def InvokeRequest(self) -> type[BaseModel]:  # noqa: N802 - LangServe's name
        """The model of the body of `invoke`, for documents."""
        return self._models.invoke_request

    @property
    def BatchRequest(self) -> type[BaseModel]:  # noqa: N802 - LangServe's name
        """The model of the body of `batch`, for documents."""
        return self._models.batch_request

    @property
    def StreamRequest(self) -> type[BaseModel]:  # noqa: N802 - LangServe's name
        """The model of the body of `stream`, for documents."""
        return self._models.stream_request

    @property
    def StreamLogRequest(self) -> type[BaseModel]:  # noqa: N802 - LangServe's name
        """The model of the body of `stream_log`, for documents."""
        return self._models.stream_log_request

    @property
    def StreamEventsRequest(self) -> type[BaseModel]:  # noqa: N802 - LangServe's name
        """The model of the body of `stream_events`, for documents."""
        return self._models.stream_events_request

    @property
    def InvokeResponse(self) -> type[BaseModel]:  # noqa: N802 - LangServe's name
        """The model of the answer of `invoke`, for documents."""
        return self._models.invoke_response

    @property
    def BatchResponse(self) -> type[BaseModel]:  # noqa: N802 - LangServe's name
        """The model of the answer of `batch`, for documents."""
        return self._models.batch_response


def _configured(
    request: Request, config_hash: str, server_config: RunnableConfig | None
) -> Request:
    """Return the request with the configs where the handlers look for them.

    A config hash or a server config comes from a call alone, never from the request.
    """
    request.scope.setdefault("path_params", {})["config_hash"] = config_hash
    request.scope[SERVER_CONFIG] = server_config
    return request


def _data(response: Response) -> Any:
    """Return the data of an answer that is a schema, and any other answer as it is."""
    return json.loads(bytes(response.body)) if response.status_code == 200 else response
