"""Errors in units in the last place over all float32 inputs, and over random and climbed ones of what has too many.

The work is a list of tasks of a second or so. A task names everything it depends on, so that any process may do it
and a file may say which are done. What it finds: per row of the table of accuracy (``accuracy.json``) and per kind
of result (normal, subnormal, special) the largest error and where it was seen.

Binary cross-entropy in float32 runs over every logit and both targets, every primitive over every argument of its
domain; the references are float64, in long double for the rest, and what comes near a bound is settled by mpmath.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import mpmath
import numpy as np

import fastloss as fl

from .. import _cython, reference
from ..registry import DOMAINS, FORMULAS, LOSSES, Loss, Param, non_negative, optional, positive
from . import _ulp

# Of a task: inputs at a time, and random inputs of a loss.
CHUNK, SLICE, POINTS = 1 << 22, 1 << 16, 1 << 17
SETS = 16  # of parameters, in a task of a loss that has some
WIDTHS = (2, 3, 10, 64, 65, 1000, 10_000, 100_000)
TERMS = 10**8
BINARY = "binary_cross_entropy_with_logits"
KINDS = ("normal", "subnormal", "special")
# References of losses of rows.
ROWS: dict[str, Callable] = {
    "nll_loss": _ulp.nll_rows,
    **{name: partial(_ulp.margin_rows, name) for name in ("multi_margin_loss", "crammer_singer_loss")},
    **{
        name: partial(_ulp.softmax_rows, name)
        for name in ("cross_entropy", "softmax_focal_loss", "poly_loss", "policy_gradient_loss")
    },
    **{name: partial(_ulp.divergence_rows, name) for name in ("kl_div", "js_div")},
}
# What cross-entropy takes besides what the registry knows.
OPTIONS = (non_negative("z_loss", 0.0), optional(positive("softcap", 1.0)), positive("temperature", 1.0))

Found = dict[str, dict[str, tuple[float, str]]]


class Primitive(NamedTuple):
    """A function of one float: what it computes, its domain, and its bounds for normal and subnormal results."""

    exact: Callable[[Any, Any], Any]  # of the module (numpy or mpmath) and the argument
    low: float
    high: float
    ulp: float
    subnormal_ulp: float
    floats: tuple[str, ...] = ("f32", "f64")
    more: Callable[[str], tuple[float, ...]] = lambda suffix: ()  # further arguments


def _limit(suffix: str) -> tuple[float]:
    from .. import primitives

    return (-getattr(primitives, f"EXP_MIN_{suffix.upper()}"),)


PRIMITIVES = {
    "exp_neg": Primitive(lambda m, x: m.exp(-x), 0.0, math.inf, 1.0, 1.0, more=_limit),
    # The exponentials of cross-entropy.
    "exp_diff": Primitive(lambda m, x: m.exp(x), -math.inf, -0.0, 1.0, 1.0, more=lambda suffix: (0.0,)),
    "exp_near": Primitive(lambda m, x: m.exp(x), -200.0, -0.0, 1.0, 1.0, more=lambda suffix: (0.0,)),
    # 2^-k exp(x), k = -31; below -110 it is 0.
    "exp_scaled": Primitive(lambda m, x: m.exp(x) * 2**31, -100.0, -0.0, 1.0, 1.0, ("f32",), lambda suffix: (0.0,)),
    "log1p_unit": Primitive(lambda m, x: m.log1p(x), 0.0, 1.0, 1.5, 0.5),
    "exp": Primitive(lambda m, x: m.exp(x), -math.inf, math.inf, 1.0, 1.0),
    "drop_neg": Primitive(lambda m, x: -m.expm1(-x), 0.0, math.inf, 1.5, 0.5, more=_limit),
    "log": Primitive(lambda m, x: m.log(x), 0.0, math.inf, 1.5, 0.5),
    "log1p_any": Primitive(lambda m, x: m.log1p(x), -1.0, math.inf, 1.5, 0.5),
    "log1p": Primitive(lambda m, x: m.log1p(x), 0.0, 2.0**40, 1.5, 0.5, ("f64",)),
    # The factor of the softmax focal loss, for one exponent; its error is mostly that of the exponential.
    "power": Primitive(lambda m, x: m.power(x, 2.5), 0.0, 1.0, 2.0, 1.0, ("f64",), lambda suffix: (2.5,)),
}


class Task(NamedTuple):
    """A piece of work: the part it belongs to, what it is about, and the piece's number."""

    part: str
    name: str
    dtype: str
    number: int
    detail: int = 0

    def __str__(self) -> str:
        return " ".join(map(str, self))


