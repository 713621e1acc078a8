"""Losses as curves over one prediction: the numbers behind the pictures of `plot`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastloss as fl

from ..registry import Loss
from . import CommandError
from ._cases import ordinary
from ._losses import has_hessian

QUANTITIES = ("loss", "gradient", "Hessian")
PROBABILITY = "predicted probability"
# What is larger can't be drawn.
LARGEST = 1e200
_POINTS = 301
_CLASSES = 3
_OF_ONE_CLASS = f" of one of {_CLASSES} classes, others 0"

_RESIDUAL = "prediction - target"
# Of a family: what the horizontal axis shows, and its ends.
_AXES = {
    "distance": (_RESIDUAL, -3.0, 3.0),
    "residual": (_RESIDUAL, -3.0, 3.0),
    "gaussian": (_RESIDUAL, -3.0, 3.0),
    "margin": ("prediction", -3.0, 3.0),
    "count": ("prediction", -3.0, 3.0),
    "log": ("prediction", -0.7, 5.0),
    "logit": ("logit", -6.0, 6.0),
    "probability": (PROBABILITY, 0.002, 0.998),
    "log-probability": ("log-probability of one class", -6.0, 0.0),
    "softmax": (f"logit{_OF_ONE_CLASS}", -6.0, 6.0),
    "td": ("value of the action taken - target", -3.0, 3.0),
}
_OTHER_AXES = ("prediction", -4.0, 4.0)
# Axes of a single real prediction: losses of different ones are drawn over the prediction itself.
_PREDICTIONS = {"prediction", _RESIDUAL, "logit"}
# Of a domain of targets: those that tell the story; one target shows all residuals.
_TARGETS: dict[str, tuple[float, ...]] = {
    "unit": (0.0, 1.0),
    "binary": (0.0, 1.0),
    "class": (0.0, 1.0),
    "distribution": (0.25, 0.75, 1.0),
    "action": (-1.0, 1.0),
    "sign": (-1.0, 1.0),
    "above_minus_one": (0.0, 1.0, 3.0),
    "non_negative": (0.0, 1.0, 3.0),
    "positive": (0.5, 1.0, 3.0),
}
_ONE_TARGET = (1.0,)
# Families whose input is a logit, and the logit of probability 1/2.
_LOGITS = {"logit": 0.0, "softmax": np.log(_CLASSES - 1)}
_Triple = tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Curve:
    """Loss, gradient and Hessian of one loss and target along the horizontal axis.

    Attributes
    ----------
    loss, params, target
        What was drawn; `target` is None where it is fixed by the kind of loss.
    axis : str
        What the horizontal axis shows.
    x : ndarray
        Positions, the kinks and a point close to either side of each among them.
    values : list of ndarray
        The quantities at `x`, in the order of `QUANTITIES`; no Hessian where the loss has none. Derivatives are
        those by the loss's own input, whatever the axis shows.
    kinks : list of int
        Positions of the kinks in `x`.
    conventional : bool
        Whether the Hessian is what boosting uses in place of the second derivative.
    """

    loss: Loss
    params: dict[str, Any]
    target: float | None
    axis: str
    x: np.ndarray
    values: list[np.ndarray]
    kinks: list[int]
    conventional: bool

    @property
    def input(self) -> str:
        """What derivatives are taken by."""
        if self.loss.family in _LOGITS:
            return "logit"
        return "probability" if axis_label(self.loss) == PROBABILITY else "prediction"


def curves(
    variants: Sequence[tuple[Loss, dict[str, Any]]],
    targets: Sequence[float] | None = None,
    bounds: tuple[float, float] | None = None,
    probability: bool = False,
) -> list[Curve]:
    """Compute a curve for each loss and target, over an axis that they share.

    Parameters
    ----------
    variants : sequence of (Loss, dict)
        Losses, each with its own parameters.
    targets : sequence of float, optional
        By default those that suit the loss.
    bounds : tuple of float, optional
        Ends of the horizontal axis.
    probability : bool, default False
        Walk over the probability that a logit stands for, instead of the logit.

    Raises
    ------
    CommandError
        If the losses share no axis.
    """
    axis = _shared_axis([loss for loss, _ in variants], probability)
    if bounds is None:
        each = [_bounds(loss, params, targets, axis) for loss, params in variants]
        # Where a domain ends, so does the picture.
        ends = [b for (loss, _), b in zip(variants, each, strict=True) if loss.input != "real"]
        lows, highs = zip(*each, strict=True)
        bounds = (max(low for low, _ in ends), max(highs)) if ends else (min(lows), max(highs))
    if axis == PROBABILITY and not 0.0 <= bounds[0] < bounds[1] <= 1.0:
        raise CommandError(f"--range must lie in [0, 1] on an axis of probabilities, got {bounds[0]} {bounds[1]}")
    return [curve for loss, params in variants for curve in _of_loss(loss, params, targets, bounds, axis)]


def axis_label(loss: Loss) -> str:
    """Say what the horizontal axis of a loss's own picture shows."""
    return _AXES.get(loss.family, _OTHER_AXES)[0]


