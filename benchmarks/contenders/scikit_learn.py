"""scikit-learn's Cython losses, called without the checks around them."""

from __future__ import annotations

import numpy as np

from ..works import Work
from ._contender import Call

__all__ = ["prepare"]


def prepare(work: Work, threads: int) -> Call | None:
    """Return the call, which writes losses and gradients into the same arrays each time."""
    from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss

    a = work.arrays()
    if work.loss == "binary_cross_entropy_with_logits":
        loss = HalfBinomialLoss()
    elif work.loss == "cross_entropy":
        loss = HalfMultinomialLoss(n_classes=work.shape[1])
    else:
        return None
    x, y = a["x"], a["y"].astype(work.dtype)
    losses, grad = np.empty_like(y), np.empty_like(x)
    return lambda: loss.loss_gradient(y, x, loss_out=losses, gradient_out=grad, n_threads=threads)
