"""Every error survives pickling, says what to do, and stands in the tree at the top of its module."""

from __future__ import annotations

import inspect
import pickle

import pytest

from petal import errors
from petal.checkpoints.codec import ValueNotSavableError

EXAMPLES: list[errors.PetalError] = [
    errors.PetalError("something"),
    errors.AgentConfigurationError("no steps"),
    errors.YAMLConfigurationError("agent.yaml", 3, "steps[0].type", "found 'lm'; did you mean 'llm'?"),
    errors.PromptKeyError("chat", "usr", ("user", "input")),
    errors.ModelError("no model"),
    errors.UnknownModelError("opnai", ("openai", "demo")),
    errors.ModelPackageMissingError("openai", "langchain-openai", "pip install 'petal[openai]'"),
    errors.ModelKeyMissingError("openai", "OPENAI_API_KEY"),
    errors.ToolServerError("python server.py", "it did not start"),
    errors.ThreadIdRequiredError(),
    errors.CheckpointerRequiredError(),
    errors.StepRejectedError("charge", "too dear"),
    errors.StepGoneError("t", "charge", ["pay"]),
    errors.EffectError("what it did"),
    errors.EffectMismatchError("charge", "amount=1", "amount=2"),
    errors.UnknownEffectError("charge", "amount=1", "petal-1", "2026-01-01T00:00:00+00:00"),
    errors.EffectNotRecordedError("charge", "amount=1"),
    errors.EffectResultError("charge", "socket.socket", "it is open."),
    errors.OutsideStepError(),
    errors.PendingInterruptError("t", [("id-1", "Sure?")]),
    errors.ResumeError("no"),
    errors.NothingToResumeError("t", unfinished=True),
    errors.UnknownThreadError("t"),
    errors.InterruptIdRequiredError("t", [("id-1", "Sure?"), ("id-2", "Really?")]),
    errors.UnknownInterruptError("t", "id-3", [("id-1", "Sure?"), ("id-2", "Really?")]),
    errors.ClosedInterruptError("t", "id-3", [], answered=False),
    errors.InvalidAnswerError("'maybe'", "answer yes or no"),
    errors.CheckpointerError("broken"),
    errors.CheckpointerConfigurationError("no db_file"),
    errors.CheckpointerUnavailableError("sqlite:///x.db", "database is locked", "Try again."),
    errors.CheckpointNotFoundError("t", "1ef"),
    errors.BranchNotFoundError("t", "what-iff", ("what-if",)),
    errors.TooFewTurnsError("t", 3, 2),
    errors.BranchNameError(" ", "it is empty"),
    errors.BranchExistsError("t", "what-if", "1ef"),
    errors.CheckpointCorruptionError("sqlite:///x.db", "file is not a database"),
    errors.StateVersionError("t", "1ef", 3, 2),
    errors.MigrationError("t", "1ef", 1, 2, "ValueError: no"),
    errors.CheckpointConflictError("t"),
    errors.CheckpointConflictError("t", lost=True),
    errors.ThreadBusyError("t", 2.5),
    errors.RunStoppedError("t", rolled_back=True),
]
UNSAVABLE = ValueNotSavableError("channel 'x'", "socket.socket", "it is open")
"""Defined beside what raises it."""


def test_every_error_has_an_example_here() -> None:
    defined = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PetalError)}
    assert {type(example) for example in EXAMPLES} == defined


@pytest.mark.parametrize("error", [*EXAMPLES, UNSAVABLE], ids=lambda error: type(error).__name__)
def test_errors_survive_pickling(error: errors.PetalError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", [*EXAMPLES, UNSAVABLE], ids=lambda error: type(error).__name__)
def test_the_tree_at_the_top_of_the_module_is_the_tree(error: errors.PetalError) -> None:
    kind = type(error)
    line = next(line for line in (errors.__doc__ or "").splitlines() if kind.__name__ in line.split())
    builtin = [base.__name__ for base in kind.__bases__ if not issubclass(base, errors.PetalError)]
    if kind is not errors.PetalError:
        assert builtin == ([line.split("(")[1].split(")")[0]] if "(" in line else [])


def test_the_specifications_errors_are_what_it_says() -> None:
    assert issubclass(errors.CheckpointerConfigurationError, errors.CheckpointerError)
    assert issubclass(errors.CheckpointerConfigurationError, ValueError)
    assert issubclass(errors.CheckpointNotFoundError, errors.CheckpointerError)
    assert issubclass(errors.CheckpointCorruptionError, errors.CheckpointerError)


def test_several_questions_are_listed() -> None:
    error = errors.InterruptIdRequiredError("t", [("id-1", "Sure?"), ("id-2", "Really?")])
    assert str(error) == (
        "Thread 't' waits for an answer; pass interrupt_id to say which one is answered:\n"
        "  id-1: Sure?\n"
        "  id-2: Really?"
    )
