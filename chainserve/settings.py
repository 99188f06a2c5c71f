"""The settings of a server: environment variables `CHAINSERVE_*`, each a bound or a default."""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chainserve.errors import ConfigurationError
from chainserve.types import DisconnectMode

_PREFIX = "CHAINSERVE_"
_PORTS = ("port", "PORT", "CHAINSERVE_PORT")
_OTHERS = frozenset({"DEMO_PAUSE", "URL"})
"""Variables of the prefix that are no settings of a server."""


class Settings(BaseSettings):
    """What a server may use and how long it waits; durations are seconds, sizes are bytes.

    Each field is read from the environment variable `CHAINSERVE_<FIELD>`, `port` also from `PORT`.
    A `Chain` may set its own value where it has a field of the same name.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("CHAINSERVE_PORT", "PORT"),
        description="Port to listen on; 0 takes a free one.",
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="How log lines are written: for a person or for a machine."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level that is logged."
    )
    max_body_bytes: int = Field(
        default=10 * 2**20,
        gt=0,
        description="A larger request body is answered 413 and not read on.",
    )
    max_batch_size: int = Field(
        default=100, gt=0, description="A batch of more inputs is answered 413."
    )
    max_concurrency: int = Field(
        default=100, gt=0, description="How many inputs of one batch run at once."
    )
    max_threads: int = Field(
        default=64,
        gt=0,
        description="How many sync steps of chains run at once, each in a thread.",
    )
    on_disconnect: DisconnectMode = Field(
        default="cancel", description="Whether a run ends or goes on when its last reader leaves."
    )
    resume_grace: float = Field(
        default=15,
        ge=0,
        description="How long a run that can be resumed waits for a reader to come back.",
    )
    run_timeout: float = Field(default=3600, gt=0, description="The longest a run may take.")
    first_event_timeout: float | None = Field(
        default=None, gt=0, description="The longest a stream may take to its first chunk."
    )
    idle_timeout: float | None = Field(
        default=None, gt=0, description="The longest a stream may pause between two chunks."
    )
    cancel_timeout: float = Field(
        default=5,
        gt=0,
        description="How long a cancelled run may take to end before it is left behind.",
    )
    send_timeout: float = Field(
        default=30, gt=0, description="A client that reads nothing for so long is cut off."
    )
    heartbeat_interval: float = Field(
        default=15,
        gt=0,
        description="After so long without an event a stream sends a comment line.",
    )
    flush_interval_ms: float = Field(
        default=5,
        ge=0,
        description="How long events may wait to share a write; 0 writes each at once.",
    )
    fast_paths: bool = Field(
        default=True,
        description="Whether LangChain's own runnables are run in faster ways; off is its own way.",
    )
    retry_ms: int = Field(
        default=1000,
        ge=0,
        description="Milliseconds after which a browser reconnects; up to half as much is added.",
    )
    max_wait: float = Field(
        default=60, ge=0, description="The longest that `Prefer: wait` may hold an answer back."
    )
    retention: bool = Field(
        default=True, description="Whether anything of a run is kept once it has ended."
    )
    stateless: bool = Field(
        default=False,
        description="Whether nothing is known beyond the request that started it, which several "
        "workers need: no run routes, nothing that can be resumed, no idempotency keys.",
    )
    max_log_bytes: int = Field(
        default=256 * 2**20,
        gt=0,
        description="All event logs and outputs together; the oldest finished run's go first.",
    )
    max_run_log_bytes: int = Field(
        default=32 * 2**20, gt=0, description="One run's event log; its oldest events go first."
    )
    log_ttl: float = Field(
        default=300, ge=0, description="How long a finished run's events are kept."
    )
    run_ttl: float = Field(
        default=3600, ge=0, description="How long a finished run's record is kept."
    )
    max_runs: int = Field(
        default=10_000,
        gt=0,
        description="How many run records are kept; the oldest finished go first.",
    )
    max_output_bytes: int = Field(
        default=2**20, ge=0, description="A larger output is not kept in the run's record."
    )
    list_all_runs: bool = Field(
        default=False,
        description="Whether runs are listed to anybody where no principal is configured.",
    )
    on_end_timeout: float = Field(
        default=10, gt=0, description="The longest that a chain's `on_end` hook may take."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of pages that may call this server, separated by commas; `*` is any.",
    )
    cors_credentials: bool = Field(
        default=False, description="Whether those pages may send cookies."
    )
    shutdown_grace_period: float = Field(
        default=5, ge=0, description="How long open streams may go on after a signal to stop."
    )

    def uvicorn_options(self) -> dict[str, Any]:
        """Return how uvicorn serves an application, wherever it listens."""
        return {
            "log_level": self.log_level,
            "access_log": False,
            "timeout_graceful_shutdown": max(1, round(self.shutdown_grace_period)),
        }

    @model_validator(mode="before")
    @classmethod
    def _forget_the_service(cls, values: Any) -> Any:
        """Drop the address that Kubernetes gives pods as the port of a service of our name."""
        return {
            name: value
            for name, value in values.items()
            if not (name in _PORTS and str(value).startswith(("tcp://", "udp://")))
        }

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(filter(None, (part.strip() for part in value.split(","))))

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if origins == ("*",):
            return origins
        for origin in origins:
            _refuse_unless_origin(origin)
        return origins

    @model_validator(mode="after")
    def _no_cookies_from_anywhere(self) -> Self:
        if self.cors_credentials and self.cors_origins == ("*",):
            raise ValueError(
                "cors_credentials lets pages send cookies, so cors_origins cannot be '*'. "
                "List the origins of those pages."
            )
        return self


def _refuse_unless_origin(origin: str) -> None:
    """Raise a `ValueError` that says the mend, unless this is an origin as browsers send it."""
    if origin == "*":
        raise ValueError("'*' is any origin, so it stands alone: leave out the others.")
    if "*" in origin:
        raise ValueError(f"{origin!r}: there are no patterns. List each origin, or '*' alone.")
    if origin.lower() == "null":
        raise ValueError(
            "'null' is every sandboxed frame and local file, of any site. "
            "Serve the page from an origin of its own and list that."
        )
    if not origin.isascii():
        raise ValueError(f"{origin!r}: write the host as browsers send it, as 'xn--...'.")
    if "://" not in origin:
        raise ValueError(f"{origin!r} has no scheme. Write one such as 'https://app.example'.")
    if (exact := _as_browsers_send(origin)) is None:
        raise ValueError(f"{origin!r} is not an origin. Write one such as 'https://app.example'.")
    if origin != exact:
        raise ValueError(f"{origin!r} is not an origin as browsers send it. Write {exact!r}.")


def _as_browsers_send(url: str) -> str | None:
    """Return the origin of a URL: scheme, host, and a port other than the scheme's own."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if not parts.scheme or not _HOST.fullmatch(host):
        return None
    host = f"[{host}]" if ":" in host else host
    if port is None or port == _DEFAULT_PORTS.get(parts.scheme):
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{port}"


