"""What `check` computes: arguments for every loss, and the reference's answer to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import fastloss as fl

from .. import reference
from ..registry import DOMAINS, Loss

# Exact in float32 and different from every default, so that an ignored parameter is noticed.
_LABELS = ("unit", "binary", "sign")
_OTHER_PARAMS = {
    "pos_weight": 2.0,
    "label_smoothing": 0.25,
    "delta": 0.5,
    "beta": 0.5,
    "gamma": 0.75,
    "p": 2,
    "margin": 0.5,
}


@dataclass(frozen=True)
class Case:
    """One loss with all that it is called with.

    Attributes
    ----------
    loss : Loss
        Entry of the registry.
    x : ndarray
        The array that the gradient belongs to.
    others : tuple of ndarray
        The remaining positional arguments.
    params : dict
        Keyword arguments of public function and reference alike.
    tiny_exact : bool
        Whether even tiny results have full relative accuracy; else they count as errors against 1.
    """

    loss: Loss
    x: np.ndarray
    others: tuple[np.ndarray, ...]
    params: dict[str, Any]
    tiny_exact: bool = True

    @property
    def numbers(self) -> tuple[float, ...]:
        """What the loss's formula gets as parameters."""
        names = [p.name for p in self.loss.params]
        return self.loss.parse({k: v for k, v in self.params.items() if k in names and not isinstance(v, np.ndarray)})

    def call(self, backend: str, **common):
        """Call the public function."""
        return getattr(fl, self.loss.name)(self.x, *self.others, **self.params, **common, backend=backend)

    def hess(self, backend: str) -> np.ndarray:
        """Return the Hessian by the public function."""
        # What a loss takes besides prediction and target by place, this takes by name.
        function = getattr(fl, self.loss.name)
        names = list(inspect.signature(function).parameters)[2:]
        more: dict[str, Any] = dict(zip(names, self.others[1:], strict=False))
        with fl.use_backend(backend):
            return fl.grad_hess(function, self.x, self.others[0], **more, **self.params)[1]

    def expected(self) -> tuple[np.ndarray, ...]:
        """Return loss and gradient, and what else the reference gives."""
        with np.errstate(all="ignore"):
            return getattr(reference, self.loss.name)(self.x, *self.others, **self.params)

    def but(self, **changes) -> Case:
        """Return a copy with other arrays or parameters."""
        return replace(self, **changes)

    def with_garbage(self, rows: np.ndarray) -> Case:
        """Return a copy that holds NaN and impossible indices in some rows."""
        x = self.x.copy()
        x[rows] = np.nan
        first = self.others[0].copy()
        first[rows] = np.nan if first.dtype.kind == "f" else 2**30
        return self.but(x=x, others=(first, *self.others[1:]))


def ordinary(loss: Loss, dtype: np.dtype, rows: int) -> list[Case]:
    """Finite arguments, once with the parameters' defaults and once with other ones."""
    rng = np.random.default_rng(7)
    other = {p.name: _OTHER_PARAMS.get(p.name, p.default) for p in loss.params}
    base = _MAKERS[loss.name if loss.kind == "gather" else loss.kind](loss, dtype, rng, rows)
    # Smoothed targets put a zero into the gradient, near which only absolute accuracy is promised.
    changed = base.but(params=base.params | other, tiny_exact=base.tiny_exact and "label_smoothing" not in other)
    if loss.kind == "gather":
        return [base, *(changed.but(params=changed.params | extra) for extra in _td_variants(base, rng))]
    return [base, changed]


def _elementwise(loss: Loss, dtype: np.dtype, rng: np.random.Generator, rows: int) -> Case:
    # From ordinary sizes up to where float32 exponentials turn subnormal.
    x = (rng.standard_normal(rows) * rng.choice([1.0, 8.0, 40.0], rows)).astype(dtype)
    if loss.input != "real":
        x = (rng.random(rows) * (1 - 2.0**-8) + 2.0**-9).astype(dtype)
    y = rng.integers(0, 2, rows) if loss.target in _LABELS else rng.standard_normal(rows) * 4
    y = np.abs(y) + 2.0**-6 if loss.target not in (*_LABELS, "real") else y
    params: dict[str, Any] = {p.name: p.default for p in loss.params}
    if loss.needs_third:
        params[str(loss.third)] = (rng.random(rows) * 4 + 2.0**-6).astype(dtype)
    # Terms of a sum may cancel, and a power of a probability costs the reference digits.
    plain = loss.sums is None and loss.name != "sigmoid_focal_loss"
    return Case(loss, x, (y.astype(dtype),), params, plain)


def _rows(loss: Loss, dtype: np.dtype, rng: np.random.Generator, rows: int) -> Case:
    classes = 37
    x = rng.standard_normal((rows, classes)) * rng.choice([1.0, 8.0], (rows, 1)) + rng.choice([0.0, 1e4], (rows, 1))
    target = rng.integers(0, classes, rows)
    # Every third row is confident: its loss is as small as exp(-20).
    x[np.arange(0, rows, 3), target[::3]] = x[::3].max(axis=1) + 20.0
    # On this grid x - max is exact, so that the float64 reference adds no error of its own to speak of.
    x = np.round(x * 64) / 64
    return Case(loss, x.astype(dtype), (target,), {p.name: p.default for p in loss.params})


