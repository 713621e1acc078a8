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
_POINTS = 301
_CLASSES = 3

# Of a family: what the horizontal axis shows, and its ends.
_AXES = {
    "distance": ("prediction - target", -3.0, 3.0),
    "residual": ("prediction - target", -3.0, 3.0),
    "gaussian": ("prediction - target", -3.0, 3.0),
    "margin": ("prediction", -3.0, 3.0),
    "count": ("prediction", -3.0, 3.0),
    "log": ("prediction", -0.7, 5.0),
    "logit": ("logit", -6.0, 6.0),
    "probability": ("predicted probability", 0.002, 0.998),
    "softmax": (f"logit of one of {_CLASSES} classes, the others 0", -6.0, 6.0),
    "td": ("value of the action taken - target", -3.0, 3.0),
}
_OTHER_AXES = ("prediction", -4.0, 4.0)
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
_PROBABILITIES = {"logit": 0.0, "softmax": np.log(_CLASSES - 1)}
_Triple = tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Curve:
    """Loss, gradient and Hessian of one loss and target along the horizontal axis.

    Attributes
    ----------
    loss, params, target
        What was drawn; `target` is None where it is fixed by the kind of loss.
    x : ndarray
        Positions, the kinks and a point close to either side of each among them.
    values : list of ndarray
        The quantities at `x`, in the order of `QUANTITIES`; no Hessian where the loss has none.
    kinks : list of int
        Positions of the kinks in `x`.
    """

    loss: Loss
    params: dict[str, Any]
    target: float | None
    x: np.ndarray
    values: list[np.ndarray]
    kinks: list[int]


def curves(
    loss: Loss,
    params: dict[str, Any],
    targets: Sequence[float] | None = None,
    bounds: tuple[float, float] | None = None,
    probability: bool = False,
) -> list[Curve]:
    """Compute a curve for each target.

    Parameters
    ----------
    loss : Loss
    params : dict
        Its own parameters.
    targets : sequence of float, optional
        By default those that suit the loss.
    bounds : tuple of float, optional
        Ends of the horizontal axis.
    probability : bool, default False
        Walk over the probability that a logit stands for, instead of the logit.
    """
    if probability and loss.family not in _PROBABILITIES:
        raise CommandError(f"{loss.name} has no axis in probability: its input is no logit")
    # What is no number is an option of the public function, which judges it.
    given = {p.name: params[p.name] for p in loss.params if isinstance(params.get(p.name), (int, float))}
    kinks = () if probability else loss.kinks(*loss.parse(given))
    chosen: Sequence[float | None] = targets or _TARGETS.get(loss.target, _ONE_TARGET)
    call = _CALLS.get(loss.kind, _one_entry)
    if call in (_one_entry, _gather):
        chosen = (None,)
    found = []
    for target in chosen:
        # Margins are predictions times the sign of the target.
        sign = -1.0 if loss.family == "margin" and target is not None and target <= 0.0 else 1.0
        x, at = _grid(bounds or _bounds(loss, kinks, probability), [sign * kink for kink in kinks])
        logits = np.log(x) - np.log1p(-x) + _PROBABILITIES[loss.family] if probability else x
        values = [np.asarray(v, float) for v in call(loss, params, target, logits) if v is not None]
        found.append(Curve(loss, params, target, x, values, at))
    return found


def axis_label(loss: Loss, probability: bool) -> str:
    """Say what the horizontal axis shows."""
    return "predicted probability" if probability else _AXES.get(loss.family, _OTHER_AXES)[0]


def _bounds(loss: Loss, kinks: Sequence[float], probability: bool) -> tuple[float, float]:
    _, low, high = _AXES["probability"] if probability else _AXES.get(loss.family, _OTHER_AXES)
    if axis_label(loss, probability) == _AXES["distance"][0]:
        high = max(high, *(1.5 * abs(kink) for kink in (0.0, *kinks)))
        low = -high
    return low, high


def _grid(bounds: tuple[float, float], kinks: Sequence[float]) -> tuple[np.ndarray, list[int]]:
    """Return positions and the places of the kinks among them, each with a close neighbour on either side."""
    low, high = bounds
    if not -np.inf < low < high < np.inf:
        raise CommandError(f"--range needs LOW below HIGH, got {low:g} {high:g}")
    step = 1e-6 * (high - low)
    inside = np.array(sorted({kink for kink in kinks if low < kink < high}))
    x = np.linspace(low, high, _POINTS)
    # Grid points next to a kink would only blur which of its neighbours is the limit.
    x = x[(np.abs(x[:, None] - inside) > 2 * step).all(1)]
    x = np.sort(np.concatenate([x, inside - step, inside, inside + step]))
    return x, [int(i) for i in np.searchsorted(x, inside)]


def _elementwise(loss: Loss, params: dict[str, Any], target: float, x: np.ndarray) -> _Triple:
    # On the axis of residuals, x is one.
    y = np.full_like(x, target)
    x = x + target if axis_label(loss, False) == _AXES["distance"][0] else x
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