# --- budgets


def budgets() -> dict[str, dict[str, float]]:
    """Bounds in ULP per row of the table and kind of result; special results must be exact."""
    table = {}
    for name, p in PRIMITIVES.items():
        for suffix in p.floats:
            table[f"{name} {DTYPES[suffix]}"] = {"normal": p.ulp, "subnormal": p.subnormal_ulp}
    for facts, dtype in itertools.product(LOSSES.values(), DTYPES.values()):
        if facts.name in elementwise() or facts.name in ROWS:
            for what, ulp in (("loss", facts.loss_ulp), ("grad", facts.grad_ulp)):
                more = 0.0 if HAS_FMA or ulp <= 0.5 else _without_fma(facts.name)
                table[f"{facts.name} {what} {dtype}"] = {
                    "normal": ulp + more,
                    "subnormal": SUBNORMAL.get(facts.name, min(ulp, SUBNORMAL_ULP)) + more,
                }
        if facts.name == BINARY:
            # Other second derivatives may be sums that cancel.
            table[f"{facts.name} hess {dtype}"] = {"normal": HESS_ULP, "subnormal": SUBNORMAL_ULP}
            # In units of 2^-23 (2^-52) of the gradient's range: its zero is ill-conditioned.
            table[f"{facts.name} grad, soft targets {dtype}"] = {"normal": 1.5}
    table["sum of 10^8 losses float32"] = {"normal": 0.51}
    return {row: kinds | {"special": 0.0} for row, kinds in table.items()}


SUBNORMAL_ULP, HESS_ULP = 2.5, 5.0
# A subnormal exponential divided by 2 - power, down to 2^-10 here.
SUBNORMAL = {"tweedie_loss": 1024.0}


def _without_fma(name: str) -> float:
    """What two roundings for one in every multiply-add cost.

    The exponential of a product needs the product's rounding error, which only a fused multiply-add tells.
    """
    products = {"exp_sum", "exp_times"}
    return 512.0 if name in FORMULAS and products.intersection(FORMULAS[name].__code__.co_names) else 0.5


DTYPES = {"f32": "float32", "f64": "float64"}


def elementwise() -> list[str]:
    """The elementwise losses: every one of the registry."""
    return [name for name, facts in LOSSES.items() if facts.kind == "elementwise" and hasattr(fl, name)]


def complete() -> set[str]:
    """Rows measured over all inputs."""
    every = {f"{name} float32" for name, p in PRIMITIVES.items() if "f32" in p.floats}
    return every | {f"{BINARY} {what} float32" for what in ("loss", "grad", "hess")}


# --- tasks


def plan(share: float, parts: tuple[str, ...]) -> list[Task]:
    """All tasks of some parts; a share below 1 takes evenly spaced inputs and fewer random ones."""
    tasks = []
    for name, p in PRIMITIVES.items():
        if "f32" in p.floats:
            pieces = math.ceil(sum(count for _, count in _patterns(p.low, p.high)) * share / CHUNK)
            tasks += [Task("primitives", name, "float32", k) for k in range(pieces)]
        if "f64" in p.floats:
            tasks += [Task("primitives", name, "float64", k) for k in range(math.ceil(64 * share))]
    tasks += [Task("binary", BINARY, "float32", k) for k in range(math.ceil(2**32 * share / CHUNK))]
    for facts, dtype in itertools.product(LOSSES.values(), DTYPES.values()):
        if facts.name in elementwise():
            sets = range(1 + bool(facts.params))
            tasks += [Task("losses", facts.name, dtype, k, n) for n in sets for k in range(math.ceil(4 * share))]
        if facts.name in ROWS:
            widths = WIDTHS if share == 1 else WIDTHS[:-2]
            tasks += [Task("rows", facts.name, dtype, k, n) for n in widths for k in range(math.ceil(16 * share))]
    tasks += [Task("sums", name, "float32", 0) for name in ("mse_loss", BINARY)]
    return [task for task in tasks if task.part in parts]


