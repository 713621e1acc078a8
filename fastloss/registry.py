"""What is known of each loss: kind, parameters, domain, kinks, bounds.

Tests, benchmarks, the command line and the generated kernels read this table. Elementwise losses
enter it through :func:`elementwise` in ``formulas.py``; the hand-written ones stand at the end of
this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

__all__ = [
    "DOMAINS",
    "LOOPS",
    "LOSSES",
    "Domain",
    "Loop",
    "Loss",
    "Param",
    "between",
    "derived",
    "elementwise",
    "finite",
    "fit_float32",
    "flag",
    "non_negative",
    "optional",
    "positive",
    "real",
    "sequence",
    "unit_interval",
    "up_to",
]


@dataclass(frozen=True)
class Domain:
    """Values that an array may hold; kernels know it by its code."""

    code: int
    demand: str
    valid: Callable[[np.ndarray], np.ndarray]


# NaN belongs to no domain but "real". In predictions it is no error all the same: it propagates.
DOMAINS = {
    "real": Domain(0, "be a number", lambda v: np.ones(v.shape, bool)),
    "unit": Domain(1, "lie in [0, 1]", lambda v: (v >= 0) & (v <= 1)),
    "binary": Domain(2, "be 0 or 1", lambda v: (v == 0) | (v == 1)),
    "sign": Domain(3, "be -1 or 1, or 0 or 1", lambda v: (v == 0) | (v == 1) | (v == -1)),
    "non_negative": Domain(4, "be non-negative", lambda v: v >= 0),
    "positive": Domain(5, "be positive", lambda v: v > 0),
    "above_minus_one": Domain(6, "be above -1", lambda v: v > -1),
}


def real(name: str, value: Any) -> float:
    """A real number as a float; text is none, an integer beyond all floats is infinite."""
    try:
        return math.ldexp(value, 0)
    except TypeError:
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}") from None
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@dataclass(frozen=True)
class Param:
    """A float parameter: its default and the values it may take; or, with a length, up to that many of them."""

    name: str
    default: float
    valid: Callable[[float], bool]
    domain: str
    flag: bool = False
    length: int = 0
    nullable: bool = False  # None stands for the default
    derive: bool = False  # a name may be given, and is by default: then the number comes from the data

    @property
    def names(self) -> list[str]:
        """The numbers that a formula gets."""
        return [f"{self.name}_{k + 1}" for k in range(self.length)] if self.length else [self.name]

    def __call__(self, value: Any) -> tuple[float, ...]:
        """Return the numbers of ``value``, or raise an error that names the parameter."""
        if not self.length:
            return (self._number(value),)
        values = tuple(value) if np.ndim(value) == 1 else (value,)
        if not 1 <= len(values) <= self.length:
            raise ValueError(f"{self.name} must be a number or up to {self.length} of them, got {len(values)}")
        return tuple(map(self._number, values)) + (0.0,) * (self.length - len(values))

    def _number(self, value: Any) -> float:
        if value is self.default or (value is None and self.nullable):
            return self.default
        number = real(self.name, value)
        if not self.valid(number):
            raise ValueError(f"{self.name} must be {self.domain}, got {number!r}")
        return number


# Normal numbers: kernels divide by parameters. Beside predictions that are computed with in float32, Loss.fit() asks
# for that type's.
_SMALLEST, _LARGEST = 2.0**-1022, (2.0 - 2.0**-52) * 2.0**1023
_SMALLEST_F32, _LARGEST_F32 = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127


def fit_float32(name: str, number: float, dtype: np.dtype | None = None) -> None:
    """Raise for a number that float32 cannot hold in full: beside predictions of a type, or whatever their type."""
    if not (number == 0.0 or _SMALLEST_F32 <= abs(number) <= _LARGEST_F32 or number != number):
        beside = f" beside {dtype} input" if dtype else ""
        raise ValueError(f"{name} must lie within float32's range{beside}, got {number!r}")


def positive(name: str, default: float) -> Param:
    return Param(name, default, lambda v: _SMALLEST <= v <= _LARGEST, "positive and finite")


def non_negative(name: str, default: float) -> Param:
    return Param(name, default, lambda v: v == 0.0 or _SMALLEST <= v <= _LARGEST, "non-negative and finite")


def unit_interval(name: str, default: float) -> Param:
    return Param(name, default, lambda v: v == 0.0 or _SMALLEST <= v <= 1.0, "between 0 and 1")


def finite(name: str, default: float) -> Param:
    return Param(name, default, lambda v: abs(v) <= _LARGEST, "finite")


def between(name: str, default: float, low: float, high: float) -> Param:
    least = max(low, _SMALLEST)
    return Param(name, default, lambda v: low < v < high and v >= least, f"above {low:g} and below {high:g}")


def up_to(name: str, default: float, most: float) -> Param:
    return Param(name, default, lambda v: v == 0.0 or _SMALLEST <= v <= most, f"between 0 and {most:g}")


def flag(name: str, default: bool) -> Param:
    return Param(name, float(default), lambda v: v in (0.0, 1.0), "True or False", flag=True)


def derived(param: Param) -> Param:
    """A parameter that may come from the data, which may have none: then it is NaN."""
    valid = param.valid
    return Param(param.name, param.default, lambda v: v != v or valid(v), param.domain, derive=True)


def optional(param: Param) -> Param:
    """A parameter that may be None, which the formula sees as -1."""
    valid = param.valid
    return Param(param.name, -1.0, lambda v: v == -1.0 or valid(v), f"None or {param.domain}", nullable=True)


def sequence(param: Param, length: int) -> Param:
    return Param(param.name, param.default, param.valid, param.domain, length=length)


_REMEMBERED = 64  # sets of parameters of a loss


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes
    ----------
    name : str
        Name of the public function, of the formula and of the reference.
    kind : {"elementwise", "rows", "softmax", "gather"}
        Shape of the work: per element, per row of classes, per row with more than an index, or one action gathered
        per row.
    family : str
        ``"distance"`` (symmetric function of ``x - y``), ``"residual"`` (of ``x - y``), ``"margin"`` (of ``x`` times
        the target's sign; for rows, of the classes' distances from the target's), ``"logit"``, ``"probability"``,
        ``"log-probability"``, ``"count"``, ``"softmax"`` or ``"td"``.
    target : str
        Values a target may hold: a name in ``DOMAINS``, ``"class"``, ``"action"`` or ``"distribution"``.
    params : tuple of Param
        Float parameters, in the order in which formula and reference take them.
    kinks : callable
        Parameters to the residuals, margins or predictions at which the gradient is not differentiable; of
        rows, the residuals are those of the other classes from the target's.
    loss_ulp, grad_ulp : float
        Promised maximal error in units in the last place, whatever the parameters.
    growth : dict
        Names of exponents, each unit of which adds so many units to both: what it makes of its base's error.
    index : int
        Number of its loops among the generated ones, or position among the losses of its kind.
    input, third_domain : str
        Values that predictions and the third array may hold: names in ``DOMAINS``.
    third : str or None
        What may be one value per element: a parameter, or an array of that name which the loss always takes.
    third_index : int
        Number of the loops that read it.
    sums : callable or None
        For a loss that is a sum whose terms may cancel: ``(x, y, *params, exp, log)`` to the size of the terms of
        loss and gradient. The promised error is in units of those.
    class_weighted_mean : bool
        Whether the mean over rows divides by the sum of their class weights, and not by their number.
    grains : int
        How many times as many elements are worth a thread of their own as usually.
    """

    name: str
    kind: str
    family: str
    target: str
    params: tuple[Param, ...]
    kinks: Callable[..., tuple[float, ...]]
    loss_ulp: float
    grad_ulp: float
    index: int
    input: str = "real"
    third: str | None = None
    third_domain: str = "real"
    third_index: int = -1
    sums: Callable[..., tuple] | None = None
    growth: dict[str, float] = field(default_factory=dict)
    class_weighted_mean: bool = False
    grains: int = 1

    @property
    def names(self) -> list[str]:
        """The numbers that its formula gets, sequences spread."""
        return [name for param in self.params for name in param.names]

    @property
    def pointwise(self) -> bool:
        """Whether predictions, targets and numbers are all that it takes, so that it can be computed in chunks."""
        return self.kind == "elementwise" and not self.needs_third and not any(p.derive for p in self.params)

    @cached_property
    def needs_third(self) -> bool:
        """Whether the third array must be given."""
        return self.third is not None and self.third not in self.names

    def bounds(self, numbers: tuple[float, ...]) -> tuple[float, float]:
        """Promised maximal errors of loss and gradient for parameters as the formula gets them."""
        given = dict(zip(self.names, numbers, strict=True))
        more = sum(each * given[name] for name, each in self.growth.items())
        return self.loss_ulp + more, self.grad_ulp + more

    def bound_texts(self) -> tuple[str, str]:
        """The bounds of loss and gradient, in words that tables have room for."""
        more = "".join(f" + {each:g} {name}" for name, each in self.growth.items())
        return f"{self.loss_ulp:g}{more}", f"{self.grad_ulp:g}{more}"

    def grouped(self, numbers: tuple[float, ...]) -> dict[str, Any]:
        """Parameters by name from the numbers that the formula gets."""
        found: dict[str, Any] = {}
        for param in self.params:
            count = len(param.names)
            found[param.name] = numbers[:count] if param.length else numbers[0]
            numbers = numbers[count:]
        return found

    def parse(self, given: dict[str, Any]) -> tuple[float, ...]:
        """Check parameters by name and return them in order, defaults filled in."""
        unknown = given.keys() - {p.name for p in self.params}
        if unknown:
            raise TypeError(f"{self.name}() got an unexpected keyword argument {min(unknown)!r}")
        return self.check(*[given.get(p.name, p.default) for p in self.params])

    def check(self, *values: Any) -> tuple[float, ...]:
        """Check parameters given in order."""
        for value in values:
            if type(value) is not float and type(value) is not int and value is not None:
                break  # may be mutable, or equal to a number and yet none
        else:
            found = self._checked.get(values)
            if found is None:
                found = self._check(values)
                if len(self._checked) < _REMEMBERED:
                    self._checked[values] = found
            return found
        return self._check(values)

    def _check(self, values: tuple) -> tuple[float, ...]:
        numbers: tuple[float, ...] = ()
        for param, value in zip(self.params, values, strict=True):
            numbers += param(value)
        if self.kind != "elementwise":
            self.fit(numbers)
        return numbers

    def fit(self, numbers: tuple[float, ...], dtype: np.dtype | None = None) -> None:
        """Raise if numbers that have been checked leave the range of the type that predictions are computed with in."""
        if numbers in self._fitting or dtype == np.float64:
            return
        for name, number in zip(self.names, numbers, strict=True):
            fit_float32(name, number, dtype)
        if len(self._fitting) < _REMEMBERED:
            self._fitting.add(numbers)

    @cached_property
    def _checked(self) -> dict[tuple, tuple[float, ...]]:
        """Numbers that have been found right: checking them takes as long as a small call's arithmetic."""
        return {}

    @cached_property
    def _fitting(self) -> set[tuple[float, ...]]:
        """Numbers that have been found to lie within float32's range."""
        return set()

    @cached_property
    def codes(self) -> tuple[int, ...]:
        """What kernels know it by: loops without and with the third array (-1: none), domains of its arrays, grains."""
        domains = (DOMAINS[name].code for name in (self.input, self.target, self.third_domain))
        return (-1 if self.needs_third else self.index, self.third_index, *domains, self.grains)


