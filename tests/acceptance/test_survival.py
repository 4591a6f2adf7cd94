"""A process is killed with SIGKILL at each step boundary; another one goes on, and nothing runs twice."""

from __future__ import annotations

import operator
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, TypedDict

import pytest

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory

pytestmark = pytest.mark.usefixtures("unmeasured")
SCRIPT = Path(__file__).with_name("three_steps.py")
STEPS = ["one", "two", "three"]


class Done(TypedDict, total=False):
    order: str
    done: Annotated[list[str], operator.add]


def url_of(storage: CheckpointerConfig) -> str:
    assert storage.config is not None
    return storage.config.get("connection_string") or f"sqlite:///{storage.config['db_file']}"


def run(url: str, effects: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), url, str(effects), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("killed_before", STEPS)
def test_a_killed_run_goes_on_where_it_stopped(
    durable_storage: CheckpointerConfig, tmp_path: Path, killed_before: str
) -> None:
    url, effects = url_of(durable_storage), tmp_path / "effects"
    finished = STEPS[: STEPS.index(killed_before)]
    with run(url, effects, "start", killed_before) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == f"waiting before {killed_before}\n"
        first.kill()
    assert first.returncode == -signal.SIGKILL
    assert (effects.read_text().splitlines() if effects.exists() else []) == [f"{step} for tea" for step in finished]
    assert state_seen_from_here(durable_storage) == (finished, (killed_before,))

    with run(url, effects, "resume") as second:
        output = second.communicate(timeout=60)[0]
    assert (second.returncode, output) == (0, f"{STEPS}\n")
    assert effects.read_text().splitlines() == [f"{step} for tea" for step in STEPS]
    assert state_seen_from_here(durable_storage) == (STEPS, ())


def state_seen_from_here(storage: CheckpointerConfig) -> tuple[list[str], tuple[str, ...]]:
    """What this process reads of the other one's thread: the steps done, and those that are next."""
    factory = AgentFactory(Done)
    for name in STEPS:
        factory.add(lambda state: {}, name)
    with factory.with_checkpointer(storage).build() as agent:
        state = agent.thread("t").state()
    return state.values.get("done", []), state.next


def test_two_processes_share_one_database(durable_storage: CheckpointerConfig) -> None:
    """Each works on a thread of its own at the same time; afterwards one process reads both."""
    url = url_of(durable_storage)
    script = Path(__file__).with_name("many_turns.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), url, name, "20"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name in ("a", "b")
    ]
    for name, process in zip("ab", processes, strict=True):
        with process:
            assert process.communicate(timeout=100)[0] == f"{name}: 20\n"
    total = subprocess.run([sys.executable, str(script), url, "a", "1"], capture_output=True, text=True, timeout=60)
    assert (total.stdout, total.stderr) == ("a: 21\n", "")
