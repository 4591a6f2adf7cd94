"""Encryption at rest: a ring of keys, of which the first encrypts and all decrypt, and keyed labels to search by."""

from __future__ import annotations

import hmac
import os
import re
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from struct import pack
from typing import TYPE_CHECKING, Self, assert_never

from petal.errors import CheckpointerConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Scalar = str | int | float | None
"""What can be labelled; bool is an int. `isinstance(value, Scalar)` works."""

LABEL_SIZE = 8
"""Bytes of a label."""

OVERHEAD = 12 + 16
"""Bytes that encryption adds: nonce and tag."""

_NONCE_SIZE = 12
_KEY_SIZES = (16, 24, 32)
_ID = re.compile(r"[A-Za-z0-9._-]{1,16}")
"""Shorter than any key in base64, so that a key that was put in the place of an id is refused, never printed."""
_CIPHERS_KEPT = 1024
_MAKE_A_KEY = (
    "Make one with: python -c 'import base64, os; print(\"id-1:\" + base64.b64encode(os.urandom(32)).decode())'"
)


class KeyRing:
    """AES-256-GCM with keys that can be changed: the first one encrypts, all of them decrypt.

    To change keys, put the new one before the old one; to retire the old one, rewrite what it sealed first.

    No data is sealed with a key of the ring itself, but with one that is derived from it for a single thread
    (HMAC-SHA256, which is RFC 5869's expand step). Each message takes a random nonce of 96 bits, of which one key
    can take 2^32 before the chance that two are equal reaches 2^-32 (NIST SP 800-38D). So that limit holds a
    *thread and key*: at ten rows a superstep it is some 400 million supersteps of one conversation, however many
    conversations there are. Keys of 16 and 24 bytes are accepted, and bound the strength to 128 and 192 bits.

    What encryption does not hide or prevent: thread ids, checkpoint ids, channel names and times stay in clear; so do
    sizes, and since data is compressed first, these tell something of the content to those who can choose part of
    it; equal labels show that two checkpoints have an equal entry; an older copy of a row opens in its place.

    May be used from any thread.

    Args:
        keys: Keys of 16, 24 or 32 random bytes by their ids: 1 to 16 letters, digits, `.`, `_` and `-`.

    Raises:
        CheckpointerConfigurationError: If there is no key, an id or a key's length is wrong, a key is there twice,
            or the package `cryptography` is missing. No message holds a key.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise CheckpointerConfigurationError(
                "Encryption at rest needs the package 'cryptography': pip install 'petal[encryption]'"
            ) from error
        if not keys:
            raise CheckpointerConfigurationError(f"A key ring needs at least one key. {_MAKE_A_KEY}")
        for position, (id, key) in enumerate(keys.items(), 1):
            _check(f"Encryption key {position}", id, key)
        if len(set(keys.values())) < len(keys):
            raise CheckpointerConfigurationError("Two encryption keys are equal under different ids; leave one out.")
        self.ids = tuple(keys)
        """Ids of the keys; the first one's encrypts."""
        self.label_secrets = tuple(_derived(key, b"petal label") for key in keys.values())
        """Secrets for `label`, one a key in the ring's order."""
        self._keys = dict(keys)
        self._aesgcm, self._invalid_tag = AESGCM, InvalidTag
        # Deriving one costs about 7 µs, so the ciphers of the threads in use are kept, at about 2.5 KB each.
        self._cipher = lru_cache(maxsize=_CIPHERS_KEPT)(self._new_cipher)

    @classmethod
    def from_env(cls, name: str) -> Self:
        """The key ring in an environment variable.

        Args:
            name: The variable. It holds keys as `id:base64`, separated by commas or white space. A key without
                an id gets one that is derived from it, so it keeps that id when it is moved.

        Raises:
            CheckpointerConfigurationError: If the variable is not set, or as the constructor says.
        """
        entries = re.split(r"[,\s]+", os.environ.get(name, "").strip(", \t\r\n"))
        if entries == [""]:
            raise CheckpointerConfigurationError(
                f"encryption_key_env names {name}, which is not set or empty. {_MAKE_A_KEY}"
            )
        keys: dict[str, bytes] = {}
        for position, entry in enumerate(entries, 1):
            what = f"Encryption key {position} of {len(entries)} in {name}"
            id, colon, text = entry.rpartition(":")
            key = _decoded(what, text)
            id = id if colon else _derived(key, b"petal key id")[:4].hex()
            _check(what, id, key)
            if id in keys:
                raise CheckpointerConfigurationError(f"{what} has the id {id!r} of a key before it.")
            keys[id] = key
        return cls(keys)

    def encrypt(self, data: bytes, thread_id: str, bound: bytes) -> bytes:
        """Nonce, ciphertext and tag: `OVERHEAD` bytes more than the data.

        Args:
            data: What to encrypt with the first key.
            thread_id: The thread for which the key is derived.
            bound: What must be the same when it is decrypted; it is not stored.
        """
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._cipher(self.ids[0], thread_id).encrypt(nonce, data, bound)

    def decrypt(self, id: str, sealed: bytes | memoryview, thread_id: str, bound: bytes) -> bytes | None:
        """What was encrypted, or None if any of it, the thread, the key or `bound` is another than then.

        Raises:
            KeyError: If the ring has no key of that id.
        """
        cipher = self._cipher(id, thread_id)
        if len(sealed) < OVERHEAD:
            return None
        try:
            return cipher.decrypt(bytes(sealed[:_NONCE_SIZE]), sealed[_NONCE_SIZE:], bound)
        except self._invalid_tag:
            return None

    def __repr__(self) -> str:
        return f"KeyRing(ids={self.ids!r})"

    def _new_cipher(self, id: str, thread_id: str) -> AESGCM:
        return self._aesgcm(_derived(self._keys[id], b"petal thread\0" + _utf8(thread_id)))