@dataclass(frozen=True)
class Loop:
    """Generated loops of a formula; ``third`` is what they read per element besides prediction and target."""

    name: str
    loss: str
    third: str | None


LOSSES: dict[str, Loss] = {}
LOOPS: list[Loop] = []
FORMULAS: dict[str, Callable[..., tuple[float, ...]]] = {}


def _add(
    kind: str, name: str, family: str, target: str, params=(), kinks=lambda *_: (), *, loss_ulp, grad_ulp, index=None,
    **facts,
) -> None:  # fmt: skip
    if index is None:
        index = sum(loss.kind == kind for loss in LOSSES.values())
    LOSSES[name] = Loss(name, kind, family, target, tuple(params), kinks, loss_ulp, grad_ulp, index, **facts)


def elementwise(*, third=None, **facts):
    """Register a formula as an elementwise loss; the facts are the fields of :class:`Loss`."""

    def register(formula):
        name, index = formula.__name__, len(LOOPS)
        scalar = third is None or any(p.name == third for p in facts["params"])
        if scalar:
            LOOPS.append(Loop(name, name, None))
        if third is not None:
            LOOPS.append(Loop(f"{name}_by_{third}" if scalar else name, name, third))
        # Without exp and log memory sets the pace: a second thread gains little, and on few elements it costs more.
        grains = 8 if {"abs", "fma"}.issuperset(formula.__code__.co_names) else 1
        _add("elementwise", name, index=index, third=third, third_index=len(LOOPS) - 1, grains=grains, **facts)
        FORMULAS[name] = formula
        return formula

    return register


