"""Timing calls that take turns, so that a machine that slows down slows all of them down."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Effort", "interleaved"]


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, the shortest sample, and the largest number of elements."""

    rounds: int = 15
    sample_seconds: float = 10e-3  # several calls of the largest: the first ones fill the caches again
    largest: float = math.inf


def interleaved(
    calls: dict[str, Callable[[], Any]],
    effort: Effort,
    threads: int = 1,
    advance: Callable[[], Any] = lambda: None,
    before: Callable[[str], Any] = lambda name: None,
) -> dict[str, dict[str, Any]]:
    """Time calls round by round; returns what is known of each, the median over the rounds among it.

    ``before(name)`` is called, untimed, ahead of each sample.
    """
    loops = {}
    for name, call in calls.items():
        before(name)
        call()  # compiles what is left to compile
        loops[name] = _loops(call, effort.sample_seconds)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    busy = dict.fromkeys(calls, 0.0)
    names = list(calls)
    with _limited(threads):
        gc.collect()
        gc.disable()
        try:
            for turn in range(effort.rounds):
                # Each round starts with another one, so that nobody always follows the same.
                start = turn % len(names)
                for name in names[start:] + names[:start]:
                    if threads > 1:
                        time.sleep(0.01)  # the last one's OpenMP threads still spin
                    before(name)
                    calls[name]()  # brings back what the others have pushed out of the caches
                    processor = time.process_time()
                    seconds = _sample(calls[name], loops[name])
                    busy[name] += (time.process_time() - processor) / (seconds * loops[name] * effort.rounds)
                    samples[name].append(seconds)
                advance()
        finally:
            gc.enable()
    return {
        name: {
            "median_seconds": statistics.median(values),
            "best_seconds": min(values),
            "calls_per_sample": loops[name],
            "busy_threads": round(busy[name], 2),  # processor time over time: whether the limit was kept
        }
        for name, values in samples.items()
    }


def _sample(call: Callable[[], Any], loops: int) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - start) / loops


def _loops(call: Callable[[], Any], sample_seconds: float) -> int:
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
