"""One conversation of an agent: what it holds, what it waits for, and its whole past."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.types import Interrupt, StateSnapshot

from petal.core.config.retention import Retention
from petal.core.questions import MISSING, Answer, open_questions
from petal.errors import CheckpointerError, CheckpointNotFoundError
from petal.tools.ledger import ToolCallRecord, recorded_calls

if TYPE_CHECKING:
    from petal.checkpoints.retention import RetentionReport
    from petal.core.agent import Agent

T = TypeVar("T")


class Thread:
    """The handle on one conversation, made by `agent.thread("user-123")`. It holds nothing itself.

    Each act has a sync and an async face (`state` and `astate`, …), which do the same.
    """

    def __init__(self, agent: Agent, thread_id: str) -> None:
        self.agent = agent
        self.thread_id = thread_id

    def __repr__(self) -> str:
        return f"Thread({self.thread_id!r} of {self.agent.name!r})"

    async def ainvoke(self, input: Any, **kwargs: Any) -> Any:
        """`Agent.ainvoke` on this thread; `checkpoint_id` runs on from an earlier point."""
        return await self.agent.ainvoke(input, thread_id=self.thread_id, **kwargs)

    def invoke(self, input: Any, **kwargs: Any) -> Any:
        """As `ainvoke`."""
        return self.agent.invoke(input, thread_id=self.thread_id, **kwargs)

    def astream(self, input: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """`Agent.astream` on this thread."""
        return self.agent.astream(input, thread_id=self.thread_id, **kwargs)

    def stream(self, input: Any, **kwargs: Any) -> Iterator[Any]:
        """As `astream`."""
        return self.agent.stream(input, thread_id=self.thread_id, **kwargs)

    async def aresume(
        self,
        value: Any = MISSING,
        interrupt_id: str | None = None,
        *,
        answers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer an open question, or go on with a run that was cut off.

        Args:
            value: The answer; None, False, "", 0 and {} are answers too. Without one, an unfinished run goes on. A
                dict of nothing but question ids is several answers, as it is for LangGraph.
            interrupt_id: Which question is answered; required where several are open. With it, an answer that was
                given before is refused rather than taken for the thread's next question.
            answers: Several answers at once, by question id, instead of a value; questions without one stay open.
            kwargs: Further arguments of `Agent.ainvoke`; with `checkpoint_id`, what is answered is a question
                that was given up there, on a branch of its own.

        Returns:
            What `Agent.ainvoke` returns.

        Raises:
            UnknownThreadError: If there is no such thread.
            NothingToResumeError: If no question is open, or without a value: if no run is unfinished.
            InterruptIdRequiredError: If questions are open and it is not said which is answered, or how.
            ClosedInterruptError: If the question of that id was answered already, or given up.
            UnknownInterruptError: If the thread never asked a question of that id.
            InvalidAnswerError: If the question does not allow the answer; it stays open.
        """
        return await self.ainvoke(Answer(value, interrupt_id, answers), **kwargs)

    def resume(self, value: Any = MISSING, interrupt_id: str | None = None, **kwargs: Any) -> Any:
        """As `aresume`."""
        return self._call(self.aresume, value, interrupt_id, **kwargs)

    def astream_resume(
        self,
        value: Any = MISSING,
        interrupt_id: str | None = None,
        *,
        answers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[Any, None]:
        """As `aresume`, and yields what happens, as `Agent.astream` does."""
        return self.astream(Answer(value, interrupt_id, answers), **kwargs)

    def stream_resume(
        self,
        value: Any = MISSING,
        interrupt_id: str | None = None,
        *,
        answers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """As `astream_resume`."""
        return self.stream(Answer(value, interrupt_id, answers), **kwargs)

    async def astate(self, checkpoint_id: str | None = None, *, subgraphs: bool = False) -> StateSnapshot:
        """The latest state, or that of a checkpoint: values, next steps, open questions (`interrupts`).

        A thread that was never run has no values and no `created_at`.

        Raises:
            CheckpointNotFoundError: If the thread has no such checkpoint.
        """
        snapshot = await self.agent.graph.aget_state(self.config(checkpoint_id), subgraphs=subgraphs)
        if checkpoint_id is not None and snapshot.created_at is None:
            raise CheckpointNotFoundError(self.thread_id, checkpoint_id)
        if checkpoint_id is None and snapshot.interrupts:
            return snapshot._replace(interrupts=tuple(await self._open_questions()))
        return snapshot

    def state(self, checkpoint_id: str | None = None, *, subgraphs: bool = False) -> StateSnapshot:
        """As `astate`."""
        return self._call(self.astate, checkpoint_id, subgraphs=subgraphs)

    async def ainterrupts(self) -> tuple[Interrupt, ...]:
        """All open questions, each with its `id` and `value`."""
        return tuple(await self._open_questions())

    def interrupts(self) -> tuple[Interrupt, ...]:
        """As `ainterrupts`."""
        return self._call(self.ainterrupts)

    async def ahistory(self, *, limit: int | None = None, before: str | None = None) -> list[StateSnapshot]:
        """The thread's checkpoints, newest first.

        Args:
            limit: At most so many.
            before: Only those older than this checkpoint.
        """
        states = self.agent.graph.aget_state_history(
            self.config(), limit=limit, before=None if before is None else self.config(before)
        )
        return [snapshot async for snapshot in states]

    def history(self, *, limit: int | None = None, before: str | None = None) -> list[StateSnapshot]:
        """As `ahistory`."""
        return self._call(self.ahistory, limit=limit, before=before)

    async def aupdate(
        self, values: Any, *, as_node: str | None = None, checkpoint_id: str | None = None
    ) -> RunnableConfig:
        """Change the state as if a step had returned `values`.

        Args:
            values: An update; each key goes through its reducer.
            as_node: The step whose edges decide what is next; default: the one that ran last.
            checkpoint_id: Change this point of the past; what comes of it is the new head.

        Returns:
            The config of the new checkpoint.
        """
        async with self.agent.changing(self.config(checkpoint_id)) as config:
            return await self.agent.graph.aupdate_state(config, values, as_node=as_node)

    def update(self, values: Any, *, as_node: str | None = None, checkpoint_id: str | None = None) -> RunnableConfig:
        """As `aupdate`."""
        return self._call(self.aupdate, values, as_node=as_node, checkpoint_id=checkpoint_id)

    async def afork(self, checkpoint_id: str | None = None, to: str | None = None) -> Thread:
        """A new thread that begins as this one was at a checkpoint; this one stays as it is.

        Args:
            checkpoint_id: Where to fork; default: the latest. An older one is forked as it was before its
                next steps ran.
            to: Id of the new thread; default: a new UUID.

        Raises:
            CheckpointNotFoundError: If there is no such checkpoint.
            CheckpointerError: If the new thread exists already, or the saver cannot fork.
        """
        to = to or str(uuid.uuid4())
        if checkpoint_id is None:
            checkpoint_id = await self._head()
        await self._keep("afork_thread", self.thread_id, checkpoint_id, to)
        return Thread(self.agent, to)

    def fork(self, checkpoint_id: str | None = None, to: str | None = None) -> Thread:
        """As `afork`."""
        return self._call(self.afork, checkpoint_id, to)

    async def acopy(self, to: str) -> Thread:
        """The whole thread, with all its past, under another id.

        Raises:
            CheckpointNotFoundError: If this thread has no checkpoints.
            CheckpointerError: If the other thread exists already, or the saver cannot copy.
        """
        await self._head()
        await self._keep("acopy_thread", self.thread_id, to)
        return Thread(self.agent, to)

    def copy(self, to: str) -> Thread:
        """As `acopy`."""
        return self._call(self.acopy, to)

    async def arewind(self, turns: int = 1, *, to: str | None = None) -> StateSnapshot:
        """Make an earlier state the latest one. Nothing is deleted: `history` still lists what came after.

        Args:
            turns: How many inputs to take back.
            to: The checkpoint to go back to, instead of counting turns.

        Returns:
            The new latest state.

        Raises:
            CheckpointNotFoundError: If there is no such checkpoint, or nothing before that many turns.
        """
        async with self.agent.changing(self.config()) as config:
            target = to if to is not None else await self._before(turns)
            await self.astate(target)
            config["configurable"]["checkpoint_id"] = target
            await self.agent.graph.aupdate_state(config, None, as_node="__copy__")
            return await self.astate()

    def rewind(self, turns: int = 1, *, to: str | None = None) -> StateSnapshot:
        """As `arewind`."""
        return self._call(self.arewind, turns, to=to)

    async def aprune(
        self,
        policy: Retention | None = None,
        *,
        strategy: Literal["keep_latest", "delete"] | None = None,
        dry_run: bool = False,
        **rules: Any,
    ) -> RetentionReport | None:
        """Forget the thread's past: all but the latest checkpoint, or what a policy or rules say.

        Args:
            policy: What goes.
            strategy: Instead of a policy: `"keep_latest"`, the default, or `"delete"` for the latest one too.
            dry_run: Only tell what a policy would delete.
            rules: The fields of `Retention`, instead of a policy: `prune(keep_last=10, max_age="30d")`.

        Returns:
            What went by a policy or rules; None for a strategy.

        Raises:
            CheckpointerError: If the saver cannot prune this thread, or not by a policy.
            CheckpointerConfigurationError: If a rule is unknown or has a wrong value.
            ValueError: If more than one of policy, strategy and rules is given, or a dry run without a policy or rules.
        """
        if sum(map(bool, (policy is not None, strategy, rules))) > 1:
            raise ValueError("prune takes a policy, a strategy or rules, not several of them.")
        if policy is None and not rules:
            if dry_run:
                raise ValueError("A dry run tells what rules would delete; name one, as in prune(keep_last=1).")
            await self._keep("aprune", [self.thread_id], strategy=strategy or "keep_latest")
            return None
        policy = policy or Retention(**rules)
        report: RetentionReport = await self._keep("aretain", policy, [self.thread_id], dry_run=dry_run)
        return report

    def prune(
        self,
        policy: Retention | None = None,
        *,
        strategy: Literal["keep_latest", "delete"] | None = None,
        dry_run: bool = False,
        **rules: Any,
    ) -> RetentionReport | None:
        """As `aprune`."""
        return self._call(self.aprune, policy, strategy=strategy, dry_run=dry_run, **rules)

    async def adelete(self) -> None:
        """Delete the thread with all its checkpoints."""
        async with self.agent.changing(self.config()):
            await self._keep("adelete_thread", self.thread_id)

    def delete(self) -> None:
        """As `adelete`."""
        self._call(self.adelete)

    async def atool_calls(self) -> list[ToolCallRecord]:
        """The tool calls of the conversation, in their order, with their results."""
        return recorded_calls((await self.astate()).values)

    def tool_calls(self) -> list[ToolCallRecord]:
        """As `atool_calls`."""
        return self._call(self.atool_calls)

    def config(self, checkpoint_id: str | None = None) -> RunnableConfig:
        """The LangGraph config that names this thread, and one of its checkpoints if given."""
        named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
        return {"configurable": {"thread_id": self.thread_id, **named}}

    async def _open_questions(self) -> list[Interrupt]:
        saver = self.agent.checkpointer
        assert saver is not None, "an agent without one makes no Thread"
        return await open_questions(saver, self.thread_id)

    async def _head(self) -> str:
        snapshot = await self.astate()
        if snapshot.created_at is None:
            raise CheckpointNotFoundError(self.thread_id)
        return str(snapshot.config["configurable"]["checkpoint_id"])

    async def _before(self, turns: int) -> str:
        """The checkpoint on which the input came in that was sent `turns` inputs ago."""
        if turns < 1:
            raise ValueError(f"rewind takes back at least one turn, not {turns}.")
        parents = {}
        for snapshot in await self.ahistory():
            parents[_id(snapshot.config)] = snapshot
        at: StateSnapshot | None = parents.get(await self._head())
        while at is not None:
            parent = _id(at.parent_config) if at.parent_config else None
            turns -= (at.metadata or {}).get("source") == "input"
            if turns == 0:
                if parent is None:
                    break
                return parent
            at = parents.get(parent) if parent else None
        raise CheckpointNotFoundError(self.thread_id, "before its first turn")

    async def _keep(self, act: str, *args: Any, **kwargs: Any) -> Any:
        """One of the saver's acts on whole threads, which not every saver of LangGraph's has."""
        saver = self.agent.checkpointer
        try:
            method = getattr(saver, act)
            return await method(*args, **kwargs)
        except (AttributeError, NotImplementedError) as error:
            raise CheckpointerError(
                f"{type(saver).__name__} has no {act}; open the database with petal.checkpoints.open_checkpointer, "
                "whose savers have it."
            ) from error

    def _call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        return self.agent.portal.call(function, *args, **kwargs)


def _id(config: RunnableConfig) -> str:
    return str(config["configurable"]["checkpoint_id"])
