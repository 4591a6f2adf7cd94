"""Petal's savers against LangGraph's own in-memory saver: after any sequence of calls both hold the same."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import itertools
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple, get_checkpoint_id
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Interrupt
from pydantic import BaseModel

from petal.checkpoints import lineage, open_checkpointer, search
from petal.checkpoints.recall import Recall
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerError, CheckpointNotFoundError

THREADS = ("a", "b")
CALL = "call:1"
"""The namespace of one call of a subgraph, which goes with the checkpoint that the call began at."""
NAMESPACES = ("", "sub", CALL)
CHANNELS = ("messages", "log", "notes", "any")
PLAIN = (str, int, float, bool, type(None))


def on(thread_id: str, ns: str | None = "", id: str | None = None, **more: Any) -> RunnableConfig:
    configurable = {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": id}
    return {"configurable": {key: value for key, value in configurable.items() if value is not None} | more}


class Oracle(InMemorySaver):
    """LangGraph's saver, with what it lacks: copies, prunes, deletes by run, and one order for all threads."""

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        # It loses a value that did not change since a checkpoint which was deleted meanwhile; a saver should not.
        place, values = (config["configurable"]["thread_id"], config["configurable"]["checkpoint_ns"]), checkpoint
        lost = {
            channel: version
            for channel, version in values["channel_versions"].items()
            if channel in values["channel_values"] and (*place, channel, version) not in self.blobs
        }
        return super().put(config, checkpoint, metadata, lost | new_versions)

    def found(
        self, config: Any, filter: Any = None, before: Any = None, limit: int | None = None
    ) -> list[CheckpointTuple]:
        """It lists one thread after the other, and applies the limit on the way; ours lists the newest of all first."""
        every = sorted(super().list(config, filter=filter, before=before), key=_place, reverse=True)
        return every if limit is None else every[: max(0, limit)]

    def keys(self, thread_id: str) -> list[tuple[str, str]]:
        return [(ns, id) for ns, ids in self.storage.get(thread_id, {}).items() for id in ids]

    def metadata(self, thread_id: str, ns: str, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.serde.loads_typed(self.storage[thread_id][ns][id][1])
        return found

    def copy_thread(self, source: str, target: str) -> None:
        for ns, id in self.keys(source):
            self.storage[target][ns][id] = self.storage[source][ns][id]
            if (source, ns, id) in self.writes:
                self.writes[target, ns, id] = dict(self.writes[source, ns, id])
        for thread_id, ns, channel, version in list(self.blobs):
            if thread_id == source:
                self.blobs[target, ns, channel, version] = self.blobs[source, ns, channel, version]

    def keep_latest(self, thread_id: str) -> None:
        heads = {ns: max(ids) for ns, ids in self.storage.get(thread_id, {}).items() if ids}
        if CALL in heads:
            root = self.metadata(thread_id, CALL, heads[CALL])["parents"].get("")
            if root in self.storage[thread_id][""] and root != heads[""]:
                del heads[CALL]
        self.drop(thread_id, {key for key in self.keys(thread_id) if key not in heads.items()})

    def delete_run(self, run_id: str) -> None:
        for thread_id in list(self.storage):
            keys = self.keys(thread_id)
            self.drop(thread_id, {key for key in keys if self.metadata(thread_id, *key).get("run_id") == run_id})

    def drop(self, thread_id: str, doomed: set[tuple[str, str]]) -> None:
        """Whose parent goes has none from then on, so that nothing names what is not there."""
        for ns, id in doomed:
            del self.storage[thread_id][ns][id]
            self.writes.pop((thread_id, ns, id), None)
        for ns, id in self.keys(thread_id):
            checkpoint, metadata, parent = self.storage[thread_id][ns][id]
            if (ns, parent) in doomed:
                self.storage[thread_id][ns][id] = checkpoint, metadata, None

    def index(self) -> dict[str, tuple[int, str]]:
        keys = {thread_id: self.keys(thread_id) for thread_id in self.storage}
        return {
            thread_id: (len(found), max((id for ns, id in found if ns == ""), default=""))
            for thread_id, found in keys.items()
            if found
        }


def _place(found: CheckpointTuple) -> tuple[str, str, str]:
    at = found.config["configurable"]
    return at["checkpoint_id"], at["thread_id"], at["checkpoint_ns"]


def shape(value: Any) -> Any:
    """A value with the type of each of its parts, to be compared: 1, 1.0 and True are three things."""
    if type(value) in PLAIN:  # most are, and they are asked of millions
        return type(value), value
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, BaseModel):
        return type(value), {name: shape(item) for name, item in value.__dict__.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), [shape(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return type(value), value


def tuple_shape(found: CheckpointTuple | None) -> Any:
    if found is None:
        return None
    checkpoint: dict[str, Any] = dict(found.checkpoint)
    values = {channel: shape(value) for channel, value in checkpoint.pop("channel_values").items()}
    parent = found.parent_config
    return {
        "place": _place(found),
        "parent": parent and _place(found._replace(config=parent)),
        "values": values,
        "checkpoint": {key: shape(value) for key, value in checkpoint.items()},
        "metadata": {key: shape(value) for key, value in found.metadata.items()},
        "writes": shape(found.pending_writes),
    }


def test_the_oracle_is_compared_by_type() -> None:
    assert shape([1, {"a": True}]) != shape([1.0, {"a": True}]) != shape([1, {"a": 1}])
    assert shape(HumanMessage("a", id="1")) == shape(HumanMessage("a", id="1")) != shape(AIMessage("a", id="1"))
    assert shape(Interrupt("a", id="1")) != shape(Interrupt("b", id="1"))


texts = st.sampled_from(["", "a", "grüße 😀", "word " * 12, "long " * 120])
messages: st.SearchStrategy[AnyMessage] = st.one_of(
    st.builds(HumanMessage, content=texts, id=st.sampled_from("123")),
    st.builds(AIMessage, content=texts, tool_calls=st.sampled_from([[], [{"name": "t", "args": {"x": 1}, "id": "c"}]])),
    st.builds(ToolMessage, content=texts, tool_call_id=st.just("c")),
)
plain = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(-1, 1), texts)
items = st.one_of(
    messages, plain, st.lists(plain, max_size=2), st.dictionaries(st.sampled_from("xyz"), plain, max_size=2)
)
values = st.one_of(plain, st.lists(items, max_size=8), st.dictionaries(st.sampled_from("pqrs"), items, max_size=4))
changes = st.lists(
    st.tuples(
        st.sampled_from(CHANNELS),
        st.sampled_from(
            ["append", "append", "insert", "edit", "cut", "turn", "set", "unset", "replace", "drop", "same"]
        ),
        st.integers(0, 7),
        items,
        values,
    ),
    max_size=4,
    unique_by=lambda change: change[0],
)


supersteps = st.tuples(
    changes,
    st.sampled_from([None, None, *CHANNELS]),
    st.sampled_from([None, "ada", "bob", 1, True]),
    st.booleans(),
)
"""What changes, which list does so without a new version, a piece of metadata, and the sync or the async face."""
BEGIN = (
    (
        "messages",
        "replace",
        0,
        None,
        [HumanMessage(f"{number} " + "word " * 20, id=str(number)) for number in range(6)],
    ),
    ("log", "replace", 0, None, ["entry " * 8] * 6),
    ("notes", "replace", 0, None, dict.fromkeys("pqrs", "note " * 8)),
)
"""What a state begins with: large enough that its changes are worth less than the whole."""


def changed(value: Any, how: str, at: int, item: Any, other: Any) -> Any:
    """A value after a change; lists, dicts and messages are changed in place, as a node may do it."""
    match how, value:
        case "append", list():
            value.append(item)
        case "insert", list():
            value.insert(at, item)
        case "edit", [_, *_]:
            at %= len(value)
            if isinstance(value[at], HumanMessage):
                value[at].content = f"{value[at].content}!"
            else:
                value[at] = item
        case "cut", [_, *_]:
            del value[at % len(value)]
        case "turn", list():
            value.reverse()
        case "set", dict():
            value["pqrs"[at % 4]] = item
        case "unset", dict() if value:
            del value[list(value)[at % len(value)]]
        case "same", _:
            pass
        case (("set" | "unset"), _):
            return {"p": item}
        case "replace", _:
            return other
        case _:
            return [item]
    return value


@dataclasses.dataclass
class Point:
    """A checkpoint that was saved, with the values that its run goes on to hold."""

    id: str
    checkpoint: Checkpoint


class SaverMachine(RuleBasedStateMachine):
    """Two savers on one storage take turns, each by its sync and its async face; the oracle sees all of it."""

    places: ClassVar[Callable[[], AbstractContextManager[CheckpointerConfig]]]
    """A fresh place for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.place = type(self).places()
        self.config: CheckpointerConfig = self.place.__enter__()
        self.loop = asyncio.new_event_loop()
        self.oracle = Oracle()
        self.points: dict[tuple[str, str], list[Point]] = {}
        self.numbers = itertools.count(1)
        self.opened: list[PetalSaver] = []
        self.savers: list[PetalSaver] = []

    @initialize(
        cache_bytes=st.sampled_from([0, 6_000, 2**26]),
        version=st.sampled_from([str, int]),
        first=st.lists(supersteps, min_size=3, max_size=5),
        second=st.lists(supersteps, min_size=2, max_size=4),
    )
    def open(self, cache_bytes: int, version: type, first: Any, second: Any) -> None:
        """A thread that both have a part in, so that there is something to do anything with."""
        self.version = version
        self.savers = [self.fresh(cache_bytes), self.other()]
        self.run(0, "a", "", 0, "read", first, "r1")
        self.run(1, "a", "", 0, "read", second, "r2")

    def fresh(self, cache_bytes: int) -> PetalSaver:
        saver = open_checkpointer(self.config, cache_bytes=cache_bytes)
        assert isinstance(saver, PetalSaver)
        self.opened.append(saver)
        return saver

    def other(self, cache_bytes: int = 2**26) -> PetalSaver:
        """A second saver on the storage; what is in memory has one alone, so that one gets caches of its own."""
        if self.config.type != "memory":
            return self.fresh(cache_bytes)
        clone = self.savers[0].with_allowlist([]) if self.savers else self.opened[0].with_allowlist([])
        clone._recall = Recall(clone._rows, cache_bytes)
        return clone

    def teardown(self) -> None:
        try:
            if self.savers:
                assert self.savers[0].verify() == []
        finally:
            for saver in self.opened:
                saver.close()
            self.loop.close()
            self.place.__exit__(None, None, None)

    def alive(self, thread_id: str, ns: str, id: str | None) -> bool:
        return (ns, id) in self.oracle.keys(thread_id)

    def number(self) -> Any:
        number = next(self.numbers)
        return number if self.version is int else f"{number:032}.{number:08x}"

    def saved(
        self, who: int, later: bool, config: RunnableConfig, checkpoint: Checkpoint, metadata: Any, new: Any
    ) -> RunnableConfig:
        saver = self.savers[who]
        # Neither may keep hold of what it was given.
        given = copy.deepcopy((checkpoint, metadata, new))
        if later:
            returned = self.loop.run_until_complete(saver.aput(config, checkpoint, metadata, new))
        else:
            returned = saver.put(config, checkpoint, metadata, new)
        # Ours keeps secrets out of the metadata, so the oracle is not told of any.
        known = {key: value for key, value in config["configurable"].items() if key != "api_key"}
        assert returned == self.oracle.put({**config, "configurable": known}, *given)
        return returned

    @rule(
        who=st.integers(0, 1),
        thread_id=st.sampled_from(THREADS),
        ns=st.sampled_from(["", "", "", "sub", CALL]),
        which=st.integers(0, 30),
        how=st.sampled_from(["read", "copy"]),
        supersteps=st.lists(supersteps, min_size=1, max_size=4),
        run_id=st.sampled_from(["r1", "r2", "r3"]),
    )
    def run(self, who: int, thread_id: str, ns: str, which: int, how: str, supersteps: Any, run_id: str) -> None:
        """A run goes on from a namespace's newest checkpoint, and holds its values from one superstep to the next."""
        for superstep in supersteps:
            points = self.points.get((thread_id, ns), [])
            self.put(who, thread_id, ns, points[-1] if points else None, how, which, run_id, "loop", superstep)
            how = "live"

    @rule(
        who=st.integers(0, 1),
        thread_id=st.sampled_from(THREADS),
        ns=st.sampled_from(["", "", "sub", CALL]),
        which=st.integers(0, 30),
        how=st.sampled_from(["live", "read", "copy"]),
        superstep=supersteps,
    )
    def fork(self, who: int, thread_id: str, ns: str, which: int, how: str, superstep: Any) -> None:
        """A checkpoint follows any other one, which may be deleted by now, or none."""
        points = self.points.get((thread_id, ns), [])
        point = points[which % len(points)] if points and which else None
        self.put(who, thread_id, ns, point, how, which, "fork", "fork", superstep)

    def put(
        self,
        who: int,
        thread_id: str,
        ns: str,
        point: Point | None,
        how: str,
        which: int,
        run_id: str,
        source: str,
        superstep: Any,
    ) -> None:
        changes, touched, user, later = superstep
        points = self.points.setdefault((thread_id, ns), [])
        alive = point is not None and self.alive(thread_id, ns, point.id)
        values, versions, seen = self.begun(who, thread_id, ns, point, how, alive)
        new = {}
        for channel, change, at, item, other in changes if values else [*BEGIN, *changes]:
            new[channel] = versions[channel] = self.number()
            if change == "drop":
                values.pop(channel, None)
            else:
                values[channel] = changed(values.get(channel), change, at, copy.deepcopy(item), copy.deepcopy(other))
        if not (alive and touched in values and touched not in new and isinstance(values[touched], list)):
            touched = None
        if touched is not None:
            values[touched].append("a change without a version is none")
        id = f"{next(self.numbers):08}"
        checkpoint = Checkpoint(
            v=4,
            ts="2026-01-01T00:00:00+00:00",
            id=id,
            channel_values=values,
            channel_versions=versions,
            versions_seen=seen | {f"node{which % 3}": dict(versions)},
            updated_channels=sorted(new) or None,
        )
        metadata: dict[str, Any] = {"source": source, "step": len(points) - 1, "run_id": run_id}
        metadata["parents"] = self.called(thread_id, which) if ns else {}
        if user is not None:
            metadata["user"] = user
        config = on(thread_id, ns, None if point is None else point.id, api_key="secret")
        if which % 2:
            config["metadata"] = {"team": "red" if which % 4 == 1 else 7}
        self.saved(who, later, config, checkpoint, metadata, new)
        if touched is not None:
            found = self.oracle.get_tuple(on(thread_id, ns, id))
            assert found is not None
            values[touched] = found.checkpoint["channel_values"][touched]
        points.append(Point(id, checkpoint))

    def begun(
        self, who: int, thread_id: str, ns: str, point: Point | None, how: str, alive: bool
    ) -> tuple[Any, Any, Any]:
        """What a run begins with: what it holds since its last save, or what it reads."""
        if point is None:
            return {}, {}, {}
        held = point.checkpoint
        if how == "read" and alive:
            found = self.savers[who].get_tuple(on(thread_id, ns, point.id))
            assert found is not None
            held = found.checkpoint
        elif how == "live":
            point.checkpoint = copy.deepcopy(held)
        else:
            held = copy.deepcopy(held)
        return held["channel_values"], dict(held["channel_versions"]), held["versions_seen"]

    def called(self, thread_id: str, which: int) -> dict[str, str]:
        points = self.points.get((thread_id, ""), [])
        return {"": points[which % len(points)].id} if points else {}

    @rule(
        who=st.integers(0, 1),
        later=st.booleans(),
        thread_id=st.sampled_from(THREADS),
        ns=st.sampled_from(NAMESPACES),
        which=st.integers(0, 30),
        all_new=st.booleans(),
        orphan=st.booleans(),
    )
    def put_again(
        self, who: int, later: bool, thread_id: str, ns: str, which: int, all_new: bool, orphan: bool
    ) -> None:
        """A checkpoint is saved again: its answer got lost, or somebody copies it and calls all its versions new."""
        keys = sorted(id for at, id in self.oracle.keys(thread_id) if at == ns)
        if not keys:
            return
        found = self.oracle.get_tuple(on(thread_id, ns, keys[which % len(keys)]))
        assert found is not None
        versions = found.checkpoint["channel_versions"]
        changed = found.checkpoint["updated_channels"] or []
        new = dict(versions) if all_new else {channel: versions[channel] for channel in changed}
        parent = None if orphan or found.parent_config is None else get_checkpoint_id(found.parent_config)
        config = on(thread_id, ns, parent)
        self.saved(who, later, config, found.checkpoint, dict(found.metadata), new)

    @rule(
        who=st.integers(0, 1),
        later=st.booleans(),
        thread_id=st.sampled_from(THREADS),
        ns=st.sampled_from(NAMESPACES),
        which=st.integers(0, 30),
        task=st.sampled_from(["t1", "t2", "t3"]),
        path=st.sampled_from(["", "~__pregel_pull, a", "~__pregel_push, 00001", "~__pregel_push, 00010"]),
        writes=st.lists(
            st.one_of(
                st.tuples(st.sampled_from(CHANNELS), items),
                st.tuples(st.sampled_from(["__error__", "__scheduled__", "__resume__"]), texts),
                st.tuples(st.just("__interrupt__"), st.lists(st.builds(Interrupt, texts, id=texts), max_size=2)),
            ),
            max_size=4,
        ),
    )
    def put_writes(
        self, who: int, later: bool, thread_id: str, ns: str, which: int, task: str, path: str, writes: Any
    ) -> None:
        keys = sorted(id for at, id in self.oracle.keys(thread_id) if at == ns)
        if not keys:
            return
        config, saver = on(thread_id, ns, keys[-1] if which % 2 else keys[which % len(keys)]), self.savers[who]
        if later:
            self.loop.run_until_complete(saver.aput_writes(config, writes, task, path))
        else:
            saver.put_writes(config, writes, task, path)
        self.oracle.put_writes(config, writes, task, path)

    @rule(
        who=st.integers(0, 1),
        later=st.booleans(),
        thread_id=st.sampled_from([*THREADS, "unknown"]),
        ns=st.sampled_from([*NAMESPACES, "unknown"]),
        which=st.one_of(st.none(), st.integers(0, 40)),
    )
    def get_tuple(self, who: int, later: bool, thread_id: str, ns: str, which: int | None) -> None:
        """The head, or any checkpoint by its id, also one that is gone or never was."""
        config, saver = on(thread_id, ns, None if which is None else f"{which:08}"), self.savers[who]
        found = self.loop.run_until_complete(saver.aget_tuple(config)) if later else saver.get_tuple(config)
        assert tuple_shape(found) == tuple_shape(self.oracle.get_tuple(config))

    @rule(
        who=st.integers(0, 1),
        later=st.booleans(),
        thread_id=st.sampled_from([None, *THREADS, "unknown"]),
        ns=st.sampled_from([None, *NAMESPACES]),
        which=st.one_of(st.none(), st.none(), st.integers(0, 40)),
        filter=st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {},
                optional={
                    "source": st.sampled_from(["loop", "fork", "", 1]),
                    "step": st.sampled_from([-1, 0, 1, True, 1.0, "1"]),
                    "run_id": st.sampled_from(["r1", "r2", "", None]),
                    "user": st.sampled_from(["ada", "bob", 1, 1.0, True, None, float("nan")]),
                    "team": st.sampled_from(["red", 7, 2**70]),
                    "parents": st.just({}),
                },
            ).filter(lambda filter: len(filter) <= 2),
        ),
        before=st.one_of(st.none(), st.integers(0, 40)),
        limit=st.sampled_from([None, None, -1, 0, 1, 2, 5]),
        taken=st.sampled_from([None, None, 1, 4]),
    )
    def listing(
        self,
        who: int,
        later: bool,
        thread_id: str | None,
        ns: str | None,
        which: int | None,
        filter: Any,
        before: int | None,
        limit: int | None,
        taken: int | None,
    ) -> None:
        """All of them, or what a loop sees that ends early."""
        config = None if thread_id is None else on(thread_id, ns, None if which is None else f"{which:08}")
        older = None if before is None else on("any", id=f"{before:08}")
        saver = self.savers[who]
        if later:
            found = self.loop.run_until_complete(self.listed(saver, config, filter, older, limit, taken))
        else:
            found = [*itertools.islice(saver.list(config, filter=filter, before=older, limit=limit), taken)]
        expected = self.oracle.found(config, filter, older, limit)[:taken]
        assert [tuple_shape(one) for one in found] == [tuple_shape(one) for one in expected]

    async def listed(self, saver: PetalSaver, config: Any, filter: Any, before: Any, limit: Any, taken: Any) -> Any:
        found: Any = []
        pages = saver.alist(config, filter=filter, before=before, limit=limit)
        async with aclosing(cast(AsyncGenerator[CheckpointTuple, None], pages)) as every:
            async for one in every:
                found.append(one)
                if len(found) == taken:
                    break
        return found

    @rule(who=st.integers(0, 1), source=st.sampled_from(THREADS), to=st.sampled_from([*THREADS, "c"]))
    def copy_thread(self, who: int, source: str, to: str) -> None:
        saver = self.savers[who]
        if not self.oracle.keys(source):
            with pytest.raises(CheckpointNotFoundError):
                saver.copy_thread(source, to)
        elif self.oracle.keys(to):
            with pytest.raises(CheckpointerError, match="already has checkpoints"):
                saver.copy_thread(source, to)
        else:
            saver.copy_thread(source, to)
            self.oracle.copy_thread(source, to)
            for ns in NAMESPACES:
                points = self.points.get((source, ns), [])
                self.points[to, ns] = copy.deepcopy([p for p in points if self.alive(source, ns, p.id)])

    @rule(who=st.integers(0, 1), thread_id=st.sampled_from([*THREADS, "c"]), by_prune=st.booleans())
    def delete_thread(self, who: int, thread_id: str, by_prune: bool) -> None:
        if by_prune:
            self.savers[who].prune([thread_id], strategy="delete")
        else:
            self.savers[who].delete_thread(thread_id)
        self.oracle.delete_thread(thread_id)

    @rule(who=st.integers(0, 1), run_id=st.sampled_from(["r1", "r2", "r3", "unknown"]))
    def delete_for_runs(self, who: int, run_id: str) -> None:
        self.savers[who].delete_for_runs([run_id])
        self.oracle.delete_run(run_id)

    @rule(who=st.integers(0, 1), thread_ids=st.sampled_from([("a",), ("a", "b", "unknown"), ("b", "c")]))
    def prune(self, who: int, thread_ids: Sequence[str]) -> None:
        self.savers[who].prune(thread_ids)
        for thread_id in thread_ids:
            self.oracle.keep_latest(thread_id)

    @precondition(lambda self: self.config.type != "memory")
    @rule(who=st.integers(0, 1), cache_bytes=st.sampled_from([0, 6_000, 2**26]))
    def reopen(self, who: int, cache_bytes: int) -> None:
        self.savers[who].close()
        self.savers[who] = self.fresh(cache_bytes)

    @precondition(lambda self: self.config.type == "memory")
    @rule(cache_bytes=st.sampled_from([0, 6_000, 2**26]))
    def forget(self, cache_bytes: int) -> None:
        self.savers[1] = self.other(cache_bytes)

    @invariant()
    def the_same_is_kept(self) -> None:
        """Read without any cache."""
        if not self.savers:
            return
        stranger = self.savers[0].with_allowlist([])
        stranger._recall = Recall(stranger._rows, 0)
        found = [tuple_shape(one) for one in stranger.list(None)]
        assert found == [tuple_shape(one) for one in self.oracle.found(None)]
        index = {
            info.thread_id: (info.checkpoints, info.checkpoint_id) for info in stranger.threads() if info.checkpoints
        }
        assert index == self.oracle.index()


EXAMPLES = {"memory": 80, "sqlite": 50, "postgres": 25}
PROFILE = settings(
    stateful_step_count=20,
    derandomize=True,
    report_multiple_bugs=False,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_any_calls_leave_what_langgraphs_own_saver_holds(
    storage: CheckpointerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small pages, so that lists and prunes take several."""
    monkeypatch.setattr(search, "_PAGE", 3)
    monkeypatch.setattr(lineage, "_PAGE", 3)
    number = itertools.count()

    @contextmanager
    def places() -> Iterator[CheckpointerConfig]:
        match storage.type:
            case "sqlite":
                with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
                    yield CheckpointerConfig(
                        type="sqlite", config={"db_file": f"{folder}/a.db", "synchronous": "normal"}
                    )
            case "postgres":
                options = {"schema": f"s{next(number)}", "max_size": 2}
                yield CheckpointerConfig(type="postgres", config={**(storage.config or {}), **options})
            case _:
                yield storage

    class Machine(SaverMachine):
        pass

    Machine.places = places
    run_state_machine_as_test(Machine, settings=settings(PROFILE, max_examples=EXAMPLES[storage.type]))
