"""The built wheel is whole: in an environment of its own, far from the source, Petal runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMPILED = (".so", ".pyd")
LEFT_OUT = ("COVERAGE", "PYTHON", "VIRTUAL_ENV")

AGENT = """
import operator
import sys
from typing import Annotated, TypedDict

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory


class Log(TypedDict):
    said: Annotated[list[str], operator.add]
    count: int


def count(state: Log) -> dict[str, int]:
    return {"count": len(state["said"])}


storage = CheckpointerConfig(type="sqlite", config={"db_file": "data/log.db"})
with AgentFactory(Log).add(count).with_checkpointer(storage).build() as agent:
    for word in sys.argv[1:]:
        print(agent.invoke({"said": [word]}, thread_id="t"))
"""

# A cold package cache may take longer than one test usually can.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this source."""
    return _built(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of a fresh environment that holds the wheel and what it asks for, and no more."""
    folder = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    programs = folder / "venv" / "bin"
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "install", "-qq", "--no-compile", "-c", str(ROOT / "constraints.txt"), str(wheel)], folder)
    _run([*pip, "check"], folder)
    return programs


def test_the_wheel_holds_each_file_of_the_package(wheel: Path, can_compile: bool) -> None:
    """Types, SQL and templates are inside, and nothing else is but what was compiled."""
    inside = _inside(wheel)
    assert {name for name in inside if not name.endswith(COMPILED)} == _packaged()
    assert "petal/py.typed" in inside
    compiled = [name.partition(".")[0] for name in inside - _packaged()]
    assert compiled == ["petal/checkpoints/codec/_many_models"] * can_compile


def test_without_a_compiler_it_is_python_alone(tmp_path: Path) -> None:
    """The build says so and goes on, and what it gives works."""
    wheel = _built(tmp_path, CC="no-such-compiler")
    assert _inside(wheel) == _packaged()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    asked = "import petal.checkpoints.codec.many_models as models; print(models.__file__, models.IN_C)"
    path, in_c = _run([sys.executable, "-c", asked], tmp_path, PYTHONPATH=str(tmp_path / "installed")).split()
    assert Path(path).is_relative_to(tmp_path)
    assert in_c == "False"


def test_the_command_is_installed(environment: Path, tmp_path: Path) -> None:
    """`petal --version` works without the extras."""
    assert _run([str(environment / "petal"), "--version"], tmp_path).split()[-1] == "0.1.0"


def test_an_agent_runs_and_remembers(environment: Path, tmp_path: Path) -> None:
    """Two runs in one thread, and a third in a second process, add up."""
    script = tmp_path / "agent.py"
    script.write_text(AGENT)
    command = [str(environment / "python"), str(script)]
    assert _run([*command, "one", "two"], tmp_path).splitlines() == [
        "{'said': ['one'], 'count': 1}",
        "{'said': ['one', 'two'], 'count': 2}",
    ]
    assert _run([*command, "three"], tmp_path) == "{'said': ['one', 'two', 'three'], 'count': 3}\n"
    assert (tmp_path / "data" / "log.db").is_file()


def _built(folder: Path, **env: str) -> Path:
    """A wheel, built of a copy of the source, since what building leaves behind would be part of the next one."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.so", "*.pyd", "*.egg-info"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    _run(build, folder, **env)
    (built,) = folder.glob("petal-*.whl")
    return built


def _packaged() -> set[str]:
    """The files of the source that belong into a wheel."""
    source = ROOT / "src"
    files = {path.relative_to(source).as_posix() for path in (source / "petal").rglob("*") if path.is_file()}
    return {name for name in files if "/__pycache__/" not in name and not name.endswith((".c", ".h", *COMPILED))}


def _inside(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _run(command: list[str], folder: Path, **further: str) -> str:
    """What a command prints, run in a folder outside the source and without this environment's variables.

    Nothing of it is measured: what is installed elsewhere would count as another source.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
    env |= further
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
