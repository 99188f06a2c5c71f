"""The entries of an event log."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from chainserve.types import TERMINAL_EVENTS, EventName, RunId


class Event(NamedTuple):
    """One entry: its number from 0, its name, and its data as JSON text in UTF-8."""

    seq: int
    event: EventName
    data: bytes

    @property
    def terminal(self) -> bool:
        """Whether this is the log's last event."""
        return self.event in TERMINAL_EVENTS


def metadata_event(
    run_id: RunId, feedback_tokens: Sequence[Mapping[str, Any]] | None = None
) -> Event:
    """Return the first event of every log.

    Args:
        run_id: The run.
        feedback_tokens: `key`, `token_url` and `expires_at` of those that its callers get.
    """
    if not feedback_tokens:
        return Event(0, "metadata", b'{"run_id": "%b"}' % run_id.encode())
    data = {"run_id": run_id, "feedback_tokens": feedback_tokens}
    return Event(0, "metadata", json.dumps(data).encode())


def end_event(seq: int, usage: Mapping[str, Any] | None = None) -> Event:
    """Return the terminal event of a run that succeeded.

    Args:
        seq: Its number in the log.
        usage: The tokens that the run's models counted, as LangChain's `UsageMetadata`.
    """
    if usage is None:
        return Event(seq, "end", b'{"status": "success"}')
    data = {"status": "success", "usage": usage}
    return Event(seq, "end", json.dumps(data).encode())


def error_event(seq: int, error: dict[str, Any]) -> Event:
    """Return the terminal event of a run that did not succeed.

    Args:
        seq: Its number in the log.
        error: `status_code`, `message` and `code`, as `ChainServeError.event()` gives them.
    """
    return Event(seq, "error", json.dumps(error).encode())