def _shared_axis(losses: Sequence[Loss], probability: bool) -> str:
    """Say what the horizontal axis shows that all losses have in common, or raise an error."""
    apart = [loss.name for loss in losses if loss.family not in _LOGITS and axis_label(loss) != PROBABILITY]
    if probability:
        if apart:
            raise CommandError(f"{apart[0]} has no axis in probability: its input is neither a logit nor a probability")
        return PROBABILITY
    labels: dict[str, str] = {}
    for loss in losses:
        of_classes = loss.kind == "rows" and loss.family == "margin"
        labels.setdefault(axis_label(loss) + _OF_ONE_CLASS * of_classes, loss.name)
    if len(labels) == 1:
        return next(iter(labels))
    if labels.keys() <= _PREDICTIONS:
        return "prediction"
    (one, first), (other, second), *_ = labels.items()
    hint = "" if apart else ", or with --x probability"
    raise CommandError(f"{first} is drawn over {one!r}, {second} over {other!r}: draw them apart{hint}")


def single_prediction(losses: Sequence[Loss]) -> str:
    """Say what the losses predict, one number for one target, or raise an error."""
    other = [loss.name for loss in losses if loss.kind != "elementwise"]
    if other:
        raise CommandError(f"{other[0]} has no picture of a sample: it is no loss of one prediction and one target")
    return _shared_axis(losses, False).replace(_RESIDUAL, "prediction")


def _bounds(loss: Loss, params: dict[str, Any], targets: Sequence[float] | None, axis: str) -> tuple[float, float]:
    own = axis_label(loss)
    _, low, high = _AXES["probability"] if axis == PROBABILITY else _AXES.get(loss.family, _OTHER_AXES)
    if own == _RESIDUAL:
        high = max(high, *(1.5 * abs(kink) for kink in (0.0, *_kinks(loss, params))))
        low = -high
        if axis != own:
            chosen = _targets(loss, targets)
            low, high = low + min(chosen), high + max(chosen)
    return low, high


def _kinks(loss: Loss, params: dict[str, Any]) -> tuple[float, ...]:
    # What is no number is an option of the public function, which judges it.
    given = {p.name: params[p.name] for p in loss.params if isinstance(params.get(p.name), (int, float))}
    return loss.kinks(*loss.parse(given))


def _targets(loss: Loss, given: Sequence[float] | None) -> Sequence[float]:
    return given or _TARGETS.get(loss.target, _ONE_TARGET)


def _of_loss(
    loss: Loss, params: dict[str, Any], targets: Sequence[float] | None, bounds: tuple[float, float], axis: str
) -> list[Curve]:
    call = _CALLS.get(loss.kind, _one_entry)
    chosen: Sequence[float | None] = (None,) if call in (_one_entry, _gather) else _targets(loss, targets)
    kinks = () if axis == PROBABILITY and loss.family in _LOGITS else _kinks(loss, params)
    found = []
    for target in chosen:
        # Margins are predictions times the sign of the target.
        sign = -1.0 if loss.family == "margin" and target is not None and target <= 0.0 else 1.0
        shift = target if axis != _RESIDUAL == axis_label(loss) and target is not None else 0.0
        x, at = _grid(bounds, [sign * kink + shift for kink in kinks])
        inputs = x
        if axis == PROBABILITY and loss.family in _LOGITS:
            inputs = np.log(x) - np.log1p(-x) + _LOGITS[loss.family]
        elif axis == _RESIDUAL and target is not None:
            inputs = x + target
            if np.abs(inputs - target - x).max() > 1e-7 * (x[-1] - x[0]):
                raise CommandError(f"--targets: {target:g} is too large for an axis of {bounds[0]:g} to {bounds[1]:g}")
        values = [np.asarray(v, float) for v in call(loss, params, target, inputs) if v is not None]
        values = [np.where(np.abs(v) <= LARGEST, v, np.nan) for v in values]
        if np.isnan(values[0]).all():
            raise CommandError(f"{loss.name}: no finite value in {bounds[0]:g} to {bounds[1]:g} to draw")
        found.append(Curve(loss, params, target, axis, x, values, at, _conventional(inputs, values)))
    return found


def _conventional(x: np.ndarray, values: list[np.ndarray]) -> bool:
    """Whether what is drawn as the Hessian is no derivative of the gradient at most places."""
    if len(values) < 3:
        return False
    slopes, hess = np.diff(values[1]) / np.diff(x), (values[2][1:] + values[2][:-1]) / 2
    differ = np.abs(slopes - hess) > 0.1 * np.abs(hess) + 1e-3 * np.abs(hess).max(initial=0.0, where=np.isfinite(hess))
    return bool(np.count_nonzero(differ) > len(slopes) / 2)


