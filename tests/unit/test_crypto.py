"""Keys come from the environment, can be changed, and are never shown; labels are equal where Python's values are."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from enum import Enum, IntEnum
from fractions import Fraction
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from petal.checkpoints.crypto import LABEL_SIZE, OVERHEAD, KeyRing, Scalar, label
from petal.checkpoints.envelope import Envelope
from petal.errors import CheckpointerConfigurationError

OLD, NEW = bytes(range(32)), bytes(range(100, 132))
VARIABLE = "PETAL_TEST_KEYS"
MAKE = "Make one with: python -c 'import base64, os; print(\"id-1:\" + base64.b64encode(os.urandom(32)).decode())'"


def text(key: bytes) -> str:
    return b64encode(key).decode()


class Colour(str, Enum):  # noqa: UP042, since it is the other kind of enum that is a string, which formats as its name
    RED = "red"


class Level(IntEnum):
    LOW = 1


def ring_of(value: str, monkeypatch: pytest.MonkeyPatch) -> KeyRing:
    monkeypatch.setenv(VARIABLE, value)
    return KeyRing.from_env(VARIABLE)


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (f"a:{text(OLD)}", ("a",)),
        (f"a:{text(OLD)},b:{text(NEW)}", ("a", "b")),
        (f"  b.2:{text(NEW)} ,\n\ta_1-x:{text(OLD)}, ", ("b.2", "a_1-x")),
        (text(OLD), ("4babf75f",)),
        (f"new:{text(NEW)} {text(OLD)}", ("new", "4babf75f")),
        (f"a:{urlsafe_b64encode(b'?' * 32).decode().rstrip('=')}", ("a",)),
        (f"a:{text(OLD[:16])} b:{text(OLD[:24])}", ("a", "b")),
    ],
)
def test_keys_are_read_from_the_environment(value: str, ids: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    ring = ring_of(value, monkeypatch)
    assert ring.ids == ids
    assert repr(ring) == f"KeyRing(ids={ids!r})"


@pytest.mark.parametrize("size", [16, 24, 32])
def test_the_forms_of_a_key_are_one_key(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"\xfb\xff" * (size // 2)
    sealed = KeyRing({"a": key}).encrypt(b"data", "ada", b"place")
    for form in (text(key), text(key).rstrip("="), urlsafe_b64encode(key).decode()):
        assert ring_of(f"a:{form}", monkeypatch).decrypt("a", sealed, "ada", b"place") == b"data"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", f"encryption_key_env names {VARIABLE}, which is not set or empty. {MAKE}"),
        (" ,\n", f"encryption_key_env names {VARIABLE}, which is not set or empty. {MAKE}"),
        (f"a:{text(OLD)},b:se*cret", f"Encryption key 2 of 2 in {VARIABLE} is not written in base64. {MAKE}"),
        ("a:secré", f"Encryption key 1 of 1 in {VARIABLE} is not written in base64. {MAKE}"),
        ("a:s", f"Encryption key 1 of 1 in {VARIABLE} is not written in base64. {MAKE}"),
        ("a:", f"Encryption key 1 of 1 in {VARIABLE} has 0 bytes; 32 are wanted, or 16 or 24. {MAKE}"),
        (OLD.hex(), f"Encryption key 1 of 1 in {VARIABLE} has 48 bytes; 32 are wanted, or 16 or 24. {MAKE}"),
        (
            f"{text(OLD)}:{text(NEW)}",
            f"Encryption key 1 of 1 in {VARIABLE} has a wrong id (not shown); an id is 1 to 16 letters, digits, '.', "
            "'_' and '-', and stands before the key as in 'id:base64'.",
        ),
        (
            f":{text(OLD)}",
            f"Encryption key 1 of 1 in {VARIABLE} has a wrong id (not shown); an id is 1 to 16 letters, digits, '.', "
            "'_' and '-', and stands before the key as in 'id:base64'.",
        ),
        (f"a:{text(OLD)},a:{text(NEW)}", f"Encryption key 2 of 2 in {VARIABLE} has the id 'a' of a key before it."),
        (f"a:{text(OLD)},b:{text(OLD)}", "Two encryption keys are equal under different ids; leave one out."),
    ],
)
def test_a_wrong_key_is_refused_without_being_shown(value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointerConfigurationError) as caught:
        ring_of(value, monkeypatch)
    assert str(caught.value) == message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(CheckpointerConfigurationError) as caught:
        KeyRing.from_env(VARIABLE)
    assert str(caught.value) == f"encryption_key_env names {VARIABLE}, which is not set or empty. {MAKE}"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, f"A key ring needs at least one key. {MAKE}"),
        ({"a": OLD, "b": b"short"}, f"Encryption key 2 has 5 bytes; 32 are wanted, or 16 or 24. {MAKE}"),
        (
            {"seventeen-letters": OLD},
            "Encryption key 1 has a wrong id (not shown); an id is 1 to 16 letters, digits, '.', '_' and '-', and "
            "stands before the key as in 'id:base64'.",
        ),
    ],
)
def test_a_ring_needs_sound_keys(keys: dict[str, bytes], message: str) -> None:
    with pytest.raises(CheckpointerConfigurationError) as caught:
        KeyRing(keys)
    assert str(caught.value) == message


def test_without_cryptography_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(CheckpointerConfigurationError) as caught:
        KeyRing({"a": OLD})
    assert str(caught.value) == "Encryption at rest needs the package 'cryptography': pip install 'petal[encryption]'"


def test_without_keys_cryptography_is_not_even_imported() -> None:
    program = (
        "import sys; from petal.checkpoints.envelope import Envelope, Place; e = Envelope(); "
        "p = Place.metadata('ada', '', '1'); e.open(e.seal(b'data', p), p); e.label('user', 'ada'); "
        "print('cryptography' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


@given(st.binary(max_size=2000), st.text(), st.binary())
def test_what_was_encrypted_comes_back_in_its_place_only(data: bytes, thread_id: str, bound: bytes) -> None:
    ring = KeyRing({"a": OLD})
    sealed = ring.encrypt(data, thread_id, bound)
    assert len(sealed) == len(data) + OVERHEAD
    assert ring.decrypt("a", sealed, thread_id, bound) == data
    assert ring.decrypt("a", sealed, thread_id + "x", bound) is None
    assert ring.decrypt("a", sealed, thread_id, bound + b"x") is None
    assert ring.decrypt("a", sealed[: OVERHEAD - 1], thread_id, bound) is None
    assert KeyRing({"a": NEW}).decrypt("a", sealed, thread_id, bound) is None


def test_no_two_messages_are_alike() -> None:
    ring = KeyRing({"a": OLD})
    nonces = {ring.encrypt(b"data", "ada", b"place")[:12] for _ in range(2000)}
    assert len(nonces) == 2000


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    before, after = KeyRing({"old": OLD}), KeyRing({"new": NEW, "old": OLD})
    assert after.decrypt("old", before.encrypt(b"data", "ada", b""), "ada", b"") == b"data"
    sealed = after.encrypt(b"data", "ada", b"")
    assert after.decrypt("old", sealed, "ada", b"") is None
    assert KeyRing({"new": NEW}).decrypt("new", sealed, "ada", b"") == b"data"
    with pytest.raises(KeyError):
        before.decrypt("new", sealed, "ada", b"")


def test_many_threads_of_conversation_need_no_more_memory() -> None:
    ring = KeyRing({"a": OLD})
    first = ring.encrypt(b"data", "0", b"")
    for n in range(3000):
        ring.encrypt(b"data", str(n), b"")
    assert ring._cipher.cache_info().currsize == 1024
    assert ring.decrypt("a", first, "0", b"") == b"data"


def test_a_string_that_is_an_enum_is_its_value() -> None:
    ring = KeyRing({"a": OLD})
    assert ring.decrypt("a", ring.encrypt(b"data", Colour.RED, b""), "red", b"") == b"data"


def test_a_key_stays_the_same_key_for_ever() -> None:
    """What an earlier version of this module encrypted can be read."""
    sealed = bytes.fromhex(GOLDEN)
    assert KeyRing({"a": OLD}).decrypt("a", sealed, "ada", b"place") == b"what was kept"


GOLDEN = "fa8060857f70694f315d89937b1458e02e1d69c84bae73d3fa3e6799e9780d1b5e9a6f1f321db76a2f"

SCALARS: list[Scalar] = [
    None, True, False, 0, 1, -1, 2, 10**15, 0.0, -0.0, 1.0, 1.5, -1.5, 1e15, 1e300, float("inf"), float("-inf"),
    "", "1", "1.0", "True", "None", "i0x1", "ada", "Ada", "\0", "é", Colour.RED, "red", Level.LOW,
]  # fmt: skip


@pytest.mark.parametrize("secret", [b"", OLD])
def test_labels_are_equal_where_values_are(secret: bytes) -> None:
    for kept, asked in product(SCALARS, SCALARS):
        assert (label("key", kept, secret) == label("key", asked, secret)) == (kept == asked), (kept, asked)


numbers = st.integers() | st.floats(allow_nan=False) | st.booleans()


@given(st.none() | numbers | st.text() | st.characters(categories=["Cs"]), st.none() | numbers | st.text())
def test_labels_of_any_values_are_equal_where_they_are(kept: Scalar, asked: Scalar) -> None:
    assert (label("key", kept) == label("key", asked)) == (kept == asked)
    assert len(label("key", kept)) == LABEL_SIZE


@given(st.integers(-(2**60), 2**60).map(float) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_whole_number_has_the_label_of_its_integer(value: float) -> None:
    assert (label("key", int(value)) == label("key", value)) == value.is_integer()


def test_labels_of_numbers_with_thousands_of_digits_can_be_had() -> None:
    assert label("key", 10**5000) != label("key", 10**5000 + 1)


def test_a_label_belongs_to_its_key() -> None:
    assert len({label(*entry) for entry in (("a", "sb"), ("as", "b"), ("", "asb"), ("a", "b"))}) == 4
    assert len({label("a", "b", secret) for secret in (b"", OLD, NEW)}) == 3


def test_a_label_stays_the_same_for_ever() -> None:
    assert label("user", "ada").hex() == "cbe1fba40001ac62"
    assert (
        KeyRing({"a": OLD}).label_secrets[0].hex() == "744fcb4a21066055349a5ef19745dd6502633a4ba32418ecf883f44ebc30e0cd"
    )


def test_what_is_no_scalar_has_no_label() -> None:
    with pytest.raises(AssertionError, match="Expected code to be unreachable"):
        label("key", cast(Any, Fraction(3, 2)))


def found_in_memory(kept: Scalar, asked: Scalar) -> bool:
    saver = InMemorySaver()
    config: RunnableConfig = {"configurable": {"thread_id": "ada", "checkpoint_ns": ""}}
    saver.put(config, empty_checkpoint(), cast(Any, {"key": kept}), {})
    return bool(list(saver.list(config, filter={"key": asked})))


# LangGraph takes NULs out of metadata, and enums do not come back from its serializer as they were.
KEPT = [each for each in (*SCALARS, float("nan")) if each != "\0" and not isinstance(each, Enum)]


@pytest.mark.parametrize("kept", KEPT)
def test_a_search_by_labels_finds_what_langgraph_finds(kept: Scalar) -> None:
    """`InMemorySaver` compares with `==`, and so do labels."""
    envelope = Envelope(KeyRing({"new": NEW, "old": OLD}))
    for asked in (*SCALARS, float("nan")):
        found = envelope.label("key", kept) in envelope.labels_for_search("key", asked)
        assert found == found_in_memory(kept, asked)


def test_a_search_finds_what_was_labelled_under_an_older_key() -> None:
    clear, old = Envelope(), Envelope(KeyRing({"old": OLD}))
    both = KeyRing({"new": NEW, "old": OLD})
    assert old.label("user", "ada") in Envelope(both).labels_for_search("user", "ada")
    assert old.label("user", "ada") != Envelope(both).label("user", "ada")
    assert clear.label("user", "ada") not in Envelope(both).labels_for_search("user", "ada")
    assert clear.label("user", "ada") in Envelope(both, allow_plaintext=True).labels_for_search("user", "ada")
    assert Envelope(both, allow_plaintext=True).label("user", "ada") == Envelope(both).label("user", "ada")
