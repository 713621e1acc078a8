"""Gradients against central differences of the loss, Hessians against differences of the gradient."""

import numpy as np
from cases import CONVENTIONAL, build, keep, param_sets, position, variants, weights

import fastloss as fl
from fastloss import reference

STEP = 2.0**-16  # truncation and rounding are both about 1e-10
TOLERANCE = {"rtol": 1e-7, "atol": 1e-7}


def away_from_kinks(case):
    """The case without the elements whose residual is within a few steps of a kink."""
    facts = case.facts
    kinks = facts.kinks(*case.numbers)
    if facts.kind == "rows" and kinks:
        x, index = case.args[0], case.args[1][:, None]
        gap = x - np.take_along_axis(x, index, axis=1)
        np.put_along_axis(gap, index, np.inf, axis=1)
        return case.rows(~np.any([np.abs(gap - kink) < 8 * STEP for kink in kinks], axis=(0, 2)))
    if facts.kind != "elementwise":
        return case
    x, y = case.args
    near = [np.abs(position(case.loss, x, y) - kink) < 8 * STEP for kink in kinks]
    return case.rows(~np.any(near, axis=0)) if near else case


def shifted(case, by):
    """The case with the prediction moved."""
    return case.with_args(case.args[0] + by, *case.args[1:])


def directions(case):
    """Steps that move one entry of each row at a time: rows do not touch each other."""
    x = case.args[0]
    if case.facts.kind == "elementwise":
        yield ..., STEP
        return
    for k in range(x.shape[-1]):
        step = np.zeros(x.shape[-1])
        step[k] = STEP
        yield (..., k), step


def test_every_element_of_the_gradient(loss, backend):
    for case in map(away_from_kinks, variants(loss, "float64")):
        grad = case(backend, reduction="none").grad
        assert len(grad) > 20
        for place, step in directions(case):
            up, down = (shifted(case, sign * step)(backend, reduction="none").loss for sign in (1, -1))
            np.testing.assert_allclose((up - down) / (2 * STEP), grad[place], **TOLERANCE, err_msg=str(case.params))


def test_the_gradient_is_that_of_the_reduced_loss(loss, backend):
    for case in map(away_from_kinks, variants(loss, "float64", (23,))):
        for reduction in ("mean", "sum", "weighted_mean"):
            options = {"mask": keep(case.shape), "sample_weight": weights(case.shape), "reduction": reduction}
            grad = case(backend, **options).grad
            # Along a random direction through all entries at once, then along single ones.
            rng = np.random.default_rng(0)
            single = np.zeros_like(grad)
            single.flat[np.flatnonzero(grad)[-1]] = 1.0
            for direction in (rng.standard_normal(grad.shape), single):
                up, down = (shifted(case, sign * STEP * direction)(backend, **options).loss for sign in (1, -1))
                slope = (up - down) / (2 * STEP)
                np.testing.assert_allclose(slope, (grad * direction).sum(), **TOLERANCE, err_msg=str(case.params))


def test_hessians(elementwise, backend):
    for params in param_sets(elementwise):
        case = away_from_kinks(build(elementwise, "float64", (80,), **params))

        def derivatives(by, case=case):
            moved = shifted(case, by)
            return fl.grad_hess(getattr(fl, elementwise), *moved.args, backend=backend, **case.params)

        hess = derivatives(0.0).hess
        slope = (derivatives(STEP).grad - derivatives(-STEP).grad) / (2 * STEP)
        # Absolute errors and hinges have the second derivative 0; the convention is that of boosting.
        flat = not slope.any() and elementwise in CONVENTIONAL
        wanted = getattr(reference, elementwise)(*case.args, **case.params)[2] if flat else slope
        np.testing.assert_allclose(hess, wanted, **TOLERANCE)


def test_the_target_carries_no_gradient(backend):
    # Moving next_q moves the loss, but the gradient with respect to q stays that of a fixed target.
    case = build("td_loss", "float64", loss="mse")
    q, actions, _, _, _ = case.args
    result = case(backend, reduction="sum")
    np.testing.assert_allclose(result.grad[np.arange(len(q)), actions], -2 * result.td_error, rtol=1e-12)
    assert np.count_nonzero(result.grad) == len(q)
