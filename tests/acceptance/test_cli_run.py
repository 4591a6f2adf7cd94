"""`petal run` as others use it: in pipes, killed, resumed, asked, refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petal.testing.postgres import PostgresServer

THREE = """
name: three
llm: "demo:"
checkpointer: {type: sqlite, config: {db_file: runs.db}}
steps:
  - {type: custom, name: first, config: {function: "steps:first"}}
  - {type: custom, name: second, config: {function: "steps:second"}}
  - {type: llm, name: third}
"""

ASKS = """
name: asks
llm: "demo:"
checkpointer: {type: sqlite, config: {db_file: runs.db}}
steps:
  - {type: llm, name: chat, approval: "Shall I answer?"}
"""

BARE = 'llm: "demo:"\nsteps: [{type: llm, name: chat}]\n'

STEPS = '''
"""Steps that leave a trace in the file `trace`."""

import time
from pathlib import Path

from langchain_core.messages import AIMessage
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from petal.core.config.agent import LLMConfig
from petal.core.models import open_model


def trace(name):
    with open("trace", "a") as file:
        file.write(f"{name}\\n")


def first(state):
    trace("first")
    return {"messages": [AIMessage("The first step says hello.")]}


def second(state):
    """Thinks for itself, then waits for the file `go`."""
    trace("second")
    open_model(LLMConfig(provider="demo")).invoke("a thought that is nobody's business")
    while not Path("go").exists():
        time.sleep(0.02)
    if Path("bad").exists():
        raise ValueError("no bread\\nat postgresql://baker:secret@host/db")
    return {}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def grow(state):
    return {"n": state["n"] + 1}


def ask(state):
    return {"answers": {"left": interrupt("left?")}}


def ask_too(state):
    return {"answers": {"right": interrupt("right?")}}


def ask_within(state):
    """Asks in a graph of its own, and then waits there for the file `go`."""
    inner = StateGraph(dict).add_node("asked", lambda state: {"answer": interrupt("really?")})
    inner.add_node("second", second).add_edge(START, "asked").add_edge("asked", "second")
    return {"answers": inner.compile().invoke({})}
'''

Petal = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    """A folder with agents in it."""
    for name, text in {"three.yaml": THREE, "asks.yaml": ASKS, "bare.yaml": BARE, "steps.py": STEPS}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command while it runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "petal.cli", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(folder: Path, step: str) -> None:
    """Wait until a step has begun."""
    trace = folder / "trace"
    while not trace.exists() or step not in trace.read_text().split():
        time.sleep(0.02)


def test_a_pipe_is_a_message(petal: Petal) -> None:
    """Only the answer is on stdout, and a thread remembers across processes."""
    told = petal("run", "bare.yaml", "--thread", "ada", "--db", "kept/a.db", text="my name is Ada\n")
    assert (told.returncode, told.stdout, told.stderr) == (0, "Nice to meet you, Ada!\n", "")
    asked = petal("run", "bare.yaml", "--thread", "ada", "--db", "kept/a.db", "--message", "-", text="what is my name?")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "Your name is Ada.\n", "")


def test_an_agent_that_keeps_nothing_needs_no_thread(petal: Petal) -> None:
    """It answers, and refuses what it cannot do."""
    assert petal("run", "bare.yaml", "-m", "hello").stdout == "(demo model) You said: hello\n"
    for words in (["--thread", "t", "-m", "hello"], ["--thread", "t", "--resume"]):
        refused = petal("run", "bare.yaml", *words)
        assert refused.returncode == 2
        assert "keeps no state" in refused.stderr
    for database in ("memory://", ":memory:", "sqlite:///"):
        assert petal("run", "bare.yaml", "-m", "hello", "--db", database).stderr == ""


def test_a_new_thread_is_told(petal: Petal, folder: Path) -> None:
    """With the command that goes on with it."""
    (folder / "go").touch()
    done = petal("run", "three.yaml", "-m", "my name is Ada")
    told = done.stderr.splitlines()[0]
    thread = told.removeprefix("petal: thread ").partition(";")[0]
    assert told == f"petal: thread {thread}; go on with it: petal run three.yaml --thread {thread}"
    assert petal("run", "three.yaml", "--thread", thread, "-m", "what is my name?").stdout.endswith(
        "Your name is Ada.\n"
    )


def test_each_message_is_printed_once(petal: Petal, folder: Path) -> None:
    """Streamed or not; what a step thinks by itself is not, and steps are told on stderr."""
    (folder / "go").touch()
    done = petal("run", "three.yaml", "--thread", "t", "-m", "hi")
    assert done.stdout == "The first step says hello.\n(demo model) You said: hi\n"
    assert done.stderr == "petal: step first is done\npetal: step second is done\n"


def test_the_answer_is_streamed(folder: Path) -> None:
    """What was said is there while a later step still runs."""
    (folder / "streams.yaml").write_text(
        'llm: "demo:"\nsteps:\n  - {type: llm, name: chat}\n'
        '  - {type: custom, name: second, config: {function: "steps:second"}}\n'
    )
    with started(folder, "run", "streams.yaml", "-m", "hi") as process:
        assert process.stdout is not None
        assert process.stdout.read(8) == "(demo mo"
        wait_for(folder, "second")
        assert process.poll() is None
        (folder / "go").touch()
        assert process.stdout.read() == "del) You said: hi\n"
    assert process.returncode == 0


def test_a_loop_with_tools_speaks_once(petal: Petal, folder: Path) -> None:
    """The answer inside LangChain's agent is the step's; its tool calls are not printed."""
    (folder / "react.yaml").write_text(
        'llm: "demo:"\ntools: {add: "steps:add"}\nsteps: [{type: react, name: think, config: {tools: [add]}}]\n'
    )
    done = petal("run", "react.yaml", "-m", 'add {"a": 1, "b": 2}')
    assert done.returncode == 0
    assert done.stdout.count("3") == 1
    assert len(done.stdout.splitlines()) == 1


def test_a_killed_run_is_resumed(petal: Petal, folder: Path) -> None:
    """SIGKILL in the second of three steps: the first is not run again, the third follows."""
    with started(folder, "run", "three.yaml", "--thread", "order-7", "-m", "hi") as process:
        wait_for(folder, "second")
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (folder / "go").touch()
    done = petal("run", "three.yaml", "--thread", "ord", "--resume")
    assert (done.returncode, done.stdout) == (0, "(demo model) You said: hi\n")
    assert (folder / "trace").read_text().split() == ["first", "second", "second"]
    again = petal("run", "three.yaml", "--thread", "order-7", "--resume")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        "petal: Thread 'order-7' waits for no answer and has no unfinished run; send it new input instead.\n"
    )


def test_ctrl_c_leaves_a_resumable_thread(petal: Petal, folder: Path) -> None:
    """It ends at once, although a function cannot be stopped, and says how to go on, as `threads show` does then."""
    with started(folder, "run", "three.yaml", "--thread", "t", "-m", "hi") as process:
        wait_for(folder, "second")
        shown = petal("threads", "show", "t", "--db", "runs.db").stdout
        assert "\nStatus      running\nNext        second\n" in shown
        assert "--resume" not in shown
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130
    assert told.splitlines()[-2:] == [
        "petal: stopped",
        "petal: nothing that was done is lost; go on with: petal run three.yaml --thread t --resume",
    ]
    shown = petal("threads", "show", "t", "--db", "runs.db").stdout
    assert "\nStatus      interrupted\n" in shown
    assert shown.endswith("Go on:   petal run AGENT.yaml --thread t --db runs.db --resume\n")
    (folder / "go").touch()
    assert petal("run", "three.yaml", "--thread", "t", "--resume").returncode == 0


def test_a_failed_step_is_one_line(petal: Petal, folder: Path) -> None:
    """Which step, what, without a password or a traceback; and it can be tried again."""
    (folder / "go").touch()
    (folder / "bad").touch()
    failed = petal("run", "three.yaml", "--thread", "t", "-m", "hi", "--db", "other.db")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[1:] == [
        "petal: step 'second' failed: ValueError: no bread at postgresql://baker:***@host/db",
        "petal: nothing that was done is lost; go on with: petal run three.yaml --thread t --db other.db --resume",
    ]
    assert "Traceback" in petal("run", "three.yaml", "--thread", "t", "--db", "other.db", "--resume", "--debug").stderr
    assert "Traceback" in petal("run", "three.yaml", "--thread", "u", "-m", "hi", PETAL_DEBUG="1").stderr
    (folder / "bad").unlink()
    assert petal("run", "three.yaml", "--thread", "t", "--db", "other.db", "--resume").returncode == 0


def test_a_question_is_answered(petal: Petal) -> None:
    """Exit code 3 while it is open; a wrong answer leaves it open; the right one goes on."""
    asked = petal("run", "asks.yaml", "--thread", "t", "-m", "hi")
    question = [
        "petal: the agent asks: Shall I answer?",
        "petal: answer it with: petal run asks.yaml --thread t --resume --answer yes",
    ]
    assert (asked.returncode, asked.stdout, asked.stderr.splitlines()) == (3, "", question)
    refused = petal("run", "asks.yaml", "--thread", "t", "--resume", "--answer", "perhaps")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("petal: 'perhaps' does not answer the question: answer yes or no")
    assert refused.stderr.splitlines()[1:] == question
    answered = petal("run", "asks.yaml", "--thread", "t", "--resume", "--answer", '{"approved": true}')
    assert (answered.returncode, answered.stdout) == (0, "(demo model) You said: hi\n")


def test_a_message_does_not_overrun_a_question(petal: Petal) -> None:
    """It is refused, with the ways there are; --abandon is one of them, and does nothing where nothing is open."""
    assert petal("run", "asks.yaml", "--thread", "t", "-m", "first", "--abandon").returncode == 3
    for words in (["-m", "second"], ["--input", '{"messages": [["user", "second"]]}']):
        refused = petal("run", "asks.yaml", "--thread", "t", *words)
        assert (refused.returncode, refused.stdout) == (1, "")
        first, asked, *hints = refused.stderr.splitlines()
        assert first.startswith("petal: Thread 't' waits for an answer and takes no new input until then")
        assert asked.endswith(": Shall I answer?")
        assert hints == [
            "petal: the agent asks: Shall I answer?",
            "petal: answer it with: petal run asks.yaml --thread t --resume --answer yes",
            "petal: or add --abandon to the message, to give the question up",
        ]
    assert petal("run", "asks.yaml", "--thread", "t", "-m", "second", "--abandon").returncode == 3
    answered = petal("run", "asks.yaml", "--thread", "t", "--resume", "--answer", "yes")
    assert (answered.returncode, answered.stdout) == (0, "(demo model) You said: second\n")


def test_an_answer_given_before_is_refused(petal: Petal) -> None:
    """By the id of its question, also when the same one is asked again; and an id of no question."""
    run = ("run", "asks.yaml", "--thread", "t", "--json")
    old = json.loads(petal(*run, "-m", "first").stdout)["interrupts"][0]["id"]
    assert petal(*run, "--interrupt", old, "--answer", "yes").returncode == 0
    new = json.loads(petal(*run, "-m", "second").stdout)["interrupts"][0]["id"]
    again = petal(*run, "--interrupt", old, "--answer", "yes")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.splitlines()[:2] == [
        f"petal: Question '{old}' of thread 't' was answered already, and that answer stands. Open:",
        f"  {new}: Shall I answer?",
    ]
    unknown = petal(*run, "--interrupt", "nobody", "--answer", "yes")
    assert unknown.stderr.startswith("petal: Thread 't' has no open question 'nobody'")
    assert petal(*run, "--interrupt", new, "--answer", "yes").returncode == 0


def test_an_answer_that_was_taken_survives_a_kill(petal: Petal, folder: Path) -> None:
    """In a graph within a step, SIGKILL after the step that asked: it is not asked again, and no answer fits."""
    (folder / "deep.yaml").write_text(
        "state_schema: {answers: {type: 'dict[str, Any]', reducer: merge, default: {}}}\n"
        "checkpointer: {type: sqlite, config: {db_file: runs.db}}\n"
        'steps: [{type: custom, name: deep, config: {function: "steps:ask_within"}}]\n'
    )
    run = ("run", "deep.yaml", "--thread", "t", "--json")
    asked = json.loads(petal(*run, "--input", "{}").stdout)["interrupts"][0]
    with started(folder, *run, "--answer", "of course") as process:
        wait_for(folder, "second")
        process.kill()
    refused = petal(*run, "--interrupt", asked["id"], "--answer", "no")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "was answered already" in refused.stderr
    assert "go on with: petal run deep.yaml --thread t --resume" in refused.stderr
    (folder / "go").touch()
    done = json.loads(petal(*run, "--resume").stdout)
    assert (done["status"], done["interrupts"]) == ("done", [])


def test_several_questions_are_answered_by_their_ids(petal: Petal, folder: Path) -> None:
    """Shortened ids do; the exit code stays 3 until none is open."""
    (folder / "both.yaml").write_text(
        "state_schema: {answers: {type: 'dict[str, Any]', reducer: merge, default: {}}, n: int}\n"
        "steps:\n"
        '  - {type: custom, name: grow, config: {function: "steps:grow"},'
        ' condition: {function: "routes:both", routes: {l: left, r: right}}}\n'
        '  - {type: custom, name: left, config: {function: "steps:ask"}, next: END}\n'
        '  - {type: custom, name: right, config: {function: "steps:ask_too"}}\n'
    )
    (folder / "routes.py").write_text("def both(state):\n    return ['l', 'r']\n")
    run = ("run", "both.yaml", "--thread", "t", "--db", "both.db", "--json")
    asked = petal(*run, "--input", '{"n": 1}')
    assert asked.returncode == 3
    ids = {question["question"]: question["id"] for question in json.loads(asked.stdout)["interrupts"]}
    assert sorted(ids) == ["left?", "right?"]
    assert f"--resume --interrupt {ids['left?']} --answer yes" in asked.stderr
    assert petal(*run, "--resume", "--answer", "1").returncode == 1
    one = petal(*run, "--resume", "--interrupt", ids["left?"][:12], "--answer", "1")
    assert one.returncode == 3
    both = petal(*run, "--resume", "--answer", "one")
    assert both.returncode == 0
    assert json.loads(both.stdout)["state"]["answers"] == {"left": 1, "right": "one"}


def test_json_is_one_object(petal: Petal) -> None:
    """Thread, status, last words, state and questions; nothing else is on stdout."""
    waiting = json.loads(petal("run", "asks.yaml", "--thread", "t", "-m", "hi", "--json").stdout)
    assert (waiting["thread_id"], waiting["status"], waiting["output"]) == ("t", "waiting", None)
    assert [question["question"] for question in waiting["interrupts"]] == ["Shall I answer?"]
    done = json.loads(petal("run", "asks.yaml", "--thread", "t", "--answer", "yes", "--json").stdout)
    assert (done["status"], done["output"], done["interrupts"]) == ("done", "(demo model) You said: hi", [])
    assert [message["type"] for message in done["state"]["messages"]] == ["human", "ai"]


def test_a_state_without_messages_is_the_answer(petal: Petal, folder: Path) -> None:
    """Input and output are JSON; text is refused."""
    (folder / "plain.yaml").write_text(
        'state_schema: {n: int}\nsteps: [{type: custom, name: grow, config: {function: "steps:grow"}}]\n'
    )
    assert json.loads(petal("run", "plain.yaml", "--input", '{"n": 1}').stdout) == {"n": 2}
    assert json.loads(petal("run", "plain.yaml", "--input", "-", text='{"n": 2}').stdout) == {"n": 3}
    refused = petal("run", "plain.yaml", "-m", "hi")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "neither messages nor input" in refused.stderr


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (["-m", "a", "--input", "{}"], "", "two ways to say one thing"),
        (["--resume"], "", "resume which thread?"),
        (["--resume", "--thread", "t", "-m", "hi"], "", "--resume goes on without a new message"),
        (["--resume", "--thread", "t", "--abandon"], "", "gives the open question up for a new message"),
        (["--interrupt", "x", "-m", "hi"], "", "names the question"),
        (["--thread", "", "-m", "hi"], "", "at least one character"),
        ([], "  \n", "stdin is empty"),
        ([], b"\xff", "stdin is not UTF-8"),
        (["--input", "[1]"], "", "an object with keys of the state"),
        (["--input", "{"], "", "this is no JSON"),
        (["--input", '{"mesages": []}'], "", "the state has no key 'mesages'. Did you mean 'messages'?"),
    ],
)
def test_wrong_use_is_told_apart(petal: Petal, words: list[str], text: Any, said: str) -> None:
    """Exit code 2, before anything is run or made."""
    refused = petal("run", "asks.yaml", *words, text=text)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr


def test_a_resumption_makes_no_database(petal: Petal, folder: Path) -> None:
    """A thread that is resumed must exist, and so must its database."""
    refused = petal("run", "asks.yaml", "--thread", "t", "--resume")
    assert refused.returncode == 1
    assert "there is no such file" in refused.stderr
    assert not (folder / "runs.db").exists()


def test_the_environment_names_a_database(petal: Petal, folder: Path) -> None:
    """PETAL_DB goes before the agent's own and after --db, and need not be repeated."""
    asked = petal("run", "asks.yaml", "--thread", "t", "-m", "hi", PETAL_DB="env.db")
    assert "petal run asks.yaml --thread t --resume --answer yes" in asked.stderr
    assert (folder / "env.db").exists()
    petal("run", "asks.yaml", "--thread", "t", "-m", "hi", "--db", "named.db", PETAL_DB="other.db")
    assert (folder / "named.db").exists()
    assert not (folder / "other.db").exists()
    assert not (folder / "runs.db").exists()


