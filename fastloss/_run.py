"""From checked arrays to results: divisors, outputs, threads, sums, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastloss import _dispatch, _memory, _threads, _validate
from fastloss._blocks import SQUARES, block_rows, blocks_of, exact_sum
from fastloss._results import GradHess, LossGrad, TDLossGrad
from fastloss.registry import LOSSES, Loss


def count_kept(mask: np.ndarray | None, n: int) -> int:
    if mask is None:
        return n
    return int(np.count_nonzero(mask)) * (n // mask.size) if mask.size else 0


def _kept_weight(reduction: str, weight: np.ndarray | None, mask: np.ndarray | None, n: int) -> float:
    """Number of kept entries, or the sum of their weights, each run of entries counted in full."""
    if reduction != "weighted_mean" or weight is None or n == 0:
        return count_kept(mask, n)
    if mask is None:
        return float(np.sum(weight, dtype=np.float64)) * (n // weight.size)
    size = max(weight.size, mask.size)
    weight, mask = np.repeat(weight, size // weight.size), np.repeat(mask, size // mask.size)
    return float(np.sum(weight, where=mask, dtype=np.float64)) * (n // size)


def _divisor(reduction: str, normalizer: Any, counted: Callable[[], float]) -> float:
    if reduction in ("sum", "none"):
        return 1.0
    return float(counted() if normalizer is None else normalizer)


_MODERATE = 2.0**60  # weights whose sum is within this and its inverse, and all that is made of them, stay in range


def weighing(
    reduction: str, normalizer: Any, weight: np.ndarray | None, counted: Callable[[np.ndarray | None], float]
) -> tuple[np.ndarray | None, float]:
    """Weights and divisor of a mean; of a weighted one both may be smaller or larger by a power of two."""
    if reduction != "weighted_mean" or normalizer is not None or weight is None or not weight.size:
        return weight, _divisor(reduction, normalizer, lambda: counted(weight))
    with np.errstate(over="ignore", invalid="ignore"):
        divisor = counted(weight)
        if divisor == divisor != 0.0 and not 1.0 / _MODERATE < abs(divisor) < _MODERATE:
            # By the sum, of kept weights alone, unless that has left float64's range.
            shift = math.frexp(divisor)[1] if math.isfinite(divisor) else _exponent(weight)
            weight = np.ldexp(weight.astype(np.float64), -shift)
            divisor = counted(weight)
    return weight, divisor


def _exponent(values: np.ndarray) -> int:
    """The power of two above the largest finite number, 0 if there is none but 0."""
    sizes = np.abs(values.astype(np.float64))
    return int(np.frexp(sizes.max(initial=0.0, where=np.isfinite(sizes)))[1])


def _scale(divisor: float) -> float:
    return 1.0 / divisor if divisor != 0.0 else 0.0


def _quotient(total: float, divisor: float) -> float:
    return total / divisor if divisor != 0.0 else math.nan


class Recorded(str):
    """A reduction that keeps the partial sums of its call, so that those of several calls can be added (`LossSum`)."""

    partials: np.ndarray


class Buffers:
    """The arrays a call writes: losses per entry, gradient, partial sums."""

    def __init__(
        self, x: np.ndarray, shape: tuple[int, ...], reduction: str, grad: bool, out: Any, readers: dict
    ) -> None:
        self.losses = np.empty(shape, x.dtype) if reduction == "none" else None
        self.out = out
        self.beside = False  # whether the gradient is computed beside out and copied
        self.grad: np.ndarray | None = None
        if out is not None:
            if not grad:
                raise ValueError("out receives the gradient, but grad=False")
            _validate.output(out, x, readers)
            self.beside = not (out.flags.c_contiguous and out.flags.aligned)
            self.grad = _memory.empty(x.shape, x.dtype) if self.beside else out.view(np.ndarray)
        elif grad:
            self.grad = _memory.empty(x.shape, x.dtype)

    def flat(self, array: np.ndarray | None, shape: tuple[int, ...] = (-1,)) -> np.ndarray | None:
        return None if array is None else array.reshape(shape)

    def finish(
        self, partials: np.ndarray, divisor: float, reduction: str
    ) -> tuple[float | np.ndarray, np.ndarray | None]:
        """Loss and gradient as the caller gets them."""
        if isinstance(reduction, Recorded):
            reduction.partials = partials
        grad = self.grad
        if grad is not None:
            if divisor == 0.0:
                grad.fill(0)  # the gradient of a mean over nothing
            if self.beside:
                self.out[...] = grad
            if self.out is not None:
                grad = self.out
        if self.losses is not None:
            return self.losses, grad
        total = exact_sum(partials)
        return (total if reduction == "sum" else _quotient(total, divisor)), grad


def elementwise(
    facts: Loss, input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend,
    third=None, want_third=False, factor=1.0, squared=False,
) -> Any:  # fmt: skip
    """Any elementwise loss.

    With ``want_third`` the gradient by the third array comes last; ``factor`` is one of the gradient alone. What is
    reduced are losses, or with ``squared`` their squares, without a gradient.
    """
    engine = _dispatch.engine(backend)
    if engine.plain_elementwise:
        plain = engine.plain_elementwise(
            facts, input, target, third, params, sample_weight, mask, reduction, normalizer, factor, grad, want_third,
            out, n_threads, squared,
        )  # fmt: skip
        if plain is not None:
            return plain
    if third is None and facts.needs_third:
        raise TypeError(f"{facts.third} must be an array, got None")
    _validate.reduction(reduction, normalizer)
    grad = _validate.switch("grad", grad)
    x, y, z, weight, kept = _entries(facts, params, input, target, third, sample_weight, mask)
    readers = {"input": input, "target": target, facts.third: third, "sample_weight": sample_weight, "mask": mask}
    buffers = Buffers(x, x.shape, reduction, grad, out, readers)
    third_grad = np.empty(x.shape, x.dtype) if grad and want_third else None
    weight, divisor = weighing(reduction, normalizer, weight, lambda w: _kept_weight(reduction, w, kept, x.size))
    if out is not None and np.may_share_memory(out, x):
        _validate.check_domains(facts, x, y, z, kept)  # before the input is overwritten
    partials = np.empty(blocks_of(x.size))
    threads = _threads.choose(n_threads, x.size, engine.GRAIN * facts.grains)
    bad = engine.elementwise(
        facts.name, SQUARES if squared else int(bool(grad)), x.reshape(-1), y.reshape(-1), z, params, weight, kept,
        factor * _scale(divisor), buffers.flat(buffers.losses), buffers.flat(buffers.grad),
        buffers.flat(third_grad), partials, threads,
    )  # fmt: skip
    if bad:
        _validate.check_domains(facts, x, y, z, kept)
        raise ValueError("an argument was changed by another thread during the call")
    found = LossGrad(*buffers.finish(partials, divisor, reduction))
    if third_grad is not None and divisor == 0.0:
        third_grad.fill(0)
    return (*found, third_grad) if want_third else found


def _entries(facts: Loss, params, input, target, third, sample_weight, mask):
    """What an elementwise loss reads, checked; the third array flat."""
    x = _validate.floats("input", input)
    facts.fit(params, x.dtype)
    y = _validate.element_target(target, x)
    z = None if third is None else _validate.third(facts.third, third, x, facts.needs_third)
    return x, y, z, _validate.sample_weight(sample_weight, x.shape), _validate.mask(mask, x.shape)


def squared_error(
    input, target, *, sample_weight=None, mask=None, reduction="mean", normalizer=None, out=None, grad=False,
    n_threads=None, backend=None,
) -> LossGrad:  # fmt: skip
    """The squared error without a gradient, of squares in float64."""
    return elementwise(
        LOSSES["l1_loss"], input, target, (), sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend,
        squared=True,
    )  # fmt: skip


def root_mean_square(input, target, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend):
    """Root of a mean of squares; its gradient is that of the mean's half over the root, 0 where that is 0."""
    if not isinstance(reduction, str) or reduction not in ("mean", "weighted_mean"):
        raise ValueError(f"reduction must be 'mean' or 'weighted_mean', got {reduction!r}")
    common = (input, target, (), sample_weight, mask, reduction, normalizer)
    squares = squared_error(
        input, target, sample_weight=sample_weight, mask=mask, reduction=reduction, normalizer=normalizer,
        out=None if grad else out, n_threads=n_threads, backend=backend,
    ).loss  # fmt: skip
    moderate = normalizer is None or 1.0 / _MODERATE < normalizer < _MODERATE
    if squares == squares and not (moderate and 2.0**-600 < squares < 2.0**600):
        return _scaled_root(*common, grad, out, n_threads, backend)
    root = math.sqrt(squares)
    if not grad:
        return LossGrad(root, None)
    # Residuals may be as large as float32's numbers, and so may not be doubled.
    half = elementwise(LOSSES["half_squared_error"], *common, True, out, n_threads, backend, factor=1.0 / root)
    return LossGrad(root, half.grad)


