"""`petal convert` and `petal db` on real databases: copied, killed and gone on with, looked at, verified, upgraded."""

from __future__ import annotations

import base64
import io
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from nursery import Nursery

from petal.checkpoints import Progress, SqliteSaver, convert, open_checkpointer
from petal.cli.convert import ProgressLine
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory

Petal = Callable[..., subprocess.CompletedProcess[str]]


def done(petal: Petal, *words: str, **variables: str) -> str:
    """What a command that must succeed prints."""
    ran = petal(*words, **variables)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def talk(config: CheckpointerConfig, threads: int = 3, turns: int = 2) -> None:
    """Keep some conversations there."""
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(config).build() as agent:
        for thread in range(threads):
            for turn in range(turns):
                agent.invoke(f"my name is Ada {turn} " * 20, thread_id=f"thread-{thread}")


def langgraphs(url: str, **options: Any) -> CheckpointerConfig:
    return config_of(url, engine="langgraph", **options)


def config_of(url: str, **options: Any) -> CheckpointerConfig:
    return CheckpointerConfig.from_url(url if "://" in url else f"sqlite:///{url}", **options)


def everything(config: CheckpointerConfig) -> dict[Any, Any]:
    """All that is kept there, by thread."""
    found: dict[Any, Any] = {}
    with open_checkpointer(config) as saver:
        for kept in saver.list(None):
            found.setdefault(kept.config["configurable"]["thread_id"], []).append(kept)
    return found


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file of LangGraph's with three conversations, in the folder of the command."""
    talk(langgraphs(str(tmp_path / "langgraph.db")))
    return "langgraph.db"


def test_a_file_of_langgraphs_is_copied(petal: Petal, tmp_path: Path, source: str) -> None:
    """It tells how far it is on stderr, and what it did on stdout; the second time there is nothing to do."""
    ran = petal("convert", source, "petal.db")
    assert (ran.returncode, ran.stdout) == (0, "Copied and checked 3 threads with 18 checkpoints.\n")
    assert ran.stderr.splitlines()[-1] == "petal: 2 of 3 threads, 18 of 18 checkpoints"
    assert len(ran.stderr.splitlines()) == 10
    again = json.loads(done(petal, "convert", source, "petal.db", "--json"))
    assert again == {"threads": 0, "checkpoints": 0, "already": 3, "resumed": 0}
    assert "There already, and the same: 3 threads." in done(petal, "convert", source, "petal.db")
    assert everything(config_of(str(tmp_path / "petal.db"))) == everything(langgraphs(str(tmp_path / source)))
    assert "thread-0" in done(petal, "threads", "list", "--db", "petal.db")


def test_it_goes_to_a_server_and_back(petal: Petal, tmp_path: Path, source: str, postgres_url: str) -> None:
    """Into a schema, with keys on the way."""
    keys = {"KEYS": "k:" + base64.b64encode(b"2" * 32).decode()}
    there = ("--target-schema", "kept", "--target-key-env", "KEYS")
    done(petal, "convert", source, postgres_url, *there, **keys)
    status = json.loads(done(petal, "db", "status", postgres_url, "--schema", "kept", "--json"))
    assert (status["encrypted"], status["threads"], status["state"]) == (True, 3, "current")
    assert "All rows of 3 threads" in done(
        petal, "db", "verify", postgres_url, "--schema", "kept", "--key-env", "KEYS", **keys
    )
    refused = petal("convert", postgres_url, "back.db", "--source-schema", "kept")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no encryption key" in refused.stderr
    found = petal("db", "verify", postgres_url, "--schema", "kept")
    assert (found.returncode, found.stdout) == (1, "")
    assert "cannot be verified without its keys: --key-env names the variable that holds them." in found.stderr
    done(petal, "convert", postgres_url, "back.db", "--source-schema", "kept", "--source-key-env", "KEYS", **keys)
    assert everything(config_of(str(tmp_path / "back.db"))) == everything(langgraphs(str(tmp_path / source)))


