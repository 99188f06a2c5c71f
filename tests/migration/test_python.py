"""What `chainserve migrate` does to Python source."""

import importlib
import random
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import PurePath

import pytest
from hypothesis import given, settings, strategies as st

from chainserve.migrate import Migrated, migrate
from chainserve.migrate.differences import BROUGHT
from chainserve.migrate.names import (
    MODULES,
    NAMES_WITHOUT_COUNTERPART,
    TOP_LEVEL,
    WITHOUT_COUNTERPART,
    why_not,
)
from tests._processes import ROOT
from tests.migration._names import own_names

PATH = PurePath("app/server.py")


def migrated(text: str, path: PurePath = PATH) -> Migrated:
    return migrate(path, text.encode())


def told(result: Migrated) -> list[str]:
    return [f"{note.line}: {note.kind}: {note.message}" for note in result.notes]


CHANGED = {
    "from langserve import add_routes": "from chainserve import add_routes",
    "from langserve import add_routes, RemoteRunnable as Remote": (
        "from chainserve import add_routes, RemoteRunnable as Remote"
    ),
    "from langserve.client import RemoteRunnable": "from chainserve.client import RemoteRunnable",
    "from langserve import client, schema as s": "from chainserve import client, schema as s",
    "from   langserve  .  server  import  add_routes # mine": (
        "from   chainserve  .  server  import  add_routes # mine"
    ),
    "from langserve import (\n    add_routes,  # langserve's\n    APIHandler,\n)": (
        "from chainserve import (\n    add_routes,  # langserve's\n    APIHandler,\n)"
    ),
    "from \\\n  langserve import add_routes": "from \\\n  chainserve import add_routes",
    "from langserve import *": (
        "from chainserve import APIHandler, CustomUserType, RemoteRunnable, __version__, add_routes"
    ),
    "from langserve import*": (
        "from chainserve import APIHandler, CustomUserType, RemoteRunnable, __version__, add_routes"
    ),
    "from langserve.schema import *": "from chainserve.schema import *",
    "import langserve": "import chainserve",
    "from langserve.api_handler import PerRequestConfigModifier": (
        "from chainserve.api_handler import PerRequestConfigModifier"
    ),
    "from langserve.server import EndpointName": "from chainserve.server import EndpointName",
    "import langserve as ls": "import chainserve as ls",
    "import os, langserve, sys": "import os, chainserve, sys",
    "import langserve.client as c\nc.RemoteRunnable": (
        "import chainserve.client as c\nc.RemoteRunnable"
    ),
    "import langserve\nlangserve.add_routes(app, chain)": (
        "import chainserve\nchainserve.add_routes(app, chain)"
    ),
    "import langserve.schema\nx: langserve.schema.Feedback": (
        "import chainserve.schema\nx: chainserve.schema.Feedback"
    ),
    "import langserve\ndef f(x: 'list[langserve.client]') -> \"langserve.APIHandler\": ...": (
        "import chainserve\ndef f(x: 'list[chainserve.client]') -> \"chainserve.APIHandler\": ..."
    ),
    "import langserve\nx: 'no expression'": "import chainserve\nx: 'no expression'",
    "import langserve\nf'{langserve.client}'": "import chainserve\nf'{chainserve.client}'",
    "try:\n    import langserve\nexcept ImportError:\n    langserve = None": (
        "try:\n    import chainserve\nexcept ImportError:\n    chainserve = None"
    ),
    "def f():\n\tif True:\n\t\tfrom langserve import add_routes": (
        "def f():\n\tif True:\n\t\tfrom chainserve import add_routes"
    ),
    "if TYPE_CHECKING:\n    from langserve.api_handler import TokenFeedbackConfig": (
        "if TYPE_CHECKING:\n    from chainserve.api_handler import TokenFeedbackConfig"
    ),
    "é = 'ü'; import langserve; langserve.add_routes": (
        "é = 'ü'; import chainserve; chainserve.add_routes"
    ),
    "x = 'a\x0cb\x1cc\u2028d\x85'; import langserve": (
        "x = 'a\x0cb\x1cc\u2028d\x85'; import chainserve"
    ),
    "import langserve as ls\nls = None": "import chainserve as ls\nls = None",
    "import_module('langserve.client')": "import_module('chainserve.client')",
    "importlib.import_module('langserve')": "importlib.import_module('chainserve')",
    "pkg_resources.get_distribution('langserve')": "pkg_resources.get_distribution('chainserve')",
    "metadata.distribution('langserve')": "metadata.distribution('chainserve')",
    "pytest.importorskip('''langserve''')": "pytest.importorskip('''chainserve''')",
    "version(distribution_name='langserve')": "version(distribution_name='chainserve')",
    "@mock.patch('langserve.client.RemoteRunnable.invoke')\ndef f(): ...": (
        "@mock.patch('chainserve.client.RemoteRunnable.invoke')\ndef f(): ..."
    ),
    "monkeypatch.setattr('langserve.server.add_routes', f)": (
        "monkeypatch.setattr('chainserve.server.add_routes', f)"
    ),
}


