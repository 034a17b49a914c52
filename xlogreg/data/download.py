"""One archive over HTTP: resumed where it was cut off, given up where a server brings too little, then verified."""

import contextlib
import hashlib
import http.client
import io
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..system.files import open_regular, reason

# Called with the bytes that are there, the bytes that there will be, and what is going on.
Progress = Callable[[int, int, str], None]

# Seconds to wait before each further try; the list starts anew whenever a try has brought more than all before it.
BACKOFF = (1.0, 2.0, 4.0, 8.0)
# A host from which nothing at all has come gets fewer tries, so that the mirror's turn comes soon.
FIRST_TRIES = 2
# A server that sends less than so many bytes a second for so many seconds would take days: it is given up.
MIN_RATE = 1000.0
PATIENCE = 60.0
# Bytes before the content: lines of headers, and "100 Continue" again and again.
MAX_HEADERS = 1 << 20
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Archive:
    """An archive by name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str


class Unreachable(Exception):
    """A source that failed, in words for the final error."""


class _Interrupted(Exception):
    """A try that was cut off and may be followed by another."""


class _Hopeless(Exception):
    """A connection that brings too little, or no end of headers; the message is what the server does."""


def download(url: str, folder: Path, archive: Archive, report: Progress, timeout: float, *, resumable: bool) -> Path:
    """The archive, fetched into the folder and verified; `resumable` if nobody else has the name of its part.

    Raises
    ------
    Unreachable
        The server does not bring it.
    """
    return _Download(url, folder, archive, report, timeout, resumable=resumable).run()


class _Download:
    """One archive in as many tries as it takes; the state between tries is the `.part` file."""

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
            if valid(self.part, self.archive, self.report):
                keep(self.part, self.final)
                self.mark.unlink(missing_ok=True)
                return self.final
            self._discard()
        raise Unreachable(f"what {self.url} sends is not {self.archive.name} (its SHA-256 differs, twice)")

    def _complete(self, fresh: bool) -> None:
        """Bring the part to its full size."""
        best = 0 if fresh else size_of(self.part)
        failures = 0
        ever = False
        while size_of(self.part) != self.archive.size:
            try:
                self._attempt(fresh)
            except _Interrupted as error:
                done = size_of(self.part)
                if done > best:
                    best, failures, ever = done, 0, True
                failures += 1
                if failures > len(BACKOFF) or (not ever and failures >= FIRST_TRIES):
                    raise Unreachable(str(error)) from error
                wait = BACKOFF[failures - 1]
                self.report(done, self.archive.size, f"interrupted, trying again in {wait:g} s")
                time.sleep(wait)

    def _attempt(self, fresh: bool) -> None:
        have = size_of(self.part)
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
            kept = f" ({size_of(self.part):,} bytes are kept to go on from)" if size_of(self.part) else ""
            raise Unreachable(f"{self.url} {error}{kept}") from error

    def _open(self, have: int, fresh: bool) -> http.client.HTTPResponse:
        """The server's answer; every trouble becomes `_Interrupted` (try again) or `Unreachable` (do not)."""
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
                    raise Unreachable(words) from error
                raise _Interrupted(words) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            words = _plain(reason(cause) if isinstance(cause, OSError) else cause)
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise Unreachable(f"the certificate of {self.url} is not valid here ({words})") from error
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
            raise Unreachable(f"{self.url} offers {_plain(length)} bytes instead of {self.archive.size}")
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
                raise Unreachable(f"{self.url} sends more than the {self.archive.size} bytes of {self.archive.name}")
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


def size_of(path: Path) -> int:
    """Bytes of a regular file; 0 if there is none."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def keep(path: Path, final: Path) -> None:
    """Give a file that was verified its name, once it is on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(path, final)


def valid(path: Path, archive: Archive, report: Progress) -> bool:
    """Whether the file is the archive, by its size and its SHA-256."""
    if size_of(path) != archive.size:
        return False
    report(archive.size, archive.size, "verifying")
    with open_regular(path) as file:
        return hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest() == archive.sha256
