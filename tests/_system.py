"""Programs of the system that some tests need and a developer's machine may lack."""

import os
import shutil

import pytest


def require_program(name: str, *, package: str) -> str:
    """Return the path of a program.

    Where it is missing the test is skipped, or fails if the environment says `CI=true`: there it
    should have been installed. Both name the Debian package that brings it.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"needs the program {name}: install the Debian package {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
