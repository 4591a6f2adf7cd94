"""One conversation of an agent: what it holds, what it waits for, and its whole past."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import Interrupt, StateSnapshot

from petal.checkpoints.branches import Branch, acheckpoint_of, adrop, aname
from petal.checkpoints.lines import Line, abranches, alines, atree
from petal.checkpoints.notes import EFFECT, anotes
from petal.core.branching import acted, forked, rewound
from petal.core.config.retention import Retention
from petal.core.effects.records import effects
from petal.core.questions import MISSING, Answer, open_questions
from petal.errors import CheckpointNotFoundError
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
        """`Agent.ainvoke` on this thread; `checkpoint_id`, or a branch's name there, runs on from an earlier point."""
        return await self.agent.ainvoke(input, thread_id=self.thread_id, **await self._placed(kwargs))

    def invoke(self, input: Any, **kwargs: Any) -> Any:
        """As `ainvoke`."""
        return self.agent.invoke(input, thread_id=self.thread_id, **self._call(self._placed, kwargs))

    async def astream(self, input: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """`Agent.astream` on this thread."""
        parts = self.agent.astream(input, thread_id=self.thread_id, **await self._placed(kwargs))
        async with aclosing(parts):
            async for part in parts:
                yield part

    def stream(self, input: Any, **kwargs: Any) -> Iterator[Any]:
        """As `astream`."""
        return self.agent.stream(input, thread_id=self.thread_id, **self._call(self._placed, kwargs))

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
        """The latest state, or that of a checkpoint or a branch: values, next steps, open questions (`interrupts`).

        A thread that was never run has no values and no `created_at`.

        Raises:
            CheckpointNotFoundError: If the thread has no such checkpoint, nor a branch of that name.
        """
        checkpoint_id = await self._at(checkpoint_id)
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

    async def ahistory(
        self, *, limit: int | None = None, before: str | None = None, branch: str | None = None
    ) -> list[StateSnapshot]:
        """The thread's checkpoints, newest first.

        Args:
            limit: At most so many.
            before: Only those older than this checkpoint, or the head of this branch.
            branch: Only those that led to the head of this branch, or to this checkpoint.

        Raises:
            CheckpointNotFoundError: If there is no such checkpoint or branch.
        """
        before = await self._at(before)
        line = None if branch is None else await self._line(branch)
        found: list[StateSnapshot] = []
        states = self.agent.graph.aget_state_history(
            self.config(),
            limit=limit if line is None else None,
            before=None if before is None else self.config(before),
        )
        async with aclosing(cast(AsyncGenerator[StateSnapshot, None], states)):
            async for snapshot in states:
                if line is None or _id(snapshot.config) in line:
                    if len(found) == limit:
                        break
                    found.append(snapshot)
        return found

    def history(
        self, *, limit: int | None = None, before: str | None = None, branch: str | None = None
    ) -> list[StateSnapshot]:
        """As `ahistory`."""
        return self._call(self.ahistory, limit=limit, before=before, branch=branch)

    async def alines(self) -> list[Line]:
        """The lines of the history: that of the latest state first, then that of each other head, newest first.

        Raises:
            CheckpointNotFoundError: If the thread has no checkpoints.
        """
        return await alines(self._saver, self.thread_id)

    def lines(self) -> list[Line]:
        """As `alines`."""
        return self._call(self.alines)

    async def abranches(self) -> list[Branch]:
        """The named branches, in the order in which they got their names.

        Raises:
            CheckpointNotFoundError: If the thread has no checkpoints.
        """
        return await abranches(self._saver, self.thread_id)

    def branches(self) -> list[Branch]:
        """As `abranches`."""
        return self._call(self.abranches)

    async def aname_branch(self, name: str, at: str | None = None) -> None:
        """Give a checkpoint a name, which then stands for it in every method of a thread, and keeps it from a prune.

        Args:
            name: Up to 100 visible characters.
            at: A checkpoint, or another name of it; default: the latest.

        Raises:
            BranchNameError: If it can be no name.
            BranchExistsError: If another checkpoint has it.
            CheckpointNotFoundError: If there is no such checkpoint.
        """
        await aname(self._saver, self.config(), name, await self._at(at) or await self._head())

    def name_branch(self, name: str, at: str | None = None) -> None:
        """As `aname_branch`."""
        self._call(self.aname_branch, name, at)

    async def adrop_branch(self, name: str) -> None:
        """Take a name away. The checkpoints stay, until a prune takes them.

        Raises:
            BranchNotFoundError: If there is no such name.
        """
        await adrop(self._saver, self.thread_id, name)

    def drop_branch(self, name: str) -> None:
        """As `adrop_branch`."""
        self._call(self.adrop_branch, name)

    async def aupdate(
        self, values: Any, *, as_node: str | None = None, checkpoint_id: str | None = None
    ) -> RunnableConfig:
        """Change the state as if a step had returned `values`.

        Args:
            values: An update; each key goes through its reducer.
            as_node: The step whose edges decide what is next; default: the one that ran last.
            checkpoint_id: Change this point of the past, or this branch; what comes of it is the new head.

        Returns:
            The config of the new checkpoint.
        """
        async with self.agent.changing(self.config(await self._at(checkpoint_id))) as config:
            return await self.agent.graph.aupdate_state(config, values, as_node=as_node)

    def update(self, values: Any, *, as_node: str | None = None, checkpoint_id: str | None = None) -> RunnableConfig:
        """As `aupdate`."""
        return self._call(self.aupdate, values, as_node=as_node, checkpoint_id=checkpoint_id)

    async def afork(self, checkpoint_id: str | None = None, to: str | None = None) -> Thread:
        """A new thread that begins as this one was at a checkpoint; this one stays as it is.

        What subgraphs had reached there comes along, and so do the names of branches there and before.

        Args:
            checkpoint_id: Where to fork, a checkpoint or a branch; default: the latest. One that others follow is
                forked as it was before its next steps ran; else its open questions are open in the fork too.
            to: Id of the new thread; default: a new UUID.

        Raises:
            CheckpointNotFoundError: If there is no such checkpoint.
            CheckpointerError: If the new thread exists already, or the saver cannot fork.
            ThreadIdRequiredError: If its id is empty.
        """
        thread = self.agent.thread(str(uuid.uuid4()) if to is None else to)
        checkpoint_id = await self._at(checkpoint_id) or await self._head()
        await forked(self._saver, self.thread_id, checkpoint_id, thread.thread_id)
        return thread

    def fork(self, checkpoint_id: str | None = None, to: str | None = None) -> Thread:
        """As `afork`."""
        return self._call(self.afork, checkpoint_id, to)

    async def acopy(self, to: str) -> Thread:
        """The whole thread, with all its past, under another id.

        Raises:
            CheckpointNotFoundError: If this thread has no checkpoints.
            CheckpointerError: If the other thread exists already, or the saver cannot copy.
            ThreadIdRequiredError: If its id is None or empty.
        """
        thread = self.agent.thread(to)
        await self._head()
        await acted(self._saver, "acopy_thread", self.thread_id, to)
        return thread

    def copy(self, to: str) -> Thread:
        """As `acopy`."""
        return self._call(self.acopy, to)

    async def arewind(self, turns: int = 1, *, to: str | None = None, keep_as: str | None = None) -> StateSnapshot:
        """Make an earlier state the latest one, with what subgraphs had reached then. Nothing is deleted.

        The old head gets a name first, under which it can be read, run on from and gone back to. A question that was
        open at the earlier state is asked again when the thread goes on.

        Args:
            turns: How many inputs to take back.
            to: The checkpoint or the branch to go back to, instead of counting turns.
            keep_as: The name of the old head; default: `before-rewind-1`, and so on, which `max_idle` of a retention
                policy does not mind.

        Returns:
            The new latest state.

        Raises:
            CheckpointNotFoundError: If there is no such checkpoint or branch.
            TooFewTurnsError: If there is nothing before that many turns; it says how many can be taken back.
            BranchNameError: If `keep_as` can be no name.
            BranchExistsError: If another checkpoint has that name. In either case the thread stays as it is.
        """
        if turns < 1:
            raise ValueError(f"rewind takes back at least one turn, not {turns}.")
        target = await self._at(to)
        async with self.agent.changing(self.config()) as config:
            await rewound(self._saver, config, turns, target, keep_as)
            return await self.astate()

    def rewind(self, turns: int = 1, *, to: str | None = None, keep_as: str | None = None) -> StateSnapshot:
        """As `arewind`."""
        return self._call(self.arewind, turns, to=to, keep_as=keep_as)

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
            await acted(self._saver, "aprune", [self.thread_id], strategy=strategy or "keep_latest")
            return None
        policy = policy or Retention(**rules)
        report: RetentionReport = await acted(self._saver, "aretain", policy, [self.thread_id], dry_run=dry_run)
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
            await acted(self._saver, "adelete_thread", self.thread_id)

    def delete(self) -> None:
        """As `adelete`."""
        self._call(self.adelete)

    async def atool_calls(self) -> list[ToolCallRecord]:
        """The calls of tools and of `petal.step` on this thread, with their results, also those of lines left behind.

        Calls from before Petal recorded them, and those that nothing has answered, are told from the conversation.
        """
        found = effects(await anotes(self._saver, self.thread_id, EFFECT))
        return recorded_calls((await self.astate()).values, [one.record for one in found])

    def tool_calls(self) -> list[ToolCallRecord]:
        """As `atool_calls`."""
        return self._call(self.atool_calls)

    def config(self, checkpoint_id: str | None = None) -> RunnableConfig:
        """The LangGraph config that names this thread, and one of its checkpoints if given."""
        named = {} if checkpoint_id is None else {"checkpoint_ns": "", "checkpoint_id": checkpoint_id}
        return {"configurable": {"thread_id": self.thread_id, **named}}

    async def _open_questions(self) -> list[Interrupt]:
        saver = self.agent.graph.checkpointer
        assert isinstance(saver, BaseCheckpointSaver), "an agent without one makes no Thread"
        return await open_questions(saver, self.thread_id)

    async def _head(self) -> str:
        snapshot = await self.astate()
        if snapshot.created_at is None:
            raise CheckpointNotFoundError(self.thread_id)
        return str(snapshot.config["configurable"]["checkpoint_id"])

    @property
    def _saver(self) -> BaseCheckpointSaver[Any]:
        assert self.agent.checkpointer is not None, "an agent without one makes no Thread"
        return self.agent.checkpointer

    async def _at(self, place: str | None) -> str | None:
        """The checkpoint that an id or a branch's name means."""
        return None if place is None else await acheckpoint_of(self._saver, self.thread_id, place)

    async def _placed(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a run, with the checkpoint that they mean by a name."""
        named = kwargs.get("checkpoint_id")
        return kwargs if named is None else {**kwargs, "checkpoint_id": await self._at(named)}

    async def _line(self, branch: str) -> set[str]:
        head = await acheckpoint_of(self._saver, self.thread_id, branch)
        tree = await atree(self._saver, self.thread_id)
        if head not in tree.known:
            raise CheckpointNotFoundError(self.thread_id, head)
        return {info.checkpoint_id for info in tree.path(head)}

    def _call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        return self.agent.portal.call(function, *args, **kwargs)


def _id(config: RunnableConfig) -> str:
    return str(config["configurable"]["checkpoint_id"])
