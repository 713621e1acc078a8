"""The elementwise losses, each written once.

A formula takes a prediction ``x``, a target ``y`` and the loss's parameters, all scalars of one
float type, and returns ``(loss, grad, hess)`` with derivatives with respect to ``x``.
``_codegen.py`` writes every formula into loops for Cython and Numba; the compilers drop what a call
does not ask for. As plain Python the formulas also run on ordinary and on mpmath numbers.

Rules: the language of ``primitives.py``; select, never multiply by zero (``0 * inf`` is NaN); order
comparisons so that NaN falls through to a result that is NaN.
"""

from fastloss.registry import elementwise, non_negative, positive, unit_interval

__all__ = [
    "binary_cross_entropy_with_logits",
    "huber_loss",
    "l1_loss",
    "mse_loss",
    "smooth_l1_loss",
]


@elementwise(
    family="logit",
    target="unit",
    params=(positive("pos_weight", 1.0), unit_interval("label_smoothing", 0.0)),
    loss_ulp=2.0,
    grad_ulp=3.0,
)
def binary_cross_entropy_with_logits(x, y, pos_weight, label_smoothing):
    y = fma(y, 1.0 - label_smoothing, 0.5 * label_smoothing)
    # Weights of the two terms: u * softplus(x) + v * softplus(-x).
    u = 1.0 - y
    v = pos_weight * y
    a = abs(x)
    e = exp_neg(a)
    w = u if x > 0.0 else v
    o = v if x > 0.0 else u
    linear = 0.0 if w == 0.0 else a * w
    loss = linear + (u + v) * log1p_unit(e)
    # sigmoid(a) and sigmoid(-a) are 1 / (1 + e) and e / (1 + e): no cancellation on either side.
    d = 1.0 + e
    g = fma(-o, e, w) / d
    grad = g if x > 0.0 else -g
    hess = (u + v) * (e / d) / d
    return loss, grad, hess


@elementwise(
    family="distance",
    target="real",
    params=(positive("delta", 1.0),),
    kinks=lambda delta: (-delta, delta),
    loss_ulp=2.0,
    grad_ulp=0.5,
)
def huber_loss(x, y, delta):
    r = x - y
    a = abs(r)
    c = delta if a > delta else a
    loss = c * (a - 0.5 * c)
    grad = delta if r > delta else (-delta if r < -delta else r)
    hess = 0.0 if a > delta else (1.0 if a <= delta else a)
    return loss, grad, hess


@elementwise(
    family="distance",
    target="real",
    params=(non_negative("beta", 1.0),),
    kinks=lambda beta: (-beta, 0.0, beta),
    loss_ulp=3.0,
    grad_ulp=1.5,
)
def smooth_l1_loss(x, y, beta):
    r = x - y
    a = abs(r)
    # beta = 0 is the absolute error: then no a is below beta and the divisions are never selected.
    c = beta if a > beta else a
    ratio = a / beta if a < beta else 1.0
    loss = ratio * (a - 0.5 * c)
    sign = 1.0 if r > 0.0 else (-1.0 if r < 0.0 else r)
    grad = r / beta if a < beta else sign
    flat = 1.0 if beta == 0.0 else 0.0
    hess = 1.0 / beta if a < beta else (flat if a >= beta else a)
    return loss, grad, hess


@elementwise(family="distance", target="real", loss_ulp=2.0, grad_ulp=0.5)
def mse_loss(x, y):
    r = x - y
    loss = r * r
    grad = r + r
    hess = 2.0 if r == r else r
    return loss, grad, hess


@elementwise(family="distance", target="real", kinks=lambda: (0.0,), loss_ulp=0.5, grad_ulp=0.5)
def l1_loss(x, y):
    r = x - y
    loss = abs(r)
    grad = 1.0 if r > 0.0 else (-1.0 if r < 0.0 else r)
    # Zero almost everywhere; 1 is what boosting and Newton solvers need in its place.
    hess = 1.0 if r == r else r
    return loss, grad, hess
