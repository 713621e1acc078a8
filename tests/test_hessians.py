"""Second derivatives of softmax losses: the diagonal of each row's matrix."""

import mpmath
import numpy as np
import pytest
from cases import COMPILED, SOFTMAX, assert_same_bits, build, keep, variants, weights
from test_softmax import case as soft_case

import fastloss as fl

STEP = 2.0**-17


def calls(name, dtype="float64", shape=(23,), width=5):
    """Keyword arguments of grad_hess, under all options of the loss."""
    for each in variants(name, dtype, shape, width):
        more = {"advantages": each.args[2]} if name == "policy_gradient_loss" else {}
        yield each.args[:2], more | each.params
    if name == "cross_entropy":
        for kind in ("cross_entropy", "soft targets"):
            args, options = soft_case(kind, dtype, shape[0], width)
            yield from ((args, extra) for extra in options)
    if name in ("kl_div", "js_div"):
        for kind in ("log_probs", "probs"):
            (x, y), more = next(calls(name, dtype, shape, width))
            p = (0.0625 + np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)) / 2
            yield (np.log(p) if kind == "log_probs" else p, y), more | {"input_kind": kind}


NAMES = ["cross_entropy", *SOFTMAX]


@pytest.mark.parametrize("name", NAMES)
def test_the_diagonal_is_the_derivative_of_the_gradient(name, backend):
    loss = getattr(fl, name)
    for (x, y), more in calls(name):
        grad, hess = fl.grad_hess(loss, x, y, backend=backend, **more)
        for k in range(x.shape[1]):
            step = np.where(np.arange(x.shape[1]) == k, STEP, 0.0)
            up, down = (fl.grad_hess(loss, x + sign * step, y, backend=backend, **more).grad[:, k] for sign in (1, -1))
            np.testing.assert_allclose((up - down) / (2 * STEP), hess[:, k], rtol=1e-6, atol=2e-7, err_msg=str(more))
        options = {"advantages": more["advantages"]} if "advantages" in more else {}
        own = {key: value for key, value in more.items() if key != "advantages"}
        expected = loss(x, y, *options.values(), reduction="none", backend=backend, **own).grad
        np.testing.assert_allclose(grad, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1, 5, 40, 1030])
def test_backends_agree(name, dtype, width):
    eps = float(np.finfo(dtype).eps)
    for (x, y), more in calls(name, dtype, (9,), width):
        wanted = fl.grad_hess(getattr(fl, name), x, y, backend="numpy", **more)
        found = [fl.grad_hess(getattr(fl, name), x, y, backend=b, **more) for b in COMPILED]
        for result in found:
            for a, b in zip(result, wanted, strict=True):
                np.testing.assert_allclose(a, b, rtol=32 * eps, atol=32 * eps * max(1, np.abs(b).max()))
            assert_same_bits(result, found[0])


@pytest.mark.parametrize("name", NAMES)
def test_masks_weights_and_floor(name, backend):
    loss, kept, weight = getattr(fl, name), keep((23,)), weights((23,))
    for (x, y), more in calls(name):
        plain = fl.grad_hess(loss, x, y, backend=backend, **more)
        found = fl.grad_hess(loss, x, y, mask=kept, sample_weight=weight, backend=backend, **more)
        for a, b in zip(found, plain, strict=True):
            np.testing.assert_allclose(a, b * (kept * weight)[:, None], rtol=1e-14)
        lifted = fl.grad_hess(loss, x, y, mask=kept, floor=0.125, backend=backend, **more).hess
        counted = kept & (y != more.get("ignore_index", -100)) if y.ndim == 1 else kept
        np.testing.assert_array_equal(lifted, np.where(counted[:, None], np.maximum(plain.hess, 0.125), 0.0))


INDEXED = ["cross_entropy", "softmax_focal_loss", "poly_loss", "binary_cross_entropy_with_logits"]


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("ignored", [-100, 0, 1])
def test_a_floor_does_not_lift_what_is_ignored(name, ignored, backend):
    y = np.array([0, 1, ignored, 1])
    x, kept = np.zeros((4, 3) if name != "binary_cross_entropy_with_logits" else 4), np.array([1, 1, 1, 0], bool)
    for mask in (None, kept):
        found = fl.grad_hess(getattr(fl, name), x, y, ignore_index=ignored, mask=mask, floor=0.5, backend=backend)
        counted = (y != ignored) & (True if mask is None else kept)
        np.testing.assert_array_equal(found.hess.reshape(4, -1).min(axis=1), np.where(counted, 0.5, 0.0))
        np.testing.assert_array_equal(found.hess.reshape(4, -1).max(axis=1), np.where(counted, 0.5, 0.0))


