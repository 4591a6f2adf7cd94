"""A built agent: runs on threads, sync and async, and closes what it opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from types import TracebackType
from typing import Any, Literal, Self

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StreamMode

from petal.core.admission import Admission
from petal.core.config.agent import AgentConfig
from petal.core.config.checkpointer import CheckpointerConfig, Durability, MemoryOptions, OnConflict
from petal.core.continuity import ThreadCheck, check_thread, heads
from petal.core.detours import led_command, questions_of
from petal.core.models.source import ModelSource
from petal.core.portal import Portal
from petal.core.questions import OnPending
from petal.core.recovery import ATTEMPTS, IncompleteRun, Recovery, incomplete, recovered
from petal.core.steps.llm import INPUT
from petal.core.steps.prompts import keys_of
from petal.core.thread import Thread
from petal.errors import (
    AgentConfigurationError,
    CheckpointerRequiredError,
    ThreadIdRequiredError,
)
from petal.tools.toolbox import Toolbox
from petal.types.state import state_keys

__all__ = ["Agent", "Thread"]

Graph = CompiledStateGraph[Any, Any, Any, Any]


class Agent:
    """An agent, made by `AgentFactory.build()`.

    It opens its connections at first use, and can be awaited, entered or just used and closed:

    ```python
    async with factory.build() as agent:
        await agent.ainvoke({"messages": [("user", "Hello")]}, thread_id="user-123")
    ```

    Each act has a sync and an async face; both run the same coroutine, the sync one in an event loop of the
    agent's own, so either works anywhere, also inside a running loop.

    Attributes:
        graph: The compiled LangGraph graph, to use as any other.
        config: What the agent was built from.
        checkpointer: The saver that keeps its state, or None.
    """

    def __init__(
        self,
        config: AgentConfig,
        graph: Graph,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
        models: Sequence[ModelSource] = (),
        toolboxes: Sequence[Toolbox] = (),
    ) -> None:
        self.config = config
        self.graph = graph
        self.checkpointer = checkpointer
        self.portal = Portal()
        self._models = tuple(models)
        self._toolboxes = tuple(toolboxes)
        self._is_open = False

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.config.name

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, steps={[step.name for step in self.config.steps]})"

    def __eq__(self, other: object) -> bool:
        return self.config == other.config if isinstance(other, Agent) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, len(self.config.steps)))

    async def ainvoke(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        thread_id: str | None = None,
        checkpoint_id: str | None = None,
        durability: Durability | None = None,
        on_pending: OnPending = "error",
        on_conflict: OnConflict | None = None,
        conflict_timeout: float | None = None,
        replay: Literal["dry"] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the agent to its end, or to a question.

        Args:
            input: The state's values to begin with; a string is what the user says; None goes on with a
                thread's unfinished run; or a LangGraph `Command`.
            config: A LangGraph config; what it holds is kept.
            thread_id: The thread to run on; required where a checkpointer is on.
            checkpoint_id: Run on from this checkpoint of the thread rather than from its latest.
            durability: `"sync"`: each step is on disk before the next begins; `"async"`; `"exit"`.
                Default: the checkpointer's, which is `"sync"` unless set.
            on_pending: What new input does on a thread that waits for an answer: `"error"`, or `"abandon"`: the
                question is given up, with what steps beside it had done, and the input begins anew. Input at a
                `checkpoint_id` begins a branch, so it needs neither.
            on_conflict: What to do while another run has the thread, here or in another process: `"wait"` in the
                order of arrival; `"reject"`; `"interrupt"`: stop the other one before its next step, and go on with
                what it left; `"rollback"`: also remove what it saved. Default: the checkpointer's, `"wait"` unless set.
            conflict_timeout: Seconds to wait for the thread at most. Default: the checkpointer's, 300 unless set.
            replay: `"dry"`: tool calls and `petal.step` are answered from what the thread recorded before, and nothing
                of theirs is run; see `docs/effects.md`.
            kwargs: What LangGraph's `ainvoke` takes besides.

        Returns:
            The state's values, and under `__interrupt__` the open questions, if any.

        Raises:
            TypeError: If there is no argument of a name.
            ValueError: If `thread_id` and the config name two threads, or an argument has an unknown value.
            ThreadIdRequiredError: If a checkpointer is on and no thread is named.
            ModelError: If a step's model cannot be had; nothing is saved then.
            ThreadBusyError: If another run has the thread, and this one is not to wait, or not so long.
            RunStoppedError: If a later run stopped this one.
            CheckpointConflictError: If something else changed the thread while this run was under way.
            EffectError: If what a step does cannot be recorded, or not be told from the record.
            PendingInterruptError: If it is new input and a question is open.
            ResumeError: If it is a `Command(resume=…)` that answers no open question; see `Thread.aresume`.
            CheckpointerError: If the state cannot be read or saved.
        """
        admission = self._admission
        run = admission.run(config, thread_id, checkpoint_id, durability, replay, kwargs)
        await self.aopen()
        async with admission.admitted(self.input_of(input), run, on_pending, on_conflict, conflict_timeout) as given:
            return await self.graph.ainvoke(given, **run)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """As `ainvoke`."""
        return self.portal.call(self.ainvoke, input, config, **kwargs)

    arun = ainvoke
    run = invoke

    async def astream(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        thread_id: str | None = None,
        checkpoint_id: str | None = None,
        durability: Durability | None = None,
        on_pending: OnPending = "error",
        on_conflict: OnConflict | None = None,
        conflict_timeout: float | None = None,
        replay: Literal["dry"] | None = None,
        stream_mode: StreamMode | Sequence[StreamMode] = "updates",
        **kwargs: Any,
    ) -> AsyncGenerator[Any, None]:
        """Run the agent and yield what happens, as LangGraph's `astream` does.

        Args:
            stream_mode: `"updates"` for each step's update, `"messages"` for tokens with their metadata,
                `"values"`, `"custom"`, …; a list yields `(mode, item)` pairs.

        The other arguments and what is raised are those of `ainvoke`.
        """
        admission = self._admission
        kwargs["stream_mode"] = stream_mode
        run = admission.run(config, thread_id, checkpoint_id, durability, replay, kwargs)
        await self.aopen()
        async with (
            admission.admitted(self.input_of(input), run, on_pending, on_conflict, conflict_timeout) as given,
            aclosing(self.graph.astream(given, **run)) as items,  # type: ignore[type-var]
        ):
            async for item in items:
                await admission.settled(run)
                yield item

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """As `astream`. The run goes on only when the next item is asked for."""
        return self.portal.iterate(lambda: self.astream(input, config, **kwargs))

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        thread_ids: Sequence[str] | None = None,
        max_concurrency: int | None = None,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Run many inputs at once, each on a thread of its own.

        Where a run fails, those that have begun come to their end, and no other one begins.

        Args:
            inputs: An input of `ainvoke` each.
            config: A LangGraph config for all of them, or one each.
            thread_ids: As many ids, all different; required where a checkpointer is on, unless the configs name them.
            max_concurrency: Runs at once; default: what the first config says, or all.
            return_exceptions: Run all of them, and give what one raised in the place of its result.
            kwargs: Further arguments of `ainvoke`.

        Returns:
            The results, in the order of the inputs.

        Raises:
            ValueError: If there are not as many thread ids or configs as inputs, or two ids are equal.
            Exception: What `ainvoke` raised first.
        """
        configs = [config] * len(inputs) if config is None or isinstance(config, Mapping) else list(config)
        if len(configs) != len(inputs):
            raise ValueError(f"abatch needs one config, or one for each of the {len(inputs)} inputs.")
        ids: Sequence[str | None] = [None] * len(inputs)
        if thread_ids is not None or self.checkpointer is not None:
            ids = [_thread_of(one) for one in configs] if thread_ids is None else thread_ids
            if thread_ids is None and None in ids:
                raise ThreadIdRequiredError
            if len(ids) != len(inputs) or len(set(ids)) != len(ids):
                raise ValueError(f"abatch needs a thread id of its own for each of the {len(inputs)} inputs.")
        most = max_concurrency or next((one.get("max_concurrency") for one in configs if one), None)
        turn = asyncio.Semaphore(most or max(len(inputs), 1))
        failed: list[Exception] = []

        async def run_one(input: Any, config: RunnableConfig | None, thread_id: str | None) -> Any:
            async with turn:
                if failed and not return_exceptions:
                    return None
                try:
                    return await self.ainvoke(input, config, thread_id=thread_id, **kwargs)
                except Exception as error:
                    failed.append(error)
                    return error

        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(run_one(*each)) for each in zip(inputs, configs, ids, strict=True)]
        if failed and not return_exceptions:
            raise failed[0]
        return [run.result() for run in runs]

    def batch(
        self, inputs: Sequence[Any], config: RunnableConfig | Sequence[RunnableConfig] | None = None, **kwargs: Any
    ) -> list[Any]:
        """As `abatch`."""
        return self.portal.call(self.abatch, inputs, config, **kwargs)

    def thread(self, thread_id: str) -> Thread:
        """The handle on one conversation.

        Raises:
            CheckpointerRequiredError: If the agent keeps no state.
            ThreadIdRequiredError: If the id is None or empty.
        """
        if self.checkpointer is None:
            raise CheckpointerRequiredError
        if thread_id in (None, ""):
            raise ThreadIdRequiredError
        return Thread(self, thread_id)

    async def aincomplete(self) -> list[IncompleteRun]:
        """The agent's threads whose run died, of an error or with its process, and that no run has now.

        Where several agents share a database, those are meant that this one wrote.

        Raises:
            CheckpointerRequiredError: If the agent keeps no state.
        """
        self._require_checkpointer()
        return [run async for run in incomplete(self)]

    def incomplete(self) -> list[IncompleteRun]:
        """As `aincomplete`."""
        return self.portal.call(self.aincomplete)

    def arecover(
        self, attempts: int = ATTEMPTS, *, thread_id: str | None = None, again: bool = False
    ) -> AsyncGenerator[Recovery, None]:
        """Go on with each run that died, and tell of each attempt.

        Several processes may do so at once: a thread that one of them has is passed over by the others.

        Args:
            attempts: How often a run is taken up again at most; then it is dead, and left alone until new input comes.
            thread_id: Only this thread.
            again: Also those that are dead.

        Raises:
            CheckpointerRequiredError: If the agent keeps no state.
            ValueError: If `attempts` is less than 1.
            ModelError: If a step's model cannot be had; nothing was taken up then.
            CheckpointerUnavailableError: If the database cannot be used any more.
        """
        self._require_checkpointer()
        return recovered(self, attempts, thread_id, again=again)

    def recover(
        self, attempts: int = ATTEMPTS, *, thread_id: str | None = None, again: bool = False
    ) -> Iterator[Recovery]:
        """As `arecover`."""
        return self.portal.iterate(lambda: self.arecover(attempts, thread_id=thread_id, again=again))

    async def acheck(self) -> AsyncGenerator[ThreadCheck, None]:
        """Read the newest state of each thread, and tell whether it can go on with the agent as it is today.

        That is: its values can be made, and migrated to the agent's version, and its next steps exist. Nothing is
        written.

        Raises:
            CheckpointerRequiredError: If the agent keeps no state.
        """
        self._require_checkpointer()
        async for thread_id, checkpoint_id in heads(self._admission.saver):
            yield await check_thread(self.graph, thread_id, checkpoint_id)

    def check(self) -> Iterator[ThreadCheck]:
        """As `acheck`."""
        return self.portal.iterate(self.acheck)

    def diagram(self) -> str:
        """The graph as Mermaid text, made here without a network."""
        return self.graph.get_graph().draw_mermaid()

    def input_of(self, value: Any) -> Any:
        """The graph's input: a string goes to `input` where a prompt names it, else to `messages`.

        A `Command` that goes to a step with an approval goes to its question.

        Raises:
            AgentConfigurationError: If the state has a place for neither.
        """
        if isinstance(value, Command):
            return led_command(value, questions_of(self.config.steps))
        if not isinstance(value, str):
            return value
        prompts = [step.config.get("prompt_template") for step in self.config.steps]
        if any(INPUT in keys_of(prompt) for prompt in prompts if isinstance(prompt, str)):
            return {INPUT: value}
        known = self.graph.channels
        if "messages" in known:
            return {"messages": [HumanMessage(value)]}
        if INPUT in state_keys(self.config.state_type):
            return {INPUT: value}
        raise AgentConfigurationError(
            f"The state of agent {self.name!r} has neither messages nor input, so text is no input; pass a dict "
            f"with some of {', '.join(state_keys(self.config.state_type))}."
        )

    async def aopen(self) -> Self:
        """Build the models and list the tools of servers, so that what is missing is said before anything is saved.

        Raises:
            ModelError: If a model cannot be had.
            ToolServerError: If an MCP server does not give its tools.
        """
        if not self._is_open:
            # Importing a provider takes a second or two: other tasks of the loop go on meanwhile.
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(lambda: [model.get(loop) for model in self._models])
            for toolbox in self._toolboxes:
                await toolbox.aload()
            self._is_open = True
        return self

    def open(self) -> Self:
        """As `aopen`."""
        return self.portal.call(self.aopen)

    async def aclose(self) -> None:
        """Close what the agent opened. Models and savers that were passed in stay open."""
        await self._aclose_models()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """As `aclose`, but for what a model opened in another event loop, which only that loop can close."""
        if self.portal.is_running:
            self.portal.call(self._aclose_models)
        self.portal.close()
        if isinstance(self.config.checkpointer, CheckpointerConfig) and self.checkpointer is not None:
            self.checkpointer.close()  # type: ignore[attr-defined]

    def __await__(self) -> Generator[Any, None, Self]:
        return self.aopen().__await__()

    async def __aenter__(self) -> Self:
        return await self.aopen()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _aclose_models(self) -> None:
        self._is_open = False
        for model in self._models:
            await model.aclose()

    def changing(self, config: RunnableConfig) -> AbstractAsyncContextManager[RunnableConfig]:
        """Has a config's thread to itself, as a run does, to change it; gives the config to do it with."""
        return self._admission.changing(config)

    def _require_checkpointer(self) -> None:
        if self.checkpointer is None:
            raise CheckpointerRequiredError

    @property
    def _admission(self) -> Admission:
        kept = self.config.checkpointer
        options = kept.options if isinstance(kept, CheckpointerConfig) else MemoryOptions()
        return Admission(self.graph, self.checkpointer, options)


def _thread_of(config: RunnableConfig | None) -> str | None:
    """The thread that a config names."""
    return (config or {}).get("configurable", {}).get("thread_id")
