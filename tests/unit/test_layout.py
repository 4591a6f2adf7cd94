"""The house stands as it is drawn: small modules, one sentence at the door, nobody where they have no business."""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
MODULES = sorted(SOURCE.rglob("*.py"))

MOST_LINES = 500
SHRUGS = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}

STORAGE = {
    "aiosqlite",
    "langgraph.checkpoint.postgres",
    "langgraph.checkpoint.sqlite",
    "psycopg",
    "psycopg_pool",
    "sqlite3",
}
"""Modules that reach a database."""
STORAGE_USERS = {"petal/checkpoints", "petal/testing/postgres.py"}
GRAPH_USER = "petal/core/builders/director.py"

LATE = {
    "langgraph",
    "langchain",
    "langchain_anthropic",
    "langchain_core",
    "langchain_ollama",
    "langchain_openai",
    "langchain_mcp_adapters",
    "mcp",
    "openai",
    "psycopg",
    "rich",
    "typer",
    "xllamacpp",
}
"""What `import petal` leaves alone until it is used."""

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())


@each_module
def test_a_module_is_small(module: Path) -> None:
    """A module of more than 500 lines is two."""
    assert len(module.read_text().splitlines()) <= MOST_LINES


@each_module
def test_a_module_opens_with_one_sentence(module: Path) -> None:
    """The first line says what the module is for."""
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    assert docstring is not None
    first = docstring.partition("\n\n")[0]
    assert re.fullmatch(r"[^\n]+[.:]", first), first
    assert not re.search(r"[.!?]\s+[A-Z]", first), f"more than one sentence: {first}"


@each_module
def test_a_module_has_a_name(module: Path) -> None:
    """A name says what is inside; a shrug takes everything in."""
    assert not SHRUGS & set(module.relative_to(SOURCE).with_suffix("").parts)


@each_module
def test_no_error_is_swallowed(module: Path) -> None:
    """A handler for any error at all has something to do about it."""
    swallowed = [handler.lineno for handler in _handlers(module) if _catches_all(handler) and _does_nothing(handler)]
    assert not swallowed, f"lines {swallowed}"


@pytest.mark.parametrize(
    ("source", "swallows"),
    [
        ("try:\n    a()\nexcept Exception:\n    pass", True),
        ("try:\n    a()\nexcept:\n    ...", True),
        ("try:\n    a()\nexcept (ValueError, BaseException) as error:\n    'why'", True),
        ("for b in c:\n    try:\n        a()\n    except Exception:\n        continue", True),
        ("try:\n    a()\nexcept ValueError:\n    pass", False),
        ("try:\n    a()\nexcept Exception as error:\n    raise B from error", False),
    ],
)
def test_a_swallowed_error_is_recognised(source: str, swallows: bool) -> None:
    """The rule above sees what it should, and no more."""
    handler = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler))
    assert (_catches_all(handler) and _does_nothing(handler)) is swallows


@each_module
def test_only_checkpoints_import_a_database(module: Path) -> None:
    """Everybody else asks `petal.checkpoints`."""
    place = module.relative_to(SOURCE).as_posix()
    if any(place.startswith(user) for user in STORAGE_USERS):
        return
    assert not [name for name in _imports(module) if _below(name, STORAGE)]


@each_module
def test_only_the_director_draws_a_graph(module: Path) -> None:
    """`StateGraph` is imported in one place."""
    names = {name for name in _imports(module) if name.rpartition(".")[2] == "StateGraph"}
    assert not names or module.relative_to(SOURCE).as_posix() == GRAPH_USER


def test_importing_petal_stays_fast() -> None:
    """Neither LangGraph nor a provider nor the command line is imported before it is used."""
    script = "import json, sys, petal; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not LATE & set(json.loads(done.stdout))


def test_every_public_name_is_there() -> None:
    """Each name that `petal` promises leads somewhere, and an unknown one says so."""
    import petal

    for name in petal.__all__:
        assert getattr(petal, name) is not None
    with pytest.raises(AttributeError, match="module 'petal' has no attribute 'Agnet'"):
        petal.__getattr__("Agnet")


@pytest.mark.parametrize("address", ["192.0.2.1", "example.com"])
def test_no_test_leaves_this_machine(address: str) -> None:
    """The guard in conftest.py stops a connection and a look-up of a name."""
    with pytest.raises(pytest.fail.Exception, match=re.escape(f"A test tried to reach {address!r}")):
        socket.create_connection((address, 9), timeout=1)
    with socket.socket() as probe, pytest.raises(pytest.fail.Exception, match=re.escape(repr(address))):
        probe.connect_ex((address, 9))


def _handlers(module: Path) -> Iterator[ast.ExceptHandler]:
    return (node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.ExceptHandler))


def _catches_all(handler: ast.ExceptHandler) -> bool:
    match handler.type:
        case None:
            return True
        case ast.Tuple(elts=kinds):
            return any(ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)
        case kind:
            return ast.unparse(kind) in ("Exception", "BaseException")


def _does_nothing(handler: ast.ExceptHandler) -> bool:
    return all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in handler.body
    )


def _imports(module: Path) -> Iterator[str]:
    """Dotted names of everything that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=str(home), names=aliases):
                yield from (f"{home}.{alias.name}" for alias in aliases)


def _below(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
