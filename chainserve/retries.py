"""When a call is made again: exponential back-off with full jitter."""

import random
from collections.abc import Callable

FIRST_RETRY_MS = 1000
"""Milliseconds that the back-off starts from, until a server has asked for others."""

MAX_DELAY = 10.0
"""Seconds that a failure is waited out at most, unless the server asks for more."""

MAX_RETRY_AFTER = 60.0
"""Seconds for which a server may ask at most."""


class Retries:
    """Counts the attempts of one call that brought nothing, and says when the next one is due.

    Args:
        max_retries: How many attempts without progress may follow one another.
        rand: Gives numbers from 0 to 1.

    Attributes:
        retry_ms: Milliseconds that the back-off starts from: the last `retry` of the server's.
    """

    def __init__(self, max_retries: int, rand: Callable[[], float] = random.random) -> None:
        self.retry_ms = FIRST_RETRY_MS
        self._max_retries = max_retries
        self._rand = rand
        self._failures = 0

    def note_progress(self) -> None:
        """Note that something came: what fails next is the first failure again."""
        self._failures = 0

    def next_delay(self, at_least: float = 0.0) -> float | None:
        """Count a failure; return the seconds to wait for, or None if no attempt is left.

        Args:
            at_least: Seconds that the server asks to be left alone (`Retry-After`).
        """
        if self._failures >= self._max_retries:
            return None
        longest = min(MAX_DELAY, self.retry_ms / 1000 * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(self._rand() * longest, min(at_least, MAX_RETRY_AFTER))
