"""The elementwise losses, each written once.

A formula takes a prediction ``x``, a target ``y`` and the loss's parameters, all scalars of one
float type, and returns ``(loss, grad, hess)`` with derivatives with respect to ``x``, and where ``third`` names an
argument that is an array, the derivative by it. Flags are 0.0 or 1.0 and compared with ``> 0.0``.
``_codegen.py`` writes every formula into loops for Cython and Numba; the compilers drop what a call
does not ask for. As plain Python the formulas also run on ordinary and on mpmath numbers.

Rules: the language of ``primitives.py``, and ``rest(c)``, what is lost when c, made of parameters and literals, is
rounded to the type of ``x``; select, never multiply by zero (``0 * inf`` is NaN); order
comparisons so that NaN falls through to a result that is NaN.
"""

from fastloss.registry import (
    between,
    derived,
    elementwise,
    finite,
    flag,
    non_negative,
    optional,
    positive,
    sequence,
    unit_interval,
    up_to,
)

__all__ = [
    "asymmetric_huber_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_poly_loss",
    "cauchy_loss",
    "expectile_loss",
    "exponential_loss",
    "gamma_nll_loss",
    "gaussian_nll_loss",
    "half_squared_error",
    "hinge_loss",
    "huber_loss",
    "l1_loss",
    "log_cosh_loss",
    "mape_loss",
    "modified_huber_loss",
    "mse_loss",
    "msle_loss",
    "nmae_loss",
    "pinball_loss",
    "poisson_nll_loss",
    "quantile_huber_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "squared_hinge_loss",
    "tweedie_loss",
]


@elementwise(
    family="logit",
    target="unit",
    third="pos_weight",
    third_domain="positive",
    params=(positive("pos_weight", 1.0), unit_interval("label_smoothing", 0.0)),
    loss_ulp=2.5,
    grad_ulp=3.0,
)
def binary_cross_entropy_with_logits(x, y, pos_weight, label_smoothing):
    # Weights of the two terms: u * softplus(x) + v * softplus(-x). Neither is what the other leaves of 1.
    u = fma(1.0 - y, 1.0 - label_smoothing, 0.5 * label_smoothing)
    v = pos_weight * fma(y, 1.0 - label_smoothing, 0.5 * label_smoothing)
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
    loss_ulp=2.5,
    grad_ulp=0.5,
)
def huber_loss(x, y, delta):
    r = x - y
    a = abs(r)
    # One choice after the other: nested ones do not become the minimum and maximum that they are.
    below = delta if r > delta else r
    grad = -delta if below < -delta else below
    c = abs(grad)
    rough = c * fma(c, -0.5, a)
    # What rounding x - y lost (two-sum), to first order; it is NaN where x or y is infinite.
    b = r - x
    fine = fma(grad, (x - (r - b)) - (y + b), rough)
    loss = fine if fine == fine else rough
    hess = 0.0 if a > delta else (1.0 if a <= delta else a)
    return loss, grad, hess


@elementwise(
    family="distance",
    target="real",
    params=(non_negative("beta", 1.0),),
    kinks=lambda beta: (-beta, 0.0, beta),
    loss_ulp=3.5,
    grad_ulp=2.5,
)
def smooth_l1_loss(x, y, beta):
    r = x - y
    a = abs(r)
    # beta = 0 is the absolute error: then no a is below beta and the divisions are never selected.
    c = beta if a > beta else a
    sign = 1.0 if r > 0.0 else r
    sign = -1.0 if r < 0.0 else sign
    grad = r / beta if a < beta else sign
    loss = abs(grad) * fma(c, -0.5, a)
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
    grad = 1.0 if r > 0.0 else r
    grad = -1.0 if r < 0.0 else grad
    # Zero almost everywhere; 1 is what boosting and Newton solvers need in its place.
    hess = 1.0 if r == r else r
    return loss, grad, hess


# --- regression


