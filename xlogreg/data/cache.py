"""Decoded pictures kept between runs: found by what a file holds, checked when read, never in the way.

One SQLite file, `pictures.sqlite`, in the cache folder ($XLOGREG_DATA, else the user's own). Deleting it clears the
cache and loses nothing. A file of that name that xlogreg did not write stays as it is: `pictures-2.sqlite` (up to 9) is
used, and `note` says so. Two tables:

* pixels: key -> bytes, and a checksum of both. A key is a digest of the file's content and of all that the pixels
  depend on besides, so an entry is never out of date.
* files: path, size, times and inode -> SHA-256 of the content, so that files that have not changed need not be read.

Transactions make entries whole or absent. What is damaged is dropped and made again. A cache that cannot be read or
written (no room, no permission, no SQLite, another process at it for long) is left alone: `note` says why, and work
goes on.

A file is ours by what it says in its first bytes, before SQLite sees it, and by holding these tables and nothing else:
no view, trigger or other schema is ever asked for anything. Nothing in it takes longer than `_SECONDS`.
"""

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..system.files import open_regular, own_temporary_folder, reason

if TYPE_CHECKING:
    import sqlite3

FILE = "pictures.sqlite"
OTHER_FILES = tuple(f"pictures-{number}.sqlite" for number in range(2, 10))
# What has not been used for the longest time gives way beyond this.
MAX_BYTES = 2 * 2**30
# Entries are written in transactions of about so many bytes.
_BATCH_BYTES = 8 * 2**20
# A file that changed less than so many nanoseconds before it was read may change again without its times showing it.
_SETTLED = 2 * 10**9
_CHECK = 16
# No entry has more bytes; what says that it has is damaged.
_MAX_ENTRY = 2**24
# A data base whose pages lead round and round must not be waited for.
_SECONDS = 30.0
_STEPS = 100_000
_SCHEMA = 1
_APPLICATION = int.from_bytes(b"xlgr", "big")

_TABLES = {
    "pixels": "CREATE TABLE pixels (key BLOB PRIMARY KEY, bytes BLOB NOT NULL, used INTEGER NOT NULL)",
    "files": "CREATE TABLE files (path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 BLOB NOT NULL)",
}
_WHOLE_SCHEMA = sorted(
    [("table", name, name, sql) for name, sql in _TABLES.items()]
    + [("index", f"sqlite_autoindex_{name}_1", name, "") for name in _TABLES]
)
# What comes of damaged data bases beside SQLite's own errors: of texts that are none, of values that are none.
_DAMAGE = (ValueError, OverflowError, MemoryError, TypeError)
# https://www.sqlite.org/fileformat2.html: where the first page has what.
_MAGIC, _VERSION, _ID, _ROOT, _CELLS = b"SQLite format 3\0", slice(60, 64), slice(68, 72), 100, slice(103, 105)
_HEADER = 105


def data_folder() -> Path:
    """The cache folder: $XLOGREG_DATA if it is set, else the user's own cache folder for xlogreg."""
    chosen = os.environ.get("XLOGREG_DATA")
    if chosen:
        # Where there is no such user, ~name stays what it is, as in a shell; a folder may be called so.
        return Path(os.path.expanduser(chosen))
    import platformdirs

    try:
        return Path(platformdirs.user_cache_dir("xlogreg"))
    except RuntimeError:  # a user without a home, whom no data base knows
        return Path(own_temporary_folder())


class _Foreign(Exception):
    """A file that xlogreg did not write; the message says what it is."""


