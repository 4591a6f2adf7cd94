"""What a run passes before its graph is called: its thread's turn, whether its input fits there, where it begins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, get_args

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, get_checkpoint_id
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StreamMode

from petal.checkpoints.leases import Lease
from petal.checkpoints.rewinding import before_run
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import Durability, MemoryOptions, OnConflict
from petal.core.continuity import check_going_on
from petal.core.departures import begun_at, keeps_states
from petal.core.effects.task import DRY, REPLAY
from petal.core.inputs import keep_input, left_input, minding_left
from petal.core.questions import Answer, OnPending, admitted, refusals
from petal.core.recovery import Attempt
from petal.core.turns import turn
from petal.errors import NothingToResumeError, ThreadIdRequiredError, known_names

Run = dict[str, Any]
"""The keyword arguments with which LangGraph is to run a graph: `config`, `durability`, `control` and the caller's."""

_OWN = ("config", "thread_id", "checkpoint_id", "durability", "on_pending", "on_conflict", "conflict_timeout", "replay")
_LANGGRAPHS = {
    name for method in (CompiledStateGraph.ainvoke, CompiledStateGraph.astream) for name in signature(method).parameters
} | {"checkpoint_during"}
"""What LangGraph takes; the last one it refuses in words of its own."""
_MODES: tuple[str, ...] = get_args(StreamMode)
_ARGUMENTS = (*_OWN, *sorted(_LANGGRAPHS - {*_OWN, "self", "input", "kwargs", "checkpoint_during"}))


