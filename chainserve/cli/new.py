"""`chainserve new`: writes a chain's module and its test."""

import argparse
import json
import keyword
import os
import re
from pathlib import Path, PurePosixPath

from chainserve.cli.exits import BAD_USAGE, DONE, FAILED, CommandError, exit_codes

_HELP = """\
Write a new chain, and a test that passes, into the project in this folder.

NAME becomes the module chains/NAME.py, which is served at /NAME, and the test
tests/test_NAME.py. Without a key the offline demo model answers, so both work
at once. No file is ever overwritten.

examples:
  chainserve new joke
  chainserve new travel_plan --folder app/chains
"""
_EPILOG = exit_codes(
    {
        DONE: "both files are written",
        FAILED: "one of them exists already, or cannot be written",
        BAD_USAGE: "bad usage, such as a name that no module can have",
    }
)

_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = frozenset({"chains", "docs", "redoc", "livez", "readyz", "metrics"})
"""Paths that belong to the server."""

_CHAIN = '''\
"""@TITLE@: answers one question."""

from chainserve import Chain
from chainserve.demo import chat_model, model_name
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, Field

SYSTEM = """\\
You answer one question at a time.

- Begin with the answer itself, and stay under 150 words.
- If you do not know, say so. Never invent names, numbers or sources.
- Answer in the language of the question."""


class Question(BaseModel):
    """A question."""

    question: str = Field(min_length=1, max_length=20_000, description="What you want to know.")


prompt = ChatPromptTemplate([("system", SYSTEM), ("human", "{question}")])
model = chat_model()

chain = Chain(
    path="/@NAME@",
    runnable=prompt | model | StrOutputParser(),
    title="@TITLE@",
    description="Answers a question in a few sentences.",
    examples=[{"question": "Why is the sky blue?"}],
    model=model_name(model),
    input_type=Question,
)
'''
_TEST = '''\
"""The chain /@NAME@, in this process, with the offline model."""

from pathlib import Path

import pytest
from chainserve import Chain, discover

FOLDER = Path(__file__).parent.parent@FOLDER@


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Chain:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CHAINSERVE_DEMO_PAUSE", "0")
    return next(chain for chain in discover(FOLDER) if chain.path == "/@NAME@")


def test_the_answer_streams(chain: Chain) -> None:
    for example in chain.examples:
        chunks = [*chain.runnable.stream(example)]

        assert len(chunks) > 1
        assert "offline demo" in "".join(chunks)
'''


def set_up(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    parser.description, parser.epilog = _HELP, _EPILOG
    parser.add_argument("chain", metavar="NAME", help="such as joke, or travel_plan")
    parser.add_argument(
        "--folder",
        default="chains",
        help="the folder of chains, below this one (default: %(default)s)",
    )
    parser.set_defaults(command=_new)


def _new(options: argparse.Namespace) -> int:
    name: str = options.chain
    if (refusal := _why_refused(name)) is not None:
        raise CommandError(refusal, BAD_USAGE)
    folder = _below_here(options.folder)
    words = {
        "@NAME@": name,
        "@TITLE@": name.replace("_", " ").strip().capitalize(),
        "@FOLDER@": "".join(f" / {json.dumps(part)}" for part in folder.parts),
    }
    files = {folder / f"{name}.py": _CHAIN, PurePosixPath("tests", f"test_{name}.py"): _TEST}
    _write({Path(path): _filled(text, words) for path, text in files.items()})
    serve = "chainserve serve" if str(folder) == "chains" else f"chainserve serve {folder}"
    steps = {
        f"{serve} --reload": f"serves it at http://127.0.0.1:8000/{name}",
        f'chainserve call {name} "Why?"': "asks it",
        "python -m pytest": "runs its test (pip install pytest)",
    }
    width = max(map(len, steps))
    print(f"Wrote {' and '.join(map(str, files))}.\n")
    for step, does in steps.items():
        print(f"  {step:{width}}  {does}")
    return DONE


def _why_refused(name: str) -> str | None:
    """Return why a chain cannot have a name, and one that it can have where there is one."""
    if name in RESERVED:
        return f"/{name} belongs to the server itself. Choose another name."
    if keyword.iskeyword(name):
        return f"{name!r} is a word of Python's. Choose another name."
    if _NAME.fullmatch(name):
        return None
    better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")
    hint = f" Perhaps {better!r}?" if _NAME.fullmatch(better) else ""
    return (
        f"{name!r} cannot be the name of a module: it is made of a to z, 0 to 9 and _, and begins "
        f"with a letter.{hint}"
    )


def _below_here(folder: str) -> PurePosixPath:
    """Return a folder as it is named from here.

    Raises:
        CommandError: It is not below this one.
    """
    path = Path(os.path.normpath(folder.replace("\\", "/")))
    if path.is_absolute() or ".." in path.parts or path in (Path(), Path("tests")):
        raise CommandError(f"{folder!r} is no folder for chains below this one.", BAD_USAGE)
    return PurePosixPath(*path.parts)


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _write(files: dict[Path, str]) -> None:
    """Write files that are not there yet.

    Raises:
        CommandError: One is there, or cannot be written; then none is left that was not there.
    """
    if there := [path for path in files if path.exists() or path.is_symlink()]:
        raise CommandError(
            f"There is {' and '.join(map(str, there))} already, and nothing is overwritten. "
            "Choose another name."
        )
    written: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink()
        raise CommandError(f"{error.filename}: {error.strerror}.") from None
