"""What SQLite's errors mean, and what to do about them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from petal.errors import CheckpointCorruptionError, CheckpointerError, CheckpointerUnavailableError

HINTS = {
    sqlite3.SQLITE_CANTOPEN: "Check that its folder exists and may be written to, or name another file",
    sqlite3.SQLITE_READONLY: "Allow this user to write to the file and to its folder, or name another file",
    sqlite3.SQLITE_FULL: "Free some space and go on; what was saved before is safe",
    sqlite3.SQLITE_IOERR: "Check the disk and the space on it and go on; what was saved before is safe",
    sqlite3.SQLITE_BUSY: "Another process is writing; end it, or raise busy_timeout",
    sqlite3.SQLITE_LOCKED: "Another connection is writing; end it, or raise busy_timeout",
    sqlite3.SQLITE_PERM: "Allow this user to use the file, or name another file",
    sqlite3.SQLITE_AUTH: "Allow this user to use the file, or name another file",
}
FOLDER = "It is a folder; name a file in it"
READING = (
    "To read it SQLite makes a file beside it: allow this user to write to its folder, or copy it, and the -wal file "
    "if there is one, to a folder that may be written to"
)
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
PRIMARY = 0xFF
"""Of an extended result code, the bits that say what kind it is."""


def kind(error: sqlite3.Error) -> int:
    """The primary result code; 0 for an error of the module itself."""
    return getattr(error, "sqlite_errorcode", 0) & PRIMARY


def meaning(where: str, error: sqlite3.Error) -> CheckpointerError:
    """The typed error that an error of SQLite's stands for.

    Args:
        where: The file as a URL.
        error: What SQLite said.
    """
    code = kind(error)
    if code in DAMAGE:
        return CheckpointCorruptionError(where, str(error))
    if code in HINTS:
        return CheckpointerUnavailableError(where, str(error), HINTS[code])
    return CheckpointerError(f"{where}: {error}.")


def unopened(where: str, path: Path, error: sqlite3.Error, *, read_only: bool) -> CheckpointerError:
    """As `meaning`, of a file that could not be opened.

    Args:
        where: The file as a URL.
        path: The file.
        error: What SQLite said.
        read_only: Whether it was only to be read.
    """
    if kind(error) == sqlite3.SQLITE_CANTOPEN and (read_only or path.is_dir()):
        return CheckpointerUnavailableError(where, str(error), FOLDER if path.is_dir() else READING)
    return meaning(where, error)


def no_such_file(where: str, path: Path) -> CheckpointerUnavailableError:
    """The error of looking into a file that is not there."""
    if path.is_dir():
        return CheckpointerUnavailableError(where, "there is no file of that name", FOLDER)
    return CheckpointerUnavailableError(where, "there is no such file", "Name one that exists")
