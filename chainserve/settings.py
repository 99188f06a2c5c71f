"""The settings of a server: environment variables `CHAINSERVE_*`, each a bound or a default."""

from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from chainserve.types import DisconnectMode


class Settings(BaseSettings):
    """What a server may use and how long it waits; durations are seconds, sizes are bytes.

    Each field is read from the environment variable `CHAINSERVE_<FIELD>`, `port` also from `PORT`.
    A `Chain` may set its own value where it has a field of the same name.
    """

    model_config = SettingsConfigDict(
        env_prefix="CHAINSERVE_", populate_by_name=True, frozen=True, extra="ignore"
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
    on_disconnect: DisconnectMode = Field(
        default="cancel", description="Whether a run ends or goes on when its last reader leaves."
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
    max_log_bytes: int = Field(
        default=256 * 2**20,
        gt=0,
        description="All event logs together; the oldest finished one goes first.",
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
    shutdown_grace_period: float = Field(
        default=5, ge=0, description="How long open streams may go on after a signal to stop."
    )