def _softmax(loss: Loss, dtype: np.dtype, rng: np.random.Generator, rows: int) -> Case:
    classes = 37
    x = np.round(rng.standard_normal((rows, classes)) * rng.choice([1.0, 8.0], (rows, 1)) * 64) / 64
    others: tuple[np.ndarray, ...] = (rng.integers(0, classes, rows),)
    if loss.target == "action":
        others = (*others, (rng.integers(-256, 257, rows) / 64).astype(dtype))
    if loss.target == "distribution":
        odds = rng.random((rows, classes)) + 2.0**-6
        others = ((odds / odds.sum(axis=1, keepdims=True)).astype(dtype),)
    # Sums over the classes, whose terms cancel.
    return Case(loss, x.astype(dtype), others, {p.name: p.default for p in loss.params}, False)


def _td(loss: Loss, dtype: np.dtype, rng: np.random.Generator, rows: int) -> Case:
    actions = 6

    # On this grid the TD error is exact: rounding before a cancellation would drown what is tested.
    def values(*shape: int) -> np.ndarray:
        return (rng.integers(-256, 257, shape) / 64).astype(dtype)

    others = (rng.integers(0, actions, rows), values(rows), values(rows, actions), rng.random(rows) < 0.2)
    return Case(loss, values(rows, actions), others, {"gamma": 0.5, "delta": 1.0})


def _td_variants(case: Case, rng: np.random.Generator) -> list[dict[str, Any]]:
    legal = rng.random(case.x.shape) < 0.5
    legal[::10] = False
    online = rng.permuted(case.x, axis=1)
    arrays = {"next_q_online": online, "next_action_mask": legal}
    return [{"loss": form, **arrays} for form in ("huber", "mse", "smooth_l1")]


_MAKERS: dict[str, Callable[..., Case]] = {
    "elementwise": _elementwise,
    "rows": _rows,
    "softmax": _softmax,
    "td_loss": _td,
}


def special(loss: Loss, dtype: np.dtype) -> Case:
    """Infinities, NaN, subnormal and huge numbers, in all pairs where there are two arrays."""
    limits = np.finfo(dtype)
    sizes = [0.0, limits.smallest_subnormal, limits.tiny, 0.5, 1.0, 17.0, 90.0, 104.0, 750.0, limits.max, np.inf]
    values = np.array([*sizes, *(-v for v in sizes), np.nan], dtype)
    params: dict[str, Any] = {p.name: p.default for p in loss.params}
    if loss.kind == "elementwise":
        targets = values if loss.target == "real" else np.array([0, 1], dtype)
        predictions = values[DOMAINS[loss.input].valid(values)]
        x, y = (a.ravel() for a in np.meshgrid(predictions, targets[DOMAINS[loss.target].valid(targets)]))
        with np.errstate(over="ignore", invalid="ignore"):  # whose difference overflows is not promised to be right
            fine = np.isfinite(x - y) | ~np.isfinite(x) | ~np.isfinite(y)
        x, y = x[fine], y[fine]
        if loss.needs_third:
            params[str(loss.third)] = np.full_like(x, 0.5)
        return Case(loss, x, (y,), params, loss.sums is None and loss.name != "sigmoid_focal_loss")
    if loss.kind in ("rows", "softmax"):
        # One special logit beside ordinary ones, and either of them right.
        x = np.tile(np.array([0.0, 0.75, -1.5], dtype), (2 * len(values), 1))
        x[:, 0] = np.repeat(values, 2)
        others: tuple[np.ndarray, ...] = (np.tile([0, 1], len(values)),)
        if loss.target == "distribution":
            others = (np.eye(3, dtype=dtype)[others[0]],)
        if loss.target == "action":
            others = (*others, np.ones(len(x), dtype))
        return Case(loss, x, others, params, loss.kind == "rows")
    return _special_td(loss, dtype, values)


def _special_td(loss: Loss, dtype: np.dtype, values: np.ndarray) -> Case:
    # Every value as the action's value, as another action's, as an illegal one, and behind the end of an episode.
    n = len(values)
    q, next_q = np.ones((4 * n, 3), dtype), np.ones((4 * n, 3), dtype)
    legal, terminated = np.ones(q.shape, bool), np.zeros(4 * n, bool)
    q[:n, 0] = q[n : 2 * n, 1] = next_q[2 * n : 3 * n, 2] = values
    legal[2 * n : 3 * n, 2] = False
    next_q[3 * n :], terminated[3 * n :] = values[:, None], True
    others = (np.zeros(4 * n, int), np.ones(4 * n, dtype), next_q, terminated)
    return Case(loss, q, others, {"gamma": 0.5, "delta": 1.0, "next_action_mask": legal})
