"""The JSON schemas of a chain's input, output and config."""

from collections.abc import Callable
from functools import cached_property

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from chainserve.config import ConfigPipeline
from chainserve.execution import Execution
from chainserve.routes.requests import answers_errors
from chainserve.validation import ForgivingJsonSchema


class SchemaRoutes:
    """The handlers of one chain; each schema is made once."""

    def __init__(self, execution: Execution, configs: ConfigPipeline) -> None:
        self._execution = execution
        self._configs = configs

    @answers_errors
    async def input_schema(self, request: Request) -> Response:
        """Answer the JSON schema of the input, which the config in the URL may change."""
        if config_hash := request.path_params.get("config_hash"):
            config = self._configs.schema_config(config_hash)
            return _json(_schema(lambda: self._execution.input_schema(config)))
        return _json(self._input)

    @answers_errors
    async def output_schema(self, request: Request) -> Response:
        """Answer the JSON schema of the output, which the config in the URL may change."""
        if config_hash := request.path_params.get("config_hash"):
            config = self._configs.schema_config(config_hash)
            return _json(_schema(lambda: self._execution.output_schema_for(config)))
        return _json(self._output)

    @answers_errors
    async def config_schema(self, request: Request) -> Response:
        """Answer the JSON schema of what a caller may put into the config."""
        if config_hash := request.path_params.get("config_hash"):
            self._configs.schema_config(config_hash)
        return _json(self._config)

    @cached_property
    def _input(self) -> bytes:
        return _schema(lambda: self._execution.input_schema({}))

    @cached_property
    def _output(self) -> bytes:
        return _schema(lambda: self._execution.output_schema)

    @cached_property
    def _config(self) -> bytes:
        return _schema(lambda: self._configs.schema)


def _schema(model: Callable[[], type[BaseModel]]) -> bytes:
    return orjson.dumps(model().model_json_schema(schema_generator=ForgivingJsonSchema))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
