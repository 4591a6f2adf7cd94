"""Errors of recorded effects."""

from __future__ import annotations

from petal.errors.base import PetalError


class EffectError(PetalError):
    """What a step does cannot be recorded, or cannot be told from the record.

    Attributes:
        name: The name of the `petal.step` or the tool.
    """

    name: str


class EffectMismatchError(EffectError, ValueError):
    """The step ran before and called something of this name with other arguments. It was not called now.

    Attributes:
        recorded: The arguments on record, cut.
        given: Those of now, cut.
    """

    def __init__(self, name: str, recorded: str, given: str) -> None:
        super().__init__(name, recorded, given)
        self.name, self.recorded, self.given = name, recorded, given

    def __str__(self) -> str:
        return (
            f"{self.name!r} was called with {self.recorded} when this step ran before, and now with {self.given}; it "
            "was not called again. A step that is run again has to call the same things in the same order with the "
            "same arguments: pass on what its state or an earlier petal.step gave it, not the time or chance. If the "
            "code was changed, give the call another name, or fork the thread before the step."
        )


class UnknownEffectError(EffectError):
    """It began and nothing tells whether it ended, and it has `on_unknown="fail"`. It was not called again.

    Attributes:
        arguments: Its arguments, cut.
        key: Its idempotency key, by which the other side may know it.
        started: When it began, in ISO 8601.
    """

    def __init__(self, name: str, arguments: str, key: str, started: str) -> None:
        super().__init__(name, arguments, key, started)
        self.name, self.arguments, self.key, self.started = name, arguments, key, started

    def __str__(self) -> str:
        return (
            f"{self.name!r} with {self.arguments} began at {self.started} and never ended, so it may have happened. "
            f"Look for its idempotency key {self.key!r} on the other side; then set on_unknown='run' to call it again "
            "under the same key, or 'ask' to give its result, and resume."
        )


class EffectNotRecordedError(EffectError, LookupError):
    """A dry run came to something whose result is not on record. Nothing was called.

    Attributes:
        arguments: Its arguments, cut.
        problem: What there is instead.
    """

    def __init__(self, name: str, arguments: str, problem: str = "nothing like it is on record") -> None:
        super().__init__(name, arguments, problem)
        self.name, self.arguments, self.problem = name, arguments, problem

    def __str__(self) -> str:
        return (
            f"{self.name!r} with {self.arguments} cannot be answered from the record: {self.problem}. Nothing was "
            "called; run on without replay='dry' to call it."
        )


class EffectResultError(EffectError, TypeError):
    """The result would not come back as it is, so it was not recorded. The call itself happened.

    Attributes:
        type_name: The type that is the cause.
        reason: Why, and what to do about it.
    """

    def __init__(self, name: str, type_name: str, reason: str) -> None:
        super().__init__(name, type_name, reason)
        self.name, self.type_name, self.reason = name, type_name, reason

    def __str__(self) -> str:
        return (
            f"{self.name!r} was called and returned a {self.type_name} that cannot be recorded: {self.reason} Return "
            "plain data, or a type that the state declares. It counts as begun and not ended."
        )


class OutsideStepError(PetalError, RuntimeError):
    """An idempotency key is asked for where no step of a graph runs."""

    def __str__(self) -> str:
        return (
            "petal.idempotency_key() has a meaning only within a step of a graph, in the thread and the context in "
            "which LangGraph or petal.step called it."
        )
