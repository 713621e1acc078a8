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
from fastloss._results import GaussianLossGrad, GradHess, LossGrad, TDLossGrad
from fastloss._threads import get_num_threads, set_num_threads
from fastloss._version import __version__
from fastloss.api.binary import binary_cross_entropy, binary_poly_loss, sigmoid_focal_loss
from fastloss.api.classification import bce_with_logits, binary_cross_entropy_with_logits, cross_entropy
from fastloss.api.derivatives import grad_hess
from fastloss.api.likelihood import gamma_nll_loss, gaussian_nll_loss, poisson_nll_loss, tweedie_loss
from fastloss.api.margin import (
    exponential_loss,
    hinge_loss,
    modified_huber_loss,
    soft_margin_loss,
    squared_hinge_loss,
)
from fastloss.api.margins import crammer_singer_loss, multi_margin_loss, nll_loss
from fastloss.api.overlap import dice_loss, tversky_loss
from fastloss.api.quantile import expectile_loss, pinball_loss, quantile_huber_loss
from fastloss.api.regression import (
    half_squared_error,
    l1_loss,
    mape_loss,
    mse_loss,
    msle_loss,
    nmae_loss,
    rmse_loss,
)
from fastloss.api.reinforcement import policy_gradient_loss, td_loss
from fastloss.api.robust import asymmetric_huber_loss, cauchy_loss, huber_loss, log_cosh_loss, smooth_l1_loss
from fastloss.api.runtime import show_config, warmup
from fastloss.api.softmax import (
    CrossEntropyStats,
    cross_entropy_stats,
    js_div,
    kl_div,
    poly_loss,
    softmax_focal_loss,
)

__all__ = [
    "CrossEntropyStats",
    "GaussianLossGrad",
    "GradHess",
    "LossGrad",
    "LossSum",
    "TDLossGrad",
    "__version__",
    "asymmetric_huber_loss",
    "backends",
    "bce_with_logits",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_poly_loss",
    "cauchy_loss",
    "crammer_singer_loss",
    "cross_entropy",
    "cross_entropy_stats",
    "dice_loss",
    "expectile_loss",
    "exponential_loss",
    "gamma_nll_loss",
    "gaussian_nll_loss",
    "get_num_threads",
    "grad_hess",
    "half_squared_error",
    "hinge_loss",
    "huber_loss",
    "js_div",
    "kl_div",
    "l1_loss",
    "log_cosh_loss",
    "mape_loss",
    "modified_huber_loss",
    "mse_loss",
    "msle_loss",
    "multi_margin_loss",
    "nll_loss",
    "nmae_loss",
    "pinball_loss",
    "poisson_nll_loss",
    "policy_gradient_loss",
    "poly_loss",
    "quantile_huber_loss",
    "release_memory",
    "rmse_loss",
    "set_num_threads",
    "show_config",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax_focal_loss",
    "squared_hinge_loss",
    "td_loss",
    "tversky_loss",
    "tweedie_loss",
    "use_backend",
    "warmup",
]
