"""Errors in units in the last place, against the bounds that the registry promises.

The run ends with a table of the worst errors, so that bounds can be tightened.
"""

import itertools

import mpmath
import numpy as np
import pytest
from cases import COMPILED, ELEMENTWISE, UNIT

import fastloss as fl
from fastloss.commands._exhaustive import shares
from fastloss.commands._ulp import (
    LONG,
    cross_entropy_rows,
    divergence_rows,
    exact,
    margin_rows,
    sigmoid_parts,
    stratified,
    term_sizes,
)  # fmt: skip
from fastloss.registry import DOMAINS, LOSSES

needs_longdouble = pytest.mark.skipif(not LONG, reason="long double has no spare digits")

WIDE = {"float32": np.float64, "float64": np.longdouble}
# Arguments at which the result changes its form: saturation, underflow, the ends of the range.
EDGES = [0.0, 1e-40, 1.0, 16.6, 17.4, 36.7, 37.5, 87.3, 88.8, 103.2, 103.98, 104.1, 708.3, 709.8, 744.4, 745.2, 746.1]

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def edges(dtype):
    info = np.finfo(dtype)
    ends = np.array([info.max, info.tiny, info.smallest_subnormal, info.eps, *EDGES], dtype)
    around = np.concatenate([ends, np.nextafter(ends, info.max), np.nextafter(ends, dtype(0))])
    return np.concatenate([around, -around])


def check(name, args, references, bounds, within, sizes=(0, 0, 0), **options):
    """Compare loss and gradient of the compiled backends with references, for an unreduced call and for a sum.

    Both in one test: the references take longer than they do.
    """
    for compiled in COMPILED:
        result = getattr(fl, name)(*args, backend=compiled, reduction="none", **options)
        summed = getattr(fl, name)(*args, backend=compiled, reduction="sum", **options).grad
        np.testing.assert_array_equal(result.grad, summed)
        compare(compiled, name, args, result, references, bounds, within, sizes)


def compare(compiled, name, args, result, references, bounds, within, sizes):
    failures = []
    for what, actual, wanted, bound, size in zip(
        ("loss", "grad", "third"), result, references, bounds, sizes, strict=False
    ):
        inputs = args if actual.ndim == args[0].ndim == args[1].ndim else ()
        try:
            within(f"{name} {what} {actual.dtype} {compiled}", actual, wanted, bound, *inputs, size=size)
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures


@needs_longdouble
@pytest.mark.parametrize("name", UNIT)
def test_binary_losses_over_the_whole_range(name, dtype, within):
    if name != "binary_cross_entropy_with_logits":
        pytest.skip("has no vectorised reference; the test by formula covers it")
    dtype, facts = np.dtype(dtype).type, LOSSES[name]
    # About four million patterns of float32, two thirds of them where exp(-|x|) matters.
    per = 4096 if dtype is np.float32 else 128
    ordinary = stratified(dtype, 32 * per, seed=1, low=-13, high=8 if dtype is np.float32 else 11)
    for x in (stratified(dtype, per), ordinary, edges(dtype)):
        positive, p = sigmoid_parts(x, WIDE[dtype.__name__])
        negative, q = sigmoid_parts(-x, WIDE[dtype.__name__])
        for y, references in ((0, (positive, p)), (1, (negative, -q))):
            args = (x, np.full(x.shape, y, dtype))
            check(name, args, references, (facts.loss_ulp, facts.grad_ulp), within)


def target_for(facts, x, rng):
    """Targets in the loss's domain: near the prediction, far from it, zero."""
    if facts.target in ("unit", "binary", "sign"):
        return rng.integers(-1 if facts.target == "sign" else 0, 2, x.size).astype(x.dtype)
    choice = rng.integers(0, 3, x.size)
    if facts.target == "real":
        # The difference to the near ones cancels.
        near = x * (1 + rng.uniform(-1, 1, x.size) * 2.0 ** -rng.integers(0, 24, x.size))
        return np.choose(choice, [near.astype(x.dtype), rng.permutation(x), np.zeros_like(x)])
    far = np.exp2(rng.uniform(-20, 20, x.size))
    near = np.where((x >= 2.0**-20) & (x <= 2.0**20), x, 1) * (1 + rng.uniform(0, 1, x.size) * 2.0**-20)
    return np.choose(choice, [near, far, far if facts.target == "positive" else np.zeros_like(far)]).astype(x.dtype)


