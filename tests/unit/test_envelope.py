"""What is sealed for a place opens there, exactly, and nothing else does: neither altered, nor moved, nor forged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec
from petal.checkpoints.crypto import KeyRing
from petal.checkpoints.envelope import Envelope, Place
from petal.errors import CheckpointCorruptionError, CheckpointerConfigurationError, CheckpointerError

KEY, OTHER_KEY = bytes(range(32)), bytes(range(100, 132))
RING = KeyRing({"k1": KEY})
ENVELOPES = {
    "plain": Envelope(),
    "encrypted": Envelope(RING),
    "rotated": Envelope(KeyRing({"k2": OTHER_KEY, "k1": KEY})),
    "converting": Envelope(RING, allow_plaintext=True),
}
PLACE = Place.value("ada", "", "messages", "3.0")
PROSE = b"It was the year in which the canal froze over, and nobody had thought of the ducks. " * 9
"""Long enough to be compressed."""
SHORT = b"what was kept"

each_envelope = pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
forms = pytest.mark.parametrize(
    ("envelope", "data", "head"),
    [
        (Envelope(), SHORT, 0x10),
        (Envelope(), PROSE, 0x13),
        (Envelope(RING), SHORT, 0x15),
        (Envelope(RING), PROSE, 0x16),
    ],
    ids=["plain", "plain, compressed", "encrypted", "encrypted, compressed"],
)

texts = st.text(max_size=20) | st.characters(categories=["Cs"])
places = st.one_of(
    st.builds(
        Place.header,
        texts,
        texts,
        texts,
        st.none() | texts,
        texts,
        st.none() | st.integers(-2, 2),
        st.none() | texts,
        texts,
    ),
    st.builds(Place.metadata, texts, texts, texts),
    st.builds(Place.value, texts, texts, texts, texts),
    st.builds(Place.write, texts, texts, texts, texts, texts, st.integers(-10, 10), texts),
)
contents = (
    st.binary(max_size=300)
    | st.binary(min_size=500, max_size=3000)
    | st.text(min_size=200).map(lambda text: (text * 9).encode())
)


class Colour(str, Enum):  # noqa: UP042, since it is the other kind of enum that is a string, which formats as its name
    RED = "red"


def refused(envelope: Envelope, sealed: bytes, place: Place = PLACE) -> str:
    """The problem that the corruption error states."""
    with pytest.raises(CheckpointCorruptionError) as caught:
        envelope.open(sealed, place)
    assert caught.value.where == str(place)
    return caught.value.problem


def plain(head: int, payload: bytes, place: Place = PLACE) -> bytes:
    """A row with a right checksum, as anybody can write one."""
    return bytes([head]) + payload + xxhash.xxh3_64_digest(place.key() + bytes([head]) + payload)


@each_envelope
@given(data=contents, place=places)
def test_what_was_sealed_comes_back(envelope: Envelope, data: bytes, place: Place) -> None:
    opened = envelope.open(envelope.seal(data, place), place)
    assert opened == data
    assert type(opened) is bytes


@each_envelope
@given(data=contents, place=places, other=places)
def test_what_was_moved_does_not_open(envelope: Envelope, data: bytes, place: Place, other: Place) -> None:
    sealed = envelope.seal(data, place)
    if other != place:
        refused(envelope, sealed, other)


@each_envelope
def test_every_part_of_a_place_counts(envelope: Envelope) -> None:
    place = Place.write("ada", "sub:1", "1ef", "messages", "task", 0, "")
    sealed = envelope.seal(SHORT, place)
    others = [place._replace(**{field: getattr(place, field) + "x"}) for field in Place._fields]
    others += [
        Place.write("ada", "sub:1", "1ef", "messages", "task", 1, ""),
        Place.header("ada", "sub:1", "1ef", None, "", None, None, ""),
    ]
    for other in others:
        refused(envelope, sealed, other)


@given(places, places)
def test_no_two_places_have_one_key_and_none_begins_another(place: Place, other: Place) -> None:
    assert other.key().startswith(place.key()) == (place == other)


def test_parts_of_a_place_do_not_run_into_each_other() -> None:
    parts = [("ab", "", "", ""), ("a", "b", "", ""), ("a", "", "b", ""), ("", "ab", "", ""), ("a", "", "", "b")]
    assert len({Place.value(*part).key() for part in parts}) == len(parts)


def test_a_string_that_is_an_enum_is_its_value() -> None:
    """A database gives back the plain string."""
    for envelope in ENVELOPES.values():
        sealed = envelope.seal(SHORT, Place.value(Colour.RED, Colour.RED, Colour.RED, "1"))
        assert envelope.open(sealed, Place.value("red", "red", "red", "1")) == SHORT


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Place.header("ada", "", "1ef", None, "", None, None, ""), "the header of checkpoint '1ef' of thread 'ada'"),
        (Place.metadata("ada", "sub:1", "1ef"), "the metadata of checkpoint '1ef' of thread 'ada', namespace 'sub:1'"),
        (Place.value("ada", "", "messages", "3.0"), "version '3.0' of channel 'messages' of thread 'ada'"),
        (
            Place.write("ada", "", "1ef", "messages", "task-7", -1, ""),
            "write -1 of task-7 to channel 'messages' of checkpoint '1ef' of thread 'ada'",
        ),
    ],
)
def test_a_place_has_a_name_for_people(place: Place, name: str) -> None:
    assert str(place) == name


@forms
def test_the_first_byte_tells_the_form(envelope: Envelope, data: bytes, head: int) -> None:
    assert envelope.seal(data, PLACE)[0] == head


def flips(sealed: bytes) -> Iterator[bytes]:
    for position in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[position] ^= 1 << bit
            yield bytes(altered)


@forms
def test_no_flipped_bit_is_overlooked(envelope: Envelope, data: bytes, head: int) -> None:
    sealed = envelope.seal(data, PLACE)
    assert sealed[0] == head
    for altered in flips(sealed):
        refused(envelope, altered)


@pytest.mark.parametrize("data", [SHORT, PROSE])
def test_damage_is_told_from_a_missing_key(data: bytes) -> None:
    """As far as can be told without the key: the head and the key's id have a check of their own."""
    for altered in flips(Envelope(RING).seal(data, PLACE)[:8]):
        refused(Envelope(), altered)
    for altered in flips(Envelope().seal(data, PLACE)):
        refused(Envelope(RING), altered)


