"""The examples run as they are told to, each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("unmeasured")
EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, *arguments: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_conversation_outlives_its_process(tmp_path: Path) -> None:
    first = run("conversation.py", tmp_path)
    second = run("conversation.py", tmp_path)
    assert "Ada" in first[1]
    assert (len(first), len(second)) == (3, 2)
    assert second[0] == first[1]


def test_a_workflow_goes_on_where_it_failed(tmp_path: Path) -> None:
    assert run("workflow.py", tmp_path) == [
        "reserving a kettle",
        "stopped: the bank does not answer; next: pay",
        "paying",
        "sending",
        "['reserved', 'paid', 'sent']",
    ]


def test_many_users_are_isolated(tmp_path: Path) -> None:
    lines = run("many_users.py", tmp_path)
    assert len(lines) == 4
    for line in lines:
        user, answer = line.split(": ", 1)
        assert user in answer


def test_a_long_task_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-u", str(EXAMPLES / "long_task.py")]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as first:
        assert first.stdout is not None
        while first.stdout.readline() != "page 3 of 20\n":
            assert first.poll() is None
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert first.returncode != 0
    lines = run("long_task.py", tmp_path)
    assert lines[0].startswith("going on after page ")
    assert lines[-1] == "page 20 of 20"