@elementwise(family="distance", target="real", loss_ulp=2.0, grad_ulp=0.5)
def half_squared_error(x, y):
    r = x - y
    loss = 0.5 * r * r
    grad = r
    hess = 1.0 if r == r else r
    return loss, grad, hess


@elementwise(
    family="distance",
    target="real",
    params=(derived(positive("norm", 1.0)),),
    kinks=lambda norm: (0.0,),
    loss_ulp=2.5,
    grad_ulp=0.5,
)
def nmae_loss(x, y, norm):
    r = x - y
    loss = abs(r) / norm
    step = 1.0 / norm
    grad = step if r > 0.0 else r * step
    grad = -step if r < 0.0 else grad
    # Zero almost everywhere, as that of l1_loss.
    hess = step if r == r else r
    return loss, grad, hess


@elementwise(
    family="residual",
    target="real",
    params=(positive("eps", 1e-7),),
    kinks=lambda eps: (0.0,),
    loss_ulp=2.5,
    grad_ulp=1.0,
)
def mape_loss(x, y, eps):
    r = x - y
    far = abs(y) > eps
    size = abs(y) if far else eps
    a = abs(r)
    # The factor goes where it neither overflows nor multiplies a subnormal ratio.
    near = a < 18446744073709551616.0
    loss = (a * 100.0 if near else a) / size * (1.0 if near else 100.0)
    step = 100.0 / size if far else 100.0 / eps
    grad = step if r > 0.0 else r
    grad = -step if r < 0.0 else grad
    hess = step if r == r else r
    return loss, grad, hess


@elementwise(family="log", input="above_minus_one", target="above_minus_one", loss_ulp=3.5, grad_ulp=3.0)
def msle_loss(x, y):
    # The logarithm of the ratio: the difference of two logarithms would cancel.
    low = x if x < y else y
    high = y if x < y else x
    # Difference, sum and quotient with what they lose: the square would double it.
    t = high - low
    u = 1.0 + low
    s = t / u
    b = t - high
    t_lo = (high - (t - b)) - (low + b)
    b = u - 1.0
    u_lo = (1.0 - (u - b)) + (low - b)
    size = log1p_sum(s, (fma(-s, u, t) + fma(-s, u_lo, t_lo)) / u)
    d = -size if x < y else size
    loss = size * size
    v = 1.0 + x
    inverse = 1.0 / v
    grad = 0.0 if inverse == 0.0 else (d + d) / v
    hess = 0.0 if inverse == 0.0 else (2.0 - (d + d)) * inverse * inverse
    return loss, grad, hess


@elementwise(family="distance", target="real", loss_ulp=2.5, grad_ulp=3.5)
def log_cosh_loss(x, y):
    r = x - y
    a = abs(r)
    e = exp_neg(a + a)
    q = drop_neg(a + a)
    d = 1.0 + e
    tanh = q / d
    grad = tanh if r >= 0.0 else -tanh
    z = a * a
    near = fma(z * z, log_cosh_tail(z), 0.5 * z)
    rough = near if a < 0.8 else (a - 0.6931471805599453) + log1p_unit(e)
    # What r has lost; not a number where r is infinite.
    b = r - x
    fine = fma(grad, (x - (r - b)) - (y + b), rough)
    loss = fine if fine == fine else rough
    hess = 4.0 * (e / d) / d
    return loss, grad, hess


