"""The loss of a linear model over its weights, on data that scikit-learn ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastloss as fl

from ..registry import DOMAINS, Loss
from . import CommandError, from_extra

# Of each data set: the columns taken by default.
_FEATURES = {"breast_cancer": ("mean radius", "mean texture"), "diabetes": ("bmi", "bp")}
_LABELS = ("unit", "binary", "sign", "class")
_POINTS = 41
_STEPS = 25


@dataclass(frozen=True)
class Surface:
    """Mean loss over one weight or two, and the path of gradient descent."""

    loss: Loss
    params: dict[str, Any]
    data: str
    features: tuple[str, ...]
    axes: list[np.ndarray]
    values: np.ndarray
    path: np.ndarray
    path_losses: list[float]


class _Model:
    """The score of a sample is the sum of its standardised features times their weights; no intercept."""

    def __init__(self, loss: Loss, params: dict[str, Any], columns: np.ndarray, target: np.ndarray) -> None:
        if loss.kind == "rows":
            self._target: np.ndarray = target.astype(int)
        elif loss.kind != "elementwise":
            raise CommandError(f"{loss.name} has no surface: it is no loss of one prediction and one target")
        elif loss.input not in ("real", "unit"):
            raise CommandError(f"{loss.name} has no surface: its predictions must {DOMAINS[loss.input].demand}")
        else:
            self._target = target
        # What it takes besides prediction and target (a variance) is 1.
        more = {str(loss.third): np.ones_like(target)} if loss.needs_third else {}
        self._loss, self._params, self._columns = loss, params | more, columns

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the mean loss and its gradient with respect to the weights."""
        scores = self._columns @ weights
        if self._loss.kind == "rows":  # two classes, of which the first has the logit 0
            scores = np.stack([np.zeros_like(scores), scores], 1)
        elif self._loss.family == "probability":
            scores = 1.0 / (1.0 + np.exp(-scores))
        loss, grad = getattr(fl, self._loss.name)(scores, self._target, **self._params)[:2]
        if self._loss.family == "probability":
            grad = grad * scores * (1.0 - scores)
        return float(loss), self._columns.T @ (grad[:, 1] if grad.ndim > 1 else grad)

    def descend(self, weights: np.ndarray, steps: int) -> tuple[np.ndarray, list[float]]:
        """Go down the gradient, each step as long as the loss still falls well: weights and losses on the way."""
        path, (value, slope), rate = [weights], self(weights), 1.0
        losses = [value]
        while len(path) <= steps and rate > 1e-6 and slope @ slope > 1e-12:
            ahead = path[-1] - rate * slope
            reached, next_slope = self(ahead)
            if reached <= value - 0.5 * rate * slope @ slope:
                path.append(ahead)
                losses.append(reached)
                value, slope, rate = reached, next_slope, 2.0 * rate
            else:
                rate *= 0.5
        return np.array(path), losses


def surfaces(
    variants: Sequence[tuple[Loss, dict[str, Any]]], data: str, features: Sequence[str] | None
) -> list[Surface]:
    """Compute the surface of each loss over the same stretch of weights."""
    if data == "auto":
        data = "breast_cancer" if variants[0][0].target in _LABELS else "diabetes"
    names, columns, target = _load(data, tuple(features or _FEATURES[data]))
    if data == "diabetes":
        # Numbers of either sign, or counts and the like with a mean of 1.
        target = _standardised(target) if variants[0][0].target == "real" else target / target.mean()
    models = [_Model(loss, params, columns, target) for loss, params in variants]
    lowest = [model.descend(np.zeros(len(names)), 500)[0][-1] for model in models]
    centre, span = np.mean(lowest, axis=0), 1.5 * max(1.0, float(np.abs(lowest).max()))
    axes = [np.linspace(c - span, c + span, _POINTS) for c in centre]
    found = []
    for (loss, params), model in zip(variants, models, strict=True):
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        values = np.array([model(w)[0] for w in grid.reshape(-1, len(names))]).reshape(grid.shape[:-1])
        start = centre + span * np.array([-0.8, 0.6])[: len(names)]
        path, losses = model.descend(start, _STEPS)
        found.append(Surface(loss, params, data.replace("_", " "), names, axes, values, path, losses))
    return found


def _load(data: str, features: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    datasets = from_extra("plot", "sklearn.datasets", "scikit-learn", "--surface")
    bunch = getattr(datasets, f"load_{data}")()
    known = list(bunch.feature_names)
    for name in features:
        if name not in known:
            raise CommandError(f"--features must be columns of {data} ({', '.join(known)}), got {name!r}")
    if len(features) > 2:
        raise CommandError(f"--features takes one or two columns, got {len(features)}")
    columns = _standardised(bunch.data[:, [known.index(name) for name in features]])
    return features, columns, bunch.target.astype(float)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / values.std(0)
