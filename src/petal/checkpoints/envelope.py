"""What surrounds each stored value: where it belongs, a checksum or encryption, and compression where it pays.

```
plain      head  payload                               xxh3_64(place + head + payload), 8 bytes, big endian
encrypted  head  key id (length, text)  crc32 of these  nonce, 12 bytes  ciphertext of the payload  tag, 16 bytes
```

The head is one byte: the format's version and what was done. The payload is the data or one zstandard frame of it,
made with the dictionary in `petal.checkpoints.dictionary`, which holds its size. An encrypted payload is bound to its
place, head and key id; the CRC only tells a damaged key id from an unknown one.
"""

from __future__ import annotations

import struct
import threading
from binascii import crc32
from collections.abc import Sequence
from typing import Literal, NamedTuple, NoReturn

import xxhash
import zstandard

from petal.checkpoints.crypto import KeyRing, Scalar, label
from petal.checkpoints.dictionary import DICTIONARY
from petal.errors import CheckpointCorruptionError, CheckpointerConfigurationError, CheckpointerError

# Each two differ in two bits or more, so that one flipped bit never makes another of them.
_PLAIN, _PACKED, _LOCKED, _LOCKED_PACKED = b"\x10", b"\x13", b"\x15", b"\x16"

_CHECKSUM_SIZE = 8
_CRC_SIZE = 4