_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def read_settings(*, listens: bool = True) -> Settings:
    """Return the settings that the environment says.

    Args:
        listens: Whether the port is ours to choose: whatever `PORT` is, it is no fault otherwise.

    Raises:
        ConfigurationError: A variable has a wrong value; the message names it and says what is
            wrong.
    """
    try:
        return Settings() if listens else Settings(port=0)
    except ValidationError as error:
        wrong = "; ".join(map(_what_is_wrong, error.errors()))
        raise ConfigurationError(f"The settings cannot be used. {wrong}") from None


def _what_is_wrong(item: Any) -> str:
    """Return one of pydantic's errors as a sentence about a variable."""
    message = item["msg"].removeprefix("Value error, ").rstrip(".")
    if not item["loc"]:
        return f"{message}."
    name = str(item["loc"][0]).upper()
    names = [name] if name.startswith(_PREFIX) or name == "PORT" else [f"{_PREFIX}{name}"]
    if names == ["CHAINSERVE_PORT"]:
        names.append("PORT")
    [variable, *_] = [name for name in names if name in map(str.upper, os.environ)] or names
    return f"{variable} is {item['input']!r}: {message}."


_OF_A_SERVICE = re.compile(r"SERVICE_HOST$|SERVICE_PORT|PORT_\d+_(TCP|UDP)")
"""What Kubernetes tells every pod of a service that has our name."""


def unknown_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the variables of our prefix that mean nothing, each with what to do about it."""
    known = {name.upper() for name in Settings.model_fields} | _OTHERS
    for variable in sorted(environment):
        name = variable.upper().removeprefix(_PREFIX)
        if name in known or not variable.upper().startswith(_PREFIX) or _OF_A_SERVICE.match(name):
            continue
        close = get_close_matches(name, known, n=1)
        mend = f"Did you mean {_PREFIX}{close[0]}?" if close else "It has no effect: take it away."
        yield variable, mend
