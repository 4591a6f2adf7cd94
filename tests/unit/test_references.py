"""Objects by name, and modules beside a file."""

from __future__ import annotations

import importlib
import json
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from petal.errors import AgentConfigurationError
from petal.types import references
from petal.types.references import is_reference, resolve


@pytest.fixture(autouse=True)
def fresh_modules() -> Iterator[None]:
    """Each test leaves `sys.path` as it was; modules that it loaded are unloaded."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    references._folders.clear()


def written(folder: Path, **modules: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_reference_names_an_object() -> None:
    assert resolve("json:loads") is json.loads
    assert resolve("collections:OrderedDict.fromkeys") == OrderedDict.fromkeys
    assert resolve("os.path:join") is importlib.import_module("os.path").join


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("json:loads", True),
        ("a.b_1:c.d", True),
        ("json.loads", False),
        ("json:", False),
        (":loads", False),
        ("a b:c", False),
        ("json:loads()", False),
        ("1a:b", False),
        ("a..b:c", False),
        ("json:loads\n", False),
    ],
)
def test_what_is_a_reference(text: str, expected: bool) -> None:
    assert is_reference(text) is expected


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("json.loads", "'json.loads' is no reference; write it as 'json:loads'."),
        ("loads", "'loads' is no reference; write it as 'package.module:name'."),
        ("json:laods", "'json' has no 'laods'. Did you mean 'loads'?"),
        ("json:zzz", "'json' has no 'zzz'."),
        (
            "collections:OrderedDict.fromkesy",
            "'collections:OrderedDict' has no 'fromkesy'. Did you mean 'fromkeys'?",
        ),
        ("jsom:loads", "There is no module 'jsom' on sys.path. Did you mean 'json'?"),
        ("json.zzzzzzzzzz:loads", "There is no module 'json.zzzzzzzzzz' on sys.path."),
    ],
)
def test_what_cannot_be_found_is_said(reference: str, message: str) -> None:
    with pytest.raises(AgentConfigurationError) as raised:
        resolve(reference)
    assert str(raised.value) == message


def test_a_module_beside_the_file_keeps_its_name(tmp_path: Path) -> None:
    """Its types are saved as `beside_steps.Item`, on whichever machine and wherever the process was started."""
    written(tmp_path, beside_steps="class Item: ...\n")
    item = resolve("beside_steps:Item", folder=tmp_path)
    assert item.__module__ == "beside_steps"
    assert importlib.import_module(item.__module__).Item is item
    assert resolve("beside_steps:Item", folder=tmp_path) is item


def test_the_module_that_code_imports_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, beside_code="def f(): ...\n")
    with monkeypatch.context() as patched:
        patched.syspath_prepend(str(tmp_path))
        assert resolve("beside_code:f", folder=tmp_path) is importlib.import_module("beside_code").f


def test_two_folders_with_a_module_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(
            tmp_path / name, twin=f"class Item: owner = {name!r}\n", pack____init__="", pack__twin=f"owner = {name!r}\n"
        )
    items = [resolve("twin:Item", folder=tmp_path / name) for name in ("a", "b", "a", "b")]
    assert [item.owner for item in items] == ["a", "b", "a", "b"]
    assert items[0] is items[2]
    assert items[1] is items[3]
    for item in items:
        assert sys.modules[item.__module__].Item is item
        assert importlib.import_module(item.__module__).Item is item
    assert [resolve("pack.twin:owner", folder=tmp_path / name) for name in ("a", "b")] == ["a", "b"]


def test_a_folder_inside_another_is_another(tmp_path: Path) -> None:
    written(tmp_path, nested="where = 'outer'\n")
    written(tmp_path / "inner", nested="where = 'inner'\n")
    assert resolve("nested:where", folder=tmp_path / "inner") == "inner"
    assert resolve("nested:where", folder=tmp_path) == "outer"


def test_files_beside_each_other_import_each_other(tmp_path: Path) -> None:
    """Also where another folder's file of that name was loaded before."""
    for name in ("a", "b"):
        written(tmp_path / name, **{f"main_{name}": "from sibling import owner\n", "sibling": f"owner = {name!r}\n"})
    assert resolve("main_a:owner", folder=tmp_path / "a") == "a"
    first = sys.modules["sibling"]
    assert resolve("main_b:owner", folder=tmp_path / "b") == "b"
    assert sys.modules["sibling"] is first
    assert resolve("sibling:owner", folder=tmp_path / "b") == "b"


def test_a_file_named_as_an_installed_module_is_meant(tmp_path: Path) -> None:
    """The file in front of the user's eyes comes first; the library stays what it is for everyone else."""
    written(tmp_path, json="loads = 'mine'\n", yaml="load = 'mine'\n")
    library = sys.modules["json"]
    assert resolve("json:loads", folder=tmp_path) == "mine"
    assert resolve("yaml:load", folder=tmp_path) == "mine"
    assert sys.modules["json"] is library
    assert importlib.import_module("json").loads is json.loads


def test_a_module_without_a_file_is_no_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, made_up="name = 'file'\n")
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    assert resolve("made_up:name", folder=tmp_path) == "file"


def test_what_is_not_beside_the_file_comes_from_the_path(tmp_path: Path) -> None:
    assert resolve("json:loads", folder=tmp_path) is json.loads
    written(tmp_path, stepz="")
    with pytest.raises(AgentConfigurationError) as raised:
        resolve("stepx:f", folder=tmp_path)
    assert str(raised.value) == "There is no module 'stepx' beside the file or on sys.path. Did you mean 'stepz'?"


@pytest.mark.parametrize(
    ("text", "message", "cause"),
    [
        ("1 / 0", "Importing 'broken' raised ZeroDivisionError: division by zero", ZeroDivisionError),
        (
            "import no_such_thing",
            "Importing 'broken' raised ModuleNotFoundError: No module named 'no_such_thing'",
            ImportError,
        ),
        ("raise SystemExit(3)", "Importing 'broken' raised SystemExit: 3", SystemExit),
        ("def f(:", "Importing 'broken' raised SyntaxError: ", SyntaxError),
        ("import sys; sys.path.pop(0); 1 / 0", "Importing 'broken' raised ZeroDivisionError: ", ZeroDivisionError),
    ],
)
def test_what_an_import_raised_is_the_cause(
    tmp_path: Path, text: str, message: str, cause: type[BaseException]
) -> None:
    written(tmp_path, broken=text)
    with pytest.raises(AgentConfigurationError) as raised:
        resolve("broken:f", folder=tmp_path)
    assert str(raised.value).startswith(message)
    assert isinstance(raised.value.__cause__, cause)
    assert "broken" not in sys.modules
