"""From arrays to results for softmax losses that have more per row than an index: ``_run.py`` for these."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastloss import _dispatch, _run, _threads, _validate
from fastloss._blocks import block_rows, blocks_of, exact_sum
from fastloss._how import PROBS, How
from fastloss._results import LossGrad
from fastloss.registry import LOSSES, Param, fit_float32, non_negative, positive

EITHER, INDICES, SHARES = "indices or a value per class", "indices", "a value per class"  # what a target may hold


_CROSS_ENTROPY = LOSSES["cross_entropy"]
_Z_LOSS, _SOFTCAP, _TEMPERATURE = non_negative("z_loss", 0.0), positive("softcap", 1.0), positive("temperature", 1.0)


def is_soft(target: Any) -> bool:
    """Whether a target holds a value per class: it is of a floating type (an empty list, which has none, does not)."""
    array = target if isinstance(target, np.ndarray) else _validate.plain("target", target)
    if array.dtype.kind in "iu" or not _validate.is_float(array.dtype):
        return False
    return array.size > 0 or not isinstance(target, (list, tuple))


def how(
    label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None, temperature: float = 1.0
) -> How:
    """Cross-entropy with the options of language models."""
    cap, (smoothing,) = 0.0 if softcap is None else _number(_SOFTCAP, softcap), _CROSS_ENTROPY.check(label_smoothing)
    return How(
        smoothing=smoothing, z_loss=_number(_Z_LOSS, z_loss), softcap=cap,
        temperature=_number(_TEMPERATURE, temperature),
    )  # fmt: skip


def _number(param: Param, value: Any) -> float:
    """An option's number, within float32's range like every parameter of a loss of rows."""
    (number,) = param(value)
    if number != param.default:
        fit_float32(param.name, number)
    return number


class Extras(NamedTuple):
    """What a row has besides its loss."""

    lse: np.ndarray
    entropy: np.ndarray
    top: np.ndarray


def run(
    input, target, how: How, weight, ignore_index, class_mask, factor, sample_weight, mask, reduction, normalizer, grad,
    out, n_threads, backend, *, takes=EITHER, by_count=False, want_extras=False, hess=None, name="input",
    target_name="target", mask_name="class_mask",
) -> tuple[LossGrad, Extras | None]:  # fmt: skip
    """Any softmax loss; ``by_count``: a mean divides by the number of rows in spite of class weights.

    ``hess`` is None or an array of the input's shape and dtype for the second derivatives.
    """
    engine = _dispatch.engine(backend)
    missing = factor is not None and factor[1] is None  # for the general way to complain of
    if engine.plain_softmax and hess is None and not want_extras and not missing:
        plain = engine.plain_softmax(
            input, target, how, weight, ignore_index, class_mask, None if factor is None else factor[1], sample_weight,
            mask, reduction, normalizer, grad, out, n_threads, takes != SHARES, takes != INDICES,
        )  # fmt: skip
        if plain is not None:
            return plain, None
    if ignore_index is not None:
        ignore_index = _validate.integer("ignore_index", ignore_index)
    # Where nothing is ignored a value stands in that is out of range itself.
    ignore = -(2**63) if ignore_index is None else ignore_index
    _validate.reduction(reduction, normalizer)
    grad = _validate.switch("grad", grad)
    x = _validate.floats(name, input)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one class on its last axis, got shape {x.shape}")
    shape, classes = x.shape[:-1], x.shape[-1]
    rows = (-1, classes) if x.size else (int(np.prod(shape)), classes)
    soft = takes == SHARES or (takes == EITHER and is_soft(target))
    shares = _validate.same_floats(target_name, target, x, name).reshape(rows) if soft else None
    t = None if soft else _validate.indices(target_name, target, shape, f"{name}'s leading shape").reshape(-1)
    if ignore_index is None and t is not None and t.dtype == np.int64 and (t == ignore).any():
        kept = _validate.mask(mask, shape)
        _validate.check_indices(target_name, t, classes, None, kept, shape)
    class_weight = _validate.class_weight(weight, classes)
    legal = None
    if class_mask is not None:
        common = np.ndim(class_mask) == 1 and x.ndim > 1
        legal = _validate.flags(
            mask_name, class_mask, (classes,) if common else x.shape, f"{name}'s last axis or shape"
        )
    label = "factor"
    if factor is not None:
        label, given = factor
        factor = _validate.floats(label, given)
        _validate.same_shape(label, factor.shape, shape, f"{name}'s leading shape")
        if factor.dtype != x.dtype:
            raise TypeError(f"{label} must have {name}'s dtype {x.dtype}, got {factor.dtype}")
        factor = factor.reshape(-1)
    row_weight, kept = _validate.sample_weight(sample_weight, shape), _validate.mask(mask, shape)
    readers = {name: input, target_name: target, "weight": weight, "sample_weight": sample_weight, "mask": mask}
    readers |= {mask_name: class_mask, label: factor}
    buffers = _run.Buffers(x, shape, reduction, grad, out, readers)
    n = int(np.prod(shape))
    if t is None:
        if out is not None and np.may_share_memory(out, x):
            _check_probabilities(how, name, x, target_name, shares, kept)  # before the input is overwritten

        def counted(weight):
            return _run._kept_weight(reduction, weight, kept, n)
    else:

        def counted(weight):
            weighted, counting = weight if reduction == "weighted_mean" else None, None if by_count else class_weight
            sums, bad = engine.target_weight(t, classes, counting, ignore, weighted, kept)
            if bad:
                _validate.check_indices(target_name, t, classes, ignore, kept, shape)
            return exact_sum(sums)

        if normalizer is not None or reduction in ("sum", "none"):
            counted(None)  # targets are checked all the same, before anything is written
    row_weight, divisor = _run.weighing(reduction, normalizer, row_weight, counted)
    extras = Extras(np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty(n, np.int64)) if want_extras else None
    partials = np.empty(blocks_of(n, block_rows(classes)))
    bad = engine.softmax(
        x.reshape(rows), t, shares, how, class_weight, ignore, legal, factor, row_weight, kept, _run._scale(divisor),
        buffers.flat(buffers.losses), buffers.flat(buffers.grad, rows), *(extras or (None, None, None)),
        None if hess is None else hess.reshape(rows), partials, _threads.choose(n_threads, x.size, engine.GRAIN),
    )  # fmt: skip
    if bad:
        if t is None:
            _check_probabilities(how, name, x, target_name, shares, kept)
        raise ValueError(f"{target_name} was changed by another thread during the call")
    return LossGrad(*buffers.finish(partials, divisor, reduction)), extras


def _check_probabilities(how: How, name: str, x, target_name: str, shares, kept) -> None:
    """Raise for the first probability of a kept row that is none: of the target, else of the prediction."""
    if how.kind == PROBS:
        _validate.check_unit(target_name, shares, kept, x.shape)
    if how.input_kind == PROBS:
        _validate.check_unit(name, np.where(np.isnan(x), 0.0, x), kept, x.shape)  # NaN propagates