def _grid(bounds: tuple[float, float], kinks: Sequence[float]) -> tuple[np.ndarray, list[int]]:
    """Return positions and the places of the kinks among them, each with a close neighbour on either side."""
    low, high = bounds
    if not (low < high and 1e-9 * max(abs(low), abs(high)) < high - low < np.inf):
        raise CommandError(f"--range needs LOW below HIGH and room between them, got {low} {high}")
    step = 1e-6 * (high - low)
    inside = np.array(sorted({kink for kink in kinks if low < kink < high}))
    x = np.linspace(low, high, _POINTS)
    # Grid points next to a kink would only blur which of its neighbours is the limit.
    x = x[(np.abs(x[:, None] - inside) > 2 * step).all(1)]
    x = np.sort(np.concatenate([x, np.maximum(inside - step, low), inside, np.minimum(inside + step, high)]))
    return x, [int(i) for i in np.searchsorted(x, inside)]


def _elementwise(loss: Loss, params: dict[str, Any], target: float, x: np.ndarray) -> _Triple:
    return called(loss, params, x, np.full_like(x, target))


def called(loss: Loss, params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> _Triple:
    """Return loss, gradient and Hessian, if there is one, of each prediction and target of an elementwise loss."""
    function = getattr(fl, loss.name)
    # What a loss takes besides prediction and target (a variance, say) is 1; grad_hess takes it by name.
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    more: dict[str, Any] = dict.fromkeys(names[2:], np.ones_like(x))
    values, grad, *_ = function(x, y, **more, reduction="none", **params)
    return values, grad, fl.grad_hess(function, x, y, **more, **params)[1] if has_hessian(loss) else None


def _rows(loss: Loss, params: dict[str, Any], target: float, x: np.ndarray) -> _Triple:
    # Class 0 has the logit x, all others 0.
    logits = np.zeros((len(x), _CLASSES))
    logits[:, 0] = x
    function, labels = getattr(fl, loss.name), np.full(len(x), int(target))
    values, grad, *_ = function(logits, labels, reduction="none", **params)
    hess = fl.grad_hess(function, logits, labels, **params)[1][:, 0] if has_hessian(loss) else None
    return values, grad[:, 0], hess


def _gather(loss: Loss, params: dict[str, Any], target: None, x: np.ndarray) -> _Triple:
    # The episode is over and the reward 0: the value that is aimed at is 0.
    q, actions, rewards = x[:, None], np.zeros(len(x), int), np.zeros_like(x)
    values, grad, *_ = getattr(fl, loss.name)(q, actions, rewards, q, actions == 0, reduction="none", **params)
    return values, grad[:, 0], None


def _one_entry(loss: Loss, params: dict[str, Any], target: None, x: np.ndarray) -> _Triple:
    """Move the prediction that matters most in an ordinary case, and hold all else."""
    # Of a single row the mean is the loss itself, to which the Hessian belongs.
    curved, backend = has_hessian(loss), fl.backends()[0]
    case = ordinary(loss, np.dtype(np.float64), 1 if curved else 8)[0]
    case = case.but(params=case.params | params)
    entry = np.abs(case.call(backend).grad).argmax()
    rows = []
    for value in x:
        moved = case.but(x=case.x.copy())
        moved.x.flat[entry] = value
        values, grad, *_ = moved.call(backend)
        rows.append((values, grad.flat[entry], moved.hess(backend).flat[entry] if curved else np.nan))
    values, grad, hess = np.array(rows).T
    return values, grad, hess if curved else None


def _softmax(loss: Loss, params: dict[str, Any], target: float, x: np.ndarray) -> _Triple:
    if loss.target == "class":
        return _rows(loss, params, target, x)
    logits = np.zeros((len(x), _CLASSES))
    logits[:, 0] = x
    if loss.target == "action":  # the action taken is this one, the target its advantage
        others: list[np.ndarray] = [np.zeros(len(x), int), np.full(len(x), target)]
    else:  # the target is this class's share, the others have equal ones of the rest
        shares = np.full(logits.shape, (1 - target) / (_CLASSES - 1))
        shares[:, 0] = target
        others = [shares]
    function = getattr(fl, loss.name)
    values, grad, *_ = function(logits, *others, reduction="none", **params)
    more: dict[str, Any] = {"advantages": others[1]} if loss.target == "action" else {}
    return values, grad[:, 0], fl.grad_hess(function, logits, others[0], **more, **params)[1][:, 0]


_CALLS: dict[str, Callable[..., _Triple]] = {
    "elementwise": _elementwise,
    "rows": _rows,
    "softmax": _softmax,
    "gather": _gather,
}
