"""What is known of each loss: kind, parameters, domain, kinks, bounds.

Tests, benchmarks, the command line and the generated kernels read this table. Elementwise losses
enter it through :func:`elementwise` in ``formulas.py``; the hand-written ones stand at the end of
this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LOSSES", "Loss", "Param", "elementwise", "non_negative", "positive", "unit_interval"]


@dataclass(frozen=True)
class Param:
    """A float parameter: its default and the values it may take."""

    name: str
    default: float
    valid: Callable[[float], bool]
    domain: str

    def __call__(self, value: float) -> float:
        """Return ``value`` as a float, or raise an error that names the parameter."""
        if value is self.default:
            return value
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{self.name} must be a real number, got {type(value).__name__}") from None
        if not self.valid(number):
            raise ValueError(f"{self.name} must be {self.domain}, got {value!r}")
        return number


# Kernels compute in the type of their input, so a parameter must survive as a float32.
_SMALLEST, _LARGEST = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127


def positive(name: str, default: float) -> Param:
    return Param(name, default, lambda v: _SMALLEST <= v <= _LARGEST, "positive and finite, within float32's range")


def non_negative(name: str, default: float) -> Param:
    domain = "non-negative and finite, within float32's range"
    return Param(name, default, lambda v: v == 0.0 or _SMALLEST <= v <= _LARGEST, domain)


def unit_interval(name: str, default: float) -> Param:
    return Param(name, default, lambda v: v == 0.0 or _SMALLEST <= v <= 1.0, "between 0 and 1")


def finite(name: str, default: float) -> Param:
    return Param(name, default, lambda v: abs(v) <= _LARGEST, "finite, within float32's range")


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes
    ----------
    name : str
        Name of the public function, of the formula and of the reference.
    kind : {"elementwise", "rows", "gather"}
        Shape of the work: per element, per row of classes, or one action gathered per row.
    family : str
        ``"distance"`` (function of ``x - y``), ``"logit"``, ``"softmax"``, ``"margin"``, ``"log-probability"`` or
        ``"td"``.
    target : {"real", "unit", "class", "action"}
        Values a target may hold: any, [0, 1], or indices.
    params : tuple of Param
        Float parameters, in the order in which formula and reference take them.
    kinks : callable
        Parameters to the residuals at which the gradient is not differentiable; of rows, the residuals are those of
        the other classes from the target's.
    loss_ulp, grad_ulp : float
        Promised maximal error in units in the last place.
    index : int
        Position among the losses of its kind; kernels are numbered by it.
    class_weighted_mean : bool
        Whether the mean over rows divides by the sum of their class weights, and not by their number.
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
    class_weighted_mean: bool = False

    def parse(self, given: dict[str, float]) -> tuple[float, ...]:
        """Check parameters by name and return them in order, defaults filled in."""
        unknown = given.keys() - {p.name for p in self.params}
        if unknown:
            raise TypeError(f"{self.name}() got an unexpected keyword argument {min(unknown)!r}")
        return tuple([p(given.get(p.name, p.default)) for p in self.params])

    def check(self, *values: float) -> tuple[float, ...]:
        """Check parameters given in order."""
        return tuple([p(value) for p, value in zip(self.params, values, strict=True)])


LOSSES: dict[str, Loss] = {}
FORMULAS: dict[str, Callable[..., tuple[float, float, float]]] = {}


def _add(
    kind: str, name: str, family: str, target: str, params=(), kinks=lambda *_: (), *, loss_ulp, grad_ulp, **more
) -> None:
    index = sum(loss.kind == kind for loss in LOSSES.values())
    LOSSES[name] = Loss(name, kind, family, target, tuple(params), kinks, loss_ulp, grad_ulp, index, **more)


def elementwise(**facts):
    """Register a formula as an elementwise loss; the facts are the fields of :class:`Loss`."""

    def register(formula):
        _add("elementwise", formula.__name__, **facts)
        FORMULAS[formula.__name__] = formula
        return formula

    return register


_add(
    "rows",
    "cross_entropy",
    "softmax",
    "class",
    (unit_interval("label_smoothing", 0.0),),
    loss_ulp=3.0,
    grad_ulp=5.0,
    class_weighted_mean=True,
)
_add(
    "rows",
    "multi_margin_loss",
    "margin",
    "class",
    (Param("p", 1, lambda v: v in (1.0, 2.0), "1 or 2"), finite("margin", 1.0)),
    kinks=lambda p, margin: (-margin,),
    loss_ulp=4.0,
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
_add(
    "gather",
    "td_loss",
    "td",
    "action",
    (finite("gamma", 0.99), non_negative("delta", 1.0)),
    loss_ulp=4.0,
    grad_ulp=2.0,
)
