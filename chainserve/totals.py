"""What a stream adds up to, for those who are told of its end."""

from copy import deepcopy
from typing import Any

from langchain_core.runnables.utils import AddableDict
from langchain_core.tracers.log_stream import RunLog, RunLogPatch

from chainserve.client_errors import UnexpectedAnswerError


class Total:
    """Adds up chunks.

    Args:
        counts: Whether anybody wants the sum, which costs more than all else that a chunk costs.
    """

    def __init__(self, *, counts: bool) -> None:
        self._counts = counts
        self._is_first = True
        self._sum: Any = None

    @property
    def output(self) -> Any:
        """The sum; None of nothing, and of what cannot be added up."""
        return self._sum

    def take(self, value: Any) -> Any:
        """Count a value, and return what the caller gets of it: a dict that can be added up."""
        chunk = AddableDict(value) if isinstance(value, dict) else value
        if self._counts:
            self._add(chunk)
        return chunk

    def _add(self, chunk: Any) -> None:
        if self._is_first:
            self._is_first, self._sum = False, chunk
            return
        try:
            self._sum = self._sum + chunk
        except Exception:  # noqa: BLE001 - any object adds as it likes, and no stream fails of it
            self._counts, self._sum = False, None


class TotalLog(Total):
    """Adds up the patches of a run log.

    Args:
        whole: Whether the caller gets the log up to each patch instead of the patch.
        counts: Whether anybody wants the sum.
    """

    def __init__(self, *, whole: bool, counts: bool) -> None:
        super().__init__(counts=counts)
        self._whole = whole
        self._log: Any = RunLog(state=None)  # type: ignore[arg-type]
        self._ops: list[dict[str, Any]] = []

    @property
    def output(self) -> Any:
        """The whole log; None of patches that do not fit together."""
        try:
            return RunLogPatch(*self._ops) + RunLogPatch() if self._ops else None
        except Exception:  # noqa: BLE001 - the patches are what a server said
            return None

    def take(self, value: Any) -> Any:
        """Count a patch, and return it, or the log up to it.

        Raises:
            UnexpectedAnswerError: It is no patch, or none of this log.
        """
        if not isinstance(value, dict) or not isinstance(value.get("ops"), list):
            raise UnexpectedAnswerError(f"A chunk is no patch of a run log: {value!r:.500}")
        ops = value["ops"]
        if self._counts:
            # To apply a patch changes what it holds, which is the caller's.
            self._ops += deepcopy(ops)
        return self._whole_log(ops) if self._whole else RunLogPatch(*ops)

    def _whole_log(self, ops: list[dict[str, Any]]) -> Any:
        try:
            self._log = self._log + RunLogPatch(*deepcopy(ops))
        except Exception as error:  # noqa: BLE001 - the patches are what a server said
            raise UnexpectedAnswerError(f"A patch does not fit the run log: {error}") from None
        return self._log


class TotalEvents(Total):
    """Keeps the events of a run."""

    def take(self, value: Any) -> Any:
        """Keep an event, and return it.

        Raises:
            UnexpectedAnswerError: It is no event.
        """
        if not isinstance(value, dict):
            raise UnexpectedAnswerError(f"A chunk is no event of a run: {value!r:.500}")
        if self._counts:
            self._sum = self._sum or []
            self._sum.append(value)
        return value