@pytest.mark.parametrize("kind", ["file", "server"])
def test_tables_may_lie_beside_each_other(
    petal: Petal, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """One place named twice means: LangGraph's tables there, into Petal's."""
    url = "both.db" if kind == "file" else request.getfixturevalue("postgres_url")
    here = langgraphs(str(tmp_path / url) if kind == "file" else url)
    talk(here)
    assert json.loads(done(petal, "convert", url, url, "--json"))["threads"] == 3
    assert json.loads(done(petal, "convert", url, url, "--json"))["already"] == 3
    assert json.loads(done(petal, "db", "status", url, "--json"))["engine"] == "petal"
    other = str(tmp_path / "other.db")
    talk(config_of(str(tmp_path / url) if kind == "file" else url, engine="petal"), threads=4)
    assert json.loads(done(petal, "convert", url, other, "--json"))["threads"] == 4
    another = str(tmp_path / "another.db")
    assert json.loads(done(petal, "convert", url, another, "--source-engine", "langgraph", "--json"))["threads"] == 3


def test_own_types_are_named(petal: Petal, tmp_path: Path) -> None:
    """Whoever has forgotten one is told which, where and how; nothing is imported before."""
    (tmp_path / "shop.py").write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\nPath('imported').touch()\n"
        "@dataclass\nclass Order:\n    item: str\n"
        "def order(state):\n    return {'order': Order('bread')}\n"
    )
    (tmp_path / "shop.yaml").write_text(
        "state_schema: {n: int, order: 'shop:Order'}\n"
        "checkpointer: {type: sqlite, config: {db_file: shop.db, engine: langgraph}}\n"
        "steps: [{type: custom, name: order, config: {function: 'shop:order'}}]\n"
    )
    done(petal, "run", "shop.yaml", "--thread", "t", "--input", '{"n": 1}')
    (tmp_path / "imported").unlink()
    refused = petal("convert", "shop.db", "petal.db")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "channel 'order' of checkpoint '" in refused.stderr
    assert "of thread 't' holds a shop.Order" in refused.stderr
    assert "name it with --allow shop:Order" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "LANGGRAPH_STRICT" not in refused.stderr
    assert not (tmp_path / "imported").exists()
    assert json.loads(done(petal, "convert", "shop.db", "petal.db", "--allow", "shop:Order", "--json"))["threads"] == 1
    shown = json.loads(done(petal, "threads", "show", "t", "--db", "petal.db", "--json"))
    assert shown["state"]["order"] == {"item": "bread"}
    wrong = petal("convert", "shop.db", "petal.db", "--allow", "shop:Ordr")
    assert (wrong.returncode, "Did you mean 'Order'?" in wrong.stderr) == (1, True)


def test_what_cannot_be_copied_is_said(petal: Petal, tmp_path: Path, source: str) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE other (n)")
    for words, code, said in (
        (("nothing.db", "petal.db"), 1, "nothing.db: there is no such file"),
        (("empty.db", "petal.db"), 1, "holds neither Petal's tables nor LangGraph's; there is nothing to copy."),
        (("empty.db", "empty.db"), 1, "is both the source and the target, and holds no tables of LangGraph's"),
        (("memory://", "petal.db"), 2, "memory keeps no threads"),
        ((source, "memory://"), 2, "memory keeps no threads"),
        ((source, "petal.db", "--source-engine", "other"), 1, "engine"),
        ((source, "petal.db", "--target-schema", "s"), 1, "no option 'schema'"),
        ((source, "petal.db", "--source-key-env", "KEYS"), 1, "encryption_key_env is an option of Petal's own engine"),
    ):
        refused = petal("convert", *words)
        assert (refused.returncode, refused.stdout) == (code, "")
        assert said in refused.stderr
    assert not (tmp_path / "petal.db").exists()


def killed_again_and_again(nursery: Nursery, words: list[str], folder: Path, first: int = 30) -> Iterator[bool]:
    """Start a command and kill it when it has some checkpoints more than the last time, until it gets to its end."""
    for kill_at in range(first, 20 * first, first):
        process = nursery.start(["-m", "petal.cli", *words], folder)
        assert process.stderr is not None
        for line in process.stderr:
            assert " checkpoints" in line, line + process.stderr.read()
            count = int(line.split(", ")[1].split()[0])
            if count >= kill_at:
                process.send_signal(signal.SIGKILL)
                break
        with process:
            code = process.wait()
        assert code in (0, -signal.SIGKILL)
        yield code == 0
        if code == 0:
            return


