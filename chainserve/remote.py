"""What a client knows of a run on a server."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from chainserve.types import RunStatus


@dataclass(slots=True)
class RemoteRun:
    """What a client knows of a run on the server.

    Attributes:
        run_ids: Its ids, of a batch one for each input; empty while the server has told none.
        status: Its state, as far as the client can tell; `lost` of one that a stream broke off.
        usage: The tokens that its models counted, as LangChain's `UsageMetadata`, if that is known.
        feedback_tokens: With which feedback may be given, if the server gives such tokens.
        last_event_id: The id of the last event of its stream that was read; empty while there is
            none, or where the server gives none.
        output: Its output, of a run that was asked for and has succeeded.
        has_output: Whether the server told it; one that is too large is not kept.
        error: Why it did not succeed, of a run that was asked for: `status_code`, `message` and
            `code`.
    """

    run_ids: tuple[str, ...] = ()
    status: RunStatus = "pending"
    usage: UsageMetadata | None = None
    feedback_tokens: Sequence[Mapping[str, Any]] = ()
    last_event_id: str = ""
    output: Any = None
    has_output: bool = False
    error: Mapping[str, Any] | None = None

    @property
    def run_id(self) -> str | None:
        """Its id; of a batch the first, None while the server has told none."""
        return self.run_ids[0] if self.run_ids else None

    def note_output(self, output: Any) -> None:
        """Note that it succeeded, and what a message that it returned says of its tokens."""
        self.status = "success"
        self.note_chunk(output)

    def note_chunk(self, chunk: Any) -> None:
        """Note what a message, or a piece of one, says of its model's tokens, if that adds up."""
        if isinstance(chunk, BaseMessage) and (usage := getattr(chunk, "usage_metadata", None)):
            with suppress(Exception):  # A server may count in any form, and no run fails of it.
                self.usage = add_usage(self.usage, usage)

    def note_first(self, endpoint: str, value: Any, members: Mapping[str, Any]) -> None:
        """Note the run's id where no metadata tells it: it is in the first patch or event.

        Args:
            endpoint: The endpoint that sent it.
            value: The first patch of a log, or the first event.
            members: The filters that were asked for: with one, the first event may be of a step.
        """
        run_id: Any = None
        with suppress(KeyError, TypeError, IndexError, AttributeError):
            if endpoint == "stream_log":
                run_id = value["ops"][0]["value"]["id"]
            elif endpoint == "stream_events" and not any(members.values()):
                run_id = value["run_id"]
        self.run_ids = (run_id,) if isinstance(run_id, str) else ()

    def note_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Note what an answer's `metadata` says."""
        several, tokens = metadata.get("run_ids"), metadata.get("feedback_tokens")
        run_ids = several if isinstance(several, list) else [metadata.get("run_id")]
        self.run_ids = tuple(run_id for run_id in run_ids if isinstance(run_id, str))
        self.feedback_tokens = tuple(tokens) if isinstance(tokens, list) else ()
