"""Time the contenders side by side: ``python -m benchmarks.run``.

The contenders of a work take turns, round after round, so that a machine that slows down slows
all of them down; what counts is the median over the rounds, and its ratio to fastloss's.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastloss import __version__, _dispatch

from .agreement import disagreement, expected
from .contenders import BASELINE, CONTENDERS, Call, Contender
from .report import RESULTS, table
from .works import HEADLINE, WORKS, Work

_PACKAGES = ("numpy", "numba", "torch", "jax", "optax", "scikit-learn")
_QUICK_SIZE = 4 * 10**6


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples, at most 4 million elements")
    parser.add_argument("--works", type=re.compile, metavar="REGEX", help="only works whose name matches; see --list")
    parser.add_argument("--list", action="store_true", help="print the names of all works")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="for every contender (default: 1)")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 15, with --quick 9")
    parser.add_argument("--json", type=Path, help=f"default: {RESULTS}, for a complete run; else nothing is written")
    options = parser.parse_args(arguments)
    if options.list:
        print(*(work.name for work in WORKS), sep="\n")
        return 0
    if options.threads < 1 or (options.rounds or 1) < 1:
        parser.error("--threads and --rounds must be at least 1")
    works = [w for w in WORKS if options.works.search(w.name)] if options.works else list(HEADLINE)
    if options.quick:
        works = [work for work in works if work.size <= _QUICK_SIZE]
    if not works:
        parser.error("no such work; --list prints them")
    complete = works == list(HEADLINE)
    # A part of the table never replaces the whole one by accident.
    path = options.json or (RESULTS if complete and options.threads == 1 else None)

    rounds = options.rounds or (9 if options.quick else 15)
    results = measure(works, options.threads, rounds, 0.5e-3 if options.quick else 2e-3)
    print(table(results))
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"\nwritten to {path}; python -m benchmarks.report puts it into README.md")
    return 0


def measure(works: list[Work], threads: int, rounds: int, sample_seconds: float) -> dict[str, Any]:
    """Check and time works; returns what results.json holds."""
    present = {}
    for name, contender in CONTENDERS.items():
        if missing := contender.missing():
            print(f"{name} is left out: {', '.join(missing)} is not installed", file=sys.stderr)
        else:
            present[name] = contender
    timed = []
    with tqdm(total=len(works) * rounds, unit="round", disable=None) as bar:
        for work in works:
            bar.set_description(work.name)
            unit, count = work.unit
            entry = {"name": work.name, "label": work.label, "unit": unit, "units_per_call": count}
            timed.append(entry | {"contenders": _time(work, present, threads, rounds, sample_seconds, bar)})
    return {**_circumstances(), "threads": threads, "rounds": rounds, "works": timed}


def _time(
    work: Work, contenders: dict[str, Contender], threads: int, rounds: int, sample_seconds: float, bar: tqdm
) -> dict[str, dict[str, Any]]:
    calls = {n: call for n, c in contenders.items() if (call := c.prepare(work, threads)) is not None}
    truth = expected(work)
    for name, call in calls.items():
        result = call()
        if truth is not None and (problem := disagreement(work, contenders[name], result, truth)):
            raise SystemExit(f"{work.name}: contenders disagree: {problem}")
    del truth, result
    loops = {name: _loops(call, sample_seconds) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    busy = dict.fromkeys(calls, 0.0)
    names = list(calls)
    with _limited(threads):
        gc.collect()
        gc.disable()
        try:
            for turn in range(rounds):
                # Each round starts with another one, so that nobody always follows the same.
                start = turn % len(names)
                for name in names[start:] + names[:start]:
                    if threads > 1:
                        time.sleep(0.01)  # the last one's OpenMP threads still spin
                    calls[name]()  # brings back what the others have pushed out of the caches
                    processor = time.process_time()
                    seconds = _sample(calls[name], loops[name])
                    busy[name] += (time.process_time() - processor) / (seconds * loops[name] * rounds)
                    samples[name].append(seconds)
                bar.update()
        finally:
            gc.enable()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {
        name: {
            "median_seconds": medians[name],
            "best_seconds": min(values),
            "ratio": medians[name] / medians[BASELINE] if BASELINE in medians else None,
            "calls_per_sample": loops[name],
            "busy_threads": round(busy[name], 2),  # processor time over time: whether the limit was kept
        }
        for name, values in samples.items()
    }


def _sample(call: Call, loops: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


def _loops(call: Call, sample_seconds: float) -> int:
    """Calls that fill a sample."""
    loops = 1
    while True:
        # The best of several: an interruption here would shorten all samples.
        seconds = min(_sample(call, loops) for _ in range(3))
        if seconds * loops >= sample_seconds / 8:
            return max(1, math.ceil(sample_seconds / seconds))
        loops *= 4


def _limited(threads: int) -> contextlib.AbstractContextManager:
    """Limit the OpenMP and BLAS runtimes that are loaded by now."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return contextlib.nullcontext()
    import threadpoolctl

    return threadpoolctl.threadpool_limits(threads)


def _circumstances() -> dict[str, Any]:
    versions = {"fastloss": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "kernels": _dispatch.status("cython"),
        "versions": versions,
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
