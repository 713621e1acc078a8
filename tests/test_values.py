"""Values of whole calls against the textbook in float64 and against mpmath."""

import mpmath
import numpy as np
import pytest
from cases import CONVENTIONAL, LOSS_NAMES, ROWS, build, inputs, keep, param_sets, position, variants, weights
from oracle import assert_close, expected

import fastloss as fl
from fastloss import reference
from fastloss.commands._ulp import exact, formula
from fastloss.registry import DOMAINS, LOSSES

REDUCTIONS = ("mean", "sum", "none", "weighted_mean")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_options_of_every_loss(loss, backend, dtype, reduction):
    for case in variants(loss, dtype):
        assert_close(case(backend, reduction=reduction), expected(case, reduction=reduction), dtype, case.params)


@pytest.mark.parametrize("shape", [(1,), (3, 0, 2), (5, 7), (2, 3, 4), (4099,), (3, 1025)])
def test_shapes(loss, backend, shape):
    case = build(loss, "float32", shape)
    result = case(backend, reduction="none")
    assert result.loss.shape == shape
    assert result.grad.shape == case.args[0].shape
    assert_close(result, expected(case, reduction="none"), "float32")
    assert_close(case(backend, reduction="sum"), expected(case, reduction="sum"), "float32")


# One and two classes, both sides of the switch from narrow to wide rows, rows of several chunks and above a block.
@pytest.mark.parametrize("width", [1, 2, 3, 10, 31, 32, 33, 64, 100, 1000, 1025, 4097])
@pytest.mark.parametrize("name", [*ROWS, "td_loss"])
def test_widths_of_rows(name, backend, dtype, width):
    for case in variants(name, dtype, (19,), width)[:: 1 if width < 100 else 2]:
        kept, weight = keep(case.shape), weights(case.shape)
        options = {"sample_weight": weight, "mask": kept, "reduction": "none"}
        assert_close(case(backend, **options), expected(case, **options), dtype, case.params)


@pytest.mark.parametrize("name", ROWS)
def test_a_quarter_of_a_million_classes(name, backend):
    case = build(name, "float32", (2,), 250_007)
    assert_close(case(backend), expected(case), "float32")


@pytest.mark.parametrize("width", [7, 40])
@pytest.mark.parametrize("name", ROWS)
def test_more_rows_than_fit_side_by_side(name, backend, width):
    case = build(name, "float64", (1300,), width, **param_sets(name)[-1])
    options = {"sample_weight": weights((1300,)), "mask": keep((1300,)), "reduction": "none"}
    assert_close(case(backend, **options), expected(case, **options), "float64")


def test_the_normalizer_replaces_the_divisor(loss, backend, dtype):
    case = build(loss, dtype)
    for reduction in ("mean", "weighted_mean"):
        options = {"reduction": reduction, "normalizer": 12.5, "sample_weight": weights(case.shape)}
        assert_close(case(backend, **options), expected(case, **options), dtype)


def test_grad_false_gives_the_same_loss(loss, backend, dtype):
    for case in variants(loss, dtype):
        for reduction in ("mean", "none"):
            without, full = case(backend, grad=False, reduction=reduction), case(backend, reduction=reduction)
            assert without.grad is None
            np.testing.assert_array_equal(without.loss, full.loss)


def test_a_reduced_loss_is_a_float(loss, backend, dtype):
    result = build(loss, dtype)(backend)
    assert type(result.loss) is float
    assert result.grad.dtype == dtype


def test_the_number_of_fields_does_not_depend_on_the_arguments(loss, backend):
    case = build(loss, "float64")
    last = {"td_loss": ("td_error",), "gaussian_nll_loss": ("grad_var",)}
    fields = ("loss", "grad", *last.get(loss, ()))
    assert case(backend)._fields == case(backend, grad=False, reduction="none")._fields == fields


def test_grad_hess(elementwise, backend, dtype):
    for case in variants(elementwise, dtype):
        kept, weight = keep(case.shape), weights(case.shape)
        found = fl.grad_hess(
            getattr(fl, elementwise), *case.args, sample_weight=weight, mask=kept, backend=backend, **case.params
        )
        _, grad, hess, *_ = getattr(reference, elementwise)(*case.args, **case.params)
        assert_close((found.hess, found.grad), (hess * weight * kept, grad * weight * kept), dtype, case.params)


