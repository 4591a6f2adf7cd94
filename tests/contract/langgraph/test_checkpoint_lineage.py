"""What copies, forks and prunes keep is decided by pure functions, which hold for any tree of checkpoints."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.base.id import uuid6

from petal.checkpoints.langgraph.dialect import Key, Row
from petal.checkpoints.langgraph.lineage import outdated, past_of
from petal.checkpoints.threads import made_at


def row(id: str, parent: str | None = None, ns: str = "", root: str | None = None, *, sends: bool = False) -> Row:
    return Row(ns, id, parent, root, None, False, sends)


@st.composite
def trees(draw: st.DrawFn) -> list[Row]:
    """A thread: root checkpoints with any earlier parent, and subgraphs' that name any root checkpoint, or none."""
    rows: list[Row] = []
    ids = [f"{n:03}" for n in range(draw(st.integers(1, 12)))]
    for n, id in enumerate(ids):
        ns = draw(st.sampled_from(["", "", "call:1", "call:2", "kept"])) if n else ""
        older = [each.id for each in rows if each.ns == ns] + ["gone"]
        roots = [each.id for each in rows if each.ns == ""] + ["gone", None]
        parent = draw(st.sampled_from([*older, None]))
        rows.append(row(id, parent, ns, draw(st.sampled_from(roots)) if ns else None))
    return draw(st.permutations(rows))


def ancestors(rows: list[Row], key: Key) -> set[Key]:
    known = {each.key: each for each in rows}
    found = set()
    while key in known:
        found.add(key)
        key = (key[0], known[key].parent or "")
    return found


@given(trees(), st.data())
def test_a_fork_is_whole_and_knows_no_later(rows: list[Row], data: st.DataObject) -> None:
    """The chosen one is the newest of the root, each kept one has its ancestors, and none came after the fork."""
    chosen = data.draw(st.sampled_from([each.id for each in rows if each.ns == ""]))
    checkpoints, writes = past_of(rows, chosen)
    kept = set(checkpoints)
    assert {key for key in kept if key[0] == ""} == ancestors(rows, ("", chosen))
    assert len(kept) == len(checkpoints)
    for key in kept:
        assert ancestors(rows, key) <= kept
    last = not any(each.parent == chosen for each in rows if each.ns == "")
    began = min((each.key for each in rows if each.ns == "kept" and each.root == chosen), default=None)
    assert set(writes) == (kept if last else kept - {("", chosen), began})


@given(trees())
def test_a_prune_leaves_the_newest_of_the_root(rows: list[Row]) -> None:
    """At most one a namespace stays, the newest; a namespace goes only with the root checkpoint of its call."""
    kept = {each.key for each in rows} - outdated(rows)
    heads = {each.ns: each for each in sorted(rows, key=lambda each: each.id)}
    assert kept <= {head.key for head in heads.values()}
    assert heads[""].key in kept
    for ns, head in heads.items():
        ended = ":" in ns and ("", head.root) in {each.key for each in rows} and head.root != heads[""].id
        assert (head.key in kept) is not ended


def test_a_loop_of_parents_ends() -> None:
    """Two checkpoints that name each other as parent are both kept, once."""
    assert past_of([row("a", "b"), row("b", "a")], "a") == ([("", "a"), ("", "b")], [("", "b")])


def test_an_open_call_comes_along_and_those_of_other_branches_do_not() -> None:
    """A subgraph's checkpoint belongs to the root checkpoint that its call started from."""
    rows = [
        row("1"),
        row("2", "1", "call:1", "1"),
        row("3", "1"),
        row("4", "1"),
        row("5", None, "call:2", "3"),
        row("6", None, "call:3", "4"),
    ]
    assert past_of(rows, "4") == ([("", "4"), ("", "1"), ("call:1", "2"), ("call:3", "6")],) * 2
    assert past_of(rows, "3") == ([("", "3"), ("", "1"), ("call:1", "2"), ("call:2", "5")],) * 2
    assert past_of(rows, "1") == ([("", "1")], [])


def test_a_subgraph_with_a_state_of_its_own_comes_as_its_call_began() -> None:
    """Where the chosen checkpoint was gone on from, what the call at it did is left behind, but not its input."""
    rows = [row("1"), row("2", "1"), row("3", None, "kept", "2"), row("4", "3", "kept", "2"), row("5", "2")]
    assert past_of(rows, "2") == ([("", "2"), ("", "1"), ("kept", "3")], [("", "1")])
    assert past_of(rows, "5")[0] == [("", "5"), ("", "2"), ("", "1"), ("kept", "3"), ("kept", "4")]


def test_an_old_format_keeps_the_parent_that_it_reads() -> None:
    """Its pending sends lie with the parent."""
    rows = [row("1"), row("2", "1"), row("3", "2", sends=True)]
    assert outdated(rows) == {("", "1")}
    assert outdated([row("1"), row("2", None, sends=True)]) == {("", "1")}


def test_an_id_tells_when_it_was_made() -> None:
    """LangGraph's ids do; others do not."""
    before = datetime.now(UTC)
    made = made_at(str(uuid6()))
    assert made is not None
    assert abs((made - before).total_seconds()) < 60
    assert made_at("1ef4f797-8335-6428-8001-8a1503f9b875") == datetime(2024, 7, 31, 20, 14, 19, 804164, tzinfo=UTC)
    assert made_at(str(uuid4())) is None
    assert made_at("head") is None
