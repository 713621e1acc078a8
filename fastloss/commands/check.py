"""Test the installed build against the reference.

Every backend, loss and float type: values and gradients, infinities, NaN and
extreme numbers, gradients by differences, masks over garbage, and equal bits for
any number of threads and from both compiled backends. The exit status is 0 if
all is well and 1 if not. The first run may take a minute: Numba compiles. The
last lines say which backends and CPU levels that was, and which it was not.

With --exhaustive instead: errors in units in the last place over every float32
input of binary cross-entropy and of the vector functions, and random ones of all
else, against the budgets of the table of accuracy. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

import fastloss as fl

from .. import _dispatch
from ..registry import LOSSES
from . import CommandError, _cases, add_backend_argument, from_extra, positive_int
from ._cases import Case
from ._coverage import report

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

# The float64 reference is itself rounded; against float32 that does not show.
_REFERENCE_ULP = {4: 0.0, 8: 8.0}

_PARTS = ("primitives", "binary", "losses", "rows", "sums")

# No bound is promised for the Hessian; this tells right from wrong.
_HESS_ULP = 8.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_backend_argument(parser, "all that are there")
    group = parser.add_argument_group("errors in units in the last place, which need mpmath and Numba")
    group.add_argument("--exhaustive", action="store_true", help="measure them, instead of the above")
    group.add_argument(
        "--part", action="append", choices=_PARTS, help="with --exhaustive: only this part; may be repeated"
    )
    group.add_argument(
        "--share", type=_share, metavar="F", help="with --exhaustive: a fraction of the inputs (default: 1)"
    )
    group.add_argument(
        "--jobs",
        type=positive_int,
        metavar="N",
        help="with --exhaustive: processes (default: the number of threads that losses use)",
    )
    group.add_argument(
        "--state",
        metavar="FILE",
        help="with --exhaustive: keep what is done in FILE, and go on from there; "
        "a file of other kernels, CPU level or share begins anew",
    )
    group.add_argument(
        "--write",
        action="store_true",
        help="with --exhaustive: enter the errors into the table of accuracy, and of how many inputs",
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1, got {text!r}")
    return share


def run(arguments: argparse.Namespace) -> int:
    """Run all groups of tests, one line each."""
    if arguments.exhaustive:
        return _run_exhaustive(arguments)
    for option in ("part", "share", "jobs", "state", "write"):
        if getattr(arguments, option) not in (None, False):
            raise CommandError(f"--{option} needs --exhaustive")
    # Asked first: it loads what is there, and what does not load is no longer listed.
    states = {name: _dispatch.status(name) for name in ("cython", "numba", "numpy")}
    backends = fl.backends() if arguments.backend is None else (arguments.backend,)
    if not set(backends) <= set(fl.backends()):
        why = states.get(arguments.backend, f"there are {', '.join(fl.backends())}")
        raise CommandError(f"backend {arguments.backend!r} is not available: {why.removeprefix('missing: ')}")
    failed = groups = 0
    for loss in LOSSES.values():
        for dtype in _DTYPES:
            for backend in backends:
                worst, problems = _check_backend(loss, dtype, backend)
                failed += _print(f"{backend:<7} {dtype.name}  {loss.name}", f"{worst:6.2f} ULP", problems)
                groups += 1
            if {"cython", "numba"} <= set(backends):
                problems = _same_bits(loss, dtype, [{"backend": b} for b in ("cython", "numba")])
                failed += _print(f"{'both':<7} {dtype.name}  {loss.name}", "same bits", problems)
                groups += 1
    print(f"{groups - failed} of {groups} groups passed\n")
    report(backends, "python -m fastloss check", "left out by --backend")
    return 1 if failed else 0


def _run_exhaustive(arguments: argparse.Namespace) -> int:
    if arguments.backend is not None:
        raise CommandError("--exhaustive measures both compiled backends: leave --backend out")
    for module, distribution in (("numba", "Numba"), ("mpmath", "mpmath")):
        from_extra("check", module, distribution, "check --exhaustive")
    from . import _accuracy

    return _accuracy.run(arguments)


def _print(group: str, figure: str, problems: list[str]) -> bool:
    print(f"{group:<52}{figure:>12}   {'FAILED: ' + '; '.join(problems) if problems else 'ok'}", flush=True)
    return bool(problems)


def _check_backend(loss: _cases.Loss, dtype: np.dtype, backend: str) -> tuple[float, list[str]]:
    """Run all tests of a loss on a backend; returns the largest error in ULP and what is wrong."""
    worst = 0.0
    problems: list[str] = []
    try:
        # An odd number of rows leaves a tail in every kind of vector loop.
        cases = _cases.ordinary(loss, dtype, 1017)
        for label, case in [("values", cases[0]), *(("parameters", c) for c in cases[1:])]:
            error, found = _compare(case, backend)
            worst, problems = max(worst, error), problems + [f"{label}: {text}" for text in found]
        _, found = _compare(_cases.special(loss, dtype), backend)
        problems += [f"specials: {text}" for text in found]
        for case in cases:
            problems += _differences(case, backend) + _masks(case, backend)
        problems += _same_bits(loss, dtype, [{"backend": backend, "n_threads": n} for n in (1, 2, 3, 4)])
    except Exception as error:  # A self-test reports whatever goes wrong.
        problems.append(f"{type(error).__name__}: {error}")
    return worst, list(dict.fromkeys(problems))


def _compare(case: Case, backend: str) -> tuple[float, list[str]]:
    """Compare with the reference; returns the largest error and what exceeds its bound."""
    expected = case.expected()
    got = case.call(backend, reduction="none")
    dtype = case.x.dtype
    bounds = case.loss.bounds(case.numbers)
    pairs = [("loss", got.loss, expected[0], bounds[0]), ("gradient", got.grad, expected[1], bounds[1])]
    if case.loss.kind in ("elementwise", "softmax"):
        pairs.append(("Hessian", case.hess(backend), expected[2], _HESS_ULP))
    if case.loss.kind == "gather":
        pairs.append(("td_error", got.td_error, expected[2], bounds[1]))
    worst, problems = 0.0, []
    for label, ours, theirs, bound in pairs:
        # Second derivatives change sign, or come from a difference that was rounded.
        error = ulp_error(ours, theirs, dtype, case.tiny_exact and label != "Hessian")
        # Smoothing and weights add a few roundings to those that the bound counts.
        limit = bound + _REFERENCE_ULP[dtype.itemsize] + (0 if case.tiny_exact else 4)
        if not error <= limit:
            problems.append(f"{label} off by {error:.3g} ULP, allowed {limit:.3g}")
        if label != "Hessian":
            worst = max(worst, error)
    return worst, problems


def ulp_error(got: np.ndarray, expected: np.ndarray, dtype: np.dtype, tiny_exact: bool = True) -> float:
    """Return the largest error in units in the last place.

    Parameters
    ----------
    got : ndarray
        Results, in `dtype`.
    expected : ndarray of float64
        What they should be before rounding to `dtype`.
    dtype : dtype
        Type whose spacing is the unit.
    tiny_exact : bool
        Whether numbers below 1 have units of their own, or that of 1.

    Returns
    -------
    float
        Infinity where NaNs or infinities differ.
    """
    if got.dtype != dtype or got.shape != expected.shape:
        return math.inf
    with np.errstate(all="ignore"):
        rounded = expected.astype(dtype)
        size = np.abs(rounded) if tiny_exact else np.maximum(np.abs(rounded), 1)
        error = np.abs(got.astype(np.float64) - expected) / np.spacing(size).astype(np.float64)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    error = np.where(same & ~np.isfinite(rounded), 0.0, np.where(np.isfinite(error), error, math.inf))
    return float(error.max(initial=0.0))


def _differences(case: Case, backend: str) -> list[str]:
    """Compare the gradient with central differences of the loss."""
    # Moderate numbers: far out, the loss's own rounding exceeds any difference.
    x = case.x.astype(np.float64)
    # Off the grid, on which kinks lie.
    x = 0.93 * (x - x.max(axis=-1, keepdims=True)) if case.loss.kind == "rows" else np.clip(x, -4, 4)
    x = x.astype(case.x.dtype)
    eps = float(np.finfo(x.dtype).eps)
    # A power of two near the cube root, by which both errors of a difference are about equal.
    step = 2.0 ** round(math.log2(eps) / 3)
    rows = np.arange(64)
    case = case.but(
        x=x[:64],
        others=tuple(a[:64] for a in case.others),
        params={k: v[:64] if isinstance(v, np.ndarray) else v for k, v in case.params.items()},
    )
    allowed = 100 * step * step
    for column in range(case.x.shape[1]) if case.x.ndim == 2 else [0]:
        at = (rows, column) if case.x.ndim == 2 else (rows,)
        points = []
        for shift in (-step, 0.0, step):
            moved = case.x.copy()
            moved[at] += shift
            result = case.but(x=moved).call(backend, reduction="none")
            points.append([np.asarray(a, np.float64) for a in (moved[at], result.loss, result.grad[at])])
        (x0, loss0, grad0), (_, _, grad), (x1, loss1, grad1) = points
        slope = (loss1 - loss0) / (x1 - x0)
        size = np.maximum(1, np.maximum(np.abs(loss1), np.abs(grad)))
        # At a kink the gradient turns within the step; there a difference says nothing.
        smooth = np.abs(grad0 - 2 * grad + grad1) <= step / 8
        if smooth.mean() < 0.5 or not np.all((np.abs(slope - grad) <= allowed * size)[smooth]):
            return [f"gradient differs from central differences by {np.abs(slope - grad)[smooth].max(initial=0):.3g}"]
    return []


def _masks(case: Case, backend: str) -> list[str]:
    """Mask rows that hold garbage: the others must not change, the masked ones must be exactly 0."""
    mask = np.arange(len(case.x)) % 5 != 2
    garbage = case.with_garbage(~mask)
    plain = case.call(backend, reduction="none")
    masked = garbage.call(backend, reduction="none", mask=mask)
    problems = []
    for label, before, after in [("loss", plain.loss, masked.loss), ("gradient", plain.grad, masked.grad)]:
        if not (np.array_equal(before[mask], after[mask]) and np.all(after[~mask] == 0)):
            problems.append(f"masked {label} differs")
    mean, total = garbage.call(backend, mask=mask).loss, math.fsum(masked.loss[mask].tolist())
    # Terms beyond the type's range need not be so in the sum.
    if math.isfinite(total) and not math.isclose(mean, total / mask.sum(), rel_tol=1e-5):
        problems.append("mean under a mask is wrong")
    return problems


def _same_bits(loss: _cases.Loss, dtype: np.dtype, variants: list[dict[str, Any]]) -> list[str]:
    """Call in different ways what must give the same bits."""
    # Enough rows for several blocks and for threads to be worth their while.
    rows = 300_000 if loss.kind == "elementwise" else 12_000
    problems = []
    for case in _cases.ordinary(loss, dtype, rows):
        results = [case.call(**{"reduction": "sum"} | variant) for variant in variants]
        first = results[0]
        for variant, result in zip(variants, results, strict=True):
            equal = result.loss == first.loss and np.array_equal(_bits(result.grad), _bits(first.grad))
            if not equal:
                problems.append(f"{variant} gives other bits than {variants[0]}")
    return problems


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}")
