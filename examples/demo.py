"""An agent is killed half-way, resumed by another process, and still remembers: run it and read along.

make demo        (or: python examples/demo.py [FOLDER])
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

AGENT = Path(__file__).with_name("demo") / "agent.yaml"
PETAL = Path(sys.executable).with_name("petal")
THREAD = "ada"


def main(folder: str = "demo-run") -> None:
    """Kill, resume, remember; each stage says what it shows, and stops the demo if it does not."""
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    database, journal = place / "clerk.db", place / "journal.txt"
    for old in place.glob("clerk.db*"):
        old.unlink()
    journal.write_text("")

    say(1, "A first process runs three steps: look_up_order, ask_warehouse, answer. Step two is slow.")
    first = start(database, journal, "--message", "My name is Ada.", warehouse_seconds=60)
    wait_for("ask_warehouse begun", journal, first)
    first.kill()
    first.wait()
    print(f"   In the middle of step two: kill -9 {first.pid}. Exit code {first.returncode}.")
    show(journal)
    print("   The database knows what is done and what is next:")
    petal("threads", "show", THREAD, "--db", str(database))

    say(2, "A second process resumes the thread. Step one must not run again.")
    check(petal_run(database, journal, "--resume"), "Ada")
    show(journal)
    count = journal.read_text().count("look_up_order done")
    if count != 1:
        raise SystemExit(f"look_up_order ran {count} times: the demo has failed.")
    print("   look_up_order ran once, in the process that was killed.")

    say(3, "The same thread is asked what only the killed process was told.")
    check(petal_run(database, journal, "--message", "What is my name?"), "Ada")

    say(4, "All of it lies in one file:")
    print(f"   {database}")
    print(f"   Look around: .venv/bin/petal threads history {THREAD} --db {shlex.quote(os.path.relpath(database))}")
    print(f"   Go on:       .venv/bin/petal chat {os.path.relpath(AGENT)} --thread {THREAD} --db "
          f"{shlex.quote(os.path.relpath(database))}")  # fmt: skip


def start(database: Path, journal: Path, *what: str, warehouse_seconds: float = 1) -> subprocess.Popen[bytes]:
    """Start `petal run` on the thread."""
    command = [str(PETAL), "run", str(AGENT), "--thread", THREAD, "--db", str(database), *what]
    print(f"   $ petal run {shlex.join(['agent.yaml', *command[3:5], *what])}", flush=True)
    environment = {**os.environ, "JOURNAL": str(journal), "WAREHOUSE_SECONDS": str(warehouse_seconds)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def petal_run(database: Path, journal: Path, *what: str) -> str:
    """What `petal run` answers."""
    process = start(database, journal, *what)
    out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"petal run failed with exit code {process.returncode}:\n{errors.decode()}")
    return out.decode().strip()


def petal(*arguments: str) -> None:
    """Run a command and show what it prints, indented."""
    done = subprocess.run([str(PETAL), *arguments], capture_output=True, text=True, check=True)
    print("".join(f"   | {line}\n" for line in done.stdout.splitlines()), end="")


def check(answer: str, expected: str) -> None:
    """Show an answer, which must hold a word."""
    print(f"   < {answer}")
    if expected not in answer:
        raise SystemExit(f"The answer does not say {expected!r}: the demo has failed.")


def show(journal: Path) -> None:
    """Show what the steps have done so far."""
    print("   Journal of the steps: " + "; ".join(journal.read_text().splitlines()))


def wait_for(line: str, journal: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a step has left its line."""
    end = time.monotonic() + 50
    while line not in journal.read_text():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise SystemExit(f"The first process did not come to {line!r}:\n{process.communicate()[1].decode()}")
        time.sleep(0.02)


def say(number: int, text: str) -> None:
    """Announce a stage."""
    print(f"\n{number}. {text}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