@elementwise(
    family="count",
    target="non_negative",
    params=(flag("log_input", True), flag("full", False), positive("eps", 1e-8)),
    loss_ulp=3.0,
    grad_ulp=2.0,
    sums=lambda x, y, log_input, full, eps, exp, log: (
        (exp(x) + abs(x * y) if log_input else abs(x) + abs(y * log(x + eps)) + y)
        + (y * log(y) + y + 2 if full and y > 1 else 0),
        exp(x) + y if log_input else 1 + y / abs(x + eps),
    ),
)
def poisson_nll_loss(x, y, log_input, full, eps):
    # Beyond 2000 exp(x) is infinite; an infinite x must not meet it.
    c = 2000.0 if x > 2000.0 else x
    e = exp(x)
    # A negative rate has no logarithm, and with none there is no loss, also where nothing was counted.
    z = x + eps if x >= 0.0 else x
    log_z = log(z)
    rate = e if log_input > 0.0 else (x if log_z == log_z else log_z)
    log_rate = c if log_input > 0.0 else log_z
    log_rate = 0.0 if y == 0.0 else log_rate
    # Stirling's approximation of log(y!), for y > 1.
    constant = fma(y + 0.5, log(y), 0.9189385332046727 - y)
    constant = constant if y > 1.0 else 0.0
    loss = fma(-y, log_rate, rate)
    loss = loss + constant if full > 0.0 else loss
    grad = e - y if log_input > 0.0 else (1.0 - y / z if log_z == log_z else log_z)
    hess = e if log_input > 0.0 else (y / z / z if log_z == log_z else log_z)
    return loss, grad, hess


@elementwise(
    family="residual",
    target="real",
    third="var",
    third_domain="non_negative",
    params=(flag("full", False), positive("eps", 1e-6)),
    loss_ulp=3.0,
    grad_ulp=2.5,
    sums=lambda x, y, var, full, eps, exp, log: (
        abs(log(max(var, eps))) + (x - y) ** 2 / max(var, eps) + 2 * full,
        0,
        (1 + (x - y) ** 2 / max(var, eps)) / max(var, eps),
    ),
)
def gaussian_nll_loss(x, y, var, full, eps):
    r = x - y
    v = eps if var < eps else var
    w = r / v
    loss = fma(0.5 * r, w, 0.5 * log(eps) if var < eps else 0.5 * log(v))
    loss = loss + 0.9189385332046727 if full > 0.0 else loss
    grad = w
    precision = 1.0 / v
    hess = precision if r == r else r
    # Not zeroed where var is below eps, as in PyTorch.
    by_var = fma(-0.5 * w, w, 0.5 * precision)
    return loss, grad, hess, by_var


@elementwise(
    family="count",
    target="positive",
    loss_ulp=2.5,
    grad_ulp=2.5,
    sums=lambda x, y, exp, log: (abs(x) + y * exp(-x), 1 + y * exp(-x)),
)
def gamma_nll_loss(x, y):
    # Below -2000 exp(-x) is infinite; an infinite x must not meet it.
    c = -2000.0 if x < -2000.0 else x
    # exp(-x) alone may overflow where a small y times it does not.
    t = exp_times(-x, 0.0, y)
    loss = c + t
    grad = 1.0 - t
    hess = t
    return loss, grad, hess


@elementwise(
    family="count",
    target="non_negative",
    params=(between("power", 1.5, 1.0, 2.0),),
    loss_ulp=4.0,
    grad_ulp=2.5,
    sums=lambda x, y, power, exp, log: (0, y * exp((1 - power) * x) + exp((2 - power) * x)),
)
def tweedie_loss(x, y, power):
    # Exponents as products with their rounding errors.
    p = 1.0 - power
    q = 2.0 - power
    a = p * x
    b = q * x
    s = exp_times(a, fma(p, x, -a) + rest(p) * x, y)
    s = 0.0 if y == 0.0 else s
    t = exp_sum(b, fma(q, x, -b) + rest(q) * x)
    loss = t / q - s / p
    grad = t - s
    hess = fma(q, t, -(p * s))
    return loss, grad, hess


@elementwise(
    family="residual",
    target="real",
    params=(between("quantile", 0.5, 0.0, 1.0),),
    kinks=lambda quantile: (0.0,),
    loss_ulp=2.0,
    grad_ulp=1.0,
)
def pinball_loss(x, y, quantile):
    r = x - y
    loss = (1.0 - quantile if r > 0.0 else quantile) * abs(r)
    slope = 1.0 - quantile if r > 0.0 else -quantile
    grad = slope if r == r else r
    hess = 1.0 if r == r else r
    return loss, grad, hess


