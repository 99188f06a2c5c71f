"""Cursors: the ids of events, from which a reader that comes back goes on."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple
from uuid import UUID

from chainserve.errors import InvalidCursorError
from chainserve.types import RunId

MAX_SEQ = 2**53
"""The largest position: a number that JavaScript can hold exactly."""

_EPOCH = re.compile("[A-Za-z0-9_-]{1,12}")
# 22 characters hold four bits more than a UUID: in what `encode` writes they are zero.
_CURSOR = re.compile(rf"([A-Za-z0-9_-]{{21}}[AQgw])\.({_EPOCH.pattern})\.(-1|0|[1-9][0-9]{{0,15}})")


class Cursor(NamedTuple):
    """A position in the event log of a run; opaque text to its reader.

    At most 52 letters, digits and `.`, `_`, `-`, so that it needs no escaping in a header, in a
    URL or across origins.

    Attributes:
        run_id: The run whose log it is.
        epoch: Tells the run from others that had the same id; 1 to 12 of `A-Za-z0-9_-`.
        seq: The number of the last event that the reader has; -1, written so, before the first.
    """

    run_id: RunId
    epoch: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Return the cursor that a client sent.

        Raises:
            InvalidCursorError: The text is not one that `encode` writes.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidCursorError
        run, epoch, seq = match.groups()
        if int(seq) > MAX_SEQ:
            raise InvalidCursorError
        return cls(RunId(str(UUID(bytes=urlsafe_b64decode(f"{run}==")))), epoch, int(seq))

    def encode(self) -> bytes:
        """Return the text of the cursor, the same for the same position."""
        return self.prefix(self.run_id, self.epoch) + b"%d" % self.seq

    @staticmethod
    def prefix(run_id: RunId, epoch: str) -> bytes:
        """Return what the cursors of a run begin with; the decimal position follows.

        Raises:
            ValueError: The run id is no UUID, or the epoch not of the form that a cursor can hold.
        """
        if _EPOCH.fullmatch(epoch) is None:
            raise ValueError(f"The epoch {epoch!r} is not 1 to 12 characters of A-Za-z0-9_-.")
        run = urlsafe_b64encode(UUID(run_id).bytes).rstrip(b"=")
        return b"%b.%b." % (run, epoch.encode())