@pytest.mark.parametrize(("before", "after"), CHANGED.items())
def test_the_name_is_exchanged_and_nothing_else(before: str, after: str) -> None:
    result = migrated(before)

    assert result.data.decode() == after
    assert not [note for note in result.notes if note.kind != "differs"]
    assert migrated(after).data.decode() == after


LEFT = {
    "from langserve.pydantic_v1 import BaseModel as B, Field": (
        "1: by hand: There is no pydantic_v1: write: from pydantic import BaseModel as B, Field"
    ),
    "\nfrom langserve.server import add_routes, _register_path_for_app": (
        "2: by hand: _register_path_for_app is internal to LangServe"
    ),
    "from langserve.lzstring import LZString": "is compress in chainserve.lzstring",
    "from langserve.playground import serve_playground": "APIHandler.playground",
    "from langserve.server_sent_events import aconnect_sse": "httpx_sse",
    "from langserve.packages import add_package_route": "give it to add_routes",
    "import langserve.cli": "uvicorn",
    "from langserve import nowhere": "langserve.nowhere has no counterpart in chainserve.",
    "from langserve.server import APIHandler": "write chainserve.APIHandler.",
    "from langserve.api_handler import InvokeBaseResponse": (
        "write chainserve.validation.InvokeBaseResponse."
    ),
    "from langserve.server import PerRequestConfigModifier": (
        "write chainserve.api_handler.PerRequestConfigModifier."
    ),
    "from langserve.client import httpx": "import it directly",
    "from langserve.client import logger": "logging.getLogger(__name__)",
    "import langserve\nlangserve.api_handler._unpack_input": "2: by hand: _unpack_input is",
    "import langserve as ls\nls.playground.serve_playground": "2: by hand: langserve.playground",
    "import langserve\nx: 'langserve.playground.X'": "2: by hand: langserve.playground has no",
    "import langserve\ndef f(langserve): ...": "2: by hand: langserve is something else here too",
    "import langserve\nchainserve = 1": "2: by hand: chainserve is something else here too",
    "import langserve\ndef chainserve(): ...": "2: by hand: chainserve is something else here too",
    "import langserve\nimport os as chainserve": "2: by hand: chainserve is something else here",
    "try: import langserve\nexcept E as chainserve: ...": "2: by hand: chainserve is something",
    "import langserve\nmatch x:\n    case chainserve: ...": "3: by hand: chainserve is something",
    "import langserve\nmatch x:\n    case [*chainserve]: ...": "3: by hand: chainserve is",
    "import langserve\ndef f():\n    global langserve": "3: by hand: langserve is something else",
    "import langserve.playground as p": "langserve.playground has no counterpart",
    "from langserve import Feedback": "write chainserve.schema.Feedback.",
    "import langserve\n__all__ = ['langserve']": "2: by hand: langserve is something else",
    "import langserve\n__all__ += ['langserve']": "2: by hand: langserve is something else",
    "import langserve\n__all__: list[str] = ['langserve']": "2: by hand: langserve is something",
    "import langserve\n__all__.append('langserve')": "2: by hand: langserve is something else",
    "import langserve\nclass A:\n    langserve: int = 1": "2: by hand: langserve is something",
    "import langserve\nf(langserve=1)": "2: by hand: langserve is something else here too",
    "from .deps import langserve": "Import chainserve itself",
    "import_module('langserve.' 'client')": "Exchange 'langserve.client' for 'chainserve.client'.",
    "import_module(f'langserve.{name}')": "This makes a path below langserve",
    "patch('langserve.' + name)": "This makes a path below langserve",
    "patch('langserve.client._close_clients')": "_close_clients is internal to LangServe",
    "patch('langserve.client.httpx.Client')": "chainserve.client has no httpx",
    "app = 'langserve.server:add_routes'": "write 'chainserve.server:add_routes'",
    "getLogger('langserve')": "The logger of chainserve is called 'chainserve'.",
    "run(['pip', 'install', 'langserve[all]'])": "write 'chainserve[all]'",
    "run(['pip', 'install', 'LangServe'])": "write 'chainserve[client,server]'",
    "x = 'LangServe>=0.3'": "This asks for 'LangServe>=0.3': write 'chainserve[client,server]'.",
    "x = 'langserve; extra == \"x\"'": "write 'chainserve[client,server]; extra == \"x\"'",
    "from sse_starlette import EventSourceResponse": "require it yourself",
    "import os, sse_starlette.sse": "require it yourself",
    "langserve.add_routes(app, chain)": "This names langserve",
    "from srv import api; patch.object(api.langserve, 'add_routes')": "This names langserve",
    "import srv.api\nsrv.api.langserve.add_routes": "2: by hand: This names langserve",
    "with patch('srv.api.langserve.add_routes'): ...": "This names langserve",
    "monkeypatch.setattr('srv.api.langserve', None)": "This names langserve",
    "import api; getattr(api, 'langserve')": "This names langserve",
    "from srv import api; monkeypatch.setattr(api, 'langserve', None)": "This names langserve",
    "import sys; monkeypatch.setitem(sys.modules, 'langserve', None)": "This names langserve",
    "getattr(import_module('api'), 'langserve')": "This names langserve",
    "run(f'{sys.executable} -m langserve')": "This names langserve",
    "run('python3 -m langserve')": "This names langserve",
    "run(['pip', 'uninstall', 'langserve'])": "This names langserve",
    "run(['python3', '-m', 'langserve'])": "This names langserve",
    "if 'langserve' in sys.modules: ...": "This names langserve",
    "from sys import modules\n'langserve' not in modules": "This names langserve",
    "importlib.resources.files('langserve')": "This names langserve",
    "from importlib.resources import files\nfiles('langserve')": "This names langserve",
    "metadata.requires('langserve')": "This names langserve",
    "pkg_resources.require('langserve')": "This names langserve",
    "packages_distributions()['langserve']": "This names langserve",
    "warnings.filterwarnings('ignore', module='langserve')": "This names langserve",
    "warnings.filterwarnings('ignore', '', Warning, r'langserve\\..*')": "This names langserve",
    "pytest_plugins = ['langserve']": "This names langserve",
    "pytest_plugins: str = 'langserve'": "This names langserve",
    "sys.modules['langserve'] = None": "This names langserve",
    "sys.modules.pop('langserve')": "This names langserve",
    "globals()['langserve']": "This names langserve",
    "import sys; patch.dict(sys.modules, {'langserve': None, **more})": "This names langserve",
    "exec('import langserve')": "This names langserve",
    "run([sys.executable, '-c', 'from langserve import add_routes'])": "This names langserve",
    "run([sys.executable, '-m', 'langserve'])": "This names langserve",
    "run('pip install -q langserve', shell=True)": "This names langserve",
    "CODE = '''\n\nfrom langserve import add_routes'''": "3: by hand: This names langserve",
    "CODE = f'''from langserve import {names}'''": "1: by hand: This names langserve",
    "CODE = 'import os\\nimport langserve'": "1: by hand: This names langserve",
    "path = f'langserve.{name}'": "This makes a path below langserve",
}