@dataclass(frozen=True, slots=True)
class Admission:
    """Lets runs and changes in to the threads of one graph.

    Attributes:
        graph: The graph.
        checkpointer: Keeps its threads; None if it keeps none, so all is let in as it is.
        options: How runs are kept and take turns, unless one says otherwise.
    """

    graph: CompiledStateGraph[Any, Any, Any, Any]
    checkpointer: BaseCheckpointSaver[Any] | None
    options: MemoryOptions

    def run(
        self,
        config: RunnableConfig | None,
        thread_id: str | None,
        checkpoint_id: str | None,
        durability: Durability | None,
        replay: Literal["dry"] | None,
        others: Mapping[str, Any],
    ) -> Run:
        """A run that was not let in yet.

        Args:
            config: The caller's config; what it holds is kept.
            thread_id: Its thread.
            checkpoint_id: Where it begins, if not at the latest checkpoint.
            durability: When its steps are saved; None for the default.
            replay: Whether it only repeats what is on record.
            others: What LangGraph is given besides.

        Raises:
            ThreadIdRequiredError: If threads are kept and none is named.
            ValueError: If `durability`, `replay` or a `stream_mode` is unknown, or the config names another thread.
            TypeError: If LangGraph takes no such argument.
        """
        _require_known(durability, replay, others)
        config = {**(config or {})}
        elsewhere = config.get("configurable", {}).get("thread_id")
        if None not in (thread_id, elsewhere) and str(thread_id) != str(elsewhere):
            raise ValueError(f"thread_id is {thread_id!r}, and the config's thread_id {elsewhere!r}; keep one of them.")
        named: Mapping[str, Any] = {"thread_id": thread_id, "checkpoint_id": checkpoint_id, REPLAY: replay}
        configurable = {**config.get("configurable", {}), **{k: v for k, v in named.items() if v is not None}}
        if configurable.get("checkpoint_id") == "":
            del configurable["checkpoint_id"]  # LangGraph takes it as none
        if configurable:
            config["configurable"] = configurable
        if self.checkpointer is None:
            return {**others, "config": config}
        if configurable.get("thread_id") in (None, ""):
            raise ThreadIdRequiredError
        return {**others, "config": config, "durability": durability or self.options.durability}

    @asynccontextmanager
    async def admitted(
        self,
        input: Any,
        run: Run,
        on_pending: OnPending,
        on_conflict: OnConflict | None = None,
        patience: float | None = None,
    ) -> AsyncIterator[Any]:
        """Has the run's thread while the block runs it; gives what the graph is to be given.

        Args:
            input: The graph's input, an `Answer`, or None.
            run: The run; it is amended by how it is known, what stops it, and where it begins.
            on_pending: What new input does while a question is open.
            on_conflict: What to do while another run has the thread; None for the default.
            patience: Seconds to wait for it at most; None for the default.

        Raises:
            ThreadBusyError: If another run has the thread for longer.
            RunStoppedError: If a later run stopped this one.
            PendingInterruptError: If it is new input and a question is open.
            ResumeError: If it answers no open question, or one that refuses the answer.
            PassedOver: If it is an attempt to go on with a run that needs none.
            CheckpointerError: If the thread cannot go on, or not be read or saved.
        """
        if self.checkpointer is None:
            yield input
            return
        policy = on_conflict or self.options.on_conflict
        patience = self.options.conflict_timeout if patience is None else patience
        async with turn(self.checkpointer, run["config"], policy, patience, run.get("control")) as has:
            run["config"], run["control"] = has.config, has.control
            given = await self._fitting(self.checkpointer, input, run, on_pending, has.lease)
            with refusals(given):
                yield given

    @asynccontextmanager
    async def changing(self, config: RunnableConfig) -> AsyncIterator[RunnableConfig]:
        """Has a config's thread to itself, as a run does, to change it; gives the config to do it with."""
        assert self.checkpointer is not None, "an agent without one has no threads"
        async with turn(self.checkpointer, config, "wait", self.options.conflict_timeout) as has:
            named = await minding_left(self.checkpointer, has.config)
            begun = await self._begun(self.checkpointer, named)
            try:
                yield begun
            except Exception:
                if begun is not named and isinstance(self.checkpointer, PetalSaver):
                    await self.checkpointer.adelete_for_runs([before_run(has.lease.run_id)])
                raise

    async def settled(self, run: Run) -> None:
        """Waits until all is on disk that the run's steps wrote, where that is to be so before it is shown."""
        if isinstance(self.checkpointer, PetalSaver) and run["durability"] == "sync":
            await self.checkpointer.unsettled.asettle_all(run["config"])

    @property
    def saver(self) -> BaseCheckpointSaver[Any]:
        """That of the graph, which migrates what it loads."""
        assert isinstance(self.graph.checkpointer, BaseCheckpointSaver), "an agent without one has no threads"
        return self.graph.checkpointer

    async def _fitting(
        self, checkpointer: BaseCheckpointSaver[Any], input: Any, run: Run, on_pending: OnPending, lease: Lease
    ) -> Any:
        """What the graph is given for an input, by a run that has the thread."""
        if isinstance(input, Attempt):
            await input.begin(checkpointer, run["config"])
        if input is None or isinstance(input, Answer | Command):
            await check_going_on(self.graph, run["config"])
        try:
            given = await admitted(self.graph, self.saver, run["config"], input, on_pending)
        except NothingToResumeError:
            if not (isinstance(input, Answer) and input.is_none):
                raise
            if (left := await left_input(checkpointer, lease, run["config"])) is None:
                raise
            given, run["config"] = left
            return given
        run["config"] = await self._begun(checkpointer, run["config"], given)
        if given is None or isinstance(given, Command):
            run["config"] = await minding_left(checkpointer, run["config"])
        elif run["durability"] != "sync":
            run["config"] = await keep_input(checkpointer, lease, run["config"], given)
        return given

    async def _begun(
        self, checkpointer: BaseCheckpointSaver[Any], config: RunnableConfig, input: Any = None
    ) -> RunnableConfig:
        """A config with which graphs within begin where they were at the checkpoint that it names."""
        if get_checkpoint_id(config) is None or not keeps_states(self.graph):
            return config
        await self.saver.aget_tuple(config)  # what cannot be read is said before anything is changed
        return await begun_at(checkpointer, config, input)


def _require_known(durability: str | None, replay: str | None, others: Mapping[str, Any]) -> None:
    """See that a run is given nothing that would be left out without a word."""
    for name in sorted(others.keys() - _LANGGRAPHS):
        raise TypeError(f"A run has no argument {name!r}. {known_names(name, _ARGUMENTS)}")
    if durability not in (None, *get_args(Durability)):
        raise ValueError(f"durability is 'sync', 'async' or 'exit', not {durability!r}.")
    if replay not in (None, DRY):
        raise ValueError(f"replay is 'dry' or None, not {replay!r}.")
    modes = others.get("stream_mode") or ()
    for mode in [modes] if isinstance(modes, str) else modes:
        if mode not in _MODES:
            raise ValueError(f"There is no stream_mode {mode!r}. {known_names(str(mode), _MODES)}")