@elementwise(
    family="residual",
    target="real",
    params=(between("expectile", 0.5, 0.0, 1.0),),
    kinks=lambda expectile: (0.0,),
    loss_ulp=4.0,
    grad_ulp=2.0,
)
def expectile_loss(x, y, expectile):
    r = x - y
    w = 1.0 - expectile if r > 0.0 else expectile
    slope = w * r
    loss = slope * r
    grad = slope + slope
    hess = w + w if r == r else r
    return loss, grad, hess


@elementwise(
    family="residual",
    target="real",
    params=(positive("delta", 1.0), positive("alpha", 1.0), flag("continuous", True)),
    kinks=lambda delta, alpha, continuous: (-delta, delta),
    loss_ulp=3.0,
    grad_ulp=1.5,
)
def asymmetric_huber_loss(x, y, delta, alpha, continuous):
    r = x - y
    a = abs(r)
    c = delta if a > delta else a
    # Below -delta the line has alpha times the slope; continuous, or alpha times Huber's with a jump at -delta.
    joined = delta * fma(alpha, (a - delta) - rest(delta), 0.5 * delta)
    apart = alpha * delta * (a - 0.5 * delta)
    below = joined if continuous > 0.0 else apart
    rough = below if r < -delta else c * fma(c, -0.5, a)
    grad = delta if r > delta else r
    grad = -(alpha * delta) if r < -delta else grad
    # What r has lost, as in huber_loss: beside delta, alpha makes it large.
    b = r - x
    fine = fma(grad, (x - (r - b)) - (y + b), rough)
    loss = fine if fine == fine else rough
    hess = 0.0 if a > delta else (1.0 if a <= delta else a)
    return loss, grad, hess


@elementwise(
    family="residual",
    target="real",
    params=(between("quantile", 0.5, 0.0, 1.0), positive("delta", 1.0)),
    kinks=lambda quantile, delta: (-delta, 0.0, delta),
    loss_ulp=4.5,
    grad_ulp=2.5,
)
def quantile_huber_loss(x, y, quantile, delta):
    r = x - y
    a = abs(r)
    w = 1.0 - quantile if r > 0.0 else quantile
    c = delta if a > delta else a
    loss = w * (c * fma(c, -0.5, a))
    below = delta if r > delta else r
    grad = w * (-delta if below < -delta else below)
    hess = 0.0 if a > delta else (w if a <= delta else a)
    return loss, grad, hess


@elementwise(family="distance", target="real", params=(positive("scale", 1.0),), loss_ulp=3.5, grad_ulp=5.0)
def cauchy_loss(x, y, scale):
    r = x - y
    a = abs(r)
    s = a / scale
    # What difference, quotient and square lose, which is not a number where they are infinite.
    b = r - x
    r_lo = (x - (r - b)) - (y + b)
    s_lo = (fma(-s, scale, a) + (r_lo if r > 0.0 else -r_lo)) * (1.0 / scale)
    w = s * s
    w_lo = fma(s, s, -w) + 2.0 * s * s_lo
    # From 2^60 on log1p(s^2) is 2 log1p(s), and s^2 may be infinite.
    far = s > 1152921504606846976.0
    rise = log1p_sum(s if far else w, 0.0 if far else w_lo)
    rise = rise + rise if far else rise
    loss = 0.5 * scale * rise * scale
    # Where s^2 is all of the logarithm, a^2 does not vanish so early.
    loss = 0.5 * a * a if s < 1e-9 else loss
    # s / (1 + s^2) is the same of 1 / s; times scale it is that of a where s is small.
    t = s if s <= 1.0 else scale / a
    d = fma(t, t, 1.0)
    slope = (a if s <= 1.0 else scale * t) / d
    grad = slope if r >= 0.0 else -slope
    bend = (1.0 - t) * (1.0 + t) / d / d
    hess = bend if s <= 1.0 else -(t * t * bend)
    return loss, grad, hess