def run(task: Task, share: float = 1.0) -> Found:
    """Do a task."""
    with np.errstate(all="ignore"):
        return WORK[task.part](task, share)


def merge(into: Found, found: Found) -> None:
    """Keep the larger errors."""
    for row, errors in found.items():
        kept = into.setdefault(row, {})
        for kind, (error, place) in errors.items():
            if kind not in kept or error > kept[kind][0]:
                kept[kind] = error, place


# --- measuring


def _note(found: Found, row: str, actual, wanted, inputs, settle=None, size=0, part=1.0) -> np.ndarray:
    """Enter the largest errors of a row; returns all of them. A size above the results' gives its unit instead.

    Where the bound has grown with parameters, the table's is but a part of it, and that part of the error is entered.
    """
    errors = _ulp.errors(actual, wanted, size) * part
    # Above the reference's own error: 2^-29 ULP in float64 for float32; in long double for float64 2^-11, but more in
    # the exponential of a large product.
    doubt = 0.05 if actual.dtype == np.float64 else 1e-5
    # A sum whose terms cancel to nothing is no special case.
    for kind, chosen in _ulp.kinds(np.where(wanted == 0, size, wanted), actual.dtype).items():
        index = np.flatnonzero(chosen)
        if not index.size:
            continue
        at, bound = index[np.argmax(errors[index])], _bounds()[row].get(kind, math.inf)
        if settle is not None and kind != "special" and errors[at] > bound - doubt and np.isfinite(errors[at]):
            near = index[errors[index] > bound - doubt][:200]
            sizes = np.broadcast_to(size, errors.shape)
            exact = [settle(*(float(v[i]) for v in inputs)) for i in near]
            errors[near] = [part * _settled(actual[i], value, sizes[i]) for i, value in zip(near, exact, strict=True)]
            at = index[np.argmax(errors[index])]
        merge(found, {row: {kind: (float(errors[at]), _place(inputs, at))}})
    return errors


_bounds = cache(budgets)


def _parts(facts: Loss, values: tuple[float, ...], more: float = 0.0) -> tuple[float, float]:
    """What the bounds of loss and gradient are of those for some parameters, and of a few ULP more."""
    loss, grad = facts.bounds(values)
    return facts.loss_ulp / (loss + more), facts.grad_ulp / (grad + more)


def _place(inputs, at: int) -> str:
    """Arguments in hexadecimal, or the task whose result has that place."""
    return f"{inputs}: {at}" if isinstance(inputs, Task) else ", ".join(float(v[at]).hex() for v in inputs)


def _settled(actual, exact, size=0.0) -> float:
    """An error in ULP from a result of mpmath."""
    info = np.finfo(actual.dtype)
    if exact == 0 and size == 0:
        return 0.0 if actual == 0 else math.inf
    largest = max(abs(exact), mpmath.mpf(float(size)))
    unit = mpmath.ldexp(1, max(mpmath.frexp(largest)[1] - 1, int(info.minexp)) - info.nmant)
    return float(abs(mpmath.mpf(float(actual)) - exact) / unit)


def _wide(dtype: str):
    return np.float64 if dtype == "float32" else np.longdouble


