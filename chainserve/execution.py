"""From a runnable to JSON text: the one place that calls LangChain and translates its errors."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from json import JSONDecodeError
from typing import Any, cast

import orjson
from langchain_core.prompt_values import ChatPromptValue, ChatPromptValueConcrete
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel, TypeAdapter

from chainserve.chain import Chain
from chainserve.errors import (
    ChainHTTPError,
    ChainServeError,
    ConfigurationError,
    OutputNotSerializableError,
    RunFailedError,
    UpstreamAuthenticationError,
    UpstreamError,
    UpstreamRateLimitedError,
    UpstreamTimeoutError,
)
from chainserve.serialization import WellKnownLCSerializer
from chainserve.validation import validate_input
from chainserve.wire.sse import json_line


class Execution:
    """A chain's runnable, ready to run: typed inputs in, JSON text out."""

    def __init__(self, chain: Chain) -> None:
        types = {
            name: given
            for name, given in (
                ("input_type", chain.input_type),
                ("output_type", chain.output_type),
            )
            if given != "auto"
        }
        self.runnable: Runnable[Any, Any] = (
            chain.runnable.with_types(**types) if types else chain.runnable
        )
        self._own_serializer = chain.serializer
        self._serializer = chain.serializer or WellKnownLCSerializer()
        self._input_schema = _pydantic_2(self.runnable.get_input_schema(), chain.path, "input")
        self.output_schema = _pydantic_2(self.runnable.get_output_schema(), chain.path, "output")
        self._path = chain.path
        declared = chain.output_type != "auto"
        self._output: TypeAdapter[Any] | None = TypeAdapter(chain.output_type) if declared else None

    def input_schema(self, config: RunnableConfig) -> type[BaseModel]:
        """Return the model of the input, which configurable fields may change."""
        if config.get("configurable"):
            schema = self.runnable.with_config(config).get_input_schema()
            return _pydantic_2(schema, self._path, "input")
        return self._input_schema

    def parse_input(self, value: Any, config: RunnableConfig, *, loc: tuple[Any, ...] = ()) -> Any:
        """Return the chain's input for plain JSON data.

        Raises:
            InvalidInputError: The data does not fit the input schema.
        """
        return validate_input(self.input_schema(config), value, loc=loc)

    async def invoke(self, value: Any, config: RunnableConfig) -> list[bytes]:
        """Run once, and return the output as JSON text."""
        return [self._dump_output(await self.runnable.ainvoke(value, config))]

    async def batch(self, values: list[Any], configs: list[RunnableConfig]) -> list[bytes]:
        """Run each input, and return the outputs as JSON text in the inputs' order."""
        outputs: Sequence[Any] = await self.runnable.abatch(values, configs)
        return [self._dump_output(output) for output in outputs]

    async def stream(self, value: Any, config: RunnableConfig) -> AsyncGenerator[bytes]:
        """Run once, and yield each chunk as JSON text on one line."""
        dumps = self._serializer.dumps
        chunks = cast("AsyncGenerator[Any]", self.runnable.astream(value, config))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield json_line(dumps(chunk))

    def _dump_output(self, output: Any) -> bytes:
        """Write an output, shaped by the declared output type if there is one."""
        if isinstance(output, ChatPromptValue) and not hasattr(output, "type"):
            # Clients tell by `type` what to make of it, and only this subclass has one.
            output = ChatPromptValueConcrete.model_construct(messages=output.messages)
        written = self._serializer.dumps(output)
        if self._output is not None:
            shaped = self._output.validate_python(_loads(written))
            return orjson.dumps(self._output.dump_python(shaped, mode="json"))
        return written if self._own_serializer is None else orjson.dumps(_loads(written))


def _pydantic_2(model: type[Any], path: str, kind: str) -> type[BaseModel]:
    """Return a schema's model, if it is of pydantic 2."""
    if not issubclass(model, BaseModel):
        raise ConfigurationError(
            f"The {kind} of {path or '/'} is a pydantic 1 model. Import BaseModel from pydantic "
            f"instead of pydantic.v1, or declare {kind}_type."
        )
    return model


def _loads(written: bytes) -> Any:
    """Return what a serializer wrote as plain JSON data."""
    try:
        return orjson.loads(written)
    except ValueError as error:
        raise OutputNotSerializableError("output", f"was not written as JSON ({error})") from None


_PROVIDERS = frozenset(
    [
        "openai",
        "anthropic",
        "mistralai",
        "groq",
        "cohere",
        "google",
        "ollama",
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
    ]
)
"""Packages whose exceptions speak of a model's provider."""


def translate(error: BaseException) -> ChainServeError:
    """Return what an exception of the chain means to a caller.

    An error of a model's provider becomes an `UpstreamError`, one with an HTTP status and a detail
    (as `HTTPException` has) keeps them, any other becomes a `RunFailedError`.
    """
    if isinstance(error, ChainServeError):
        return error
    names = {
        cls.__name__
        for cls in type(error).__mro__
        if str(cls.__module__).partition(".")[0] in _PROVIDERS
    }
    if names:
        return _upstream_error(error, names)
    if isinstance(error, JSONDecodeError) and _raised_in_a_provider(error):
        return UpstreamError("The model's provider sent what is not JSON.")
    status, detail = getattr(error, "status_code", None), getattr(error, "detail", None)
    if isinstance(status, int) and 400 <= status < 600 and detail is not None:
        return ChainHTTPError(status, detail)
    return RunFailedError()


def _raised_in_a_provider(error: BaseException) -> bool:
    """Tell whether an exception passed through a provider's package."""
    traceback = error.__traceback__
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in _PROVIDERS:
            return True
        traceback = traceback.tb_next
    return False


def _upstream_error(error: BaseException, names: set[str]) -> UpstreamError:
    """Return the error for a provider's exception, by the status it carries or its name."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if status == 429:
        return UpstreamRateLimitedError(_retry_after(response))
    if status in (401, 403):
        return UpstreamAuthenticationError()
    if status in (408, 504) or any("Timeout" in name for name in names):
        return UpstreamTimeoutError()
    if isinstance(status, int):
        return UpstreamError(f"The model's provider answered with status {status}.")
    return UpstreamError("The model's provider could not be reached, or broke off its answer.")


def _retry_after(response: Any) -> str | None:
    """Return the provider's `Retry-After` if it is a number of seconds."""
    headers = getattr(response, "headers", None) or {}
    seconds = headers.get("retry-after")
    if not isinstance(seconds, str) or not (seconds.isascii() and seconds.isdigit()):
        return None
    return seconds