# --- binary and multi-label


@elementwise(
    family="probability",
    input="unit",
    target="unit",
    params=(between("eps", 1e-7, 0.0, 0.5),),
    kinks=lambda eps: (eps, 1 - eps),
    loss_ulp=3.0,
    grad_ulp=2.0,
)
def binary_cross_entropy(x, y, eps):
    # Both clips by eps alone: 1 - eps would be rounded.
    q = 1.0 - x
    p = eps if x < eps else x
    log_p = log1p_any(-eps) if q < eps else log(p)
    log_q = log(eps) if q < eps else log1p_any(-p)
    loss = fma(y, -log_p, (1.0 - y) * -log_q)
    rest = eps if q < eps else q
    slope = (1.0 - y) / rest - y / p
    bend = (1.0 - y) / rest / rest + y / p / p
    grad = 0.0 if x < eps else (0.0 if q < eps else slope)
    hess = 0.0 if x < eps else (0.0 if q < eps else bend)
    return loss, grad, hess


@elementwise(
    family="logit",
    target="binary",
    params=(optional(between("alpha", 0.25, 0.0, 1.0)), up_to("gamma", 2.0, 1000.0)),
    loss_ulp=6.0,
    grad_ulp=6.0,
    growth={"gamma": 1.5},
)
def sigmoid_focal_loss(x, y, alpha, gamma):
    # All in the margin s: q is the probability of the wrong class, p that of the right one.
    s = x if y > 0.5 else -x
    # What no element changes comes first: in a choice within another one the compilers do not vectorise it.
    right = alpha if alpha >= 0.0 else 1.0
    wrong = 1.0 - alpha if alpha >= 0.0 else 1.0
    w = right if y > 0.5 else wrong
    a = abs(s)
    e = exp_neg(a)
    log_e = log1p_unit(e)
    d = 1.0 + e
    q = (e if s > 0.0 else 1.0) / d
    p = (1.0 if s > 0.0 else e) / d
    cost = log_e if s > 0.0 else a + log_e
    # q^gamma is exp(-gamma softplus(s)), softplus(s) = h + log_e carried in two parts.
    h = (1000.0 if s > 1000.0 else s) if s > 0.0 else 0.0
    t = h + log_e
    b = t - h
    low = (h - (t - b)) + (log_e - b)
    m = gamma * t
    power = exp_sum(-m, -fma(gamma, low, fma(gamma, t, -m)) - rest(gamma) * t)
    u = w * power
    loss = u * cost
    share = 0.0 if p == 0.0 else p * cost
    slope = u * fma(gamma, share, q)
    grad = -slope if y > 0.5 else slope
    hess = u * fma(gamma * share, fma(gamma, p, -q), p * q * (2.0 * gamma + 1.0))
    return loss, grad, hess


@elementwise(family="margin", target="sign", kinks=lambda: (1.0,), loss_ulp=0.5, grad_ulp=0.5)
def hinge_loss(x, y):
    u = 1.0 - (x if y > 0.0 else -x)
    loss = 0.0 if u <= 0.0 else u
    step = -1.0 if y > 0.0 else 1.0
    grad = step if u > 0.0 else (0.0 if u <= 0.0 else u)
    # Zero almost everywhere; 1 where the hinge is open is what boosting uses in its place.
    hess = 1.0 if u > 0.0 else (0.0 if u <= 0.0 else u)
    return loss, grad, hess


@elementwise(family="margin", target="sign", kinks=lambda: (1.0,), loss_ulp=2.0, grad_ulp=0.5)
def squared_hinge_loss(x, y):
    u = 1.0 - (x if y > 0.0 else -x)
    u = 0.0 if u <= 0.0 else u
    loss = u * u
    grad = -(u + u) if y > 0.0 else u + u
    hess = 2.0 if u > 0.0 else (0.0 if u <= 0.0 else u)
    return loss, grad, hess


