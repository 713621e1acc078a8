"""Errors in units in the last place, and references with digits to spare."""

from __future__ import annotations

import ast
import inspect
import types
from typing import Any

import numpy as np

from ..registry import FORMULAS
from . import CommandError

try:
    import mpmath
except ImportError as error:
    raise CommandError('errors in ULP need mpmath: python -m pip install "fastloss[test]"') from error

# 64 bits of mantissa on x86: eleven more than float64. Elsewhere long double may be float64 itself.
LONG = np.finfo(np.longdouble).nmant >= 63


def _units(reference: np.ndarray, info: np.finfo) -> np.ndarray:
    """The last place's value at each finite number."""
    if reference.dtype == np.float64 and info.bits == 32:  # by its bits: faster
        exponent = (reference.view(np.int64) >> 52 & 0x7FF) - 1023
        return (np.maximum(exponent, info.minexp) - info.nmant + 1023 << 52).view(np.float64)
    _, exponent = np.frexp(reference)
    return np.ldexp(reference.dtype.type(1), np.maximum(exponent - 1, info.minexp) - info.nmant)


def errors(actual, reference) -> np.ndarray:
    """Distance from a reference of higher precision, in units in the last place of ``actual``'s type.

    Subnormal results count in subnormal units. Where the reference rounds to an infinity or is NaN, so must
    the result be; otherwise the error is infinite.
    """
    actual = np.asarray(actual)
    with np.errstate(all="ignore"):
        rounded = reference.astype(actual.dtype)
        special = ~np.isfinite(rounded)
        same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
        error = np.abs(actual.astype(reference.dtype) - reference)
        error /= _units(np.where(special, 1, reference), np.finfo(actual.dtype))
    return np.where(special | ~np.isfinite(actual), np.where(same, 0.0, np.inf), error).astype(np.float64)


def kinds(reference, dtype) -> dict[str, np.ndarray]:
    """Which results are normal numbers, which subnormal ones, and which zero, infinite or NaN."""
    with np.errstate(all="ignore"):
        size = np.abs(reference)
        special = ~np.isfinite(reference.astype(dtype)) | (size == 0)
    tiny = size < np.finfo(dtype).tiny
    return {"normal": ~special & ~tiny, "subnormal": ~special & tiny, "special": special}


def worst_of(actual, reference, *inputs) -> tuple[float, str]:
    """The largest error, and a description of the place."""
    error = errors(actual, reference)
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


def cross_entropy_rows(x, y):
    """Loss and gradient of rows of logits in long double; no difference of logits is rounded."""
    z = x.astype(np.longdouble)
    rows, top = np.arange(len(z)), z.argmax(axis=1)
    m = z[rows, top][:, None]
    high = z - m
    back = high + m  # two-sum: high + low is z - m exactly
    low = (z - back) - (m - (back - high))
    e = np.exp(high) * (1 + low)
    e[rows, top] = 0
    s = e.sum(axis=1)
    loss = -high[rows, y] + (np.log1p(s) - low[rows, y])
    e[rows, top] = 1
    total = 1 + s
    grad = e / total[:, None]
    grad[rows, y] = -np.where(top == y, s, total - e[rows, y]) / total
    return loss, grad


def _names(module, name) -> dict[str, Any]:
    """What a formula calls, from NumPy or mpmath; a name that is not here (log, expm1, ...) is the module's own."""
    own = {key: getattr(module, key) for key in FORMULAS[name].__code__.co_names if hasattr(module, key)}
    return own | {
        # Beyond 12000 exp is below every long double, and takes mpmath long.
        "exp_neg": lambda a: mpmath.mpf(0) if module is mpmath and a > 12000 else module.exp(-a),
        "fma": lambda a, b, c: a * b + c,
        "log1p_unit": module.log1p,
        "abs": abs,
    }


def formula(name):
    """A registered formula as a function of mpmath numbers: ``(loss, grad, hess)``."""
    return types.FunctionType(FORMULAS[name].__code__, _names(mpmath, name), name)


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
        space = _names(np, name) | {"where": np.where}
        exec(compile(ast.fix_missing_locations(tree), name, "exec"), space)
        _vectorised[name] = space[name]
    return _vectorised[name]


def exact(name, x, y, params) -> list[np.ndarray]:
    """Loss, gradient and Hessian of every element by the formula in mpmath, as long doubles."""
    run = formula(name)
    found: list[list] = [[], [], []]
    with mpmath.workprec(200):
        given = [mpmath.mpf(p) for p in params]
        for a, b in zip(x.tolist(), y.tolist(), strict=True):
            for values, value in zip(found, run(mpmath.mpf(a), mpmath.mpf(b), *given), strict=True):
                values.append(_longdouble(value))
    return [np.array(values, np.longdouble) for values in found]


def _longdouble(value) -> np.longdouble:
    value = mpmath.mpf(value)
    if not mpmath.isfinite(value):
        return np.longdouble(float(value))
    return np.longdouble(mpmath.nstr(value, 25))