@pytest.mark.parametrize(("text", "part"), LEFT.items())
def test_what_cannot_be_exchanged_stays_and_is_told_with_what_to_write(
    text: str, part: str
) -> None:
    result = migrated(text)

    assert result.data.decode() == text
    [note] = told(result)
    assert ": by hand: " in note
    assert part in note


DIFFERS = {
    "class Mine(a.APIHandler): ...  # langserve": "a subclass may override its endpoints alone",
    "class Mine(H): ...\nfrom langserve import APIHandler as H": "a subclass may override its",
    "opts = {'config_keys': ['callbacks'], 1: 2, **langserve_s}": "must not name 'callbacks'",
    "from langchain_core.pydantic_v1 import BaseModel": "from pydantic import BaseModel, Field",
    "from pydantic.v1 import BaseModel": "from pydantic import BaseModel, Field",
    "from pydantic import v1  # pydantic.v1": "from pydantic import BaseModel, Field",
    "llm.configurable_fields(openai_api_key=ConfigurableField(id='openai_api_key'))": (
        "configurable=['openai_api_key']"
    ),
    "ConfigurableField('llm_base_url')": "No caller may set 'llm_base_url'",
    "init_chat_model(configurable_fields='any')": "serve Chain(path=…, runnable=…, configurable=",
    "init_chat_model(configurable_fields=('model', 'api_key'))": "No caller may set 'api_key'",
    "langserve_s.add_routes(app, config_keys=['run_name', 'tags'])": "must not name 'run_name'",
    "from langserve.schema import *": "does not have the names that LangServe's module imported",
}


