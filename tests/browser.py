"""A headless Chromium by its debugging pipe: opens a page, and tells what it said, asked for and looks like."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The pipe is handed over as POSIX systems do it.
_NAMES = ("chromium", "chromium-browser", "google-chrome") if os.name == "posix" else ()
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
_PATIENCE = 60.0


class Browser:
    """Talks JSON over two pipes; `events` are those that no answer belongs to."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._writer, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not any(seen.get("method") == event for seen in self.events):
            assert time.monotonic() < deadline, f"no {event}"
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._reader, 1 << 16)
            assert chunk, "the browser ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser with a profile of its own and end it afterwards."""
    import fcntl

    assert CHROMIUM is not None
    there, to_it = os.pipe()
    from_it, here = os.pipe()
    # It reads from 3 and writes to 4; our ends must not be these numbers.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (there, to_it, from_it, here)]
    for fd in (there, to_it, from_it, here):
        os.close(fd)
    profile = tempfile.mkdtemp(prefix="xlogreg-chromium-")
    actions = [
        (os.POSIX_SPAWN_DUP2, high[0], 3),
        (os.POSIX_SPAWN_DUP2, high[3], 4),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = os.posix_spawn(CHROMIUM, command, os.environ, file_actions=actions, setpgroup=0)
    os.close(high[0])
    os.close(high[3])
    try:
        yield Browser(high[2], high[1])
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(high[1])
        os.close(high[2])
        shutil.rmtree(profile, ignore_errors=True)


def look(browser: Browser, page: Path, width: int, scheme: str) -> dict[str, Any]:
    """Open a page at a width in light or dark: complaints, what it asked for, its width, its colours."""
    browser.events.clear()
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.ask(f"{domain}.enable", session)
    browser.ask(
        "Emulation.setDeviceMetricsOverride", session, width=width, height=800, deviceScaleFactor=1, mobile=True
    )
    browser.ask("Emulation.setEmulatedMedia", session, features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.ask("Page.navigate", session, url=page.as_uri())
    browser.wait_for("Page.loadEventFired")
    script = """({
        width: document.documentElement.scrollWidth,
        over: [...document.querySelectorAll("body *")]
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length,
        background: getComputedStyle(document.body).backgroundColor,
        ink: getComputedStyle(document.body).color,
        pictures: [...document.images].map(i => i.naturalWidth),
    })"""
    found = browser.ask("Runtime.evaluate", session, expression=script, returnByValue=True)["result"]["value"]
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    said = [event["params"] for event in browser.events if event.get("method") in complaints]
    urls = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    browser.ask("Target.closeTarget", targetId=target)
    return {**found, "said": said, "asked": [url for url in urls if not url.startswith("data:")]}