def _climb(arrays: tuple[np.ndarray, ...], measure: Callable, rng, rounds: int = 8) -> None:
    """Look for larger errors around the largest, by steps of all sizes in units in the last place.

    ``measure`` takes arguments and returns those of them that lie in the domain, and errors of several kinds.
    """
    for _ in range(rounds + 1):
        arrays, errors = measure(*arrays)
        best = np.unique(np.concatenate([np.argsort(e)[-24:] for e in errors]))
        steps = rng.choice([-1, 1], (len(arrays), len(best), 96)) * 2 ** rng.integers(
            0, 4 * arrays[0].itemsize, (len(arrays), len(best), 96)
        )
        # The others stay where they are half of the time.
        steps[1:] *= rng.integers(0, 2, steps[1:].shape)
        signed = np.dtype(f"i{arrays[0].itemsize}")
        arrays = tuple(
            (array[best, None].view(signed) + step.astype(signed)).view(array.dtype).ravel()
            for array, step in zip(arrays, steps, strict=True)
        )


# --- primitives


def _patterns(low: float, high: float) -> list[tuple[int, int]]:
    """First bit pattern and number of patterns on either side of zero."""
    ends = [int(np.float32(v).view(np.uint32)) for v in (low, high)]
    sides = []
    if not np.signbit(high):
        first = 0 if np.signbit(low) else ends[0]
        sides.append((first, ends[1] - first + 1))
    if np.signbit(low):
        first = ends[1] if np.signbit(high) else 1 << 31
        sides.append((first, ends[0] - first + 1))
    return sides