@pytest.mark.parametrize("name", [*NAMES, "huber_loss", "binary_cross_entropy_with_logits"])
def test_a_floor_is_a_finite_number_that_is_not_negative(name, backend):
    case = build(name, "float64", (4,))
    more = {"advantages": case.args[2]} if name == "policy_gradient_loss" else {}
    for bad, error in (
        ("1", TypeError), ([0.5], TypeError), (np.ones(2), TypeError), (1j, TypeError),
        (np.nan, ValueError), (np.inf, ValueError), (-1e-9, ValueError), (-np.inf, ValueError),
    ):  # fmt: skip
        with pytest.raises(error, match="floor must be"):
            fl.grad_hess(getattr(fl, name), *case.args[:2], floor=bad, backend=backend, **more)


def test_forms_of_the_hessian(backend):
    each = build("cross_entropy", "float64", width=4)
    exact, upper, scaled = (
        fl.grad_hess(fl.cross_entropy, *each.args, hessian=form, backend=backend).hess
        for form in ("exact", "upper", "scaled")
    )
    np.testing.assert_array_equal(upper, 2 * exact)
    np.testing.assert_allclose(scaled, exact * 4 / 3, rtol=1e-15)
    for x, h in zip(each.args[0], upper, strict=True):
        p = np.exp(x) / np.exp(x).sum()
        assert np.linalg.eigvalsh(np.diag(h) - (np.diag(p) - np.outer(p, p))).min() > -1e-15


def test_a_confident_row_keeps_its_digits(backend, dtype):
    # 1 - p of the greatest class is the others' sum, not a difference.
    x = np.array([[30.0, 0.0, -1.0]], dtype)
    rest = np.exp(-30.0) * (1 + np.exp(-1.0))
    for y in (0, 1):
        hess = fl.grad_hess(fl.cross_entropy, x, np.array([y]), backend=backend).hess
        np.testing.assert_allclose(hess[0, 0], rest / (1 + rest) ** 2, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
def test_focal_against_mpmath(backend, gamma):
    x, y = np.array([[0.5, -1.0, 2.0], [3.0, -2.0, 0.0], [-4.0, 1.0, 1.5]]), np.array([0, 0, 2])
    hess = fl.grad_hess(fl.softmax_focal_loss, x, y, gamma=gamma, backend=backend).hess
    with mpmath.workdps(40):
        for i, k in np.ndindex(x.shape):

            def focal(z, i=i, k=k):
                e = [mpmath.exp(z if j == k else v) for j, v in enumerate(x[i].tolist())]
                p = e[y[i]] / mpmath.fsum(e)
                return -((1 - p) ** gamma) * mpmath.log(p)

            wanted = mpmath.diff(focal, x[i, k].item(), 2)
            assert mpmath.almosteq(hess[i, k].item(), wanted, 1e-13, 1e-15)


def test_infinite_and_nan_logits(backend):
    x = np.array([[np.inf, 0.0, 1.0], [-np.inf, 0.0, 0.0], [np.nan, 0.0, 0.0]])
    for loss in (fl.cross_entropy, fl.softmax_focal_loss, fl.poly_loss):
        hess = fl.grad_hess(loss, x, np.array([0, 1, 1]), backend=backend).hess
        np.testing.assert_array_equal(hess[0], 0.0)
        assert hess[1, 0] == 0.0
        assert np.isnan(hess[2]).all()


def test_errors(backend):
    x, y = np.zeros((2, 3)), np.array([0, 1])

    def run(*args, **keywords):
        return fl.grad_hess(*args, **keywords, backend=backend)

    for call, error, words in (
        (
            lambda: run(fl.cross_entropy, x, y, hessian="full"),
            ValueError,
            ["hessian", "full"],
        ),
        (
            lambda: run(fl.mse_loss, x, x, hessian="upper"),
            ValueError,
            ["hessian", "mse_loss"],
        ),
        (lambda: run(fl.nll_loss, x, y), TypeError, ["loss", "cross_entropy"]),
        (
            lambda: run(fl.cross_entropy, x, y + 2),
            IndexError,
            ["target", "[0, 3)", "index 1"],
        ),
        (lambda: run(fl.cross_entropy, x, y, delta=1.0), TypeError, ["'delta'"]),
        (lambda: run(fl.policy_gradient_loss, x, y), TypeError, ["'advantages'"]),
    ):
        with pytest.raises(error) as caught:
            call()
        for word in words:
            assert word in str(caught.value)
