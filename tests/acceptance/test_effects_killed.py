"""A process is killed with SIGKILL within an effect and right behind it; another goes on, and nothing is twofold."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from nursery import Nursery

from petal.core.config.checkpointer import CheckpointerConfig

pytestmark = pytest.mark.usefixtures("unmeasured")
SCRIPT = Path(__file__).with_name("killed_effects.py")


class Process:
    """Runs the script on one database, to its end or to its death.

    Args:
        nursery: Starts it.
        url: The database.
        effects: Where effects show.
        options: The kind of step, and the durability.
    """

    def __init__(self, nursery: Nursery, url: str, effects: Path, *options: str) -> None:
        self._nursery, self._command = nursery, [str(SCRIPT), url, str(effects), *options]
        self.effects = effects

    def kill(self, act: str, where: str) -> None:
        """Run until it waits at a place, and kill it there."""
        with self._nursery.start([*self._command, act, where]) as process:
            assert process.stdout.readline() == f"waiting {where}\n"
            process.kill()
        assert process.returncode == -signal.SIGKILL

    def resume(self) -> str:
        """Go on to the end; what it told at last."""
        ended = self._nursery.run([*self._command, "resume"])
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    @property
    def happened(self) -> list[list[str]]:
        """What was done, each with its key."""
        return [line.split() for line in self.effects.read_text().splitlines()]


def url_of(storage: CheckpointerConfig) -> str:
    assert storage.config is not None
    return storage.config.get("connection_string") or f"sqlite:///{storage.config['db_file']}"


def test_what_ended_is_not_done_again_and_what_did_not_has_the_same_key(
    nursery: Nursery, durable_storage: CheckpointerConfig, tmp_path: Path
) -> None:
    process = Process(nursery, url_of(durable_storage), tmp_path / "effects", "step", "sync")
    process.kill("start", "within")
    process.kill("resume", "behind")
    assert process.resume() == "[('mail', 'done', 1), ('charge', 'done', 2)]\n"
    assert [what for what, _ in process.happened] == ["mail", "charge", "charge"]
    assert process.happened[1] == process.happened[2]


@pytest.mark.parametrize(("kind", "durability"), [("tool", "sync"), ("react", "async")])
def test_so_it_is_with_tools(
    nursery: Nursery, durable_storage: CheckpointerConfig, tmp_path: Path, kind: str, durability: str
) -> None:
    process = Process(nursery, url_of(durable_storage), tmp_path / "effects", kind, durability)
    process.kill("start", "within")
    assert process.resume() == "[('charge', 'done', 2)]\n"
    assert [what for what, _ in process.happened] == ["charge", "charge"]
    assert process.happened[0] == process.happened[1]