def label(key: str, value: Scalar, secret: bytes = b"") -> bytes:
    """Eight bytes that stand for an entry of a checkpoint's metadata in an index.

    Values that are equal in Python have equal labels, as in LangGraph's `InMemorySaver`: `1`, `1.0` and `True` are
    one, `1` and `"1"` are two. Two different values share a label by chance in 2^64, so a label finds candidates.

    Args:
        key: Name of the entry.
        value: Its value.
        secret: A key ring's secret; without one, anybody can find the value of a label by trying.
    """
    name = _utf8(key)
    return blake2b(pack("<I", len(name)) + name + _canonical(value), digest_size=LABEL_SIZE, key=secret).digest()


def _canonical(value: Scalar) -> bytes:
    match value:
        case None:
            return b"-"
        case str():
            return b"s" + _utf8(value)
        case float() if not value.is_integer():
            return b"f" + float.hex(value).encode()
        case int() | float():
            # Hexadecimal, since Python refuses to write thousands of digits in decimal.
            return b"i" + hex(int(value)).encode()
        case _:
            assert_never(value)


def _utf8(text: str) -> bytes:
    # Called on `str`, since an enum that is a string formats as its name. A lone surrogate is a character too.
    return str.encode(text, "utf-8", "surrogatepass")


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\x01", "sha256")


def _decoded(what: str, text: str) -> bytes:
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError:
        raise CheckpointerConfigurationError(f"{what} is not written in base64. {_MAKE_A_KEY}") from None


def _check(what: str, id: str, key: bytes) -> None:
    if not _ID.fullmatch(id):
        raise CheckpointerConfigurationError(
            f"{what} has a wrong id (not shown); an id is 1 to 16 letters, digits, '.', '_' and '-', "
            "and stands before the key as in 'id:base64'."
        )
    if len(key) not in _KEY_SIZES:
        raise CheckpointerConfigurationError(f"{what} has {len(key)} bytes; 32 are wanted, or 16 or 24. {_MAKE_A_KEY}")
