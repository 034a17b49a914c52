"""What the command line writes where: encodings that lack characters, streams that are full, words of usage errors."""

import contextlib
import csv
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import helpers
import numpy as np
import pytest
from helpers import Result
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from xlogreg import __main__, kernels
from xlogreg.commands import bars, cli, console, terminal
from xlogreg.models.classifier import Classifier, Failure
from xlogreg.predicting.paths import picture_paths
from xlogreg.runs import plots
from xlogreg.runs.validation import Validation


def folder(path: Path, classes: tuple[str | bytes, ...], count: int = 8) -> Path:
    """A folder of noise, a sub-folder a class."""
    rng = np.random.default_rng(0)
    for name in classes:
        below = os.path.join(os.fsencode(path), os.fsencode(name))
        os.makedirs(below)
        for number in range(count):
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(content, "PNG")
            with open(os.path.join(below, f"{number}ü.png".encode()), "wb") as file:
                file.write(content.getvalue())
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_cannot_be_shown_is_escaped(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLOGREG_DATA", str(tmp_path / "cache"))
    for name in ("plot_run", *(("plot_predictions", "plot_cost_histories") if encoding == "cp1252" else ())):
        monkeypatch.setattr(plots, name, lambda *_: None)
    odd = os.fsdecode(b"caf\xe9")
    folder(tmp_path / "data", ("鳥", odd, "rest"))

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["xlogreg", *arguments])
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as caught:
                __main__.main()
        for stream in (out, err):
            stream.flush()
        said = err.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert caught.value.code == 0, said
        return out.buffer.getvalue().decode(encoding if "--csv" not in arguments else "utf-8")  # type: ignore[attr-defined]

    few = ("--iterations", "3", "--size", "8")
    assert "task             \\u9ce5 against the rest" in call(
        "train", "data", "--positive", "鳥", *few, "--out", "r鳥"
    )
    assert "kept in          r\\udcff" in call("train", "data", "--positive", odd, *few, "--out", os.fsdecode(b"r\xff"))
    report = json.loads(call("train", "data", "--positive", "鳥", *few, "--out", "j鳥", "--json"))
    assert (report["task"]["positive"], report["folder"]) == ("鳥", "j鳥")
    assert "\\u9ce5" in call("sweep", "data", "--positive", "鳥", "--positive", odd, *few, "--out", "s鳥")
    assert "predicted \\u9ce5" in call("evaluate", "r鳥", "--out", "e鳥")
    assert call("report", "r鳥", os.fsdecode(b"r\xff"), "--out", "c鳥.html") == "c\\u9ce5.html\n"
    for model, out in (("r鳥", "m鳥.npz"), (os.fsdecode(b"r\xff"), os.fsdecode(b"m\xff.onnx"))):
        assert call("export", model, out).endswith(" bytes\n")
    assert "\\u9ce5" in call("predict", "r鳥", "data")
    rows = list(csv.DictReader(io.StringIO(call("predict", "r鳥", "data/鳥", "--csv"))))
    assert [row["path"] for row in rows] == [f"data/鳥/{number}ü.png" for number in range(8)]


def shell(command: str, **environment: str) -> tuple[int, str, str]:
    """A command line in a shell, with `xlogreg` for the one to be tested: its code, and what came out."""
    started = f"{sys.executable} -m xlogreg"
    done = subprocess.run(
        ["sh", "-c", command.replace("xlogreg", started)], capture_output=True, text=True, check=False,
        env=helpers.environment(**{"PYTHONUNBUFFERED": "", **environment}),
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_process_itself_escapes() -> None:
    for environment in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
    ):
        code, _, said = shell("xlogreg train --positive 鳥", **environment)
        assert code == 2
        assert said.startswith("Error: There is no class '\\u")
        assert said.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_streams() -> None:
    full = "Error: Something could not be written or read: No space left on device.\n"
    assert shell("xlogreg --version > /dev/full") == (2, "", full)
    assert shell("xlogreg train --help > /dev/full") == (2, "", full)
    assert shell("xlogreg train --speed 2> /dev/full") == (2, "", "")
    # An error's own code stands; words that were lost where all went well are told by the code.
    assert shell("xlogreg --version 2> /dev/full")[0] == 0
    assert shell("xlogreg predict 2> /dev/full > /dev/full")[0] == 2


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="Windows has no such signal")
def test_a_pipe_that_nobody_reads() -> None:
    # The shell's 128 + 13, as of other programs.
    code, out, err = shell("{ sleep 0.3; xlogreg --help; echo $? >&2; } | true")
    assert (code, out, err.split()[-1]) == (0, "", "141")
    assert "Traceback" not in err