def test_a_mistake_is_told_with_its_place(petal: Petal, folder: Path) -> None:
    """File, line and key, on one line."""
    (folder / "wrong.yaml").write_text('llm: "demo:"\nsteps:\n  - {type: llm, name: chat, promt: hi}\n')
    failed = petal("run", "wrong.yaml", "-m", "hi")
    assert failed.returncode == 1
    assert failed.stderr.startswith("petal: wrong.yaml:3: steps[0].promt: ")


def test_who_leaves_early_is_no_failure_to_report(folder: Path) -> None:
    """A closed pipe is not complained about."""
    with started(folder, "run", "bare.yaml", "-m", "hi " * 1000) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_an_empty_one(folder: Path, closed: str) -> None:
    """As where a supervisor starts it."""
    command = f"{sys.executable} -m petal.cli run three.yaml --thread t -m hi {closed}"
    (folder / "go").touch()
    ended = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert (folder / "trace").read_text().split() == ["first", "second"]


def test_a_password_is_never_printed(petal: Petal, postgres: PostgresServer) -> None:
    """Not of a database that works, and not of one that refuses it, which is told once."""
    url = postgres.with_password(postgres.create_database())
    asked = petal("run", "asks.yaml", "--thread", "t", "-m", "hi", "--db", url)
    assert asked.returncode == 3
    assert "petal:petal@" not in asked.stderr
    assert "--db" in asked.stderr
    wrong = postgres.with_password(url, "hush-hush")
    refused = petal("run", "asks.yaml", "--thread", "t", "-m", "hi", "--db", wrong)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "hush-hush" not in refused.stderr
    assert "password" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert petal("run", "asks.yaml", "--thread", "t", "--answer", "yes", PETAL_DB=url).returncode == 0
