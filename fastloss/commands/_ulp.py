"""Errors in units in the last place, and references with digits to spare."""

from __future__ import annotations

import ast
import inspect
import types
from typing import Any, NamedTuple

import numpy as np

from ..registry import FORMULAS, LOSSES
from . import CommandError

try:
    import mpmath
except ImportError as error:
    raise CommandError("errors in ULP need mpmath: python -m pip install mpmath") from error

# 64 bits of mantissa on x86: eleven more than float64. Elsewhere long double may be float64 itself.
LONG = np.finfo(np.longdouble).nmant >= 63


def _units(reference: np.ndarray, info: np.finfo) -> np.ndarray:
    """The last place's value at each finite number."""
    if reference.dtype == np.float64 and info.bits == 32:  # by its bits: faster
        exponent = (reference.view(np.int64) >> 52 & 0x7FF) - 1023
        return (np.maximum(exponent, info.minexp) - info.nmant + 1023 << 52).view(np.float64)
    _, exponent = np.frexp(reference)
    return np.ldexp(reference.dtype.type(1), np.maximum(exponent - 1, info.minexp) - info.nmant)


def errors(actual, reference, size=0) -> np.ndarray:
    """Distance from a reference of higher precision, in units in the last place of ``actual``'s type.

    Where ``size`` exceeds the result, as the terms of a sum may, the unit is that of ``size``. Subnormal results
    count in subnormal units. Where the reference rounds to an infinity or is NaN, so must the result be; otherwise
    the error is infinite.
    """
    actual = np.asarray(actual)
    with np.errstate(all="ignore"):
        rounded = reference.astype(actual.dtype)
        special = ~np.isfinite(rounded)
        same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
        error = np.abs(actual.astype(reference.dtype) - reference)
        error /= _units(np.where(special, 1, np.maximum(np.abs(reference), size)), np.finfo(actual.dtype))
    return np.where(special | ~np.isfinite(actual), np.where(same, 0.0, np.inf), error).astype(np.float64)


def kinds(reference, dtype) -> dict[str, np.ndarray]:
    """Which results are normal numbers, which subnormal ones, and which zero, infinite or NaN."""
    with np.errstate(all="ignore"):
        size = np.abs(reference)
        special = ~np.isfinite(reference.astype(dtype)) | (size == 0)
    tiny = size < np.finfo(dtype).tiny
    return {"normal": ~special & ~tiny, "subnormal": ~special & tiny, "special": special}


def worst_of(actual, reference, *inputs, size=0) -> tuple[float, str]:
    """The largest error, and a description of the place."""
    error = errors(actual, reference, size)
    worst = int(np.argmax(error))
    at = [float(np.broadcast_to(i, error.shape).flat[worst]).hex() for i in inputs]
    return float(error.flat[worst]), f"at {at}: got {actual.flat[worst]!r}, not {reference.flat[worst]!r}"