def test_formulas_are_the_textbook(elementwise):
    # The formula in mpmath and the reference in float64 were written independently.
    for params in param_sets(elementwise):
        case = build(elementwise, "float64", (200,), **params)
        for wanted, found in zip(getattr(reference, elementwise)(*case.args, **case.params),
                                 exact(elementwise, *case.args, case.numbers, *case.third), strict=True):  # fmt: skip
            np.testing.assert_allclose(wanted, found.astype(np.float64), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
def test_formulas_differentiate_their_own_loss(elementwise, y):
    facts, run = LOSSES[elementwise], formula(elementwise)
    if not DOMAINS[facts.target].valid(np.array([y]))[0]:
        y = 1.0 if facts.target in ("binary", "sign") else y + 0.125
    for params in param_sets(elementwise):
        given = facts.parse(params)
        kinks = facts.kinks(*given)
        more = [mpmath.mpf(v) for v in ([3.0, *given] if facts.needs_third else given)]
        value, slope = (lambda x, k=k, more=more: run(x, mpmath.mpf(y), *more)[k] for k in (0, 1))
        with mpmath.workprec(120):
            for x in inputs(elementwise, np.linspace(-6.3, 6.1, 19)):
                x = x if params.get("log_input", True) else abs(x)
                # mpmath's own step is far below this distance.
                if any(abs(position(elementwise, x, y) - kink) < 0.01 for kink in kinks):
                    continue
                _, grad, hess, *by_third = run(mpmath.mpf(x), mpmath.mpf(y), *more)
                curve = mpmath.diff(slope, x)
                assert mpmath.almosteq(grad, mpmath.diff(value, x), 1e-15, 1e-15)
                # The Hessian of absolute errors is a convention where the truth is 0.
                assert mpmath.almosteq(hess, curve, 1e-15, 1e-15) or (curve == 0 and elementwise in CONVENTIONAL)
                for found in by_third:
                    rise = mpmath.diff(
                        lambda v, x=x, more=more: run(mpmath.mpf(x), mpmath.mpf(y), v, *more[1:])[0], more[0]
                    )
                    assert mpmath.almosteq(found, rise, 1e-15, 1e-15)


def test_cross_entropy_against_mpmath(backend):
    case = build("cross_entropy", "float64", (6,), 7, label_smoothing=0.375, weight=np.array([1, 2, 0.5, 0, 3, 1, 1.0]))
    loss, grad = case(backend, reduction="none")
    logits, weight = case.args[0].tolist(), case.params["weight"].tolist()
    with mpmath.workprec(120):
        for i, y in enumerate(case.args[1].tolist()):
            e = [mpmath.exp(z) for z in logits[i]]
            lse = mpmath.log(mpmath.fsum(e))
            share = [0.375 / mpmath.mpf(7) * w for w in weight]
            share[y] += 0.625 * weight[y]
            wanted = mpmath.fsum(q * (lse - z) for q, z in zip(share, logits[i], strict=True))
            assert mpmath.almosteq(loss[i], wanted, 1e-15, 1e-15)
            for k in range(7):
                slope = mpmath.fsum(share) * e[k] / mpmath.fsum(e) - share[k]
                assert mpmath.almosteq(grad[i, k], slope, 2e-15, 2e-15)


def test_worked_examples(backend):
    # Binary cross-entropy of probabilities .9 .2 .7 .8 .3, mean squared error: the true values of a textbook page.
    p = np.array([0.9, 0.2, 0.7, 0.8, 0.3])
    loss = fl.binary_cross_entropy_with_logits(np.log(p / (1 - p)), np.array([1, 0, 1, 1, 0]), backend=backend).loss
    assert loss == pytest.approx(0.25299950, abs=1e-8)
    loss = fl.mse_loss(np.array([2.5, 3, 1.5, 4]), np.array([2.3, 3.2, 1.8, 3.7]), backend=backend).loss
    assert loss == pytest.approx(0.065)


def test_margins_by_hand(backend):
    x, y = np.array([[2.0, 1.5, 0.0, 4.0]]), [0]  # violations 0.5, 0 and 3
    weight = np.array([2.0, 1.0, 1.0, 1.0])
    for loss, options, wanted, grad in (
        (fl.multi_margin_loss, {}, 3.5 / 4, [-0.5, 0.25, 0, 0.25]),
        (fl.multi_margin_loss, {"p": 2}, 9.25 / 4, [-1.75, 0.25, 0, 1.5]),
        (fl.multi_margin_loss, {"margin": -1.0}, 1 / 4, [-0.25, 0, 0, 0.25]),
        (fl.multi_margin_loss, {"weight": weight}, 3.5 / 2, [-1, 0.5, 0, 0.5]),  # the mean is over rows
        (fl.crammer_singer_loss, {}, 3.0, [-1, 0, 0, 1]),
        (fl.crammer_singer_loss, {"weight": weight, "margin": 0.5}, 5.0, [-2, 0, 0, 2]),
        (fl.nll_loss, {}, -2.0, [-1, 0, 0, 0]),
        (fl.nll_loss, {"weight": weight}, -2.0, [-1, 0, 0, 0]),  # the mean is over weights
    ):
        result = loss(x, y, backend=backend, **options)
        assert result.loss == wanted
        np.testing.assert_array_equal(result.grad, [grad])


@pytest.mark.parametrize("width", [5, 40])
def test_nll_of_log_probabilities_is_cross_entropy(backend, width):
    case = build("cross_entropy", "float64", (67,), width, weight=np.arange(1.0, width + 1))
    x, y = case.args
    log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    wanted = case(backend).loss
    assert case.with_args(log_p, y)(backend).loss == pytest.approx(wanted)
    assert fl.nll_loss(log_p, y, backend=backend, **case.params).loss == pytest.approx(wanted)


def test_td_target_by_hand(backend):
    q, reward = np.array([[1.0, 2.0, 3.0]]), np.array([10.0])
    next_q, online = np.array([[5.0, 7.0, 6.0]]), np.array([[9.0, 9.0, 1.0]])

    def error(terminated=False, **options):
        call = fl.td_loss(q, [1], reward, next_q, [terminated], gamma=0.5, backend=backend, **options)
        return call.td_error[0]

    legal = np.array([[True, False, True]])
    assert error() == 10 + 0.5 * 7 - 2
    assert error(terminated=True) == 10 - 2
    assert error(next_q_online=online) == 10 + 0.5 * 5 - 2  # a tie: the lowest index
    assert error(next_action_mask=legal) == 10 + 0.5 * 6 - 2
    assert error(next_q_online=online, next_action_mask=~legal) == 10 + 0.5 * 7 - 2
    assert error(next_action_mask=np.zeros((1, 3), bool)) == 10 - 2  # nothing legal


def test_every_registered_loss_is_public():
    for name in LOSS_NAMES:
        assert name in fl.__all__
        assert callable(getattr(reference, name))
