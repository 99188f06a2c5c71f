"""Load from wrk, which takes so little of the machine that the servers have nearly all of it."""

import re
import shutil
import subprocess
import tempfile
from json import dumps
from uuid import uuid4

from benchmarks.http import KEY
from benchmarks.processes import HOST, MeasuringError

_SCRIPT = """\
local number = 0
function request()
  number = number + 1
  return ({request}):gsub({key}, {prefix} .. number)
end
"""
_DONE = re.compile(r"(\d+) requests in ([0-9.]+)(ms|s|m),")
_UNITS = {"ms": 0.001, "s": 1, "m": 60}


def is_installed() -> bool:
    """Tell whether there is wrk (`apt-get install wrk`)."""
    return shutil.which("wrk") is not None


def ask_for(port: int, request: bytes, *, seconds: int, connections: int) -> tuple[int, float]:
    """Ask for some seconds; return how many answers came, and in how many seconds.

    Raises:
        MeasuringError: One of them was not a success, or a connection broke.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script(request))
        file.flush()
        sizes = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
        command = ["wrk", *sizes, "-s", file.name, f"http://{HOST}:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return parsed(done.stdout + done.stderr)


def script(request: bytes) -> str:
    """Return what makes wrk send a request, with a fresh key where it has a place for one.

    What JSON writes as ASCII without line breaks, Lua reads; the requests here have nothing else.
    """
    texts = {"request": request.decode("ascii"), "key": KEY.decode(), "prefix": f"{uuid4()}-"}
    return _SCRIPT.format(**{name: dumps(text) for name, text in texts.items()})


def parsed(said: str) -> tuple[int, float]:
    """Return the answers and the seconds of which wrk tells.

    Raises:
        MeasuringError: It tells of failures, or of nothing.
    """
    found = _DONE.search(said)
    if found is None or found[1] == "0" or "Non-2xx" in said or "Socket errors" in said:
        raise MeasuringError(f"wrk: {said}")
    return int(found[1]), float(found[2]) * _UNITS[found[3]]