@pytest.mark.parametrize(("text", "part"), DIFFERS.items())
def test_what_behaves_differently_on_purpose_is_told(text: str, part: str) -> None:
    [note] = told(migrated(text))

    assert note.startswith("1: differs: ")
    assert part in note


QUIET = [
    "import os",
    "import langserve_extras\nfrom langserve2 import x\nfrom .langserve import y",
    "x = 1  # from langserve import add_routes",
    "'''from langserve import add_routes'''\ndef f():\n    'See langserve.client.'",
    "print('Served by langserve. See https://langserve.example.com')",
    "open('langserve.log'); open('langserve.db')",
    "def f(langserve): return langserve.add_routes(app, chain)",
    "self.langserve = cls.langserve; servers.langserve",
    "packages = {'langserve': 1}; packages['langserve']; packages.get('langserve')",
    "CODE = 'This was langserve. Do not add a langserve-app to it.'",
    "ConfigurableField(id='temperature')",
    "except_http = httpx.HTTPStatusError  # langserve",
    "tags = ['langserve']",
    "def f(langserve): return langserve.foo",
    "x = 'langserve is [not] this'; f()['langserve']",
    "def f(d): return d.files('langserve'), 'langserve' in d.tags, 'langserve' in d",
    "async def langserve(): ...\nlangserve.x",
    "try: f()\nexcept E as langserve: langserve.x",
    "match x:\n    case langserve: langserve.x",
    "match x:\n    case [*langserve]: langserve.x",
    "def f(d): return getattr(d, 'langserve'), hasattr(d, 'langserve'), getattr(d.x, 'langserve')",
    "def f(d): setattr(d, 'langserve', 1); monkeypatch.setitem(d, 'langserve', 1)",
    "getattr(*langserve_names)",
    "import pytest\n@pytest.mark.langserve\ndef test_f(): ...",
    "run(['pytest', '-m', 'langserve']); pytest.main(['-m', 'langserve'])",
    "run('pytest -m langserve')",
    "FastAPI(title='LangServe'); print('LangServe'); print('LangServe ', 'LangServe; a server')",
    "os.environ['LANGSERVE']; os.getenv('LANGSERVE', 'LangServe')",
]


@pytest.mark.parametrize("text", QUIET)
def test_what_is_no_use_of_langserve_stays_without_a_word(text: str) -> None:
    result = migrated(text)

    assert result.data.decode() == text
    assert result.notes == ()


def test_a_binding_is_changed_with_all_of_its_uses_or_not_at_all() -> None:
    text = "import langserve\nlangserve.add_routes(app, c)\nlangserve.server_sent_events.X\n"
    other = "from langserve import APIHandler\n"
    result = migrated(text + other)

    assert result.data.decode() == text + other.replace("langserve", "chainserve")
    assert len(result.notes) == 1


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("encoding", "start"),
    [
        ("utf-8", ""),
        ("utf-8", "\ufeff"),
        ("latin-1", "# -*- coding: latin-1 -*-\n"),
        ("cp1252", "# coding: cp1252\n"),
        ("shift_jis", "#!/usr/bin/python\n# vim: set fileencoding=shift_jis :\n"),
    ],
)
def test_encodings_byte_order_marks_line_ends_tabs_and_form_feeds_stay(
    encoding: str, start: str, line_end: str
) -> None:
    word = "é" if encoding != "shift_jis" else "語"
    text = (
        f"{start}def f():\n\t'{word}'; import langserve;  # {word}\n"
        f"\x0c\n\tx = '''{word}\n  '''; langserve.add_routes   \n\n\n#  the end"
    ).replace("\n", line_end)
    data = text.encode(encoding)
    result = migrate(PATH, data)

    assert result.changes == 2
    assert result.data == data.replace(b"langserve", b"chainserve")


