"""What a client asks a server, and tells it, beside its calls."""

import json
from typing import Any
from uuid import uuid4

from chainserve.calls import Call, is_problem
from chainserve.remote import RemoteRun
from chainserve.retries import Retries

LEAVE_TIMEOUT = 2.0
"""Seconds for which a caller who leaves waits for the server to be told."""

_PROBE_TIMEOUT = 10.0
"""Seconds for each step of the question which server this is."""


def probe() -> Call:
    """Return a call for a run that there is not, which chainserve alone knows to answer."""
    nothing = RemoteRun()
    path = f"runs/{uuid4()}"
    return Call("GET", path, b"", nothing, Retries(0), timeout=_PROBE_TIMEOUT, repeatable=True)


def is_of_chainserve(response: Any, body: bytes) -> bool:
    """Tell whether the answer to a `probe` is chainserve's."""
    return response.status_code == 404 and b'"run_not_found"' in body and is_problem(response)


def cancelling(call: Call) -> Call:
    """Return a call that cancels the run of another one, and does not wait for its end."""
    named = {"endpoint": call.path, "idempotency_key": call.key}
    return Call(
        "POST",
        "runs/cancel",
        json.dumps(named).encode(),
        RemoteRun(),
        Retries(0),
        prefer=["wait=0"],
        timeout=LEAVE_TIMEOUT,
        repeatable=True,
    )
