"""What calls return."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LossGrad(NamedTuple):
    """Loss and the gradient with respect to the prediction (None with ``grad=False``)."""

    loss: float | np.ndarray
    grad: np.ndarray | None


class GradHess(NamedTuple):
    """First and second derivative of each element's own loss."""

    grad: np.ndarray
    hess: np.ndarray


class GaussianLossGrad(NamedTuple):
    """Loss and its gradients with respect to mean and variance (None with ``grad=False``)."""

    loss: float | np.ndarray
    grad: np.ndarray | None
    grad_var: np.ndarray | None


class TDLossGrad(NamedTuple):
    """Loss, gradient with respect to ``q`` (None with ``grad=False``), and TD errors ``target - q``."""

    loss: float | np.ndarray
    grad: np.ndarray | None
    td_error: np.ndarray
