"""What a step does about tool calls that never got a result, before it asks its model."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage, convert_to_messages
from langchain_core.runnables import RunnableConfig
from langgraph.func import task
from langgraph.types import Command

from petal.core.config.steps import ModelOptions
from petal.core.steps.history import DanglingCall, Key, dangling, first_change, mended
from petal.core.steps.inquiry import Inquiry
from petal.core.steps.registry import StepContext
from petal.core.steps.tool import messages_of, tool_node
from petal.core.steps.traces import Traces, atraces, traces
from petal.tools.toolbox import Toolbox
from petal.types.state import reducer_of, values_of


@dataclass(frozen=True, slots=True)
class Conversation:
    """A state's messages as a model takes them, and how the state comes to hold them so.

    Attributes:
        messages: What to send.
        goes_on: Whether the last of them are results on which the model goes on.
        removed: What is taken out of the state to come back at another place.
        added: What comes back, and the results that stand in.
        values: What tools that were run meanwhile changed besides.
        commands: The same, of tools that return a `Command`.
    """

    messages: list[BaseMessage]
    goes_on: bool
    removed: Sequence[BaseMessage] = ()
    added: Sequence[BaseMessage] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[Command[Any]] = ()

    def update(self, update: dict[str, Any]) -> Any:
        """A step's update, with the repair before the messages that it adds.

        What moves is taken out by one write and put back by the next, so that what other steps of the same superstep
        add is not lost, as it would be if the whole list were replaced.
        """
        update = {**self.values, **update, "messages": [*self.added, *update["messages"]]}
        if not self.removed and not self.commands:
            return update
        first: list[Command[Any]] = [Command(update={"messages": list(self.removed)})] if self.removed else []
        return [*first, *self.commands, Command(update=update)]


class Mender:
    """Mends the conversation of one step, by the step's policy.

    Args:
        step: The step's name.
        options: What it was told.
        toolbox: Its tools, if it has some.
        context: The agent around it.
    """

    def __init__(self, step: str, options: ModelOptions, toolbox: Toolbox | None, context: StepContext) -> None:
        self._step = step
        self._policy = options.dangling
        self._toolbox = toolbox
        self._tools: Any = toolbox and tool_node(
            toolbox, f"{step}_dangling", context, options.scratchpad_key, options.on_unknown
        )
        self._reducer = reducer_of(context.state_type, "messages")

    def mend(self, state: Any, config: RunnableConfig) -> Conversation:
        """The state's conversation, mended. The step's tools must be loaded.

        Raises:
            GraphInterrupt: If the policy is to ask, and there is no answer yet.
        """
        messages = messages_of(state)
        calls = dangling(messages)
        plan = self._plan(state, messages, calls, traces(calls, messages, config))

        def call(state: Any) -> Any:
            return self._tools.invoke(state, config)

        again = self._task(call)
        outcomes = list[Any]()
        for run in plan.runs:
            outcomes.append(again(run.behind(outcomes)).result())
        return self._done(plan, outcomes)

    async def amend(self, state: Any, config: RunnableConfig) -> Conversation:
        """As `mend`."""
        messages = messages_of(state)
        calls = dangling(messages)
        plan = self._plan(state, messages, calls, await atraces(calls, messages, config))

        async def call(state: Any) -> Any:
            return await self._tools.ainvoke(state, config)

        again = self._task(call)
        outcomes = list[Any]()
        for run in plan.runs:
            outcomes.append(await again(run.behind(outcomes)))
        return self._done(plan, outcomes)

    def _task(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A call of tools whose result LangGraph keeps, and takes up again."""
        named: Any = task(name=f"{self._step}_dangling")
        made: Callable[[Any], Any] = named(call)
        return made

    def _plan(self, state: Any, messages: list[BaseMessage], found: Sequence[DanglingCall], known: Traces) -> _Plan:
        calls = [call for call in found if call.is_readable]
        unknown = [call for call in calls if call.key not in known.ended]
        results: dict[Key, ToolMessage] = {}
        wanted: dict[int, list[DanglingCall]] = {}
        for call, fate in zip(unknown, self._fates(unknown, known.begun), strict=True):
            if isinstance(fate, ToolMessage):
                results[call.key] = fate
            else:
                wanted.setdefault(call.place, []).append(call)
        last = max((place for place, message in enumerate(messages) if isinstance(message, AIMessage)), default=None)
        runs = [_Run.of(state, messages, place, chosen) for place, chosen in wanted.items()]
        return _Plan(messages, results, known.ended, runs, was_answered=all(call.place != last for call in calls))

    def _fates(self, calls: Sequence[DanglingCall], begun: Set[str]) -> Sequence[ToolMessage | None]:
        """The result that stands in for each call's own; None if the call is to be run now."""
        if not calls or self._policy == "error":
            return [call.interrupted() for call in calls]
        names = [_name(tool) for tool in self._toolbox.tools] if self._toolbox else []
        can_run = [call.call["name"] in names for call in calls]
        has_begun = [call.call["id"] in begun for call in calls]
        if self._policy == "run":
            told = zip(calls, can_run, has_begun, strict=True)
            return [None if able and not late else call.interrupted() for call, able, late in told]
        return Inquiry(self._step, calls, can_run, has_begun).ask()

    def _done(self, plan: _Plan, outcomes: Sequence[Any]) -> Conversation:
        """The conversation with the results of the tools that were run."""
        results, values = dict(plan.results), dict[str, Any]()
        commands: list[Command[Any]] = []
        others: dict[int, list[BaseMessage]] = {}
        for place, ids, parts in plan.came(outcomes):
            for part in parts:
                added, rest = _split(part)
                for one in added:
                    if isinstance(one, ToolMessage) and one.tool_call_id in ids:
                        results[place, one.tool_call_id] = one
                    else:
                        others.setdefault(place, []).append(_with_id(one))
                if isinstance(rest, Command):
                    commands.append(rest)
                else:
                    values |= rest
        messages = mended(*_joined(plan.messages, results, others))
        goes_on = plan.was_answered and bool(messages) and isinstance(messages[-1], ToolMessage)
        removed, added = _writes(self._reducer, plan.messages, messages)
        return Conversation(messages, goes_on, removed, added, values, commands)


