"""Carries out a Dockerfile without Docker: each stage in a directory of its own.

Absolute paths in RUN, COPY, WORKDIR and ENV mean paths below the stage's directory, and the virtual
environment of the tests stands in for the interpreter of the base image. What only root can do is
left out and listed. Just the instructions that our Dockerfile uses are known; any other one is an
error.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from string import Template

_NEEDS_ROOT = ("adduser", "apt-get", "chown", "groupadd", "useradd")


@dataclass
class Stage:
    """One stage of the build; the last one is the image.

    Attributes:
        root: The directory that stands for `/`.
        env: What ENV has set, its paths below `root`.
        left_out: RUN commands that need root.
    """

    base: str
    root: Path
    env: dict[str, str]
    workdir: Path
    user: str = "root"
    ports: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def path(self, text: str) -> Path:
        """Return where a path of the image lies on this machine."""
        return self.root / text.lstrip("/") if text.startswith("/") else self.workdir / text

    def below_root(self, text: str) -> str:
        """Rewrite the absolute paths in a command or a value."""
        return re.sub(r"(?<![\w./])/(?=\w)", f"{self.root}/", text)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the keyword and the arguments of each instruction."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, arguments = line.strip().partition(" ")
        if keyword:
            yield keyword.upper(), arguments.strip()


class Replay:
    """Builds the Dockerfile of a context directory below an empty directory.

    The environment is for RUN commands alone, as build arguments would be.
    """

    def __init__(self, context: Path, directory: Path, environment: Mapping[str, str]) -> None:
        self._context = context
        self._directory = directory
        self._ignored = (context / ".dockerignore").read_text().split()
        self._stages: dict[str, Stage] = {}
        self._environment = environment

    def build(self) -> Stage:
        """Carry out every instruction and return the last stage.

        Raises:
            subprocess.CalledProcessError: A RUN command failed; its output is in the test's.
            ValueError: The Dockerfile has an instruction this replay does not know.
        """
        for keyword, arguments in instructions((self._context / "Dockerfile").read_text()):
            if keyword == "FROM":
                stage = self._start_stage(arguments)
            else:
                self._carry_out(stage, keyword, arguments)
        return stage

    def _start_stage(self, arguments: str) -> Stage:
        base, _, name = arguments.partition(" AS ")
        root = self._directory / f"stage{len(self._stages)}"
        root.mkdir()
        env = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
        stage = Stage(base=base, root=root, env=env, workdir=root)
        self._stages[name or root.name] = stage
        return stage

    def _carry_out(self, stage: Stage, keyword: str, arguments: str) -> None:
        match keyword:
            case "ENV":
                for assignment in shlex.split(arguments):
                    name, _, value = assignment.partition("=")
                    stage.env[name] = Template(stage.below_root(value)).substitute(stage.env)
            case "WORKDIR":
                stage.workdir = stage.path(arguments)
                stage.workdir.mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(stage, arguments.split())
            case "RUN":
                self._run(stage, arguments)
            case "USER":
                stage.user = arguments
            case "EXPOSE":
                stage.ports += arguments.split()
            case "HEALTHCHECK":
                stage.healthcheck = _exec_form(arguments[arguments.index("CMD ") + 4 :])
            case "CMD":
                stage.command = _exec_form(arguments)
            case _:
                raise ValueError(f"the replay does not know {keyword}")

    def _copy(self, stage: Stage, arguments: list[str]) -> None:
        origin = None
        if arguments[0].startswith("--from="):
            origin = self._stages[arguments.pop(0).removeprefix("--from=")]
        *sources, destination = arguments
        target = stage.path(destination)
        for source in sources:
            found = origin.path(source) if origin else self._context / source
            if origin is None and self._is_ignored(found):
                raise FileNotFoundError(f".dockerignore keeps {source} out of the build")
            if found.is_dir():
                ignore = None if origin else self._ignored_names
                shutil.copytree(found, target, symlinks=True, ignore=ignore, dirs_exist_ok=True)
            else:
                into = target / found.name if destination.endswith("/") else target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)

    def _ignored_names(self, directory: str, names: list[str]) -> set[str]:
        return {name for name in names if self._is_ignored(Path(directory, name))}

    def _is_ignored(self, path: Path) -> bool:
        parts = path.relative_to(self._context).parts
        ignored = False
        for line in self._ignored:
            pattern = line.removeprefix("!")
            anywhere = pattern.startswith("**/")
            candidates = parts if anywhere else parts[:1]
            if any(fnmatch(part, pattern.removeprefix("**/")) for part in candidates):
                ignored = not line.startswith("!")
        return ignored

    def _run(self, stage: Stage, command: str) -> None:
        if command.startswith(_NEEDS_ROOT):
            stage.left_out.append(command)
            return
        subprocess.run(
            ["sh", "-c", stage.below_root(command)],
            cwd=stage.workdir,
            env={**self._environment, **stage.env},
            check=True,
        )


def _exec_form(arguments: str) -> list[str]:
    words = json.loads(arguments)
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"not the exec form: {arguments}")
    return list(words)