@forms
def test_no_missing_or_added_byte_is_overlooked(envelope: Envelope, data: bytes, head: int) -> None:
    sealed = envelope.seal(data, PLACE)
    assert sealed[0] == head
    for end in range(len(sealed)):
        refused(envelope, sealed[:end])
    refused(envelope, sealed + b"\0")
    refused(envelope, sealed + sealed[-8:])


@each_envelope
@given(data=contents, position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_flipped_bit_of_any_content_is_overlooked(envelope: Envelope, data: bytes, position: int, bit: int) -> None:
    altered = bytearray(envelope.seal(data, PLACE))
    altered[position % len(altered)] ^= 1 << bit
    refused(envelope, bytes(altered))


@each_envelope
@given(sealed=st.binary(max_size=80))
@settings(max_examples=300)
def test_noise_does_not_open(envelope: Envelope, sealed: bytes) -> None:
    refused(envelope, sealed)


# What was kept by an earlier version of this module can be read: made once, never to be made anew.
GOLDEN = {
    "plain": "107768617420776173206b6570741f6a6edf1bd10082",
    "plain, compressed": (
        "1328b52ffd60f4019d0200e4034974746865207965617220696e7468652063616e616c2066726f7a65206f7665722c6e6f62"
        "6f6479206861642074686f75676874206f666475636b732e2005009dae5026ebb9b1e366c1ba00d333dd662c16ef09b8c78e"
        "6d92"
    ),
    "encrypted": "15026b3192d01e893c45ca09fab68deecc9bf23a05b99d1cba66eb561c77cc184fe37a31561bb891bfcd3c499742fcb12e",
    "encrypted, compressed": (
        "16026b318065b167d255fc41f9a15a0c716a198ce451459d9d4f410b9d4ac7d5f87c57fcbd0aef229a1d0e05f928fff05bc9"
        "b49d2d0d11b8efa3b8bc46864a0b0a47001ca4301847d60f6fc9d48c633abd9901c96c5a2698ac039cd478523118cb1c5e2d"
        "e1e59c75cceb42e8ddea2e1a62c7f29dbee8af220aa053ca9a02169302"
    ),
}


@pytest.mark.parametrize("form", GOLDEN)
def test_what_an_earlier_version_kept_opens(form: str) -> None:
    envelope = Envelope(RING) if form.startswith("encrypted") else Envelope()
    place = Place.write("ada", "sub:1", "1ef", "messages", "task", 0, "")
    assert envelope.open(bytes.fromhex(GOLDEN[form]), place) == (PROSE if form.endswith("compressed") else SHORT)


def test_the_checksum_is_over_place_head_and_payload() -> None:
    assert Envelope().seal(SHORT, PLACE) == plain(0x10, SHORT)


@pytest.mark.parametrize("size", [0, 1, 200, 511, 512, 1200, 100_000])
def test_what_does_not_shrink_is_kept_as_it_is(size: int) -> None:
    noise = os.urandom(size)
    assert len(Envelope().seal(noise, PLACE)) == size + 9
    # Preamble with an id of two letters, nonce and tag.
    assert len(Envelope(RING).seal(noise, PLACE)) == size + 8 + 28


@each_envelope
def test_text_takes_less_room(envelope: Envelope) -> None:
    assert len(envelope.seal(PROSE, PLACE)) < len(PROSE) // 4
    assert len(envelope.seal(PROSE[:127], PLACE)) > 127  # too short to be worth while


def test_one_small_message_takes_little_room() -> None:
    """What all messages have is in the dictionary."""
    codec = Codec(Allowlist())
    message = codec.encode(HumanMessage("What is the weather in Paris?", id="5d7b6c1e-4a5f-4d7a-9d0a-3c0b6a1f2e3d"))
    assert len(message) > 150
    assert len(Envelope().seal(message, PLACE)) < 100


def test_a_small_gain_is_not_worth_the_time() -> None:
    barely, well = (os.urandom(1000 - same) + bytes(same) for same in (50, 200))
    assert Envelope().seal(barely, PLACE)[0] == 0x10
    assert Envelope().seal(well, PLACE)[0] == 0x13


@pytest.mark.parametrize("keys", [None, RING], ids=["plain", "encrypted"])
def test_a_bomb_does_not_go_off(keys: KeyRing | None) -> None:
    sealed = Envelope(keys).seal(bytes(10_000_000), PLACE)
    assert len(sealed) < 1000
    problem = refused(Envelope(keys, limit=1_000_000), sealed)
    assert problem == "it says that it unfolds to 10000000 bytes, and 1000000 is the limit"
    assert Envelope(keys, limit=10_000_000).open(sealed, PLACE) == bytes(10_000_000)


def test_a_forged_frame_does_not_open() -> None:
    frame = zstandard.ZstdCompressor().compress(PROSE)
    assert Envelope().open(plain(0x13, frame), PLACE) == PROSE
    without_size = zstandard.ZstdCompressor(write_content_size=False).compress(PROSE)
    assert refused(Envelope(), plain(0x13, without_size)) == "it does not say to how many bytes it unfolds"
    for forged in (b"", SHORT, frame[:-1], frame + b"more", frame[:20] + bytes(len(frame) - 20)):
        assert refused(Envelope(), plain(0x13, forged)).startswith("it does not decompress (")


def test_what_could_not_be_opened_again_is_not_sealed() -> None:
    envelope = Envelope(limit=1000)
    assert envelope.open(envelope.seal(bytes(1000), PLACE), PLACE) == bytes(1000)
    with pytest.raises(CheckpointerError) as caught:
        envelope.seal(bytes(1001), PLACE)
    assert type(caught.value) is CheckpointerError
    assert str(caught.value) == (
        "version '3.0' of channel 'messages' of thread 'ada' would be 1001 bytes, and 1000 is the limit: keep large "
        "things in files or tables of their own, and their names in the state."
    )


@pytest.mark.parametrize(
    ("sealed", "problem"),
    [
        (b"", "it is empty"),
        (b"\x20" + bytes(40), "it begins with 0x20, which this version of Petal does not know"),
        (b"\x12" + bytes(40), "it begins with 0x12, which this version of Petal does not know"),
        (plain(0x10, SHORT)[:-1], "its checksum does not match its content and its place"),
        (Envelope(RING).seal(SHORT, PLACE)[:7], "the id of its encryption key is not readable"),
        (
            Envelope(RING).seal(SHORT, PLACE)[:-1],
            "it does not open with key 'k1': it was altered or moved, or that is another key by that id",
        ),
        (
            Envelope(KeyRing({"k1": OTHER_KEY})).seal(SHORT, PLACE),
            "it does not open with key 'k1': it was altered or moved, or that is another key by that id",
        ),
    ],
    ids=["empty", "unknown", "no flags", "cut", "cut in the key's id", "cut and encrypted", "another key"],
)
def test_the_problem_is_named(sealed: bytes, problem: str) -> None:
    assert refused(ENVELOPES["converting"], sealed) == problem


def misconfigured(envelope: Envelope, sealed: bytes) -> str:
    with pytest.raises(CheckpointerConfigurationError) as caught:
        envelope.open(sealed, PLACE)
    return str(caught.value)


@pytest.mark.parametrize("data", [SHORT, PROSE])
def test_what_is_encrypted_needs_a_key(data: bytes) -> None:
    assert misconfigured(Envelope(), Envelope(RING).seal(data, PLACE)) == (
        "version '3.0' of channel 'messages' of thread 'ada' is encrypted with key 'k1', and there is no encryption "
        "key: set encryption_key_env to the name of the environment variable that holds it."
    )


@pytest.mark.parametrize("data", [SHORT, PROSE])
def test_an_unknown_key_is_named(data: bytes) -> None:
    ring = KeyRing({"k3": OTHER_KEY, "k2": bytes(16)})
    assert misconfigured(Envelope(ring), Envelope(RING).seal(data, PLACE)) == (
        "version '3.0' of channel 'messages' of thread 'ada' is encrypted with key 'k1', and the key ring has k3, k2: "
        "add it after the first key in the environment variable that encryption_key_env names."
    )


@pytest.mark.parametrize("data", [SHORT, PROSE])
def test_what_is_not_encrypted_is_refused_unless_allowed(data: bytes) -> None:
    sealed = Envelope().seal(data, PLACE)
    assert misconfigured(Envelope(RING), sealed) == (
        "version '3.0' of channel 'messages' of thread 'ada' is not encrypted, though there is an encryption key. If "
        "the database was begun without one, allow plaintext and convert it; if it was not, somebody else wrote this "
        "row."
    )
    assert ENVELOPES["converting"].open(sealed, PLACE) == data
    assert Envelope(RING).open(ENVELOPES["converting"].seal(data, PLACE), PLACE) == data


def test_nothing_of_the_content_is_in_clear() -> None:
    sealed = Envelope(RING).seal(b"my secret plan", PLACE)
    assert b"secret" not in sealed
    assert sealed != Envelope(RING).seal(b"my secret plan", PLACE)


def test_keys_can_be_changed() -> None:
    before = Envelope(RING).seal(SHORT, PLACE)
    after = ENVELOPES["rotated"].seal(SHORT, PLACE)
    for sealed in (before, after):
        assert ENVELOPES["rotated"].open(sealed, PLACE) == SHORT
    assert (before[2:4], after[2:4]) == (b"k1", b"k2")


@each_envelope
def test_many_threads_use_one_envelope(envelope: Envelope) -> None:
    def seal_and_open(worker: int) -> int:
        done = 0
        for n in range(60):
            place = Place.value(f"user-{n % 7}", "", "messages", f"{worker}.{n}")
            data = f"{worker} said {n}. ".encode() * (n * 20)
            done += envelope.open(envelope.seal(data, place), place) == data
        return done

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(seal_and_open, range(16))) == [60] * 16
