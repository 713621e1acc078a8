"""fastloss with one thread and with two, from one element to ten million."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from tqdm import tqdm

import fastloss as fl

from .contenders import CONTENDERS
from .contenders.fastloss_calls import arguments
from .machine import cores
from .timing import Effort, interleaved
from .variants import BACKENDS
from .works import MEMORY_SIZED, Work

__all__ = ["measure"]

_WORKS = (
    *(Work(loss, "float32", (10**k,)) for loss in ("binary_cross_entropy_with_logits", "huber_loss") for k in range(8)),
    *(Work("cross_entropy", "float32", shape) for shape in ((1024, 1000), (64, 32000), (4, 128256))),
    Work("td_loss", "float32", (65536, 18)),
)

# How a call comes by its threads: what set_num_threads() allows, and n_threads, if it is given.
_CHOICES: dict[str, tuple[int, dict[str, int]]] = {
    "up to 1": (1, {}),
    "up to 2": (2, {}),
    "n_threads=1": (1, {"n_threads": 1}),
    "n_threads=2": (2, {"n_threads": 2}),
}


def measure(effort: Effort) -> list[dict[str, Any]]:
    """Time each work with all choices of threads, interleaved; returns an entry per work and backend."""
    if cores() < 2:
        print("threads are left out: only one core may be used", file=sys.stderr)
        return []
    works = [work for work in _WORKS if work.size <= effort.largest]
    backends = [backend for backend in BACKENDS if backend in fl.backends()]
    timed = []
    with tqdm(total=len(works) * len(backends) * effort.rounds, unit="round", disable=None, leave=False) as bar:
        for work in works:
            for backend in backends:
                bar.set_description(f"threads for {work.name}, {backend}")
                timings = interleaved(_calls(work, backend), effort, 2, bar.update, _allow)
                seconds = {name: timing["median_seconds"] for name, timing in timings.items()}
                timed.append({"name": work.name, "label": work.label, "backend": backend, "seconds": seconds})
    fl.set_num_threads(1)
    return timed


def _allow(choice: str) -> None:
    if choice in _CHOICES:
        fl.set_num_threads(_CHOICES[choice][0])


def _calls(work: Work, backend: str) -> dict[str, Callable[[], Any]]:
    arrays, options = arguments(work)
    call = partial(getattr(fl, work.loss), *arrays, **options, backend=backend)
    calls: dict[str, Callable[[], Any]] = {name: partial(call, **given) for name, (_, given) in _CHOICES.items()}
    limit = CONTENDERS["limit"]
    if work.size >= MEMORY_SIZED / 2 and not limit.missing():
        calls |= {f"limit, {n}": limit.prepare(work, n) for n in (1, 2)}
    return calls