def _slices(sides: list[tuple[int, int]], number: int, share: float) -> Iterator[np.ndarray]:
    """The floats of a task among some bit patterns, few at a time: that is three times as fast."""
    step, start = max(round(1 / share), 1), 0
    for first, count in sides:
        low, high = (max(number * CHUNK * step, start), min((number + 1) * CHUNK * step, start + count))
        for place in range(-(-low // step) * step, high, SLICE * step):
            chosen = np.arange(place, min(place + SLICE * step, high), step, dtype=np.int64)
            yield (chosen - start + first).astype(np.uint32).view(np.float32)
        start += count


@cache
def _compiled(name: str, suffix: str) -> Callable:
    from .._numba import _jit, primitives_generated

    function = getattr(primitives_generated, f"{name}_{suffix}")

    @_jit.inline
    def each(x, out, *more):
        for i in range(x.size):
            out[i] = function(x[i], *more)

    return each


def primitive(name: str, x: np.ndarray) -> np.ndarray:
    """A primitive of every number of an array."""
    suffix = f"f{8 * x.itemsize}"
    out = np.empty_like(x)
    _compiled(name, suffix)(x, out, *(x.dtype.type(v) for v in PRIMITIVES[name].more(suffix)))
    return out


def _primitive(task: Task, share: float) -> Found:
    found: Found = {}
    p = PRIMITIVES[task.name]
    row = f"{task.name} {task.dtype}"

    def measure(x):
        x = x[(x >= p.low) & (x <= p.high)]
        settle = partial(p.exact, mpmath)
        with mpmath.workprec(120):
            wanted = p.exact(np, x.astype(_wide(task.dtype)))
            return (x,), [_note(found, row, primitive(task.name, x), wanted, (x,), lambda v: settle(mpmath.mpf(v)))]

    if task.dtype == "float32":
        for x in _slices(_patterns(p.low, p.high), task.number, share):
            measure(x)
        if task.number == 0:
            measure(np.array([p.low, p.high], np.float32))
        return found
    rng = np.random.default_rng(task.number)
    some = [
        _ulp.stratified(np.float64, 16, task.number),
        rng.uniform(0, 750, POINTS),
        2.0 ** rng.uniform(-6, 1, POINTS),
    ]
    x = np.abs(np.concatenate(some))
    x = np.concatenate([x[::2], -x[1::2]]) if p.low < 0 < p.high else x if p.high > 0 else -x
    _climb((x,), measure, rng, 8 if share == 1 else 3)
    return found


# --- elementwise losses


def _results(name: str, arrays, params, variants: bool = True) -> Iterator[tuple[tuple[np.ndarray, ...], list[str]]]:
    """Loss, gradient and Hessian by every compiled backend, and what differs that should have the same bits."""
    (x, y, *third), first = arrays, None
    # The third array, where there is one, goes by its name.
    params = params | dict(zip([str(LOSSES[name].third)], third, strict=False))
    for backend in (b for b in fl.backends() if b != "numpy"):
        call = partial(getattr(fl, name), reduction="none", **params, backend=backend, n_threads=1)
        loss, grad, *_ = call(x, y)
        hess = fl.grad_hess(getattr(fl, name), x, y, **params, backend=backend, n_threads=1).hess
        problems = []
        if variants:
            inside = x.copy()
            strided = call(np.repeat(x, 2)[::2], y[::-1].copy()[::-1])
            pairs = {
                "loss only": (call(x, y, grad=False).loss, loss),
                "in place": (call(inside, y, out=inside).grad, grad),
                "strided": (strided.grad, grad),
            }
            problems = [f"{backend} {what}" for what, pair in pairs.items() if not _same(*pair)]
        results = loss, grad, hess
        if first is not None and HAS_FMA:
            problems += [backend] * (not all(map(_same, results, first)))
            if not problems:
                continue
        yield results, problems
        first = results


HAS_FMA = getattr(_cython.kernels, "HAS_FMA", True)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, every NaN alike."""
    unsigned = f"u{a.itemsize}"
    return bool(np.all((a.view(unsigned) == b.view(unsigned)) | (np.isnan(a) & np.isnan(b))))


def _measure(found: Found, name: str, params: dict[str, Any], arrays, variants: bool = True):
    """Enter the errors of a loss at some points; returns those with a promise, and their errors."""
    dtype, values, facts = arrays[0].dtype.name, LOSSES[name].parse(params), LOSSES[name]
    wide = _wide(dtype)
    given = (*(a.astype(wide) for a in arrays), *map(wide, values))
    wanted = _ulp.formula_of_arrays(name)(*given)
    wanted = [np.broadcast_to(np.asarray(w, wide), arrays[0].shape) for w in wanted]
    if "scale" in params:
        # A residual over its scale may overflow where the loss would not.
        inside = ~(np.abs(given[0] - given[1]) > np.finfo(dtype).max * params["scale"])
        arrays, wanted = tuple(a[inside] for a in arrays), [w[inside] for w in wanted]
    sizes: list[Any] = [0, 0, 0]
    if facts.sums is not None:
        terms = partial(facts.sums, exp=np.exp, log=lambda v: abs(np.log(abs(v))))
        sizes[:2] = np.vectorize(lambda *numbers: terms(*numbers)[:2], otypes=[wide, wide])(*given)
        # Terms beyond the type's range are none of the promise.
        inside = np.all([~(size > np.finfo(dtype).max) for size in sizes[:2]], axis=0)
        arrays, wanted = tuple(a[inside] for a in arrays), [w[inside] for w in wanted]
        # A subnormal term has few digits, and of a large parameter times that comes a normal number with no more.
        least = np.finfo(dtype).tiny * max(1.0, *map(abs, values)) if values else 0
        sizes[:2] = [np.maximum(size[inside], least) for size in sizes[:2]]
    errors, parts = [], (*_parts(facts, values), 1.0)
    for results, problems in _results(name, arrays, params, variants):
        for number, what in enumerate(("loss", "grad", "hess")[: 3 if name == BINARY else 2]):
            settle, row = partial(_settle_loss, name, values, number), f"{name} {what} {dtype}"
            size, part = sizes[number], parts[number]
            errors.append(_note(found, row, results[number], wanted[number], arrays, settle, size, part))
        for problem in problems:
            merge(found, {f"{name} loss {dtype}": {"special": (math.inf, f"other bits: {problem}")}})
    return arrays, errors


def _settle_loss(name, values, number, *arguments):
    with mpmath.workprec(200):
        return _ulp.formula(name)(*map(mpmath.mpf, (*arguments, *values)))[number]


def _binary(task: Task, share: float) -> Found:
    """Every float32 logit, target 0; target 1 by the mirror image, which must have the same bits."""
    found: Found = {}
    for number, x in enumerate(_slices([(0, 2**32)], task.number, share)):
        _binary_slice(found, x, variants=number == 0)
    return found


def _binary_slice(found: Found, x: np.ndarray, variants: bool) -> None:
    y = np.zeros_like(x)
    _measure(found, BINARY, {}, (x, y), variants)
    function = getattr(fl, BINARY)
    common: dict[str, Any] = {"backend": fl.backends()[0], "n_threads": 1}
    loss, grad = function(x, y, reduction="none", **common)
    hess = fl.grad_hess(function, x, y, **common).hess
    mirrored = function(-x, y + 1, reduction="none", **common)
    other = fl.grad_hess(function, -x, y + 1, **common).hess
    if not (_same(mirrored.loss, loss) and _same(-mirrored.grad, grad) and _same(other, hess)):
        merge(found, {f"{BINARY} loss float32": {"special": (math.inf, f"targets 0 and 1 differ from {x[0]}")}})


def _params(facts: Loss, random: bool, rng) -> dict[str, Any]:
    """The defaults, or parameters from all over what is allowed."""
    if not random:
        # What would come from the data is given.
        return {p.name: p.default for p in facts.params if p.derive}
    found: dict[str, Any] = {}
    for p in facts.params:
        found[p.name] = [_drawn(p, rng) for _ in range(rng.integers(1, p.length + 1))] if p.length else _drawn(p, rng)
    return found


def _drawn(p: Param, rng) -> Any:
    """A value of a parameter: of any size, near 0, 1 or 2, a short fraction, or at an end of what is allowed."""
    if p.flag:
        return bool(rng.integers(0, 2))
    if p.nullable and rng.random() < 0.25:
        return None
    if rng.random() < 0.1:
        ends = [v for v in ENDS if p.valid(v)]
        return float(ends[rng.integers(0, len(ends))])
    for _ in range(1000):
        reach = rng.choice([2.0, 10.0, 100.0])
        size = np.exp2(rng.uniform(-reach, reach))
        value = float(rng.choice([size, -size, 1 - size, 2 - size, 1 + size, np.ceil(8 * size) / 8]))
        if p.valid(value):
            return value
    return p.default


# What some parameter's values end at.
ENDS = (0.0, 2.0**-100, 0.5 - 2.0**-23, 1 - 2.0**-23, 1.0, 1 + 2.0**-23, 2 - 2.0**-23, 2.0, 1000.0, 2.0**100)


def _points(facts, dtype: str, rng, seed: int, share: float) -> tuple[np.ndarray, ...]:
    """Predictions, targets and what else there is per element, of all sizes, many of them where exponentials matter."""
    kind, some = np.dtype(dtype).type, min(max(share, 1 / 64), 1.0)
    everywhere = _ulp.stratified(kind, int(some * (64 if dtype == "float32" else 16)), seed)
    ordinary = _ulp.stratified(kind, int(some * POINTS) // 20, seed + 1, low=-13, high=7 if dtype == "float32" else 10)
    x = np.concatenate([everywhere, ordinary, np.array([0, math.inf, -math.inf, math.nan], kind)])
    if facts.input == "unit":
        x = np.where(np.abs(x) > 1, 1 / x, x)
    x = np.where(DOMAINS[facts.input].valid(x) | np.isnan(x), x, np.abs(x))
    third = [np.exp2(rng.uniform(-22, 20, x.size)).astype(kind)] if facts.needs_third else []
    if facts.target in ("unit", "binary", "sign"):
        return x, rng.integers(-1 if facts.target == "sign" else 0, 2, x.size).astype(kind), *third
    # Targets near the prediction (the difference cancels), far from it, and zero.
    near = (x * (1 + rng.uniform(-1, 1, x.size) * 2.0 ** -rng.integers(0, 24, x.size))).astype(kind)
    y = np.choose(rng.integers(0, 3, x.size), [near, rng.permutation(x), np.zeros_like(x)])
    return x, np.where(DOMAINS[facts.target].valid(y), y, np.abs(y)), *third


def _inside(facts, arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The points that are in the loss's domain; a climb leaves targets of few values alone.

    Finite numbers end where differences and quotients by small parameters may exceed the largest float.
    """
    x, y, *third = arrays
    info = np.finfo(x.dtype)
    most = info.max * info.eps / 8
    if facts.target in ("unit", "binary", "sign"):
        y = np.clip(np.round(y), -1 if facts.target == "sign" else 0, 1)
    good = (DOMAINS[facts.input].valid(x) | np.isnan(x)) & DOMAINS[facts.target].valid(y)
    for array in (x, y):
        good &= ~((np.abs(array) > most) & np.isfinite(array))
    for array in third:
        good &= DOMAINS[facts.third_domain].valid(array) & np.isfinite(array)
    return tuple(array[good] for array in (x, y, *third))


def _loss(task: Task, share: float) -> Found:
    found: Found = {}
    facts = LOSSES[task.name]
    rng = np.random.default_rng([task.number, task.detail])
    # Few points of many sets of parameters.
    sets = math.ceil(SETS * share) if task.detail else 1
    for number in range(sets):
        params = _params(facts, bool(task.detail), rng)
        arrays = _points(facts, task.dtype, rng, sets * task.number + number, share / sets)
        if facts.name == BINARY and task.detail:
            _soft(found, facts, params, arrays[0], rng)
            continue

        def measure(*arrays, params=params):
            return _measure(found, task.name, params, _inside(facts, arrays))

        _climb(arrays, measure, rng, 8 if share == 1 else 3)
    return found


def _soft(found: Found, facts, params, x, rng) -> None:
    """Targets between 0 and 1, other parameters: the gradient's error against its range, y being exact in eighths."""
    dtype = x.dtype.name
    y = (rng.integers(0, 9, x.size) / 8).astype(x.dtype)
    x = np.where(np.isfinite(x), x, 0)
    wide = _wide(dtype)
    values = facts.parse(params)
    wanted = _ulp.formula_of_arrays(facts.name)(x.astype(wide), y.astype(wide), *map(wide, values))[1]
    # The gradient's range, from far left to far right, by the textbook.
    far, ends = np.array([[-1e4], [1e4]]), np.array([[0.0, 1.0]])
    left, right = getattr(reference, facts.name)(far + 0 * ends, ends + 0 * far, **params)[1]
    size = wide(np.max(right - left))
    for results, _ in _results(facts.name, (x, y), params):
        errors = np.abs(results[1].astype(wide) - wanted) / (size * wide(np.finfo(x.dtype).eps))
        at = int(np.argmax(errors))
        merge(found, {f"{facts.name} grad, soft targets {dtype}": {"normal": (float(errors[at]), _place((x, y), at))}})


# --- rows and sums


def _rows(task: Task, share: float) -> Found:
    """Ordinary, spread-out and confident rows, with offsets, up to a million in magnitude."""
    found: Found = {}
    width, rng = task.detail, np.random.default_rng([task.number, task.detail])
    count = max(2, 20_000 // width)
    scale = rng.choice([0.1, 1.0, 5.0, 20.0, 300.0], (count, 1))
    x = scale * rng.standard_normal((count, width)) + rng.choice([0.0, 250.0, -250.0, 8190.0, 1e4, -1e6], (count, 1))
    y, top = rng.integers(0, width, count), rng.integers(0, width, count)
    confident = np.flatnonzero(rng.integers(0, 2, count))
    x[confident, top[confident]] = x[confident].max(axis=1) + rng.uniform(0, 80, len(confident))
    y[confident[::2]] = top[confident[::2]]
    wild = rng.random(count) < 0.1
    x[wild] = rng.uniform(-1e6, 1e6, (int(wild.sum()), width))
    x = x.astype(task.dtype)
    args: tuple[np.ndarray, ...] = (x, y)
    if LOSSES[task.name].target == "action":
        args = (x, y, rng.standard_normal(count).astype(x.dtype))
    if LOSSES[task.name].target == "distribution":
        args = (x, shares(x, rng))
    facts = LOSSES[task.name]
    options = _options(facts, rng) if task.number % 2 and facts.params else {}
    loss, grad, *sizes = ROWS[task.name](*args, **options)
    # Capped logits are right to 60 bits, of float32 to 50.
    reach = min(options.get("softcap") or 0.0, np.abs(x).max()) / min(options.get("temperature", 1.0), 1.0)
    more = reach / 64 if task.dtype == "float64" else reach * 2.0**-25
    parts = _parts(facts, facts.parse({p.name: options[p.name] for p in facts.params if p.name in options}), more)
    first = None
    for backend in (b for b in fl.backends() if b != "numpy"):
        call = partial(getattr(fl, task.name), reduction="none", backend=backend, n_threads=1, **options)
        result, lossy, inside = call(*args), call(*args, grad=False), x.copy()
        inplace = call(inside, *args[1:], out=inside)
        same = _same(lossy.loss, result.loss) and _same(inplace.grad, result.grad)
        if first is not None and HAS_FMA:
            same = same and _same(first.loss, result.loss) and _same(first.grad, result.grad)
        if not same:
            merge(found, {f"{task.name} loss {task.dtype}": {"special": (math.inf, f"other bits: {backend} {task}")}})
        first = result
        results = zip(("loss", "grad"), result, (loss, grad), sizes or (0, 0), parts, strict=True)
        for what, actual, exact, size, part in results:
            row = f"{task.name} {what} {task.dtype}"
            _note(found, row, actual.ravel(), exact.ravel(), task, None, np.ravel(size), part)
    return found


def _options(facts: Loss, rng) -> dict[str, Any]:
    """Parameters of a loss of rows, and half of the time what cross-entropy takes besides."""
    found = _params(facts, True, rng)
    if facts.name == "cross_entropy":
        found |= {p.name: _drawn(p, rng) for p in OPTIONS if rng.integers(0, 2)}
    return found


def shares(x, rng) -> np.ndarray:
    """Probabilities for rows of logits: elsewhere, near the softmax, at one class, and with zeros."""
    near = rng.random((len(x), 1)) < 0.25
    z = np.where(near, x + rng.uniform(-1, 1, x.shape) * 2.0 ** -rng.integers(0, 20, (len(x), 1)), 0.0)
    z = np.where(near, z, rng.choice([0.1, 1.0, 5.0, 300.0], (len(x), 1)) * rng.standard_normal(x.shape))
    e = np.exp(z - z.max(axis=1, keepdims=True)) * (near | (rng.random(x.shape) < 0.9))
    return (e / np.maximum(e.sum(axis=1, keepdims=True), 1e-30)).astype(x.dtype)


def _sums(task: Task, share: float) -> Found:
    """The sum of very many float32 losses against that of ``math.fsum``, in float32 units."""
    rng = np.random.default_rng(7)
    count = max(int(TERMS * share), 10_000)
    x = rng.standard_normal(count, dtype=np.float32)
    x *= np.exp2(rng.integers(-12, 5, count).astype(np.float32))
    y = (x > 0).astype(np.float32)
    function, common = getattr(fl, task.name), {"backend": fl.backends()[0], "n_threads": 1}
    total = function(x, y, reduction="sum", grad=False, **common).loss
    # Sums of pieces are independent of how the losses are cut; only the list that fsum reads is kept short.
    pieces = (function(x[k : k + 2**20], y[k : k + 2**20], reduction="none", grad=False, **common).loss
              for k in range(0, count, 2**20))  # fmt: skip
    exact = math.fsum(itertools.chain.from_iterable(piece.tolist() for piece in pieces))
    error = _ulp.errors(np.array([total], np.float32), np.array([exact]))[0]
    return {"sum of 10^8 losses float32": {"normal": (float(error), f"{task.name}, {count} terms")}}


WORK = {"primitives": _primitive, "binary": _binary, "losses": _loss, "rows": _rows, "sums": _sums}
