"""How fast `xlogreg predict` is beside Pillow's own decoder, and whether its memory stays flat.

    python benchmarks/predict_rate.py [--files 10000] [--rounds 3] [--threads N] [--out benchmarks/results/predict.json]

The built-in birds become files in a temporary folder: PNG and JPEG, as they are (32 x 32) and enlarged to 256 x 256.
For each kind, in turns and in a process of its own each time, Pillow opens and decodes all files (`Image.open` and
`load`, nothing else) on as many threads as xlogreg uses, and xlogreg predicts them to CSV, as the command does: in
threads and, after a moment, in processes of theirs. Rates are files a second from first to last, the start of those
processes included, imports and compilation before not (a few files go first). The median of the rounds counts.
Megabytes are those of the main process at most, and those of the largest other as many times as there are threads.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

KINDS = tuple(itertools.product((256, 32), ("jpg", "png")))
AIM = 0.6


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000, help="files of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the results")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker[0], Path(options.worker[1]), options.files, options.threads)))
        return 0
    from xlogreg.predicting.bulk import default_threads

    threads = options.threads or default_threads()
    print(f"{options.files} files of each kind, {threads} threads, {options.rounds} rounds; {platform.platform()}")
    print(f"{'kind':>14} {'Pillow/s':>10} {'xlogreg/s':>10} {'share':>7} {'MB at half':>11} {'MB at all':>10}")
    fine = True
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        for size, suffix in KINDS:
            folder = Path(name) / f"{size}-{suffix}"
            make(folder, size, suffix, options.files)
            rounds = []
            for _ in range(options.rounds):
                pillow = in_process("pillow", folder, options.files, threads)
                ours = in_process("xlogreg", folder, options.files, threads)
                rounds.append((pillow["rate"], ours["rate"], ours["rate"] / pillow["rate"], ours["megabytes"]))
            half = in_process("xlogreg", folder, options.files // 2, threads)["megabytes"]
            pillow_rate, rate, share, megabytes = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(
                f"{size:>4} x {size:<3} {suffix:>4} {pillow_rate:>10.0f} {rate:>10.0f} {share:>6.0%} "
                f"{half:>11.0f} {megabytes:>10.0f}",
                flush=True,
            )
            results[f"{size} x {size} {suffix}"] = {
                "pillow_per_second": pillow_rate, "xlogreg_per_second": rate, "share": share,
                "shares": [row[2] for row in rounds], "megabytes_at_half": half, "megabytes": megabytes,
            }  # fmt: skip
            fine &= share >= AIM and megabytes < 1.1 * half + 8
    print(f"at least {AIM:.0%} of Pillow's rate and flat memory for each kind: {'yes' if fine else 'NO'}")
    if options.out is not None:
        from xlogreg.runs.run_folder import machine, write_json
        from xlogreg.system.machine import processor_name

        write_json(options.out, {
            "date": datetime.date.today().isoformat(), "machine": {"processor": processor_name(), **machine()},
            "files": options.files, "threads": threads, "rounds": options.rounds, "kinds": results,
        })  # fmt: skip
    return 0 if fine else 1


def make(folder: Path, size: int, suffix: str, files: int) -> None:
    """The birds again and again, each file a little brighter than the one before it, in ten folders."""
    from PIL import Image

    from xlogreg import load_birds

    x = load_birds().x
    for number in range(files):
        below = folder / f"{number % 10}"
        below.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(x[number % len(x)].astype(int) + number // len(x), 0, 255).astype(np.uint8)
        picture = Image.fromarray(pixels)
        if size != 32:
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        picture.save(below / f"{number:06}.{suffix}", compress_level=1, quality=90)


def in_process(what: str, folder: Path, files: int, threads: int) -> dict[str, float]:
    options = {"--files": files, "--threads": threads}
    command = [sys.executable, __file__, "--worker", what, folder, *itertools.chain(*options.items())]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def work(what: str, folder: Path, files: int, threads: int) -> dict[str, float]:
    """One measurement in this process: files a second, and the largest memory it had."""
    from xlogreg.predicting.paths import picture_paths

    paths = list(map(str, itertools.islice(picture_paths([folder]), files)))
    seconds = (pillow if what == "pillow" else xlogreg)(paths, threads)
    largest, other = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"rate": len(paths) / seconds, "megabytes": (largest + threads * other) / 1024}


def pillow(paths: list[str], threads: int) -> float:
    from PIL import Image

    def decode(batch: list[str]) -> None:
        for path in batch:
            with Image.open(path) as picture:
                picture.load()

    # The same batches as xlogreg's, so that handing them to the threads costs the same.
    batches = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(decode, batches[:2]))
        start = time.perf_counter()
        list(executor.map(decode, batches))
        return time.perf_counter() - start


def xlogreg(paths: list[str], threads: int) -> float:
    from xlogreg.models.classifier import Classifier
    from xlogreg.predicting.batch import reuse_memory
    from xlogreg.predicting.bulk import predict_many
    from xlogreg.predicting.output import lines

    model = Classifier(
        np.random.RandomState(0).normal(0, 0.1, (3072, 1)), 0.0, ("not bird", "bird"), (32, 32, 3), 0.005, 2000,
        "", "", "",
    )  # fmt: skip
    reuse_memory()
    for _ in predict_many(model, paths[:64], threads=threads):
        pass
    with open(os.devnull, "w") as sink:
        start = time.perf_counter()
        for batch in predict_many(model, paths, threads=threads, processes=True):
            sink.write(lines(batch, "csv", "bird"))
        return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