class Cache:
    """Bytes by key, and digests by unchanged file; safe to use from many threads, and by many processes.

    Nothing here raises for what the cache folder is like; after a failure it finds nothing and keeps nothing.

    Attributes
    ----------
    path : the SQLite file
    note : why the cache is not used (any more), or not under its own name, in one sentence, or nothing
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int = MAX_BYTES) -> None:
        folder = data_folder() if folder is None else Path(folder)
        self.path = folder / FILE
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
        self._until = 0.0
        try:
            from sqlite3 import Error
        except ImportError:  # a Python built without it
            self.note = "This Python has no SQLite, so decoded pictures are not kept."
            return
        self._errors = (Error, OSError, *_DAMAGE)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open_first(folder)
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
            self._until = time.monotonic() + _SECONDS
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

    def _open_first(self, folder: Path) -> None:
        """Open the first of the names under which there is nothing, or a cache."""
        for name in (FILE, *OTHER_FILES):
            self.path = folder / name
            try:
                self._open()
            except _Foreign as error:
                self.note = self.note or f"{self.path} is {error} and stays as it is"
            else:
                break
        else:
            self.path = folder / FILE
            self.note += f", as do {OTHER_FILES[0]} to {OTHER_FILES[-1]}: decoded pictures are not kept."
            return
        if self.note:
            self.note += f"; decoded pictures are kept in {self.path}."

    def _open(self) -> None:
        """Open the file if it is there and ours, or if it can be made; begin anew if it is ours and damaged.

        Raises
        ------
        _Foreign
            It is not ours.
        sqlite3.Error, OSError, those of `_DAMAGE`
            SQLite or the operating system do not open it.
        """
        import sqlite3

        surely = _ours(self.path)
        try:
            self._connection = self._connected()
        except sqlite3.OperationalError:  # locked, read-only, full: it may be sound
            raise
        except (sqlite3.DatabaseError, _Foreign, *_DAMAGE) as error:
            if not surely:
                raise _Foreign("no cache of this xlogreg's, or a damaged one") from error
            self._remove()
            self._connection = self._connected()

    def _connected(self) -> "sqlite3.Connection":
        """A connection to the file, which holds our tables and nothing else: those are made if it is empty."""
        import sqlite3

        connection = sqlite3.connect(self.path, timeout=5.0, check_same_thread=False)
        try:
            # A text that is none is an entry that is not found.
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ENTRY)
            self._until = time.monotonic() + _SECONDS
            connection.set_progress_handler(lambda: time.monotonic() > self._until, _STEPS)
            for setting in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = NORMAL"):
                connection.execute(f"PRAGMA {setting}")
            if not _schema(connection):
                made = (sql.replace("TABLE", "TABLE IF NOT EXISTS", 1) for sql in _TABLES.values())
                marks = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA}"
                connection.executescript(f"BEGIN IMMEDIATE; {'; '.join(made)}; {marks}; COMMIT")
            if sorted(_schema(connection)) != _WHOLE_SCHEMA:
                raise _Foreign("a data base with other tables")
            if connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):  # of an older xlogreg
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            return connection
        except BaseException:
            connection.close()
            raise

    def _remove(self) -> None:
        """Away with the file, which is ours, and with what SQLite keeps beside it."""
        self.path.unlink(missing_ok=True)
        _journal(self.path).unlink(missing_ok=True)

    def _one(self, query: str, key: bytes) -> tuple[Any, ...] | None:
        if self._connection is None:
            return None
        self._until = time.monotonic() + _SECONDS
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
        damaged = isinstance(error, (sqlite3.DatabaseError, *_DAMAGE))
        if damaged and not isinstance(error, sqlite3.OperationalError):  # the next run begins a new one
            with contextlib.suppress(OSError, _Foreign):
                if _ours(self.path):
                    self._remove()


def _ours(path: Path) -> bool:
    """Whether the file says that xlogreg wrote it; False if it may be ours but does not say so, and if it is not there.

    Raises
    ------
    _Foreign
        It is something else, or there is something beside it that SQLite would wait for.
    OSError
        It cannot be read.
    """
    for beside in (_journal(path), path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if os.path.lexists(beside) and not beside.is_file():
            raise _Foreign(f"beside {beside.name}, which is no file,")
    try:
        with open_regular(path) as file:
            header = file.read(_HEADER)
    except FileNotFoundError:
        if path.is_symlink():
            raise _Foreign("a link to nothing") from None
        return False
    except (InputError, IsADirectoryError):
        raise _Foreign("no file") from None
    if not header:
        return False
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise _Foreign("no cache of xlogreg's")
    version, application, cells = (int.from_bytes(header[part], "big") for part in (_VERSION, _ID, _CELLS))
    if application not in (0, _APPLICATION):
        raise _Foreign("the data base of another program")
    if version != _SCHEMA:
        raise _Foreign("a data base of another program or of another version of xlogreg")
    if (header[_ROOT], cells) != (13, len(_WHOLE_SCHEMA)) and application != _APPLICATION:
        raise _Foreign("the data base of another program")
    return application == _APPLICATION


def _journal(path: Path) -> Path:
    return path.with_name(path.name + "-journal")


def _schema(connection: "sqlite3.Connection") -> list[tuple[str, ...]]:
    rows = connection.execute(
        f"SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master LIMIT {len(_WHOLE_SCHEMA) + 1}"
    )
    return [tuple(map(str, row)) for row in rows]


def _check(key: bytes, content: bytes) -> bytes:
    return hashlib.sha256(key + content).digest()[:_CHECK]


def _name(path: Path) -> bytes:
    return os.fsencode(path.absolute())


def _state(status: os.stat_result) -> str:
    # The time of the inode's last change shows edits that put the time of the content back.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"