@elementwise(family="margin", target="sign", kinks=lambda: (-1.0, 1.0), loss_ulp=2.0, grad_ulp=0.5)
def modified_huber_loss(x, y):
    m = x if y > 0.0 else -x
    u = 1.0 - m
    u = 0.0 if u <= 0.0 else u
    loss = u * u if m >= -1.0 else -4.0 * m
    slope = u + u if m >= -1.0 else (4.0 if m < -1.0 else m)
    grad = -slope if y > 0.0 else slope
    hess = (2.0 if u > 0.0 else 0.0) if m >= -1.0 else (0.0 if m < -1.0 else m)
    return loss, grad, hess


@elementwise(family="margin", target="sign", loss_ulp=1.5, grad_ulp=1.5)
def exponential_loss(x, y):
    e = exp(-x if y > 0.0 else x)
    loss = e
    grad = -e if y > 0.0 else e
    hess = e
    return loss, grad, hess


@elementwise(family="margin", target="sign", loss_ulp=2.0, grad_ulp=3.0)
def soft_margin_loss(x, y):
    m = x if y > 0.0 else -x
    a = abs(m)
    e = exp_neg(a)
    log_e = log1p_unit(e)
    loss = log_e if m > 0.0 else a + log_e
    d = 1.0 + e
    slope = (e if m > 0.0 else 1.0) / d
    slope = slope if m == m else m
    grad = -slope if y > 0.0 else slope
    hess = e / d / d
    return loss, grad, hess


def _poly_sizes(x, y, *epsilons, exp, log):
    s = x if y > 0.5 else -x
    q, p = 1 / (1 + exp(s)), 1 / (1 + exp(-s))
    # A power's error is as many times its base's.
    powers = [(k, abs(epsilon) * q ** (k - 1)) for k, epsilon in enumerate(epsilons, 1)]
    cost = (-s if s < 0 else 0) + log(1 + exp(-abs(s)))
    return cost + q * sum(each for _, each in powers), q * (1 + p * sum(k * each for k, each in powers))


@elementwise(
    family="logit",
    target="binary",
    params=(sequence(finite("epsilon", 1.0), 6),),
    loss_ulp=3.0,
    grad_ulp=4.0,
    sums=_poly_sizes,
)
def binary_poly_loss(x, y, epsilon_1, epsilon_2, epsilon_3, epsilon_4, epsilon_5, epsilon_6):
    # q is the probability of the wrong class; polynomials in it by Horner's rule.
    s = x if y > 0.5 else -x
    a = abs(s)
    e = exp_neg(a)
    log_e = log1p_unit(e)
    d = 1.0 + e
    near = 1.0 / d
    far = e / d
    # What the quotient and its divisor have lost.
    far = fma(fma(-far, d, e) - far * (e - (d - 1.0)), near, far)
    q = far if s > 0.0 else near
    p = near if s > 0.0 else far
    sum_2 = fma(fma(epsilon_6 / 6.0, q, epsilon_5 / 5.0), q, epsilon_4 / 4.0)
    sum_1 = fma(fma(fma(sum_2, q, epsilon_3 / 3.0), q, epsilon_2 / 2.0), q, epsilon_1)
    loss = fma(sum_1, q, log_e if s > 0.0 else a + log_e)
    rise_2 = fma(fma(epsilon_6, q, epsilon_5), q, epsilon_4)
    rise = fma(fma(fma(rise_2, q, epsilon_3), q, epsilon_2), q, epsilon_1)
    slope = q * fma(rise, p, 1.0)
    slope = slope if s == s else s
    grad = -slope if y > 0.5 else slope
    bend_2 = fma(fma(5.0 * epsilon_6, q, 4.0 * epsilon_5), q, 3.0 * epsilon_4)
    bend = fma(fma(bend_2, q, 2.0 * epsilon_3), q, epsilon_2)
    hess = p * q * fma(bend, p * q, fma(rise, p - q, 1.0))
    return loss, grad, hess