_add(
    "rows",
    "cross_entropy",
    "softmax",
    "class",
    (unit_interval("label_smoothing", 0.0),),
    loss_ulp=4.5,  # 3 without z_loss
    grad_ulp=6.5,  # 5 without softcap
    class_weighted_mean=True,
)
_add(
    "rows",
    "multi_margin_loss",
    "margin",
    "class",
    (Param("p", 1, lambda v: v in (1.0, 2.0), "1 or 2"), finite("margin", 1.0)),
    kinks=lambda p, margin: (-margin,),
    loss_ulp=4.5,
    grad_ulp=4.0,
)
_add(
    "rows",
    "crammer_singer_loss",
    "margin",
    "class",
    (finite("margin", 1.0),),
    kinks=lambda margin: (-margin,),
    loss_ulp=2.0,
    grad_ulp=1.0,
)
_add("rows", "nll_loss", "log-probability", "class", loss_ulp=1.0, grad_ulp=1.0, class_weighted_mean=True)
# The share of the other classes is right to 4 ULP, its powers to as many times that.
_add(
    "softmax",
    "softmax_focal_loss",
    "softmax",
    "class",
    (up_to("gamma", 2.0, 1000.0), unit_interval("label_smoothing", 0.0)),
    loss_ulp=6.0,
    grad_ulp=6.0,
    growth={"gamma": 4.0},
)
_add(
    "softmax",
    "poly_loss",
    "softmax",
    "class",
    (sequence(finite("epsilon", 1.0), 6), unit_interval("label_smoothing", 0.0)),
    loss_ulp=7.0,
    grad_ulp=8.0,
)
_add("softmax", "kl_div", "softmax", "distribution", (positive("temperature", 1.0),), loss_ulp=4.5, grad_ulp=6.5)
_add("softmax", "js_div", "softmax", "distribution", (positive("temperature", 1.0),), loss_ulp=4.5, grad_ulp=5.0)
_add("softmax", "policy_gradient_loss", "softmax", "action", (finite("entropy_coef", 0.0),), loss_ulp=4.5, grad_ulp=5.5)
_add(
    "gather",
    "td_loss",
    "td",
    "action",
    (finite("gamma", 0.99), non_negative("delta", 1.0)),
    loss_ulp=4.0,
    grad_ulp=2.0,
)
