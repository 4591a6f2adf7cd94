"""LangGraph's arguments of `list`, as questions that an index answers."""

from __future__ import annotations

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec
from petal.checkpoints.crypto import KeyRing
from petal.checkpoints.envelope import Envelope
from petal.checkpoints.rows import Rows
from petal.checkpoints.search import Search

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def test_a_search_asks_for_the_label_of_each_key() -> None:
    """An entry has the label of whichever key was the first one then."""
    rows = Rows(Codec(Allowlist()), Envelope(KeyRing({"new": NEW, "old": OLD})))
    query = Search.of(None, {"user": "ada", "team": 7, "source": "loop", "parents": {}}, None, None, rows).query
    assert [len(group) for group in query.labels] == [2, 2]
    before = Envelope(KeyRing({"old": OLD}))
    assert rows.envelope.label("user", "ada") in query.labels[0]
    assert before.label("user", "ada") in query.labels[0]
    assert before.label("team", 7.0) in query.labels[1]
    assert query.source == "loop"


def test_what_equals_nothing_is_found_nowhere() -> None:
    query = Search.of(None, {"score": float("nan")}, None, None, Rows(Codec(Allowlist()), Envelope())).query
    assert query.labels == ((),)