def test_words_lost_on_standard_error_change_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux's /dev/full")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        terminal.prepare()
        for _ in range(3):
            print("told", file=sys.stderr, flush=True)
        assert [terminal.exit_code(code) for code in (0, 1, 2)] == [1, 1, 2]
    monkeypatch.undo()
    assert terminal.exit_code(0) == 0


USAGE = [
    (("train", "--speed", "9"), "train has no option --speed; did you mean --seed?"),
    (("train", "--lr", "9"), "train has no option --lr: it is --learning-rate."),
    (("sweep", "--rate", "9"), "sweep has no option --rate: it is --learning-rate."),
    *((("train", name, "9"), f"train has no option {name}: it is --iterations.")
      for name in ("--epochs", "--n-iter", "--max-iter", "--max_iter", "--steps")),
    (("train", "--C", "1"),
     "train has no option --C: it is --l2, which is 1 / (C times the number of training pictures)."),
    (("train", "--random-state", "9"), "train has no option --random-state: it is --seed."),
    (("train", "--gpu"), "train has no option --gpu: it is --device gpu."),
    (("train", "--cuda"), "train has no option --cuda: it is --device gpu."),
    (("predict", "m", "p", "--cuda"), "predict has no option --cuda: it works on the processor alone."),
    (("train", "--batch-size", "9"),
     "train has no option --batch-size: every iteration is over all pictures, so there are no batches."),
    (("train", "--early-stopping"), "train has no option --early-stopping: it is --patience."),
    (("train", "-o", "x"), "train has no option -o: it is --out."),
    (("train", "--dataset", "x"), "train has no option --dataset: give DATA itself, without an option."),
    (("train", "--workers", "2"),
     "train has no option --workers: all processors are used, and every number of threads gives the same bits."),
    (("predict", "m", "p", "--workers", "2"), "predict has no option --workers: it is --threads."),
    (("--verbose",), "xlogreg has no option --verbose: how far it is shows on standard error; 2>/dev/null hides it."),
    (("fly",), "There is no command fly; choose from reproduce, train, sweep, predict, evaluate, report, export, "
     "fetch, benchmark, doctor."),
    (("train", "--iterations", "1e3"), "--iterations must be a whole number, not '1e3'; see `xlogreg train --help`."),
    (("train", "--learning-rate=x"), "--learning-rate must be a number, not 'x'; see `xlogreg train --help`."),
    (("train", "--balance", "y"),
     "--balance must be one of first, random, none, not 'y'; see `xlogreg train --help`."),
    (("predict",), "predict needs MODEL, which is missing; see `xlogreg predict --help`."),
    (("train", "a", "b"), "train was given more than it takes: b; see `xlogreg train --help`."),
    (("train", "--iterations"), "--iterations needs a value; see `xlogreg train --help`."),
    (("train", "--nesterov=3"), "--nesterov takes no value; see `xlogreg train --help`."),
    (("benchmark", "--rounds", "0"), "--rounds must be at least 1; see `xlogreg benchmark --help`."),
]  # fmt: skip


def test_usage_errors_are_one_plain_sentence(run: Callable[..., Result]) -> None:
    for arguments, said in USAGE:
        assert run(*arguments) == Result(2, "", f"Error: {said}\n"), arguments
    # The help is the answer to nothing at all.
    assert "Start with" in run().out


@pytest.mark.parametrize("digits", [400, 5000])
def test_numbers_that_are_too_long(run: Callable[..., Result], digits: int) -> None:
    number = "9" * digits
    for arguments in (
        ("train", "--positive", number), ("train", "--device", f"gpu:{number}"), ("train", "--iterations", number),
        ("train", "--iterations", f"-{number}"), ("train", "--seed", number), ("train", "--size", number),
        ("train", "--learning-rate", number), ("train", "--test-size", number), ("train", "--validation", number),
        ("train", "--checkpoint-every", f"-{number}"), ("predict", "m", "p", "--threads", number),
        ("benchmark", "--device", f"gpu:{number}"), ("benchmark", "--pictures", number),
    ):  # fmt: skip
        result = run(*arguments)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), (arguments[:2], result)
        assert result.err.startswith("Error: ")
        assert len(result.err) < 800, arguments[:2]


