"""The JSON schemas of a chain's input, output and config."""

from typing import Any, Literal, TypeAlias

import orjson
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from chainserve.routes.requests import answers_errors
from chainserve.routes.starting import SERVER_CONFIG, RunStarter
from chainserve.validation import ForgivingJsonSchema

_Kind: TypeAlias = Literal["input", "output", "config"]


class SchemaRoutes:
    """The handlers of one chain; a schema that no config changes is made once.

    Args:
        starter: Knows the chain's runnable and configs.
    """

    def __init__(self, starter: RunStarter) -> None:
        self._execution = starter.execution
        self._configs = starter.configs
        self._unchanged: dict[_Kind, bytes] = {}

    @answers_errors
    async def input_schema(self, request: Request) -> Response:
        """Answer the JSON schema of the input, which the config in the URL may change."""
        return _json(self._schema("input", request))

    @answers_errors
    async def output_schema(self, request: Request) -> Response:
        """Answer the JSON schema of the output, which the config in the URL may change."""
        return _json(self._schema("output", request))

    @answers_errors
    async def config_schema(self, request: Request) -> Response:
        """Answer the JSON schema of what a caller may put into the config."""
        return _json(self._schema("config", request))

    def _schema(self, kind: _Kind, request: Request) -> bytes:
        """Return the JSON text of a schema.

        Raises:
            RequestError: The config in the URL cannot be used.
        """
        config_hash = request.path_params.get("config_hash", "")
        server_config = request.scope.get(SERVER_CONFIG)
        if config_hash or server_config:
            return _dumps(
                self._model(kind, self._configs.schema_config(config_hash, server_config))
            )
        if kind not in self._unchanged:
            self._unchanged[kind] = _dumps(self._model(kind, {}))
        return self._unchanged[kind]

    def _model(self, kind: _Kind, config: RunnableConfig) -> type[BaseModel]:
        if kind == "input":
            return self._execution.input_schema(config)
        return (
            self._execution.output_schema_for(config) if kind == "output" else self._configs.schema
        )


def _dumps(model: type[BaseModel]) -> bytes:
    schema: dict[str, Any] = model.model_json_schema(schema_generator=ForgivingJsonSchema)
    return orjson.dumps(schema)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