@np.errstate(all="ignore")
def _scaled_root(
    input, target, params, sample_weight, mask, reduction, normalizer, grad, out, n_threads, backend
) -> LossGrad:
    """The same where squares, sums or divisors may leave float64's range: residuals and weights times powers of two."""
    engine, facts = _dispatch.engine(backend), LOSSES["half_squared_error"]
    x, y, _, weight, kept = _entries(facts, params, input, target, None, sample_weight, mask)
    readers = {"input": input, "target": target, "sample_weight": sample_weight, "mask": mask}
    buffers = Buffers(x, x.shape, reduction, bool(grad), out, readers)
    weight, divisor = weighing(reduction, normalizer, weight, lambda w: _kept_weight(reduction, w, kept, x.size))
    residuals = np.subtract(x, y, dtype=np.float64) if x.dtype.kind == "f" else x.astype(np.float64) - y
    residuals = residuals.reshape(-1)
    if weight is not None:
        weight = np.repeat(weight.astype(np.float64), x.size // max(1, weight.size))
    if kept is not None:
        left = np.repeat(~kept, x.size // max(1, kept.size))
        residuals[left] = 0.0
        if weight is not None:
            weight[left] = 0.0
    shift, heavy = _exponent(residuals), 0 if weight is None else _exponent(weight)
    residuals = np.ldexp(residuals, -shift)
    weight = None if weight is None else np.ldexp(weight, -heavy)
    partials, slopes = np.empty(blocks_of(x.size)), np.empty(x.size)
    common, nothing = (residuals, np.zeros(x.size), None, (), weight, kept), (None, None, None)
    engine.elementwise("l1_loss", SQUARES, *common, 1.0, *nothing, partials, 1)
    # The mean is square 2^power, its root the root of square 2^(power % 2), times 2^(power // 2).
    share, below = math.frexp(divisor)
    power = 2 * shift + heavy - below
    square = _quotient(exact_sum(partials), share) * 2.0 ** (power % 2)
    if square < 0.0:
        mean = float(np.ldexp(square, power - power % 2))
        raise ValueError(f"sample_weight must not make the mean of squares negative, got a mean of {mean}")
    root = math.sqrt(square)
    if buffers.grad is not None:
        scale = float(np.ldexp(1.0 / (share * root), power - power // 2 - shift)) if root != 0.0 and share else 0.0
        engine.elementwise(facts.name, 1, *common, scale, None, slopes, None, partials, 1)
        buffers.grad[...] = slopes.reshape(x.shape)
    return LossGrad(float(np.ldexp(root, power // 2)), buffers.finish(partials, divisor, "sum")[1])


def per_label(name: str | None, value, input, mask, backend) -> np.ndarray:
    """Positive factors, one per element or per label on the last axis, as the backend takes them."""
    return _validate.per_label(name, value, input, mask, _dispatch.engine(backend).name != "numpy")


def ignoring(target, ignore_index, mask):
    """A mask that leaves out the targets of a value, for targets of an integer type."""
    ignored = _validate.integer("ignore_index", ignore_index)
    labels = np.asarray(target)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"target must be of an integer type if ignore_index is given, got {labels.dtype}")
    kept = labels != ignored
    return kept if mask is None else kept & spread(mask, kept.shape)


def spread(mask, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of leading dimensions, for every entry."""
    flat = _validate.mask(mask, shape)
    assert flat is not None
    return np.repeat(flat, math.prod(shape) // max(1, flat.size)).reshape(shape)


def grad_hess(facts: Loss, input, target, params, sample_weight, mask, n_threads, backend, third=None) -> GradHess:
    """Per-element derivatives of any elementwise loss."""
    engine = _dispatch.engine(backend)
    x, y, z, weight, kept = _entries(facts, params, input, target, third, sample_weight, mask)
    grad, hess = _memory.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    threads = _threads.choose(n_threads, x.size, engine.GRAIN * facts.grains)
    bad = engine.elementwise(
        facts.name, 2, x.reshape(-1), y.reshape(-1), z, params, weight, kept, 1.0, None, grad.reshape(-1),
        hess.reshape(-1), np.empty(blocks_of(x.size)), threads,
    )  # fmt: skip
    if bad:
        _validate.check_domains(facts, x, y, z, kept)
        raise ValueError("an argument was changed by another thread during the call")
    return GradHess(grad, hess)


def rows(
    facts: Loss, input, target, params, weight, ignore_index, sample_weight, mask, reduction, normalizer, grad, out,
    n_threads, backend,
) -> LossGrad:  # fmt: skip
    """Any loss of rows of classes with class indices."""
    engine = _dispatch.engine(backend)
    if engine.plain_rows:
        plain = engine.plain_rows(
            facts, input, target, params, weight, ignore_index, sample_weight, mask, reduction, normalizer, grad, out,
            n_threads,
        )  # fmt: skip
        if plain is not None:
            return plain
    ignore = _validate.integer("ignore_index", ignore_index)
    _validate.reduction(reduction, normalizer)
    grad = _validate.switch("grad", grad)
    x = _validate.floats("input", input)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"input must have at least one class on its last axis, got shape {x.shape}")
    shape, classes = x.shape[:-1], x.shape[-1]
    t = _validate.indices("target", target, shape, "input's leading shape").reshape(-1)
    class_weight = _validate.class_weight(weight, classes)
    row_weight, kept = _validate.sample_weight(sample_weight, shape), _validate.mask(mask, shape)
    readers = {"input": input, "target": target, "weight": weight, "sample_weight": sample_weight, "mask": mask}
    buffers = Buffers(x, shape, reduction, grad, out, readers)
    # Counts kept rows and checks targets before anything is written.
    counting, bad = class_weight if facts.class_weighted_mean else None, False

    def counted(weight):
        nonlocal bad
        weighted = weight if reduction == "weighted_mean" else None
        sums, bad = engine.target_weight(t, classes, counting, ignore, weighted, kept)
        return exact_sum(sums)

    if normalizer is not None or reduction in ("sum", "none"):
        counted(None)
    row_weight, divisor = weighing(reduction, normalizer, row_weight, counted)
    partials = np.empty(blocks_of(t.size, block_rows(classes)))
    threads = _threads.choose(n_threads, x.size, engine.GRAIN)
    bad = bad or engine.rows(
        facts.name, x.reshape(-1, classes), t, params, class_weight, ignore, row_weight, kept, _scale(divisor),
        buffers.flat(buffers.losses), buffers.flat(buffers.grad, (-1, classes)), partials, threads,
    )  # fmt: skip
    if bad:
        _validate.check_indices("target", t, classes, ignore, kept, shape)
        raise IndexError("target was changed by another thread during the call")
    return LossGrad(*buffers.finish(partials, divisor, reduction))


def td_loss(
    q, actions, rewards, next_q, terminated, gamma, next_q_online, next_action_mask, loss, delta, sample_weight,
    mask, reduction, normalizer, grad, out, n_threads, backend,
) -> TDLossGrad:  # fmt: skip
    """Temporal-difference loss of Q-learning."""
    engine = _dispatch.engine(backend)
    if engine.plain_td_loss:
        plain = engine.plain_td_loss(
            q, actions, rewards, next_q, terminated, gamma, next_q_online, next_action_mask, loss, delta,
            sample_weight, mask, reduction, normalizer, grad, out, n_threads,
        )  # fmt: skip
        if plain is not None:
            return plain
    _validate.reduction(reduction, normalizer)
    grad = _validate.switch("grad", grad)
    x = _validate.floats("q", q)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"q must have at least one action on its last axis, got shape {x.shape}")
    shape, count = x.shape[:-1], x.shape[-1]
    a = _validate.indices("actions", actions, shape, "q's leading shape").reshape(-1)
    r = _validate.floats("rewards", rewards)
    _validate.same_shape("rewards", r.shape, shape, "q's leading shape")
    if r.dtype != x.dtype:
        raise TypeError(f"rewards must have q's dtype {x.dtype}, got {r.dtype}")
    values = _validate.same_floats("next_q", next_q, x, "q")
    ended = _validate.flags("terminated", terminated, shape, "q's leading shape").reshape(-1)
    online = None if next_q_online is None else _validate.same_floats("next_q_online", next_q_online, x, "q")
    legal = (
        None
        if next_action_mask is None
        else _validate.flags("next_action_mask", next_action_mask, x.shape, "q's shape")
    )
    weight, kept = _validate.sample_weight(sample_weight, shape), _validate.mask(mask, shape)
    readers = {
        "q": q, "actions": actions, "rewards": rewards, "next_q": next_q, "terminated": terminated,
        "next_q_online": next_q_online, "next_action_mask": next_action_mask, "sample_weight": sample_weight,
        "mask": mask,
    }  # fmt: skip
    buffers = Buffers(x, shape, reduction, grad, out, readers)
    weight, divisor = weighing(reduction, normalizer, weight, lambda w: _kept_weight(reduction, w, kept, a.size))
    if out is not None and np.may_share_memory(out, x):
        _validate.check_indices("actions", a, count, None, kept, shape)  # before q is overwritten
    td_error = np.empty(shape, x.dtype)
    partials = np.empty(blocks_of(a.size, block_rows(count)))
    threads = _threads.choose(n_threads, x.size, engine.GRAIN)
    rows = (-1, count)
    bad = engine.td_loss(
        x.reshape(rows), a, r.reshape(-1), values.reshape(rows), ended, gamma, buffers.flat(online, rows),
        buffers.flat(legal, rows), loss, delta, weight, kept, _scale(divisor), buffers.flat(buffers.losses),
        buffers.flat(buffers.grad, rows), td_error.reshape(-1), partials, threads,
    )  # fmt: skip
    if bad:
        _validate.check_indices("actions", a, count, None, kept, shape)
        raise IndexError("actions was changed by another thread during the call")
    return TDLossGrad(*buffers.finish(partials, divisor, reduction), td_error)