def formula_cases(name, dtype):
    """Arguments of a loss, its values in many digits, and the sizes of the terms they are sums of."""
    dtype, facts, rng = np.dtype(dtype).type, LOSSES[name], np.random.default_rng(3)
    everywhere, ordinary = stratified(dtype, 4 if dtype is np.float32 else 1), stratified(dtype, 60, low=-8, high=7)
    x = np.concatenate([everywhere, ordinary, edges(dtype)])
    x = x[DOMAINS[facts.input].valid(x)]
    if name == "cauchy_loss":
        x = x[np.abs(x) < np.finfo(dtype).max / 8]  # a residual over its scale may overflow
    y = target_for(facts, x, rng)
    third = [np.exp2(rng.uniform(-22, 20, x.size)).astype(dtype)] if facts.needs_third else []
    named = {facts.third: third[0]} if third else {}
    first = {p.name: p.default for p in facts.params if p.derive}
    middle = {p.name: 0.375 for p in facts.params if p.valid(0.375) and name not in UNIT}
    flags = {p.name: 1.0 - p.default for p in facts.params if p.flag}
    found = []
    for params in [given for k, given in enumerate([first, middle, flags]) if given or not k]:
        numbers = facts.parse(params)
        loss, grad, _, *more = exact(name, x, y, numbers, *third)
        found.append(((x, y), (loss, grad, *more), term_sizes(name, x, y, numbers, *third), params | named))
    return found


@needs_longdouble
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_losses_by_their_formula(name, dtype, within):
    facts = LOSSES[name]
    for args, references, sizes, options in formula_cases(name, dtype):
        bounds = (facts.loss_ulp, facts.grad_ulp, facts.grad_ulp)
        check(name, args, references, bounds, within, sizes, **options)


@pytest.mark.parametrize(("name", "params"), [("tweedie_loss", {"power": 1.044921875}), ("gamma_nll_loss", {})])
def test_products_of_subnormal_targets_with_exponentials(name, params, compiled):
    # The product is a normal number again: no step on the way to it may lose the target's digits.
    x, y = np.array([-736.0, -800.0, -740.5, -30.0]), np.array([1e-323, 3e-322, 1e-310, 1e-310])
    loss, grad, _ = exact(name, x, y, tuple(params.values()))
    result = getattr(fl, name)(x, y, reduction="none", backend=compiled, **params)
    np.testing.assert_allclose(result.loss, loss.astype(float), rtol=1e-12, atol=1e-320)
    np.testing.assert_allclose(result.grad, grad.astype(float), rtol=1e-12, atol=1e-320)


@needs_longdouble
@pytest.mark.parametrize("name", UNIT)
def test_smoothed_and_weighted_losses_keep_their_digits(name, compiled, dtype, within):
    # The loss has no cancellation for any target; the gradient's zero is ill-conditioned, so it is not asked here.
    dtype, facts = np.dtype(dtype).type, LOSSES[name]
    x = stratified(dtype, 40, low=-8, high=7)
    y = np.random.default_rng(0).integers(0, 9, x.size).astype(dtype) / 8
    loss, grad, hess = exact(name, x, y, facts.parse({}))
    result = getattr(fl, name)(x, y, reduction="none", backend=compiled)
    within(f"{name} loss (soft targets) {dtype.__name__} {compiled}", result.loss, loss, facts.loss_ulp + 1, x, y)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(result.grad, grad.astype(np.float64), rtol=0, atol=2 * eps)
    found = fl.grad_hess(getattr(fl, name), x, y, backend=compiled).hess
    within(f"{name} hess {dtype.__name__} {compiled}", found, hess, 4.0, x, y)


