"""The built wheel is whole: in an environment of its own, far from the source, Petal runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

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
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    (built,) = folder.glob("petal-*.whl")
    return built


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


def test_the_wheel_holds_each_file_of_the_package(wheel: Path) -> None:
    """Types, SQL and templates are inside, and nothing else is."""
    source = ROOT / "src"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {name for name in files if "/__pycache__/" not in name}
    assert "petal/py.typed" in inside


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


def _run(command: list[str], folder: Path) -> str:
    """What a command prints, run in a folder outside the source and without this environment's variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
