"""fastloss beside itself: what weights, a mask, ``out=``, float16, or no gradient change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

import fastloss as fl

from .contenders.fastloss_calls import arguments
from .timing import Effort, interleaved
from .works import Work

__all__ = ["BACKENDS", "VARIANTS", "WORKS", "measure"]

BACKENDS = ("cython", "numba")
VARIANTS = {
    "plain": "loss + gradient",
    "loss": "loss only",
    "weight": "sample_weight",
    "mask": "mask",
    "out": "out=",
    "float16": "float16 input",
}
WORKS = (
    *(
        Work(loss, "float32", (n,))
        for n in (10**6, 10**7)
        for loss in ("binary_cross_entropy_with_logits", "huber_loss")
    ),
    Work("cross_entropy", "float32", (1024, 1000)),
)


def measure(effort: Effort) -> list[dict[str, Any]]:
    """Time the variants of each work, interleaved; returns an entry per work and backend."""
    works = [work for work in WORKS if work.size <= effort.largest]
    backends = [backend for backend in BACKENDS if backend in fl.backends()]
    fl.set_num_threads(1)
    timed = []
    with tqdm(total=len(works) * len(backends) * effort.rounds, unit="round", disable=None, leave=False) as bar:
        for work in works:
            for backend in backends:
                bar.set_description(f"variants of {work.name}, {backend}")
                timings = interleaved(_calls(work, backend), effort, advance=bar.update)
                seconds = {name: timing["median_seconds"] for name, timing in timings.items()}
                timed.append({"name": work.name, "label": work.label, "backend": backend, "seconds": seconds})
    return timed


def _calls(work: Work, backend: str) -> dict[str, Callable[[], Any]]:
    (x, *others), options = arguments(work)
    rng = np.random.default_rng(1)
    call = partial(getattr(fl, work.loss), **options, backend=backend)
    n = work.shape[0]
    weight, mask = rng.random(n).astype(work.dtype), rng.random(n) < 0.8
    half = [a.astype(np.float16) if a.dtype == x.dtype else a for a in (x, *others)]
    return {
        "plain": partial(call, x, *others),
        "loss": partial(call, x, *others, grad=False),
        "weight": partial(call, x, *others, sample_weight=weight),
        "mask": partial(call, x, *others, mask=mask),
        "out": partial(call, x, *others, out=np.zeros_like(x)),
        "float16": partial(call, *half),
    }