def rows(dtype, width, seed=0):
    """Ordinary rows, spread-out rows, confident ones, and rows with a large common offset."""
    rng = np.random.default_rng(seed)
    count = max(24, (30_000 if width <= 65 else 6_000) // width)
    parts = [sigma * rng.standard_normal((count, width)) for sigma in (0.1, 1, 5, 20)]
    y = rng.integers(0, width, 4 * count)
    confident = rng.standard_normal((2 * count, width))
    lead = rng.integers(0, width, 2 * count)
    confident[np.arange(2 * count), lead] = confident.max(axis=1) + rng.uniform(17, 80, 2 * count)
    parts.append(confident)
    # Right and wrong by a large gap.
    y = np.concatenate([y, np.where(np.arange(2 * count) % 2 == 0, lead, rng.integers(0, width, 2 * count))])
    x = np.concatenate(parts)
    offsets = (0.0, 1e4, 1e6, -1e4, 250.0, -250.0, 8190.0)  # the last three: limits of shorter ways to exp
    return np.concatenate([x + c for c in offsets]).astype(dtype), np.tile(y, len(offsets))


@needs_longdouble
@pytest.mark.parametrize("width", [2, 3, 10, 20, 64, 65, 100, 1000])
def test_cross_entropy(dtype, width, within):
    facts = LOSSES["cross_entropy"]
    args = rows(dtype, width)
    check("cross_entropy", args, cross_entropy_rows(*args), (facts.loss_ulp, facts.grad_ulp), within)


@needs_longdouble
@pytest.mark.parametrize("width", [768, 1030, 2500])
def test_cross_entropy_of_maxima_that_come_late(dtype, width, within):
    # A float32 row's first values say what to expect; here later ones are above them, by little, much, or too much.
    facts, rng = LOSSES["cross_entropy"], np.random.default_rng(4)
    x = np.sort(5 * rng.standard_normal((5, width)), axis=1)
    x = np.concatenate([x, x[:1] * 8, x, x])
    for row, (place, above) in enumerate(itertools.product([40, -1, width // 2, 1023 % width], [10, 39, 41, 70])):
        x[row, place] = x[row, :32].max() + above
    x[3:6, :50] = -1e4
    x = np.concatenate([x, x + 200]).astype(dtype)
    args = x, rng.integers(0, width, len(x))
    check("cross_entropy", args, cross_entropy_rows(*args), (facts.loss_ulp, facts.grad_ulp), within)


@needs_longdouble
@pytest.mark.parametrize("width", [3, 70])
def test_cross_entropy_of_any_magnitude(dtype, width, within):
    # Exponents from the subnormals to a third of the range, in one row.
    facts, rng = LOSSES["cross_entropy"], np.random.default_rng(2)
    x = rng.permutation(stratified(np.dtype(dtype).type, 16, high=9))
    x = x[: x.size // width * width].reshape(-1, width)
    args = x, rng.integers(0, width, len(x))
    check("cross_entropy", args, cross_entropy_rows(*args), (facts.loss_ulp, facts.grad_ulp), within)


@needs_longdouble
@pytest.mark.parametrize("width", [2, 10, 65, 1000, 20_000])
@pytest.mark.parametrize("name", ["kl_div", "js_div"])
def test_divergences(name, dtype, width, within):
    # Of the most classes few rows: what small shares add to a sum that has a large one is kept.
    facts, rng = LOSSES[name], np.random.default_rng(4)
    x = rows(dtype, width)[0][:: 40 if width > 1000 else 1]
    args = x, shares(x, rng)
    loss, grad, *sizes = divergence_rows(name, *args)
    check(name, args, (loss, grad), (facts.loss_ulp, facts.grad_ulp), within, sizes)


@needs_longdouble
@pytest.mark.parametrize("width", [2, 3, 10, 64, 65, 100, 1000])
@pytest.mark.parametrize("name", ["multi_margin_loss", "crammer_singer_loss"])
def test_margins(name, dtype, width, within):
    facts, rng = LOSSES[name], np.random.default_rng(1)
    x, y = rows(dtype, width)
    # Rivals next to the kink: from a few steps to half the margin away.
    near = rng.standard_normal((400, width)).astype(dtype)
    gap = rng.choice([-1, 1], near.shape) * 2.0 ** -rng.integers(1, 30, near.shape)
    near = np.where(rng.random(near.shape) < 0.5, near, (near[:, :1] - 1 + gap).astype(dtype))
    args = np.concatenate([x, near]), np.concatenate([y, np.zeros(400, int)])
    for params in [{}, {"p": 2, "margin": 0.375}] if name == "multi_margin_loss" else [{}]:
        bounds = facts.loss_ulp, facts.grad_ulp
        check(name, args, margin_rows(name, *args, **params), bounds, within, **params)


@needs_longdouble
@pytest.mark.parametrize("kind", ["huber", "mse", "smooth_l1"])
def test_td_loss(compiled, dtype, kind, within):
    # Next values of 0: the target is the reward itself, so that the TD error is a single subtraction.
    dtype, facts = np.dtype(dtype).type, LOSSES["td_loss"]
    value, reward = stratified(dtype, 30, low=-8, high=7), stratified(dtype, 30, seed=5, low=-8, high=7)
    q, actions = np.stack([value, np.ones_like(value)], axis=1), np.zeros(value.size, np.int64)
    loss, slope, _ = exact(f"{kind}_loss", value, reward, () if kind == "mse" else (0.375,))
    result = fl.td_loss(
        q, actions, reward, np.zeros_like(q), np.zeros(value.size, bool), loss=kind, delta=0.375, reduction="none",
        backend=compiled,
    )  # fmt: skip
    within(f"td_loss loss {dtype.__name__} {compiled}", result.loss, loss, facts.loss_ulp, value, reward)
    within(f"td_loss grad {dtype.__name__} {compiled}", result.grad[:, 0], slope, facts.grad_ulp, value, reward)
    wide = reward.astype(np.longdouble) - value
    within(f"td_loss error {dtype.__name__} {compiled}", result.td_error, wide, 0.5, value, reward)


@needs_longdouble
def test_the_reference_of_cross_entropy_is_right():
    # The long double arithmetic behind the tests above, against mpmath.
    x, y = rows(np.float64, 20)
    x, y = x[::401], y[::401]
    loss, grad, *_ = cross_entropy_rows(x, y)
    with mpmath.workprec(300):
        for i, row in enumerate(x.tolist()):
            e = [mpmath.exp(z) for z in row]
            rest = mpmath.fsum(e[: y[i]] + e[y[i] + 1 :])
            wanted = [mpmath.log1p(rest / e[y[i]]), *(z / mpmath.fsum(e) for z in e)]
            wanted[1 + y[i]] = -rest / mpmath.fsum(e)
            for found, right in zip([loss[i], *grad[i]], wanted, strict=True):
                assert abs(mpmath.mpf(np.format_float_scientific(found, 30)) / right - 1) < 2.0**-60


@needs_longdouble
@pytest.mark.parametrize(("softcap", "temperature"), [(30.0, 1.0), (2.0, 0.7), (1e6, 3.0)])
def test_the_reference_of_capped_logits_is_right(softcap, temperature):
    x = np.random.default_rng(0).normal(0, [[1.0], [20.0]], (2, 12))
    y = np.array([3, x[1].argmax()])
    loss, grad, *_ = cross_entropy_rows(x, y, softcap=softcap, temperature=temperature)
    with mpmath.workprec(400):
        for i, row in enumerate(x.tolist()):
            tanh = [mpmath.tanh(z / mpmath.mpf(softcap)) for z in row]
            e = [mpmath.exp(softcap * t / mpmath.mpf(temperature)) for t in tanh]
            own = [mpmath.mpf(int(k == y[i])) for k in range(12)]
            total = mpmath.fsum(e)
            slopes = [(z / total - one) * (1 - t * t) / temperature for z, one, t in zip(e, own, tanh, strict=True)]
            for found, right in zip([loss[i], *grad[i]], [mpmath.log(total / e[y[i]]), *slopes], strict=True):
                assert abs(mpmath.mpf(np.format_float_scientific(found, 30)) / right - 1) < 2.0**-57


@pytest.mark.parametrize("name", UNIT)
def test_confident_answers_keep_a_gradient(name, compiled):
    # sigmoid(x) - 1 is exactly 0 in float32 from x = 17 on.
    x = np.array([17.0, 40.0, 100.0], np.float32)
    grad = getattr(fl, name)(x, np.ones(3, np.float32), backend=compiled, reduction="sum").grad
    np.testing.assert_allclose(grad, -np.exp(-x.astype(np.float64)), rtol=1e-6, atol=2.0**-149)
