"""A loss over more data than fits into memory: chunk after chunk, with the bits of a single call."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from fastloss import _dispatch, _run, _threads, _validate
from fastloss._blocks import BLOCK, block_rows, blocks_of
from fastloss.registry import LOSSES, Loss


class ExactSum:
    """A sum of floats without rounding errors: its value depends on neither order nor grouping."""

    def __init__(self) -> None:
        self._units = 0  # of 2^-1074, of which every finite float is a multiple
        self._special = 0.0

    def add(self, values: np.ndarray) -> None:
        for value in values.tolist():
            if math.isfinite(value):
                numerator, denominator = value.as_integer_ratio()
                self._units += numerator << (1075 - denominator.bit_length())
            else:
                self._special += value

    def merge(self, other: ExactSum) -> None:
        self._units += other._units
        self._special += other._special

    def value(self) -> float:
        if self._special != 0.0:  # an infinity or NaN
            return self._special
        try:
            return self._units / (1 << 1074)
        except OverflowError:
            return math.inf if self._units > 0 else -math.inf


class LossSum:
    """Sum and mean of a loss over chunks of rows, with the bits of a single call.

    Chunks may come in any order, and sums over some of them each, from any number of processes (sums can be pickled),
    can be merged in any order.

    Parameters
    ----------
    loss : str
        Name of an elementwise loss, or of one of rows of classes such as ``"cross_entropy"``.
    input_shape : tuple of int
        Shape of all the data; chunks are taken along the first axis.
    backend, n_threads
        As in the losses.
    **params
        The loss's own parameters.

    Attributes
    ----------
    granularity : int
        Every chunk but the last must have a multiple of this many rows, so that no block of partial sums is cut.

    Raises
    ------
    TypeError, ValueError
        For an unknown loss or parameter, or a shape without rows.

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

    def __init__(self, loss: str, input_shape: tuple[int, ...], *, backend=None, n_threads=None, **params) -> None:
        if loss not in LOSSES or not (LOSSES[loss].pointwise or LOSSES[loss].kind == "rows"):
            known = ", ".join(f.name for f in LOSSES.values() if f.pointwise or f.kind == "rows")
            raise ValueError(f"loss must be one of {known}, got {loss!r}")
        if not input_shape:
            raise ValueError("input must have at least one axis")
        self.loss = loss
        # By name: modules and the registry's entries cannot be pickled.
        self._backend, self._n_threads = _dispatch.engine(backend).__name__.rpartition("_")[2], n_threads
        self._class_weight, self._ignore_index = None, 0
        if self.facts.kind == "rows":
            if len(input_shape) < 2 or input_shape[-1] == 0:
                raise ValueError(f"input must have rows of at least one class, got shape {tuple(input_shape)}")
            self._class_weight = _validate.class_weight(params.pop("weight", None), input_shape[-1])
            self._ignore_index = _validate.integer("ignore_index", params.pop("ignore_index", -100))
            entries, block = math.prod(input_shape[1:-1]), block_rows(input_shape[-1])
        else:
            entries, block = math.prod(input_shape[1:]), BLOCK
        self._params = self.facts.parse({name: value for name, value in params.items() if value is not None})
        self._shape = tuple(input_shape)
        self.granularity = block // math.gcd(block, entries) if entries else 1
        self._total, self._weight, self._closed = ExactSum(), ExactSum(), False

    def update(self, input, target, sample_weight=None, mask=None) -> None:
        """Add a chunk of rows; indices in error messages count from its start."""
        x = _validate.floats("input", input)
        if x.ndim != len(self._shape) or x.shape[1:] != self._shape[1:]:
            raise ValueError(f"input must be rows of shape {self._shape[1:]}, got shape {x.shape}")
        if self._closed:
            raise ValueError(f"only the last chunk may have a number of rows that is no multiple of {self.granularity}")
        closed = len(x) % self.granularity != 0
        if self.facts.kind == "rows":
            partials, weights = self._rows(x, target, sample_weight, mask)
        else:
            partials, weights = self._elements(x, target, sample_weight, mask)
        self._total.add(partials)
        self._weight.add(weights)
        self._closed = closed

    def merge(self, other: LossSum) -> None:
        """Add what another sum over other chunks of the same data has found."""
        for name in ("loss", "_shape", "_params", "_class_weight", "_ignore_index"):
            if not np.array_equal(getattr(self, name), getattr(other, name)):
                raise ValueError(f"other must be a sum of the same loss over the same data; {name.lstrip('_')} differs")
        if self._closed and other._closed:
            raise ValueError(f"only the last chunk may have a number of rows that is no multiple of {self.granularity}")
        self._total.merge(other._total)
        self._weight.merge(other._weight)
        self._closed |= other._closed

    @property
    def facts(self) -> Loss:
        """The loss's entry in the registry."""
        return LOSSES[self.loss]

    @property
    def _engine(self) -> ModuleType:
        return _dispatch.engine(self._backend)

    def _elements(self, x, target, sample_weight, mask):
        y = _validate.element_target(target, x).reshape(-1)
        weight, kept = _validate.sample_weight(sample_weight, x.shape), _validate.mask(mask, x.shape)
        partials = np.empty(blocks_of(x.size))
        threads = _threads.choose(self._n_threads, x.size, self._engine.GRAIN * self.facts.grains)
        if self._engine.elementwise(
            self.facts.name, 0, x.reshape(-1), y, None, self._params, weight, kept, 1.0, None, None, None, partials,
            threads,
        ):  # fmt: skip
            _validate.check_domains(self.facts, x, y, None, kept)
        return partials, np.array([_run.count_kept(kept, x.size)], np.float64)

    def _rows(self, x, target, sample_weight, mask):
        shape, classes = x.shape[:-1], x.shape[-1]
        t = _validate.indices("target", target, shape, "input's leading shape").reshape(-1)
        weight, kept = _validate.sample_weight(sample_weight, shape), _validate.mask(mask, shape)
        counting = self._class_weight if self.facts.class_weighted_mean else None
        counted, bad = self._engine.target_weight(t, classes, counting, self._ignore_index, None, kept)
        partials = np.empty(blocks_of(t.size, block_rows(classes)))
        threads = _threads.choose(self._n_threads, x.size, self._engine.GRAIN)
        if bad or self._engine.rows(
            self.facts.name, x.reshape(-1, classes), t, self._params, self._class_weight, self._ignore_index, weight,
            kept, 1.0, None, None, partials, threads,
        ):  # fmt: skip
            _validate.check_indices("target", t, classes, self._ignore_index, kept, shape)
        return partials, counted

    @property
    def total(self) -> float:
        """Sum of the weighted losses of kept entries, correctly rounded."""
        return self._total.value()

    @property
    def weight(self) -> float:
        """The divisor of ``reduction="mean"``: kept entries, or the sum of their class weights."""
        return self._weight.value()

    @property
    def mean(self) -> float:
        """The mean, NaN over nothing."""
        return self.total / self.weight if self.weight != 0.0 else math.nan
