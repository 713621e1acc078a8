"""A loss over more data than fits into memory: chunk after chunk, with the bits of a single call."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import fastloss
from fastloss import _dispatch, _run
from fastloss._blocks import BLOCK, block_rows
from fastloss._exact import ExactSum
from fastloss.registry import LOSSES

_OVERLAPS = ("dice_loss", "tversky_loss")  # a value for each pair of the first two axes
_ROOTS = {"rmse_loss": "mse_loss"}  # roots of means of other losses
NAMES = (*LOSSES, *_ROOTS, *_OVERLAPS)  # what can be summed
_TWO = {"input", "target"}
_COMMON = {"sample_weight", "mask", "reduction", "normalizer", "grad", "out", "n_threads", "backend"}


def own_parameters(name: str) -> dict[str, Any]:
    """Keywords that are a loss's own, with their defaults."""
    signature = inspect.signature(getattr(fastloss, name)).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY and p.name not in _COMMON}


@functools.cache
def array_names(name: str) -> tuple[str, ...]:
    """What a loss takes by place: prediction, target, and what else it must have of each row."""
    signature = inspect.signature(getattr(fastloss, name)).parameters.values()
    return tuple(p.name for p in signature if p.kind is not p.KEYWORD_ONLY)


def entries_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a loss that is not reduced."""
    if name in _OVERLAPS:
        return shape[:2]
    return shape[:-1] if name in LOSSES and LOSSES[name].kind != "elementwise" else shape


class LossSum:
    """Sum and mean of a loss over chunks of rows, with the bits of a single call.

    Chunks that fill whole blocks may come in any order, and sums over some of them each, from any number of processes
    (sums can be pickled), can be merged in any order. Chunks of any other size follow each other as the rows do.

    Parameters
    ----------
    loss : str
        Name of a loss, such as ``"cross_entropy"``.
    input_shape : tuple of int
        Shape of all the data; chunks are taken along the first axis.
    reduction : {"mean", "weighted_mean"}, default "mean"
        What :attr:`mean` divides by, as in the losses.
    backend, n_threads
        As in the losses.
    **params
        The loss's own parameters, the same for all chunks. `nmae_loss` takes a number as ``norm``: no chunk has all
        targets.

    Attributes
    ----------
    granularity : int
        A multiple of this many rows fills whole blocks of partial sums. Sums that are to be merged must consist of
        such chunks, except for the one with the last rows; else chunks of any size may follow each other.

    Raises
    ------
    TypeError, ValueError
        For an unknown loss or parameter, or a shape without rows.

    Notes
    -----
    The total has the bits of ``reduction="sum"``, and so has the mean those of a single call's where the divisor is a
    number of entries. Sums of weights and of class weights are correctly rounded here, while a single call's may
    differ in the last digit. `rmse_loss` is the root of a sum of squares, which must lie within float64's range: its
    residuals from 1e-150 to 1e150.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> x = np.ones((10_000, 2), np.float32)
    >>> first, second = fl.LossSum("mse_loss", x.shape), fl.LossSum("mse_loss", x.shape)
    >>> first.update(x[:4096], 0 * x[:4096])
    >>> second.update(x[4096:], 0 * x[4096:])
    >>> second.merge(first)
    >>> second.total, second.mean
    (20000.0, 1.0)
    """

    def __init__(
        self,
        loss: str,
        /,  # td_loss has a parameter of that name
        input_shape: Sequence[int],
        *,
        reduction: str = "mean",
        backend: str | None = None,
        n_threads: int | None = None,
        **params: Any,
    ) -> None:
        # A short alias is the same function under another name.
        name = getattr(getattr(fastloss, loss, None), "__name__", None) if isinstance(loss, str) else None
        if name not in NAMES:
            raise ValueError(f"loss must be one of {', '.join(NAMES)}, got {loss!r}")
        if not isinstance(reduction, str) or reduction not in ("mean", "weighted_mean"):
            raise ValueError(f"reduction must be 'mean' or 'weighted_mean', got {reduction!r}")
        self.loss = name
        # By name: modules and the registry's entries cannot be pickled.
        self._backend, self._n_threads = _dispatch.engine(backend).__name__.rpartition("_")[2], n_threads
        self._reduction, self._shape = reduction, _shape(input_shape)
        self.granularity = self._granularity()
        self._params = self._check_params(params)
        self._total, self._weight = ExactSum(), ExactSum()
        self._rows, self._count, self._ended = 0, 0, False
        # Entries behind the last whole block, and what they come to if none follow.
        self._tail: dict[str, np.ndarray] = {}
        self._tail_sum = np.empty(0)

    def _granularity(self) -> int:
        """Rows that fill whole blocks of partial sums."""
        shape, block = self._shape, BLOCK
        if self.loss in _OVERLAPS:
            if len(shape) < 2:
                raise ValueError(f"input_shape must have samples and classes on its first two axes, got {shape}")
            return 1
        if self._facts.kind != "elementwise":
            if len(shape) < 2 or shape[-1] == 0:
                raise ValueError(f"input_shape must have rows of at least one class, got {shape}")
            block, shape = block_rows(shape[-1]), shape[:-1]
        self._block, entries = block, math.prod(shape[1:])
        return block // math.gcd(block, entries) if entries else 1

    def _check_params(self, given: dict[str, Any]) -> dict[str, Any]:
        known = own_parameters(self.loss)
        unknown = given.keys() - known.keys()
        if unknown:
            raise TypeError(f"{self.loss}() got an unexpected keyword argument {min(unknown)!r}")
        params = known | given
        if isinstance(params.get("norm"), str):
            raise ValueError(f"norm must be a number, got {params['norm']!r}: no chunk has all targets")
        if len(array_names(self.loss)) == 2:  # the loss itself judges them, over no rows
            x = np.empty((0, *self._shape[1:]), np.float64)
            distribution = self.loss in LOSSES and self._facts.target == "distribution"
            y = x if distribution else np.empty((0, *entries_shape(self.loss, x.shape)[1:]), np.int64)
            y = np.empty(x.shape, np.int64) if self.loss in _OVERLAPS else y
            self._function(x, y, grad=False, backend="numpy", **params)
        return params

    @property
    def _facts(self):
        return LOSSES[_ROOTS.get(self.loss, self.loss)]

    @property
    def _function(self) -> Callable[..., Any]:
        return _run.squared_error if self.loss in _ROOTS else getattr(fastloss, self.loss)

    def update(
        self,
        input: ArrayLike,
        target: ArrayLike,
        sample_weight: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        **arrays: Any,
    ) -> None:
        """Add a chunk of rows.

        Parameters
        ----------
        input, target, sample_weight, mask
            As in the loss; indices in error messages count from the chunk's start.
        **arrays
            What else the loss takes of each row or element, such as ``var`` of `gaussian_nll_loss`.
        """
        name, shape = array_names(self.loss)[0], np.shape(input)
        if len(shape) != len(self._shape) or shape[1:] != self._shape[1:]:
            raise ValueError(f"{name} must be rows of shape {self._shape[1:]}, got shape {shape}")
        rows, left = shape[0], self._shape[0] - self._rows
        if rows > left:
            raise ValueError(f"{name} has {rows} rows, but of those of input_shape {self._shape} only {left} are left")
        if self._ended:
            raise ValueError("a sum that was merged with the last rows takes no more")
        given = {"sample_weight": sample_weight, "mask": mask, **arrays}
        if self._tail or rows % self.granularity:
            self._add_cut(input, target, given)
        else:
            self._total.add(self._partials(input, target, given))
        count, weights, times = self._weights(shape, target, sample_weight, mask, arrays)
        self._weight.add(weights, times)
        self._count += count
        self._rows += rows

    def _partials(self, input, target, given: dict[str, Any]) -> np.ndarray:
        """The sum of each block of a chunk."""
        recorded = _run.Recorded("sum")
        self._function(
            input, target, **(self._params | given), reduction=recorded, grad=False, n_threads=self._n_threads,
            backend=self._backend,
        )  # fmt: skip
        return recorded.partials

    def _add_cut(self, input, target, given: dict[str, Any]) -> None:
        """Add a chunk that begins or ends within a block, entry by entry; the last ones wait for the next chunk."""
        try:
            entries = self._entries(input, target, given)
            size = len(entries["input"])
            start = min(self._block - len(self._tail["input"]), size) if self._tail else 0
            end = start + (size - start) // self._block * self._block
            pieces = [{key: array[start:end] for key, array in entries.items()}] if start < end else []
            if self._tail:
                pieces.insert(0, _joined(self._tail, {key: array[:start] for key, array in entries.items()}))
            if end < size:
                pieces.append({key: array[end:] for key, array in entries.items()})
            sums = [self._partials(p["input"], p["target"], {k: p[k] for k in p.keys() - _TWO}) for p in pieces]
        except Exception:
            self._partials(input, target, given)  # says what is wrong, and where in the chunk
            raise
        cut = len(pieces[-1]["input"]) % self._block != 0
        self._tail = {key: np.array(array) for key, array in pieces[-1].items()} if cut else {}
        self._tail_sum = sums.pop() if cut else np.empty(0)
        for partials in sums:
            self._total.add(partials)

    def _entries(self, input, target, given: dict[str, Any]) -> dict[str, np.ndarray]:
        """All that a chunk holds, with one row for each entry of its loss."""
        x = np.asarray(input)
        shape = entries_shape(self.loss, x.shape)
        size, third = math.prod(shape), str(self._facts.third)
        of_columns = {third: self._params[third]} if np.ndim(self._params.get(third, 0.0)) else {}
        arrays = {"input": x, "target": target, **of_columns, **given}
        found = {}
        for key, array in arrays.items():
            if array is not None:
                values = np.asarray(array)
                if key in ("sample_weight", "mask"):
                    values = _widen(values, shape)
                elif values.shape[: len(shape)] != shape:  # one for each column
                    values = np.broadcast_to(values, x.shape)
                found[key] = values.reshape(size, *values.shape[len(shape) :])
        return found

    def _weights(self, input_shape, target, sample_weight, mask, arrays) -> tuple[int, np.ndarray, int]:
        """How many entries are kept, and the shares in the divisor, each of which counts some times."""
        shape = entries_shape(self.loss, input_shape)
        params = self._params | arrays
        kept = None if mask is None else np.asarray(mask)
        factors = []
        ignored = params.get("ignore_index")
        labels = None if ignored is None else np.asarray(target)
        if labels is not None and labels.shape == shape and labels.dtype.kind in "iu":
            kept = (labels != ignored) if kept is None else (labels != ignored) & _widen(kept, shape)
            if params.get("weight") is not None and self._facts.class_weighted_mean:
                factors.append(np.asarray(params["weight"], np.float64)[np.where(kept, labels, 0).astype(np.intp)])
        if sample_weight is not None and self._reduction == "weighted_mean":
            factors.append(np.asarray(sample_weight).astype(np.float64))
        count = math.prod(shape)
        if kept is not None:
            count = int(np.count_nonzero(kept)) * math.prod(shape[kept.ndim :])
        if not factors:
            return count, np.ones(1), count
        common = shape[: max(array.ndim for array in (*factors, *([] if kept is None else [kept])))]
        weights = functools.reduce(np.multiply, [_widen(factor, common) for factor in factors])
        weights = weights if kept is None else weights[_widen(kept, common)]
        return count, weights, math.prod(shape[len(common) :])

    def merge(self, other: LossSum) -> None:
        """Add what another sum over other chunks of the same data has found."""
        if not isinstance(other, LossSum):
            raise TypeError(f"other must be a LossSum, got {type(other).__name__}")
        same = "other must be a sum of the same loss over the same data; {} differs"
        for name in ("loss", "_shape", "_reduction"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(same.format(name.lstrip("_")))
        for name, value in self._params.items():
            if not np.array_equal(value, other._params[name]):
                raise ValueError(same.format(name))
        if self._tail and other._tail:
            raise ValueError(f"only the last chunk may have a number of rows that is no multiple of {self.granularity}")
        if self._rows + other._rows > self._shape[0]:
            raise ValueError(
                f"other must be a sum over other chunks: {self._rows} and {other._rows} rows are more than the "
                f"{self._shape[0]} in input_shape {self._shape}"
            )
        self._total.merge(other._total)
        self._weight.merge(other._weight)
        self._rows += other._rows
        self._count += other._count
        if other._tail:
            self._tail, self._tail_sum = other._tail, other._tail_sum
        self._ended = bool(self._tail)

    @property
    def total(self) -> float:
        """Sum of the weighted losses of kept entries, correctly rounded; of `rmse_loss` that of the squares."""
        both = ExactSum()
        both.merge(self._total)
        both.add(self._tail_sum)
        return both.value()

    @property
    def count(self) -> int:
        """Number of kept entries."""
        return self._count

    @property
    def weight(self) -> float:
        """The divisor of the mean: kept entries, or the sum of their class weights; or that of their weights."""
        return self._weight.value()

    @property
    def mean(self) -> float:
        """The mean, NaN over nothing."""
        mean = self.total / self.weight if self.weight != 0.0 else math.nan
        return mean if self.loss not in _ROOTS else math.sqrt(mean) if mean >= 0.0 else math.nan


def _shape(given: Any) -> tuple[int, ...]:
    """The shape of all the data, checked."""
    try:
        shape = tuple(map(operator.index, given))
    except TypeError:
        raise TypeError(f"input_shape must be a tuple of integers, got {given!r}") from None
    if not shape or min(shape) < 0:
        raise ValueError(f"input_shape must have at least one axis and no negative length, got {shape}")
    return shape


def _joined(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Entries after entries; where only some have a mask or weights, the others have ones."""
    found = {}
    for key in {**first, **second}:
        parts = [
            part[key] if key in part else np.ones(len(part["input"]), bool if key == "mask" else np.float64)
            for part in (first, second)
        ]
        found[key] = np.concatenate(parts)
    return found


def _widen(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of leading dimensions for every entry of a shape."""
    return np.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)
