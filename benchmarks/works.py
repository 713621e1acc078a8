"""What is timed: a loss of the registry, a dtype and a size, with arrays made from a fixed seed."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from fastloss.registry import LOSSES

__all__ = ["CATALOGUE", "HEADLINE", "MEMORY_SIZED", "WORKS", "Work"]

_SHORT = {"binary_cross_entropy_with_logits": "bce", "cross_entropy": "ce", "td_loss": "td"}
_LABELS = {"bce": "BCE with logits", "ce": "cross-entropy", "td": "TD (Huber, mask, weights)", "mse": "MSE", "l1": "L1"}
_LABELLED = ("unit", "binary", "sign")
_SMALL = 1000  # elements below which the cost of the call itself is of interest
MEMORY_SIZED = 10**6  # elements from which memory is of interest


@dataclass(frozen=True)
class Work:
    """Loss and gradient of the mean over arrays of one dtype and shape."""

    loss: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def short(self) -> str:
        """The loss's name in works, ids and tables."""
        return _SHORT.get(self.loss, self.loss.removesuffix("_loss"))

    @property
    def name(self) -> str:
        """Id that ``--works`` and ``pytest -k`` match, such as ``ce-float32-1024x1000``."""
        return "-".join([self.short, self.dtype, "x".join(map(str, self.shape))])

    @property
    def label(self) -> str:
        """Name of the table's row."""
        loss = _LABELS.get(self.short, self.short.replace("_", " ").capitalize())
        size = " x ".join(f"{n:,}".replace(",", " ") for n in self.shape)
        return f"{loss[0].upper()}{loss[1:]}, {self.dtype}, {size}"

    @property
    def size(self) -> int:
        """Elements of the gradient."""
        return math.prod(self.shape)

    @property
    def unit(self) -> tuple[str, int]:
        """What a time is divided by: its name and how many there are of it in a call."""
        if self.size < _SMALL:
            return "call", 1
        return ("transition", self.shape[0]) if LOSSES[self.loss].kind == "gather" else ("element", self.size)

    @property
    def traffic(self) -> int:
        """Bytes that a call has to move: arrays read once, the gradient written once."""
        a = self.arrays()
        moved = sum(array.nbytes for array in a.values()) + a["x"].nbytes
        if LOSSES[self.loss].kind == "gather":
            # Of x only the actions' values are read; the TD errors are written.
            moved += 2 * self.shape[0] * a["x"].itemsize - a["x"].nbytes
        return moved

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that all contenders read; ``x`` is what the gradient belongs to."""
        return _arrays(self)


@functools.lru_cache(maxsize=1)  # one work at a time: its contenders share the memory
def _arrays(work: Work) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    facts, n = LOSSES[work.loss], work.shape[0]

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32).astype(work.dtype)

    x = 3 * normal(*work.shape)
    if facts.kind == "rows":
        return {"x": x, "y": rng.integers(0, work.shape[1], n)}
    if facts.kind == "softmax":
        if facts.target == "distribution":
            q = np.exp(normal(*work.shape).astype(np.float64))
            return {"x": x, "y": (q / q.sum(axis=1, keepdims=True)).astype(work.dtype)}
        index = rng.integers(0, work.shape[1], n)
        return {"x": x, "y": index, "advantages": normal(n)} if facts.target == "action" else {"x": x, "y": index}
    if facts.kind == "elementwise":
        x = {"unit": 1 / (1 + np.exp(-x)), "above_minus_one": abs(x)}.get(facts.input, x).astype(work.dtype)
        y = rng.integers(0, 2, n).astype(work.dtype) if facts.target in _LABELLED else normal(n)
        y = 2 * y - 1 if facts.target == "sign" else y
        third = {str(facts.third): abs(normal(n)) + 0.125} if facts.needs_third else {}
        positive = facts.target not in (*_LABELLED, "real")
        return {"x": x, "y": abs(y) + 0.125 if positive else y} | third
    # Replayed transitions: padding is masked, the rest weighted by priority.
    mask = rng.random(n) < 0.8
    mask[0] = True  # the mean over nothing is no number to compare
    return {
        "x": x,
        "actions": rng.integers(0, work.shape[1], n),
        "rewards": normal(n),
        "next_q": 3 * normal(*work.shape),
        "terminated": rng.random(n) < 0.1,
        "weight": rng.random(n).astype(work.dtype),
        "mask": mask,
    }


def _works(loss: str, dtype: str, *shapes: tuple[int, ...]) -> tuple[Work, ...]:
    return tuple(Work(loss, dtype, shape) for shape in shapes)


# The rows of README's table.
HEADLINE = (
    *_works("binary_cross_entropy_with_logits", "float32", (1,), (32,), (256,), *((10**k,) for k in range(4, 8))),
    *_works("binary_cross_entropy_with_logits", "float64", (10**6,)),
    *_works("huber_loss", "float32", (32,), (10**6,)),
    *_works("mse_loss", "float32", (32,), (10**6,)),
    *_works("cross_entropy", "float32", (32, 10), (4096, 10), (1024, 1000), (64, 32000), (32, 128256)),
    *_works("cross_entropy", "float64", (1024, 1000)),
    *_works("td_loss", "float32", (32, 4), (65536, 18)),
)

# Every elementwise loss of the registry comes in, so that a new one is timed without a line here.
WORKS = HEADLINE + tuple(
    work
    for facts in LOSSES.values()
    if facts.kind == "elementwise"
    for work in _works(facts.name, "float32", (32,), (10**6,))
    if work not in HEADLINE
)
WORKS += tuple(
    work
    for facts in LOSSES.values()
    if facts.kind in ("rows", "softmax")
    for work in _works(facts.name, "float32", (32, 10), (10**5, 10), (1000, 1000))
    if work not in HEADLINE
)

_MILLION = {
    "elementwise": [(10**6,)],
    "rows": [(10**5, 10), (1000, 1000)],
    "softmax": [(10**5, 10), (1000, 1000)],
    "gather": [(65536, 18)],
}
# Every loss over a million elements.
CATALOGUE = tuple(work for facts in LOSSES.values() for work in _works(facts.name, "float32", *_MILLION[facts.kind]))