def stratified(dtype, per_exponent, seed=0, low=None, high=None) -> np.ndarray:
    """Random floats of both signs, equally many of every exponent, subnormals included."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(seed)
    low, high = low if low is not None else info.minexp - 1, high if high is not None else info.maxexp
    unsigned: Any = np.uint32 if info.bits == 32 else np.uint64
    exponents = (np.arange(low, high, dtype=np.int64) - info.minexp + 1).astype(unsigned)
    fractions = rng.integers(0, 1 << info.nmant, (exponents.size, per_exponent), dtype=unsigned)
    signs = rng.integers(0, 2, fractions.shape, dtype=unsigned)
    pattern = (signs << unsigned(info.bits - 1)) | (exponents[:, None] << unsigned(info.nmant)) | fractions
    return pattern.view(dtype).reshape(-1)


def sigmoid_parts(x, wide):
    """softplus(x) and sigmoid(x) to full relative accuracy, in a wider type."""
    z = x.astype(wide)
    with np.errstate(all="ignore"):
        tail = np.exp(-np.abs(z))
        return np.maximum(z, 0) + np.log1p(tail), np.where(z < 0, tail, 1) / (1 + tail)


class Shares(NamedTuple):
    """Softmax of rows in long double."""

    top: np.ndarray  # places of the maxima
    peak: np.ndarray  # what stands there, as the softmax takes it
    costs: np.ndarray  # -log p
    p: np.ndarray
    others: np.ndarray  # 1 - p
    slope: np.ndarray  # derivatives of what the softmax takes


def shares_of(x, temperature=1.0, softcap=None) -> Shares:
    """The softmax of rows; no difference of logits is rounded."""
    z, t = x.astype(np.longdouble), np.longdouble(temperature)
    rows, top = np.arange(len(z)), z.argmax(axis=1)
    m = z[rows, top][:, None]
    high, slope, peak = z - m, np.ones_like(z), m
    back = high + m  # two-sum: high + low is z - m exactly
    low = (z - back) - (m - (back - high))
    if softcap is not None:
        # tanh a - tanh b = tanh(a - b) (1 - tanh a tanh b), and that of one sign by what is missing to 1.
        cap = np.longdouble(softcap)
        a, b = z / cap, m / cap
        far_a, far_b = (2 / (np.exp(2 * np.abs(v)) + 1) for v in (a, b))
        rest = np.where((a > 0) == (b > 0), far_a + far_b - far_a * far_b, 1 - np.tanh(a) * np.tanh(b))
        high, low, peak, slope = (
            cap * np.tanh((high + low) / cap) * rest,
            0 * low,
            cap * np.tanh(b),
            1 / np.cosh(a) ** 2,
        )
    high, low, peak, slope = high / t, low / t, peak / t, slope / t
    e = np.exp(high) * (1 + low)
    e[rows, top] = 0
    s = e.sum(axis=1)
    others = 1 - e / (1 + s)[:, None]
    others[rows, top] = s / (1 + s)
    e[rows, top] = 1
    return Shares(top, peak[:, 0], -high + (np.log1p(s)[:, None] - low), e / (1 + s)[:, None], others, slope)


def cross_entropy_rows(x, y, label_smoothing=0.0, z_loss=0.0, softcap=None, temperature=1.0):
    """Loss and gradient in long double of rows of logits, and the sizes of the terms they are sums of."""
    return softmax_rows("cross_entropy", x, y, None, label_smoothing, z_loss, softcap, temperature)


def softmax_rows(
    name, x, y, advantages=None, label_smoothing=0.0, z_loss=0.0, softcap=None, temperature=1.0, gamma=2.0, epsilon=1.0,
    entropy_coef=0.0,
):  # fmt: skip
    """The same of what cross-entropy is a part of."""
    found, rows = shares_of(x, temperature, softcap), np.arange(len(x))
    p, costs = found.p, found.costs
    c, p_y, q = costs[rows, y], p[rows, y], found.others[rows, y]
    value, slope = c, np.ones_like(c)
    terms, slopes = c, slope  # their sizes
    if name == "softmax_focal_loss":
        power = np.exp(np.longdouble(gamma) * np.where(q > 0, np.log(q), -np.inf if gamma else 0))
        value = terms = np.where(power > 0, power * c, 0)
        slope = slopes = power * (1 + np.longdouble(gamma) * p_y * np.where(q > 0, c / q, 1))
    elif name == "poly_loss":
        for k, each in enumerate(np.atleast_1d(epsilon)):
            each = np.longdouble(each)
            value, slope = value + each * q ** (k + 1) / (k + 1), slope + each * p_y * q**k
            # A power's error is as many times its base's.
            terms, slopes = terms + abs(each) * q ** (k + 1), slopes + abs(each) * p_y * q**k * max(k, 1)
    u = (1 - np.longdouble(label_smoothing)) * (1 if advantages is None else advantages.astype(np.longdouble))
    spread, z, more = np.longdouble(label_smoothing) / x.shape[1], np.longdouble(z_loss), np.longdouble(entropy_coef)
    log = costs[rows, found.top]
    lse, lse_size = found.peak + log, abs(found.peak) + log
    # Subnormal probabilities and derivatives have few digits, which a factor does not give back.
    tiny = np.finfo(x.dtype).tiny
    least = np.maximum(p, tiny)
    entropy, entropy_size = np.where(p > 0, p * costs, 0).sum(axis=1), np.where(p > 0, least * costs, 0).sum(axis=1)
    every = spread * costs.sum(axis=1) if spread else 0
    loss = u * value + every + z * lse**2 - more * entropy
    size = abs(u) * terms + every + z * lse_size**2 + abs(more) * entropy_size
    pull, pull_size = label_smoothing + 2 * z * lse, label_smoothing + 2 * z * lse_size
    own = np.zeros(x.shape, bool)
    own[rows, y] = True
    given, given_size = (u * slope)[:, None], (abs(u) * slopes)[:, None]
    grad = np.where(own, p * pull[:, None] - given * found.others, p * (pull[:, None] + given)) - spread
    sizes = least * pull_size[:, None] + np.where(own, np.maximum(found.others, tiny), least) * given_size + spread
    if more:
        bonus = np.where(p > 0, p * (entropy[:, None] - costs), 0)
        grad = grad + more * bonus
        sizes = sizes + abs(more) * np.where(p > 0, least * (entropy_size[:, None] + costs), 0)
    return loss, grad * found.slope, size, sizes * np.maximum(found.slope, tiny / temperature)


def _over_mean(a, b):
    """a log(a / m) for the mean m of a and b, in long double."""
    near = -np.log1p((b - a) / (2 * np.where(a > 0, a, 1)))
    return np.where(a > 0, a * np.where(np.isfinite(near), near, np.log(2) + np.log(a) - np.log(b)), 0)


def divergence_rows(name, x, w, temperature=1.0):
    """Loss and gradient in long double of rows of logits and probabilities, and the sizes of what may cancel.

    The loss is a sum of terms of both signs. The gradient's zero is where both distributions meet: what an error of
    one part in its own size does to it counts as a term.
    """
    found = shares_of(x, temperature)
    w, p, t = w.astype(np.longdouble), found.p, np.longdouble(temperature)
    info = np.finfo(x.dtype)
    least = info.tiny / temperature if temperature < 1 else 0
    if name == "kl_div":
        mass = w.sum(axis=1, keepdims=True)
        log = np.where(w > 0, np.log(w), 0)
        terms, sizes = w * (log + found.costs), w * (abs(log) + found.costs)
        return terms.sum(axis=1), (p * mass - w) / t, sizes.sum(axis=1), np.maximum((p * mass + w) / t, least)
    mine, other = _over_mean(p, w), _over_mean(w, p)
    drift, share = mine.sum(axis=1, keepdims=True), np.where(w > 0, w / (p + w), 0)
    grad, size = (mine - p * drift) / 2, (abs(mine) + p * abs(drift) + p * share) / 2
    # Subnormal probabilities have few digits, and so has what is made of them.
    terms = abs(mine) + abs(other)
    few = np.where(p + w < np.finfo(np.float64).tiny, p + w, 0).sum(axis=1) > terms.sum(axis=1) * info.eps
    loss, sizes = (mine + other).sum(axis=1) / 2, np.where(few, 1, terms.sum(axis=1) / 2)
    return loss, grad / t, sizes, np.where(p < info.tiny, 1, np.maximum(size / t, least))


def nll_rows(x, y):
    """Loss and gradient of rows of log-probabilities."""
    rows, grad = np.arange(len(x)), np.zeros(x.shape, np.longdouble)
    grad[rows, y] = -1
    return -x[rows, y].astype(np.longdouble), grad


def margin_rows(name, x, y, p=1, margin=1.0):
    """Loss and gradient of rows of scores in long double."""
    z, rows = x.astype(np.longdouble), np.arange(len(x))
    v = np.maximum((z - z[rows, y][:, None]) + margin, 0)
    v[rows, y] = 0
    if name == "crammer_singer_loss":
        # The rival with the highest score; a large margin would make all alike.
        z[rows, y] = -np.inf
        v = np.where(np.arange(x.shape[1]) == z.argmax(axis=1)[:, None], v, 0)
    share = np.longdouble(1) / (x.shape[1] if name == "multi_margin_loss" else 1)
    grad = share * (v > 0 if p == 1 else 2 * v)
    grad[rows, y] = -grad.sum(axis=1)
    return share * (v**p).sum(axis=1), grad


def _log(x):
    return mpmath.log(x) if x > 0 else mpmath.mpf("-inf" if x == 0 else "nan")


def _log_cosh_tail(z):
    if z > 0.7:
        return mpmath.mpf(0)  # never used
    return (mpmath.log(mpmath.cosh(mpmath.sqrt(z))) - z / 2) / z**2 if z > 1e-15 else z / 45 - mpmath.mpf(1) / 12


def _log_cosh_tails(z):
    short = np.where(z < 0.7, z, 0.7)
    long = (np.log1p(np.sinh(np.sqrt(short)) ** 2) - short) / (2 * short * short)
    return np.where(short < 1e-5, short / 45 - 1 / np.longdouble(12), long)


# Beyond 12000 exp is below every long double, and takes mpmath long.
_NUMBERS: dict[str, Any] = {
    "abs": abs,
    "drop_neg": lambda a: mpmath.mpf(1) if a > 12000 else -mpmath.expm1(-a),
    "exp": lambda x: mpmath.mpf(0) if x < -12000 else mpmath.mpf("inf") if x > 12000 else mpmath.exp(x),
    "exp_sum": lambda x, lo: _NUMBERS["exp"](x + lo if abs(x) < 12000 else x),
    "exp_times": lambda x, lo, y: y * _NUMBERS["exp_sum"](x, lo) if y else y + 0 * x,
    "log": _log,
    "log1p_any": lambda x: mpmath.log1p(x) if x > -1 else _log(x + 1),
    "exp_neg": lambda a: mpmath.mpf(0) if a > 12000 else mpmath.exp(-a),
    "fma": lambda a, b, c: a * b + c,
    "log1p_sum": lambda s, lo: _NUMBERS["log1p_any"](s + lo if lo == lo else s),
    "log1p_unit": mpmath.log1p,
    "log_cosh_tail": _log_cosh_tail,
    "rest": lambda c: 0,
}
_ARRAYS: dict[str, Any] = {
    "abs": np.abs,
    "drop_neg": lambda a: -np.expm1(-a),
    "exp": np.exp,
    "exp_sum": lambda x, lo: np.exp(np.where(lo == lo, x + lo, x)),
    "exp_times": lambda x, lo, y: np.where(y == 0, y, y * _ARRAYS["exp_sum"](x, lo)),
    "log": np.log,
    "log1p_any": np.log1p,
    "exp_neg": lambda a: np.exp(-a),
    "fma": lambda a, b, c: a * b + c,
    "log1p_sum": lambda s, lo: np.log1p(np.where(lo == lo, s + lo, s)),
    "log1p_unit": np.log1p,
    "log_cosh_tail": _log_cosh_tails,
    "rest": lambda c: 0,
    "where": np.where,
}


def formula(name):
    """A registered formula as a function of mpmath numbers: ``(loss, grad, hess)``."""
    return types.FunctionType(FORMULAS[name].__code__, _NUMBERS, name)


class _Selects(ast.NodeTransformer):
    """Conditional expressions become selects, so that arrays pass."""

    def visit_IfExp(self, node):
        self.generic_visit(node)
        return ast.Call(ast.Name("where", ast.Load()), [node.test, node.body, node.orelse], [])


_vectorised: dict[str, Any] = {}


def formula_of_arrays(name):
    """A registered formula as a function of arrays of any float type."""
    if name not in _vectorised:
        tree = _Selects().visit(ast.parse(inspect.getsource(FORMULAS[name])))
        tree.body[0].decorator_list = []
        space = dict(_ARRAYS)
        exec(compile(ast.fix_missing_locations(tree), name, "exec"), space)
        _vectorised[name] = space[name]
    return _vectorised[name]


def exact(name, x, y, params, *third) -> list[np.ndarray]:
    """Loss, gradient, Hessian (and more) of every element by the formula in mpmath, as long doubles."""
    return evaluate(formula(name), x, y, params, *third)


def term_sizes(name, x, y, params, *third) -> list[np.ndarray]:
    """Sizes of the terms of loss and gradient where they may cancel, else zeros."""
    sums = LOSSES[name].sums
    if sums is None:
        return [np.zeros(x.size, np.longdouble)] * 2
    names = {"exp": _NUMBERS["exp"], "log": lambda v: abs(_log(abs(v)))}
    return evaluate(lambda *given: sums(*given, **names), x, y, params, *third)


def evaluate(run, x, y, params, *third) -> list[np.ndarray]:
    """A function of mpmath numbers for every element."""
    with mpmath.workprec(200):
        given = [mpmath.mpf(p) for p in params]
        rows = zip(x.tolist(), y.tolist(), *(t.tolist() for t in third), strict=True)
        found = [[_longdouble(value) for value in run(*map(mpmath.mpf, row), *given)] for row in rows]
    return [np.array(values, np.longdouble) for values in zip(*found, strict=True)]


def _longdouble(value) -> np.longdouble:
    value = mpmath.mpf(value)
    if not mpmath.isfinite(value):
        return np.longdouble(float(value))
    return np.longdouble(mpmath.nstr(value, 25))
