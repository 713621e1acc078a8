"""The mean loss of one prediction for a sample of targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..registry import DOMAINS, Loss
from . import CommandError
from ._curves import LARGEST, called, single_prediction

_POINTS = 1201
# The range doubles up to so often to hold a minimum; some have none at a finite prediction.
_DOUBLINGS = 3


class Means(NamedTuple):
    """Mean losses over the prediction: per loss and sample, NaN where one is no number; `what` is predicted."""

    what: str
    x: np.ndarray
    values: list[list[np.ndarray]]


def mean_losses(variants: Sequence[tuple[Loss, dict[str, Any]]], samples: Sequence[Sequence[float]]) -> Means:
    """Compute mean losses over a range of predictions that holds all targets and, where it can, the least losses."""
    what = single_prediction([loss for loss, _ in variants])
    every = np.concatenate(samples)
    margin = 0.08 * (np.ptp(every) or 1.0)
    low, high = every.min() - margin, every.max() + margin
    for _ in range(1 + _DOUBLINGS):
        x = np.linspace(low, high, _POINTS)
        values = [[_mean(loss, params, x, np.asarray(sample)) for sample in samples] for loss, params in variants]
        least = {int(np.nanargmin(mean)) for of_loss in values for mean in of_loss}
        low, high = low - (high - low) * (0 in least), high + (high - low) * (_POINTS - 1 in least)
        if least.isdisjoint({0, _POINTS - 1}):
            break
    return Means(what, x, values)


def _mean(loss: Loss, params: dict[str, Any], x: np.ndarray, sample: np.ndarray) -> np.ndarray:
    inside = DOMAINS[loss.input].valid(x)
    predictions = np.repeat(x[inside], len(sample))
    losses = called(loss, params, predictions, np.tile(sample, inside.sum()))[0].reshape(-1, len(sample))
    mean = np.full(len(x), np.nan)
    mean[inside] = np.where(np.abs(losses) <= LARGEST, losses, np.nan).mean(1)
    if np.isnan(mean).all():
        raise CommandError(f"{loss.name}: no prediction in {x[0]:g} to {x[-1]:g} has a finite loss for this sample")
    return mean
