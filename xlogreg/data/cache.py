"""Decoded pictures kept between runs: found by what a file holds, checked when read, never in the way.

One SQLite file, `pictures.sqlite`, in the cache folder ($XLOGREG_DATA, else the user's own). Deleting it clears the
cache and loses nothing. Two tables:

* pixels: key -> bytes, and a checksum of both. A key is a digest of the file's content and of all that the pixels
  depend on besides, so an entry is never out of date.
* files: path, size, times and inode -> SHA-256 of the content, so that files that have not changed need not be read.

Transactions make entries whole or absent. What is damaged is dropped and made again. A cache that cannot be read or
written (no room, no permission, no SQLite, another process at it for long) is left alone: `note` says why, and work
goes on.
"""

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import reason
from .fetch import data_folder

if TYPE_CHECKING:
    import sqlite3

FILE = "pictures.sqlite"
# What has not been used for the longest time gives way beyond this.
MAX_BYTES = 2 * 2**30
# Entries are written in transactions of about so many bytes.
_BATCH_BYTES = 8 * 2**20
# A file that changed less than so many nanoseconds before it was read may change again without its times showing it.
_SETTLED = 2 * 10**9
_CHECK = 16
_SCHEMA = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS pixels (key BLOB PRIMARY KEY, bytes BLOB NOT NULL, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 BLOB NOT NULL);
"""


class Cache:
    """Bytes by key, and digests by unchanged file; safe to use from many threads, and by many processes.

    Nothing here raises for what the cache folder is like; after a failure it finds nothing and keeps nothing.

    Attributes
    ----------
    path : the SQLite file
    note : why the cache is not used (any more), in one sentence, or nothing
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.path = (data_folder() if folder is None else Path(folder)) / FILE
        self.note = ""
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._pixels: dict[bytes, bytes] = {}
        self._files: dict[bytes, tuple[str, bytes]] = {}
        self._used: set[bytes] = set()
        self._waiting = 0
        # Days are enough to tell what was used last, and are rarely written.
        self._today = int(time.time()) // 86400
        self._connection: sqlite3.Connection | None = None
        try:
            from sqlite3 import Error
        except ImportError:  # a Python built without it
            self.note = "This Python has no SQLite, so decoded pictures are not kept."
            return
        self._errors = (Error, OSError)
        try:
            self._open()
        except self._errors as error:
            self._fail(error)

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: bytes, length: int) -> bytes | None:
        """The `length` bytes kept under this key; None if there are none or they are damaged."""
        with self._lock:
            found = self._one("SELECT bytes, used FROM pixels WHERE key = ?", key)
            if found is None:
                return None
            content, used = found
            if not isinstance(content, bytes) or len(content) != length + _CHECK or content[:_CHECK] != _check(
                key, content[_CHECK:]
            ):  # fmt: skip
                return None  # made again, and replaced
            if used != self._today:
                self._used.add(key)
            return content[_CHECK:]

    def put(self, key: bytes, content: bytes) -> None:
        """Keep these bytes; written later, with others."""
        with self._lock:
            if self._connection is not None:
                self._pixels[key] = _check(key, content) + content
                self._waiting += len(content)
                if self._waiting >= _BATCH_BYTES:
                    self.flush()

    def digest_of(self, path: Path, status: os.stat_result) -> bytes | None:
        """SHA-256 of the file's content if it was read before and has not changed since."""
        with self._lock:
            found = self._one("SELECT state, sha256 FROM files WHERE path = ?", _name(path))
            if found is None or found[0] != _state(status) or not isinstance(found[1], bytes) or len(found[1]) != 32:
                return None
            return found[1]

    def remember(self, path: Path, status: os.stat_result, sha256: bytes) -> None:
        """The file had this content when it had this status (taken before it was read)."""
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED:
            return
        with self._lock:
            if self._connection is not None:
                self._files[_name(path)] = (_state(status), sha256)

    def flush(self) -> None:
        """Write what waits, in one transaction, making room first."""
        with self._lock:
            if self._connection is None or not (self._pixels or self._files or self._used):
                return
            try:
                with self._connection:
                    self._connection.executemany(
                        "UPDATE pixels SET used = ? WHERE key = ?", [(self._today, key) for key in self._used]
                    )
                    self._make_room(sum(map(len, self._pixels.values())))
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO pixels VALUES (?, ?, ?)",
                        [(key, content, self._today) for key, content in self._pixels.items()],
                    )
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
                        [(name, state, sha256) for name, (state, sha256) in self._files.items()],
                    )
            except self._errors as error:
                self._fail(error)
            self._pixels.clear()
            self._files.clear()
            self._used.clear()
            self._waiting = 0

    def close(self) -> None:
        """Write what waits and let go of the file."""
        self.flush()
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(*self._errors):
                    self._connection.close()
                self._connection = None

    def _open(self) -> None:
        import sqlite3

        self.path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in (1, 2):
            connection = sqlite3.connect(self.path, timeout=5.0, check_same_thread=False)
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version not in (0, _SCHEMA):
                    raise sqlite3.DatabaseError("made by another version of xlogreg")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(f"{_TABLES} PRAGMA user_version = {_SCHEMA};")
                connection.execute("SELECT key, length(bytes), used FROM pixels LIMIT 1")
                connection.execute("SELECT path, state, sha256 FROM files LIMIT 1")
                self._connection = connection
                return
            except sqlite3.OperationalError:  # locked, read-only, full: it may be sound
                connection.close()
                raise
            except sqlite3.DatabaseError:  # not a database, or a damaged one: begin again
                connection.close()
                if attempt == 2:
                    raise
                self.path.unlink()

    def _one(self, query: str, key: bytes) -> tuple[Any, ...] | None:
        if self._connection is None:
            return None
        try:
            found: tuple[Any, ...] | None = self._connection.execute(query, (key,)).fetchone()
            return found
        except self._errors as error:
            self._fail(error)
            return None

    def _make_room(self, coming: int) -> None:
        assert self._connection is not None
        (kept,) = self._connection.execute("SELECT coalesce(sum(length(bytes)), 0) FROM pixels").fetchone()
        excess = kept + coming - self._max_bytes
        if excess <= 0:
            return
        # Entries of today stay: they may be those of this very training.
        query = "SELECT key, length(bytes) FROM pixels WHERE used < ? ORDER BY used, key"
        for key, length in self._connection.execute(query, (self._today,)).fetchall():
            self._connection.execute("DELETE FROM pixels WHERE key = ?", (key,))
            excess -= length
            if excess <= 0:
                return
        self._pixels.clear()  # no room

    def _fail(self, error: Exception) -> None:
        import sqlite3

        why = reason(error) if isinstance(error, OSError) else error
        self.note = (
            f"Decoded pictures are not kept: {self.path} cannot be used ({why}); "
            "free some space, delete it, or set XLOGREG_DATA to another folder."
        )
        if self._connection is not None:
            with contextlib.suppress(*self._errors):
                self._connection.close()
            self._connection = None
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if damaged:  # the next run begins a new one
            with contextlib.suppress(OSError):
                self.path.unlink()


def _check(key: bytes, content: bytes) -> bytes:
    return hashlib.sha256(key + content).digest()[:_CHECK]


def _name(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _state(status: os.stat_result) -> str:
    # The time of the inode's last change shows edits that put the time of the content back.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"