@dataclass(frozen=True, slots=True)
class _Run:
    """Calls of one message that are to be run, and the state that the node which runs them gets."""

    place: int
    ids: frozenset[str | None]
    state: dict[str, Any]

    @classmethod
    def of(cls, state: Any, messages: Sequence[BaseMessage], place: int, calls: Sequence[DanglingCall]) -> _Run:
        asking = messages[place].model_copy(update={"tool_calls": [call.call for call in calls]})
        ids = frozenset(call.call["id"] for call in calls)
        return cls(place, ids, {**values_of(state), "messages": [*messages[:place], asking]})

    def behind(self, outcomes: Sequence[Any]) -> dict[str, Any]:
        """The state, with what runs before this one changed besides messages: a scratchpad has their calls."""
        state = dict(self.state)
        for part in [part for outcome in outcomes for part in _parts(outcome)]:
            _, rest = _split(part)
            if not isinstance(rest, Command):
                state |= rest
        return state


@dataclass(frozen=True, slots=True)
class _Plan:
    messages: list[BaseMessage]
    results: dict[Key, ToolMessage]
    ended: Mapping[Key, Sequence[Any]]
    """What is on record of calls that had ended."""
    runs: list[_Run]
    was_answered: bool
    """Whether no call of the last answer dangles."""

    def came(self, outcomes: Sequence[Any]) -> Iterator[tuple[int, Set[str | None], Sequence[Any]]]:
        """What came of calls, now or before: the place of their message, their ids, and the parts of the result."""
        for (place, id), parts in self.ended.items():
            yield place, {id}, parts
        for run, outcome in zip(self.runs, outcomes, strict=True):
            yield run.place, run.ids, _parts(outcome)


def _parts(outcome: Any) -> list[Any]:
    """What a tools' node returned, as a list."""
    return outcome if isinstance(outcome, list) else [outcome]


def _name(tool: Any) -> str | None:
    return getattr(tool, "name", None) or getattr(tool, "__name__", None)


def _split(part: Any) -> tuple[list[BaseMessage], Any]:
    """The messages in what a tool's node returned, and the rest of that."""
    update = part.update if isinstance(part, Command) else part
    if not isinstance(update, dict):
        return [], part
    added = update.get("messages", [])
    rest: Any = {name: value for name, value in update.items() if name != "messages"}
    if isinstance(part, Command):
        rest = Command(graph=part.graph, update=rest, resume=part.resume, goto=part.goto)
    return convert_to_messages(added if isinstance(added, list) else [added]), rest


def _with_id(message: BaseMessage) -> BaseMessage:
    return message if message.id else message.model_copy(update={"id": str(uuid.uuid4())})


def _joined(
    messages: Sequence[BaseMessage], results: Mapping[Key, ToolMessage], others: Mapping[int, list[BaseMessage]]
) -> tuple[list[BaseMessage], dict[Key, ToolMessage]]:
    """The messages with others put behind them, and the results by where their calls stand then."""
    joined = [one for place, message in enumerate(messages) for one in (message, *others.get(place, ()))]
    shift = {place: sum(len(put) for at, put in others.items() if at < place) for place, _ in results}
    return joined, {(place + shift[place], id): result for (place, id), result in results.items()}


def _writes(
    reducer: Any, standing: list[BaseMessage], messages: list[BaseMessage]
) -> tuple[list[BaseMessage], list[BaseMessage]]:
    """What is to be taken out of the state and then added to it, so that it holds these messages.

    A reducer that does not take messages out only gets the new results: they stand at the end then, once for all.
    """
    if (at := first_change(standing, messages)) is None:
        return [], []
    removed: list[BaseMessage] = [RemoveMessage(id=id) for id in dict.fromkeys(one.id for one in standing[at:]) if id]
    added = messages[at:]
    if _makes(reducer, standing, [removed, added] if removed else [added], messages):
        return removed, added
    return [], [one for one in messages if isinstance(one, ToolMessage) and not any(one is old for old in standing)]


def _makes(reducer: Any, standing: list[BaseMessage], writes: list[Any], messages: list[BaseMessage]) -> bool:
    """Whether a reducer makes these messages of the state's and the writes."""
    if not all(message.id for message in standing):
        return False
    try:
        made = reduce(reducer, writes, list(standing))
    except Exception:
        return False  # one of the user's own, which knows nothing of messages that are taken out
    return [getattr(message, "id", None) for message in made] == [message.id for message in messages]