_LEVEL = 1
"""Level 3 takes a fifth to a half more time, and saves next to nothing at 1 KB and 1 to 4 % at 100 KB."""
_WORTH_TRYING = 128
"""Bytes. Of headers, and of messages that say little, the dictionary holds more than half."""
_DICTIONARY = zstandard.ZstdCompressionDict(DICTIONARY, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
_DICTIONARY.precompute_compress(level=_LEVEL)

DEFAULT_LIMIT = 512 * 1024 * 1024
"""Bytes of one value: half of what a row can hold in SQLite and PostgreSQL."""

_lengths = struct.Struct("<7I").pack


class Place(NamedTuple):
    """Where a row lies: what is sealed for one place does not open in another."""

    kind: Literal["header", "metadata", "value", "write"]
    thread_id: str
    ns: str
    id: str
    """The checkpoint, or the version of a value."""
    channel: str = ""
    task: str = ""
    """Position and task of a write."""
    columns: str = ""
    """What else the row says in clear, so that it cannot be altered either."""

    @classmethod
    def header(
        cls,
        thread_id: str,
        ns: str,
        checkpoint_id: str,
        parent_id: str | None,
        source: str,
        step: int | None,
        run_id: str | None,
        name: str,
    ) -> Place:
        """Of a checkpoint's header, which vouches for the other columns of its row."""
        # As ASCII, which no version of Python writes differently; a database gives a truth value back as a number.
        columns = ascii((parent_id, source, None if step is None else int(step), run_id, name))
        return cls("header", thread_id, ns, checkpoint_id, columns=columns)

    @classmethod
    def metadata(cls, thread_id: str, ns: str, checkpoint_id: str) -> Place:
        """Of a checkpoint's metadata."""
        return cls("metadata", thread_id, ns, checkpoint_id)

    @classmethod
    def value(cls, thread_id: str, ns: str, channel: str, version: str) -> Place:
        """Of one version of a channel's value."""
        return cls("value", thread_id, ns, version, channel)

    @classmethod
    def write(
        cls, thread_id: str, ns: str, checkpoint_id: str, channel: str, task_id: str, idx: int, task_path: str
    ) -> Place:
        """Of one pending write of a task."""
        return cls("write", thread_id, ns, checkpoint_id, channel, f"{idx} of {task_id}", task_path)

    def key(self) -> bytes:
        """The place as bytes that no other place has, and that none begins with: all lengths, then all texts."""
        return _lengths(*map(len, self)) + "".join(self).encode("utf-8", "surrogatepass")

    def __str__(self) -> str:
        thread = f"thread {self.thread_id!r}" + (f", namespace {self.ns!r}" if self.ns else "")
        match self.kind:
            case "value":
                return f"version {self.id!r} of channel {self.channel!r} of {thread}"
            case "write":
                return f"write {self.task} to channel {self.channel!r} of checkpoint {self.id!r} of {thread}"
            case _:
                return f"the {self.kind} of checkpoint {self.id!r} of {thread}"


class _Contexts(threading.local):
    """zstandard's contexts: no two threads may use one at a time, and a new one for each value costs 3 µs."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=_DICTIONARY)
        self.decompressor = zstandard.ZstdDecompressor(dict_data=_DICTIONARY)


class Envelope:
    """Seals values for the place where they will lie, and opens them there. May be used from any thread.

    Args:
        keys: Encrypts and decrypts; without it, values are kept in clear under a checksum, which finds accidents,
            not forgeries.
        allow_plaintext: With keys, also open what is not encrypted, so that an older database can be converted.
            Whoever can write to the database can then put unencrypted rows of their own there.
        compresses: Whether what gets smaller by it is compressed, which takes most of the time of sealing. What is
            compressed opens all the same.
        limit: Bytes that one value may have, so that a small row cannot unfold into all the memory there is.
    """

    def __init__(
        self,
        keys: KeyRing | None = None,
        *,
        allow_plaintext: bool = False,
        compresses: bool = True,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self._keys, self._allow_plaintext, self._limit = keys, allow_plaintext, limit
        self._worth_trying = _WORTH_TRYING if compresses else limit + 1
        self._contexts = _Contexts()
        self._secrets: tuple[bytes, ...] = (b"",)
        self._heads = (_PLAIN, _PACKED)
        self._key_ids: dict[bytes, str] = {}
        if keys is not None:
            self._secrets = (*keys.label_secrets, b"") if allow_plaintext else keys.label_secrets
            self._heads = (_preamble(_LOCKED, keys.ids[0]), _preamble(_LOCKED_PACKED, keys.ids[0]))
            self._key_ids = {_preamble(head, id): id for head in (_LOCKED, _LOCKED_PACKED) for id in keys.ids}

    def seal(self, data: bytes, place: Place) -> bytes:
        """The data in its envelope.

        Raises:
            CheckpointerError: If the data is larger than the limit.
        """
        return self.seal_all([(data, place)])[0]

    def seal_all(self, pieces: Sequence[tuple[bytes, Place]]) -> list[bytes]:
        """Each of many in its envelope, for less: only once for all is Python's lock given away to compress them.

        Raises:
            CheckpointerError: If one of them is larger than the limit.
        """
        for data, place in pieces:
            if len(data) > self._limit:
                raise CheckpointerError(
                    f"{place} would be {len(data)} bytes, and {self._limit} is the limit: keep large things in files "
                    "or tables of their own, and their names in the state."
                )
        least = self._worth_trying
        worth: list[bytes | bytearray | memoryview[int]] = [data for data, _ in pieces if len(data) >= least]
        smaller = iter(self._contexts.compressor.multi_compress_to_buffer(worth) if worth else ())
        return [self._enclosed(data, next(smaller) if len(data) >= least else None, place) for data, place in pieces]

    def _enclosed(self, data: bytes, smaller: zstandard.BufferSegment | None, place: Place) -> bytes:
        if packed := smaller is not None and len(smaller) * 10 <= len(data) * 9:
            assert smaller is not None
            data = smaller.tobytes()
        head = self._heads[packed]
        if self._keys is None:
            return b"".join((head, data, _checksum(place, head, data)))
        return head + self._keys.encrypt(data, place.thread_id, place.key() + head)

    def open(self, sealed: bytes, place: Place) -> bytes:
        """The data that was sealed for this place.

        Raises:
            CheckpointCorruptionError: If it is damaged, or was sealed for another place.
            CheckpointerConfigurationError: If it is encrypted and the key is not at hand, or not encrypted and
                should be.
        """
        head = sealed[:1]
        payload: bytes | memoryview
        if head in (_PLAIN, _PACKED):
            payload = self._checked(sealed, place)
        elif head in (_LOCKED, _LOCKED_PACKED):
            payload = self._decrypted(sealed, place)
        else:
            begins = f"begins with 0x{head.hex()}, which this version of Petal does not know" if head else "is empty"
            _damaged(place, f"it {begins}")
        return self._unpacked(payload, place) if head in (_PACKED, _LOCKED_PACKED) else bytes(payload)

    def label(self, key: str, value: Scalar) -> bytes:
        """The label to keep for an entry of a checkpoint's metadata; see `petal.checkpoints.crypto.label`."""
        return label(key, value, self._secrets[0])

    def labels_for_search(self, key: str, value: Scalar) -> tuple[bytes, ...]:
        """The labels of which one is kept wherever the metadata has such an entry: one a key of the ring.

        Empty for NaN, which equals nothing.
        """
        return tuple(label(key, value, secret) for secret in self._secrets) if value == value else ()

    def _checked(self, sealed: bytes, place: Place) -> memoryview:
        payload = memoryview(sealed)[1:-_CHECKSUM_SIZE]
        if sealed[-_CHECKSUM_SIZE:] != _checksum(place, sealed[:1], payload):
            _damaged(place, "its checksum does not match its content and its place")
        if self._keys is not None and not self._allow_plaintext:
            raise CheckpointerConfigurationError(
                f"{place} is not encrypted, though there is an encryption key. If the database was begun without one, "
                "allow plaintext and convert it; if it was not, somebody else wrote this row."
            )
        return payload

    def _decrypted(self, sealed: bytes, place: Place) -> bytes:
        end = 2 + int.from_bytes(sealed[1:2]) + _CRC_SIZE
        preamble = sealed[:end]
        id = self._key_ids.get(preamble)
        if self._keys is None or id is None:
            self._refuse_key(preamble, place)
        data = self._keys.decrypt(id, memoryview(sealed)[end:], place.thread_id, place.key() + preamble)
        if data is None:
            _damaged(
                place, f"it does not open with key {id!r}: it was altered or moved, or that is another key by that id"
            )
        return data

    def _refuse_key(self, preamble: bytes, place: Place) -> NoReturn:
        if crc32(preamble[:-_CRC_SIZE]).to_bytes(_CRC_SIZE) != preamble[-_CRC_SIZE:]:
            _damaged(place, "the id of its encryption key is not readable")
        id = preamble[2:-_CRC_SIZE].decode("ascii", "backslashreplace")
        if self._keys is None:
            raise CheckpointerConfigurationError(
                f"{place} is encrypted with key {id!r}, and there is no encryption key: set encryption_key_env to the "
                "name of the environment variable that holds it."
            )
        raise CheckpointerConfigurationError(
            f"{place} is encrypted with key {id!r}, and the key ring has {', '.join(self._keys.ids)}: add it "
            "after the first key in the environment variable that encryption_key_env names."
        )

    def _unpacked(self, frame: bytes | memoryview, place: Place) -> bytes:
        try:
            size = zstandard.frame_content_size(frame)
            if size < 0:
                _damaged(place, "it does not say to how many bytes it unfolds")
            if size > self._limit:
                _damaged(place, f"it says that it unfolds to {size} bytes, and {self._limit} is the limit")
            return self._contexts.decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CheckpointCorruptionError(str(place), f"it does not decompress ({error})") from error


def _preamble(head: bytes, key_id: str) -> bytes:
    named = head + bytes((len(key_id),)) + key_id.encode("ascii")
    return named + crc32(named).to_bytes(_CRC_SIZE)


def _checksum(place: Place, head: bytes, payload: bytes | memoryview) -> bytes:
    state = xxhash.xxh3_64(place.key() + head)
    state.update(payload)
    return state.digest()


def _damaged(place: Place, problem: str) -> NoReturn:
    raise CheckpointCorruptionError(str(place), problem)