@pytest.fixture(params=["langgraph to petal", "sqlite to postgres", "postgres to sqlite"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[CheckpointerConfig, str, str]:
    """How to open a source, its URL and that of a target; both are empty."""
    first, second = str(tmp_path / "first.db"), str(tmp_path / "second.db")
    match request.param:
        case "langgraph to petal":
            return langgraphs(first), first, second
        case "sqlite to postgres":
            return config_of(first), first, request.getfixturevalue("postgres_url")
        case _:
            source = request.getfixturevalue("postgres_url")
            return config_of(source), source, second


def test_a_conversion_that_is_killed_goes_on(
    nursery: Nursery, way: tuple[CheckpointerConfig, str, str], tmp_path: Path
) -> None:
    """A thread is there whole or not at all after each kill, and those that are there are not copied again."""
    here, source, target = way
    talk(here, threads=10, turns=4)
    kept = everything(here)
    seen = []
    for ended in killed_again_and_again(nursery, ["convert", source, target], tmp_path):
        if not ("://" in target or Path(target).exists()):
            continue
        with open_checkpointer(config_of(target)) as saver:
            assert saver.verify() == []
            threads = {thread.thread_id: thread.checkpoints for thread in saver.threads()}
        assert threads.items() <= {id: len(tuples) for id, tuples in kept.items()}.items()
        found = everything(config_of(target))
        assert found == {id: kept[id] for id in threads}
        seen.append(len(found))
        assert len(found) == 10 or not ended
    assert seen == sorted(seen)
    assert seen[-1] == 10
    assert any(0 < count < 10 for count in seen)


def test_a_long_thread_goes_on_where_it_was_killed(
    nursery: Nursery, petal: Petal, way: tuple[CheckpointerConfig, str, str], tmp_path: Path
) -> None:
    """The parts that were durable are compared, and what is reported as copied is only the rest."""
    here, source, target = way
    with open_checkpointer(here) as saver:
        config: RunnableConfig = {"configurable": {"thread_id": "long", "checkpoint_ns": ""}}
        for number in range(1500):
            checkpoint: Any = {**empty_checkpoint(), "channel_values": {"n": number}, "channel_versions": {"n": number}}
            config = saver.put(config, checkpoint, {"source": "loop", "step": number}, {"n": number})
    kept = everything(here)
    killed = killed_again_and_again(nursery, ["convert", source, target], tmp_path, first=450)
    assert next(killed) is False
    with open_checkpointer(config_of(target)) as saver:
        assert saver.verify() == []
        (info,) = saver.threads()
    assert info.checkpoints in range(400, 1500, 200)
    ran = json.loads(done(petal, "convert", source, target, "--json"))
    assert ran == {"threads": 1, "checkpoints": 1500 - info.checkpoints, "already": 0, "resumed": info.checkpoints}
    assert everything(config_of(target)) == kept
    again = json.loads(done(petal, "convert", source, target, "--json"))
    assert again == {"threads": 0, "checkpoints": 0, "already": 1, "resumed": 0}


def test_what_was_there_of_a_thread_is_told(petal: Petal, tmp_path: Path) -> None:
    """Beside what was copied."""
    with SqliteSaver(tmp_path / "source.db") as saver:
        config: RunnableConfig = {"configurable": {"thread_id": "long", "checkpoint_ns": ""}}
        for _ in range(201):
            config = saver.put(config, empty_checkpoint(), {"source": "loop", "step": 0}, {})

    def stop(progress: Progress) -> None:
        if progress.checkpoints == 201:
            raise KeyError

    with pytest.raises(KeyError):
        convert(f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/petal.db", progress=stop)
    said = done(petal, "convert", "source.db", "petal.db")
    assert said == "Copied and checked 1 thread with 1 checkpoint, beside 200 that were there already.\n"


def test_how_far_it_is_stays_in_one_line_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    line = ProgressLine()
    line(Progress("t", 0, 1, 10, 10))
    line(Progress("t", 1, 1, 9, 10))
    line.end()
    assert sys.stderr.getvalue() == (  # type: ignore[attr-defined]
        "\r0 of 1 thread, 10 of 10 checkpoints\r1 of 1 thread, 9 of 10 checkpoints \n"
    )


def test_status_tells_what_a_file_is_and_changes_nothing(petal: Petal, tmp_path: Path, source: str) -> None:
    talk(config_of(str(tmp_path / "petal.db")))
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE other (n)")
    with closing(sqlite3.connect(tmp_path / "newer.db")) as connection, connection:
        connection.execute("CREATE TABLE petal_meta (key TEXT, value INTEGER)")
        connection.execute("INSERT INTO petal_meta VALUES ('format', 77)")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said = done(petal, "db", "status", "petal.db").splitlines()
    told = {line[:13].strip(): line[13:] for line in said}
    assert told["Database"] == "sqlite:///petal.db"
    assert told["Tables"] == "Petal's"
    assert told["Format"].startswith("1 (current; ")
    assert (told["Threads"], told["Checkpoints"], told["Encrypted"]) == ("3", "18", "no")
    assert told["On disk"] == f"{(tmp_path / 'petal.db').stat().st_size:,} bytes"
    assert "To do" not in told
    theirs = json.loads(done(petal, "db", "status", source, "--json"))
    assert (theirs["state"], theirs["threads"], theirs["checkpoints"], theirs["bytes"]) == ("langgraph", 3, 18, None)
    assert "petal convert" in theirs["to_do"]
    assert "LangGraph's" in done(petal, "db", "status", source)
    newer = json.loads(done(petal, "db", "status", "--json", PETAL_DB="newer.db"))
    assert (newer["state"], newer["format"], newer["threads"]) == ("newer", 77, None)
    assert "Upgrade petal" in newer["to_do"]
    assert "77 (newer; " in done(petal, "db", "status", "newer.db")
    empty = done(petal, "db", "status", "empty.db")
    assert "Tables" not in empty
    assert "a run makes them" in empty
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    for words, code in ((("nothing.db",), 1), (("memory://",), 2)):
        assert petal("db", "status", *words).returncode == code


def test_status_tells_what_a_server_holds(petal: Petal, postgres_url: str) -> None:
    """None, LangGraph's, Petal's; and makes nothing."""

    def tables() -> list[str]:
        with psycopg.connect(postgres_url) as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            return [name for (name,) in found]

    def state() -> tuple[Any, ...]:
        status = json.loads(done(petal, "db", "status", postgres_url, "--json"))
        return status["state"], status["threads"], status["size"] > 0

    assert (state(), tables()) == (("empty", None, False), [])
    talk(langgraphs(postgres_url))
    assert state() == ("langgraph", 3, True)
    assert "petal_meta" not in tables()
    talk(config_of(postgres_url, engine="petal"), threads=1)
    assert state() == ("current", 1, True)
    unreachable = petal("db", "status", "postgresql://ada:hush-hush@127.0.0.1:9/none?connect_timeout=2")
    assert (unreachable.returncode, unreachable.stdout) == (1, "")
    assert "hush-hush" not in unreachable.stderr


def test_langgraphs_tables_on_a_server_are_recognised(petal: Petal, tmp_path: Path, postgres_url: str) -> None:
    """What only reads opens them; a run does not begin an empty state beside them."""
    talk(langgraphs(postgres_url))
    assert "thread-2" in done(petal, "threads", "list", "--db", postgres_url)
    (tmp_path / "agent.yaml").write_text('llm: "demo:"\nsteps: [{type: llm, name: chat}]\n')
    refused = petal("run", "agent.yaml", "-m", "hello", "--thread", "thread-2", "--db", postgres_url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "engine='langgraph'" in refused.stderr
    assert "petal convert" in refused.stderr


def test_verification_lists_what_is_damaged(petal: Petal, tmp_path: Path, source: str) -> None:
    """By thread, checkpoint and channel; and fails then."""
    talk(config_of(str(tmp_path / "petal.db")))
    assert done(petal, "db", "verify", "petal.db") == "All rows of 3 threads are whole.\n"
    assert done(petal, "db", "verify", "petal.db", "--thread", "thread-1") == "All rows of 1 thread are whole.\n"
    with closing(sqlite3.connect(tmp_path / "petal.db")) as connection, connection:
        connection.execute(
            "UPDATE petal_values SET data = zeroblob(20) WHERE thread_id = 'thread-1' AND channel = 'messages'"
        )
        connection.execute("UPDATE petal_checkpoints SET metadata = x'00' WHERE thread_id = 'thread-2'")
    found = petal("db", "verify", "petal.db")
    assert (found.returncode, found.stderr) == (1, "")
    *lines, last = found.stdout.splitlines()
    assert last == f"{len(lines)} damaged in 3 threads."
    assert any("channel 'messages' of thread 'thread-1'" in line for line in lines)
    assert any("the metadata of checkpoint '" in line and "thread 'thread-2'" in line for line in lines)
    assert not any("thread-0" in line for line in lines)
    told = petal("db", "verify", "petal.db", "--json")
    assert told.returncode == 1
    damages = json.loads(told.stdout)["damages"]
    assert [f"{damage['where']}: {damage['problem']}" for damage in damages] == lines
    assert {damage["thread_id"] for damage in damages} == {"thread-1", "thread-2"}
    assert petal("db", "verify", "petal.db", "-t", "thread-0").returncode == 0
    assert "has no checkpoints" in petal("db", "verify", "petal.db", "-t", "nobody").stderr
    theirs = petal("db", "verify", source)
    assert (theirs.returncode, theirs.stdout) == (1, "")
    assert "cannot be verified: LangGraph's tables have no checksums. `petal convert` copies it" in theirs.stderr


def test_an_upgrade_of_what_is_current_changes_nothing(petal: Petal, tmp_path: Path, source: str) -> None:
    talk(config_of(str(tmp_path / "petal.db")))
    assert done(petal, "db", "upgrade", "petal.db") == "It has this version's format, 1, already.\n"
    assert json.loads(done(petal, "db", "upgrade", "petal.db", "--json")) == {"before": 1, "format": 1}
    for url, said in ((source, "holds no tables of Petal's"), ("nothing.db", "there is no such file")):
        refused = petal("db", "upgrade", url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert said in refused.stderr
    assert not (tmp_path / "nothing.db").exists()