def test_line_ends_of_old_macs_stay() -> None:
    assert migrated("import os\rimport langserve\r").data == b"import os\rimport chainserve\r"


FAILED = {
    b"print 'langserve'": "1: failed: not Python that can be read here",
    b"x = (\nimport langserve": "failed: not Python that can be read here",
    b"# coding: nonsense\nimport langserve": "0: failed: in no encoding",
    b"import langserve  # \xff": "0: failed: in no encoding",
    b"import langserve\0": "0: failed: binary",
    b"# coding: undefined\nimport langserve": "0: failed: in no encoding",
    b"# coding: idna\nimport langserve # \xe9": "0: failed: in no encoding",
    b"langserve" + b"(" * 5000: "1: failed: not Python",
    b"import langserve\nx = 1" + b"+1" * 50_000: "0: failed: nested too deeply",
}


@pytest.mark.parametrize(("data", "part"), FAILED.items(), ids=range(len(FAILED)))
def test_a_file_that_cannot_be_read_stays_and_is_told(data: bytes, part: str) -> None:
    result = migrate(PATH, data)

    assert result.data == data
    [note] = told(result)
    assert part in note


@pytest.mark.parametrize("path", sorted(PurePath("x").with_suffix(s) for s in (".py", ".pyi")))
def test_stubs_are_python_too(path: PurePath) -> None:
    assert migrated("import langserve", path).changes == 1


@pytest.mark.parametrize("line", ["#!/usr/bin/env python3", "\ufeff#!/usr/bin/python -u"])
def test_a_script_without_an_ending_is_python_if_its_first_line_says_so(line: str) -> None:
    text = f"{line}\nimport langserve\n"

    assert migrated(text, PurePath("bin/serve")).data.decode() == text.replace("lang", "chain")
    for other in ("README.md", "a.rb"):
        assert migrated(text, PurePath(other)).changes == 0
    assert migrated(text.replace("python", "ruby"), PurePath("bin/serve")).changes == 0


def test_a_script_without_an_ending_is_read_in_its_encoding() -> None:
    data = "#!/usr/bin/python\n# coding: latin-1\nimport langserve  # é\n".encode("latin-1")

    assert migrate(PurePath("serve"), data).data == data.replace(b"lang", b"chain")


_PIECES = [*CHANGED, *LEFT, *DIFFERS, *QUIET]


@settings(deadline=None)
@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=5), st.randoms())
def test_what_was_migrated_is_python_and_stays_as_it_is(
    pieces: list[str], chance: random.Random
) -> None:
    chance.shuffle(pieces)
    once = migrated("\n".join(pieces))
    again = migrate(PATH, once.data)

    compile(once.data, "x", "exec", dont_inherit=True)
    assert again.data == once.data
    assert again.changes == 0


def test_each_name_has_the_counterpart_that_is_said() -> None:
    for module, names in MODULES.items():
        theirs = importlib.import_module(f"langserve.{module}")
        ours = importlib.import_module(f"chainserve.{module}")
        for name in names:
            assert hasattr(theirs, name), name
            assert hasattr(ours, name), name
            assert why_not(f"langserve.{module}.{name}") is None


def test_every_public_name_of_langserves_is_known() -> None:
    langserve = importlib.import_module("langserve")
    assert {*TOP_LEVEL} == {*langserve.__all__}
    for module in MODULES:
        own = own_names(f"langserve.{module}") - NAMES_WITHOUT_COUNTERPART.keys()
        assert own <= MODULES[module], module


def required_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def test_what_came_with_langserve_alone_is_known() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    ours = required_names([*project["dependencies"], *extras["client"], *extras["server"]])

    assert required_names(metadata.requires("langserve") or []) - ours == {*BROUGHT.values()}


OF_OUR_OWN = {"cli", "lzstring", "playground"}
"""The same words, for other things."""


def test_modules_without_a_counterpart_have_none() -> None:
    for module in WITHOUT_COUNTERPART.keys() - OF_OUR_OWN:
        with pytest.raises(ImportError):
            importlib.import_module(f"chainserve.{module}")


def test_the_package_alone_brings_its_modules_as_langserves_does() -> None:
    code = f"import chainserve\nfor name in {sorted(MODULES)}: getattr(chainserve, name).__name__"
    subprocess.run([sys.executable, "-c", code], check=True)