class Endless(io.RawIOBase):
    """So many bytes without a line's end, then two lines."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read1(self, most: int) -> bytes:
        if self.left > 0:
            self.left -= most
            return b"x" * most
        rest, self.left = (b"end\na.png\n", -1) if self.left == 0 else (b"", -1)
        return rest


def test_a_line_without_an_end_is_no_path() -> None:
    tracemalloc.start()
    try:
        found = list(picture_paths(["-"], stdin=Endless(1 << 26)))  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    failure, path = found
    assert isinstance(failure, Failure)
    assert failure.message.startswith("A line on standard input has more than 65,536 bytes and is no path: xxx")
    assert path == Path("a.png")


@pytest.fixture
def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes streams of this process a terminal, 100 columns wide; `seen` of what it returns is what it shows."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    import fcntl
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    monkeypatch.setenv("TERM", "xterm")
    parts: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):
            while part := os.read(master, 1 << 16):
                parts.append(part)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    streams: list[io.TextIOWrapper] = []

    def become(*names: str, encoding: str = "utf-8") -> None:
        for name in names:
            stream = io.TextIOWrapper(os.fdopen(os.dup(slave), "wb"), encoding=encoding, line_buffering=True,
                                      errors="backslashreplace")  # fmt: skip
            streams.append(stream)
            monkeypatch.setattr(sys, name, stream)
        # It finds out when it is made.
        monkeypatch.setattr(console, "err", Console(stderr=True, highlight=False, soft_wrap=True))

    def seen() -> str:
        for stream in streams:
            stream.close()
        os.close(slave)
        reader.join(10)
        return b"".join(parts).decode()

    become.seen = seen  # type: ignore[attr-defined]
    yield become
    os.close(master)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")
@pytest.mark.parametrize("both", [False, True])
def test_predict_shows_a_bar_on_a_terminal(
    both: bool, run: Callable[..., Result], terminal_of: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    model = Classifier(np.zeros((3, 1)), 0.0, ("a", "b"), (1, 1, 3), 0.1, 1, "", "", "")
    model.save(tmp_path / "m.safetensors")
    folder(tmp_path / "photos", ("x",), 250)
    monkeypatch.setattr(bars, "_BAR_SECONDS", 0.0)
    threads = []
    advance = Progress.advance
    monkeypatch.setattr(
        Progress, "advance", lambda *a, **k: (threads.append(threading.active_count()), advance(*a, **k))
    )
    before = threading.active_count()
    # On no terminal, none.
    quiet = run("predict", "m.safetensors", "photos", "--threads", 1)
    assert (quiet.code, quiet.err, threads) == (0, "", [])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["xlogreg", "predict", "m.safetensors", "photos", "--threads", "1"])
        terminal_of(*(["stdout"] if both else []), "stderr", encoding="ascii")
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        if not both:
            patch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as caught:
            cli.main()
    shown = terminal_of.seen()  # type: ignore[attr-defined]
    assert caught.value.code == 0
    assert "/250" in shown
    assert " a second" in shown
    assert "0:00:0" in shown
    assert "\\u" not in shown.replace("\\xfc", "")  # boxes and bars are of characters that there are
    # The bar brings no thread, beside the one that decodes.
    assert len(threads) > 5
    assert max(threads) <= before + 1
    # What a terminal shows of it: from where a line was cleared.
    cleared = (line.rpartition("\x1b[2K")[2] for line in shown.split("\n"))
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in cleared]
    lines = [line for line in plain if line.startswith("photos")]
    if both:
        assert len(lines) == 250
        assert lines[7].startswith("photos/x/")
    else:
        out.seek(0)
        assert out.read() == quiet.out
        assert lines == []


def test_few_pictures_need_no_bar(run: Callable[..., Result], terminal_of: Callable[..., None], tmp_path: Path) -> None:
    terminal_of("stderr")
    with bars.predicting(lambda: 5) as progress:
        progress(5)
    assert terminal_of.seen() == ""  # type: ignore[attr-defined]


def test_the_numbers_of_a_training_fit_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=out, force_terminal=True, width=80, highlight=False))
    monkeypatch.setattr(kernels, "is_compiled", lambda: True)
    with bars.training_progress(1_000_000, "training") as observer:
        observer.validated(Validation(11_800, 0.658004, 60.0))  # type: ignore[attr-defined]
        observer(11_803, np.array([[0.485909]]))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "  11803/1000000 cost 0.485909, validation 0.658004" in shown


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = cli._note
        warnings.warn("a variable is odd\nand more", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == "Note: a variable is odd\n"
