"""One run of an agent, told while it goes: tokens as they come, and what is there at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from petal.cli.rendering import conversation, jsonable, last_words, questions_json

if TYPE_CHECKING:
    from langgraph.types import Interrupt

    from petal.core.agent import Agent

LOOP_MODEL = "model"
"""The node of LangChain's agent, inside a react step, that asks the model."""


class Listener(Protocol):
    """Who is told what happens in a run."""

    def token(self, message_id: str | None, text: str) -> None:
        """A further piece of what the agent says."""

    def message(self, text: str) -> None:
        """Something that the agent says, all at once."""

    def step(self, name: str) -> None:
        """A step that says nothing by itself has ended."""


class Silence:
    """Listens to nothing."""

    def token(self, message_id: str | None, text: str) -> None: ...

    def message(self, text: str) -> None: ...

    def step(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there is at the end of a run."""

    thread_id: str | None
    values: Any
    interrupts: tuple[Interrupt, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The outcome for programs."""
        return {
            "thread_id": self.thread_id,
            "status": "waiting" if self.interrupts else "done",
            "output": last_words(self.values),
            "state": jsonable(self.values),
            "interrupts": questions_json(self.interrupts),
        }


def play(agent: Agent, stream: Callable[..., Iterator[Any]], thread_id: str | None, listener: Listener) -> Outcome:
    """Run the agent to its end, or to a question.

    Args:
        agent: The agent.
        stream: Begins the run: `Thread.stream_resume` or `Agent.stream`, with all that they need but the modes.
        thread_id: The thread; None where the agent keeps no state.
        listener: Is told what the agent says while it says it.

    Raises:
        PendingInterruptError: If it is new input and a question is open.
        ResumeError: If there is nothing to go on with, or the answer fits no open question.
        Exception: Whatever a step raises.
    """
    telling = _Telling(agent, listener)
    if thread_id is not None and agent.checkpointer is not None:
        telling.known = dict(_keyed(agent.thread(thread_id).state().values))
    items: Any = stream(stream_mode=["messages", "updates", "values"], subgraphs=True)
    with closing(items):
        for namespace, mode, item in items:
            telling.tell(namespace, mode, item)
    if thread_id is None or agent.checkpointer is None:
        return Outcome(thread_id, telling.values, tuple(telling.interrupts.values()))
    snapshot = agent.thread(thread_id).state()
    return Outcome(thread_id, snapshot.values, snapshot.interrupts)


@dataclass(slots=True)
class _Telling:
    """Sorts what LangGraph streams: what the agent says from what its steps only think or pass on."""

    agent: Agent
    listener: Listener
    values: Any = None
    interrupts: dict[str, Interrupt] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    """Messages that were there before, or were told, by their ids."""
    begun: bool = False

    def tell(self, namespace: tuple[str, ...], mode: str, item: Any) -> None:
        match mode:
            case "messages":
                self._tell_piece(*item)
            case "updates" if not namespace:
                self._tell_update(item)
            case "values" if not namespace:
                self._tell_state(item)

    def _tell_piece(self, message: Any, metadata: Mapping[str, Any]) -> None:
        if not self._speaks(metadata) or message.type not in ("ai", "AIMessageChunk"):
            return
        if message.type == "ai":
            if message.id not in self.known:
                self._tell_message(message)
        elif message.text:
            self.known[message.id] = message
            self.listener.token(message.id, message.text)

    def _tell_update(self, update: Mapping[str, Any]) -> None:
        for name, change in update.items():
            if name == "__interrupt__":
                self.interrupts |= {asked.id: asked for asked in change}
            elif (step := self._steps.get(name)) is not None and not _streams(step):
                self.listener.step(name)

    def _tell_state(self, values: Any) -> None:
        for key, message in _keyed(values):
            # Without a checkpointer, what stands in the first state was brought by the input.
            if self.begun and key not in self.known and message.type == "ai":
                self._tell_message(message)
            self.known.setdefault(key, message)
        self.begun = True
        self.values = values

    def _tell_message(self, message: Any) -> None:
        self.known[message.id] = message
        if message.text:
            self.listener.message(message.text)

    def _speaks(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a piece belongs to what a step answers, not to what a function of the user's asks a model for."""
        outer = str(metadata.get("langgraph_checkpoint_ns", "")).partition(":")[0]
        step = self._steps.get(outer)
        if step is None or not _streams(step):
            return False
        return metadata.get("langgraph_node") == (LOOP_MODEL if step.type == "react" else outer)

    @property
    def _steps(self) -> dict[str, Any]:
        return {step.name: step for step in self.agent.config.steps}


def _streams(step: Any) -> bool:
    """Whether a step's tokens are for the user; those of an answer in a form are not, only the form is."""
    return step.type in ("llm", "react") and step.config.get("structured_output") is None


def _keyed(values: Any) -> Iterator[tuple[str, Any]]:
    """The messages of a state by their ids; one without an id by its place."""
    for index, message in enumerate(conversation(values)):
        yield message.id or f"#{index}", message
