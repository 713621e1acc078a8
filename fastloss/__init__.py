"""fastloss: a loss and its gradient in one fused pass on the CPU, from NumPy arrays.

>>> import numpy as np
>>> import fastloss as fl
>>> logits, labels = np.array([2.0, -1.0]), np.array([1, 0])
>>> loss, grad = fl.binary_cross_entropy_with_logits(logits, labels)
"""

from fastloss import formulas as _formulas  # noqa: F401  (fills the registry)
from fastloss._accumulate import LossSum
from fastloss._dispatch import backends, use_backend
from fastloss._memory import release_memory
from fastloss._run import GradHess, LossGrad, TDLossGrad
from fastloss._threads import get_num_threads, set_num_threads
from fastloss._version import __version__
from fastloss.api.classification import bce_with_logits, binary_cross_entropy_with_logits, cross_entropy
from fastloss.api.derivatives import grad_hess
from fastloss.api.margins import crammer_singer_loss, multi_margin_loss, nll_loss
from fastloss.api.regression import huber_loss, l1_loss, mse_loss, smooth_l1_loss
from fastloss.api.reinforcement import td_loss
from fastloss.api.runtime import show_config, warmup

__all__ = [
    "GradHess",
    "LossGrad",
    "LossSum",
    "TDLossGrad",
    "__version__",
    "backends",
    "bce_with_logits",
    "binary_cross_entropy_with_logits",
    "crammer_singer_loss",
    "cross_entropy",
    "get_num_threads",
    "grad_hess",
    "huber_loss",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "release_memory",
    "set_num_threads",
    "show_config",
    "smooth_l1_loss",
    "td_loss",
    "use_backend",
    "warmup",
]
