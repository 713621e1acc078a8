"""Losses of overlap and of root mean squares: what belongs to many elements together."""

import numpy as np
import pytest
from cases import assert_same_bits

import fastloss as fl
from fastloss import reference

OPTIONS = {
    "dice_loss": [{}, {"squared": True}, {"smooth": 0.375}, {"from_logits": False}],
    "tversky_loss": [{}, {"alpha": 0.25, "beta": 0.75}, {"smooth": 0.0}, {"from_logits": False, "alpha": 2.0}],
}
CASES = [(name, options) for name, given in OPTIONS.items() for options in given]


def arrays(dtype, options, shape=(3, 4, 5, 2)):
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal(shape)
    x = x if options.get("from_logits", True) else rng.random(shape)
    return x.astype(dtype), rng.choice([0.0, 1.0, 0.25], shape).astype(dtype)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_values(name, options, backend, dtype):
    x, y = arrays(dtype, options)
    loss, grad = getattr(reference, name)(x, y, **options)
    weight, kept = np.arange(12.0).reshape(3, 4), np.arange(12).reshape(3, 4) % 3 > 0
    tolerance = {"rtol": 16 * np.finfo(dtype).eps, "atol": np.finfo(dtype).eps}
    call = getattr(fl, name)
    found = call(x, y, reduction="none", sample_weight=weight, mask=kept, backend=backend, **options)
    np.testing.assert_allclose(found.loss, loss * weight * kept, **tolerance)
    np.testing.assert_allclose(found.grad, grad * (weight * kept)[..., None, None], **tolerance)
    found = call(x, y, backend=backend, **options)
    np.testing.assert_allclose(found.loss, loss.mean(), **tolerance)
    np.testing.assert_allclose(found.grad, grad / 12, **tolerance)
    assert call(x, y, grad=False, backend=backend, **options).grad is None


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradients(name, options, backend):
    x, y = arrays("float64", options, (2, 3, 4))
    x = np.clip(x, 0.01, 0.99) if "from_logits" in options else x
    call, step = getattr(fl, name), 2.0**-16
    grad = call(x, y, backend=backend, **options).grad
    for i in range(x.size):
        moved = [x.copy(), x.copy()]
        moved[0].flat[i] += step
        moved[1].flat[i] -= step
        up, down = (call(m, y, grad=False, backend=backend, **options).loss for m in moved)
        assert grad.flat[i] == pytest.approx((up - down) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("name", OPTIONS)
def test_compiled_backends_agree(name, both_compiled, dtype):
    x, y = arrays(dtype, {})
    assert_same_bits(*(getattr(fl, name)(x, y, backend=b) for b in ("cython", "numba")))


@pytest.mark.parametrize("name", OPTIONS)
def test_masked_groups_may_hold_anything(name, backend):
    x, y = arrays("float64", {})
    call, kept = getattr(fl, name), np.ones(3, bool)
    clean = call(x[1:], y[1:], backend=backend)
    x[0], y[0], kept[0] = np.nan, 7.0, False
    found = call(x, y, mask=kept, backend=backend)
    assert found.loss == pytest.approx(clean.loss)
    np.testing.assert_allclose(found.grad[1:], clean.grad)
    assert not found.grad[0].any()
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\], got 7\.0 at index \(0, 0, 0, 0\)"):
        call(x, y, backend=backend)


@pytest.mark.parametrize("name", OPTIONS)
def test_edges(name, backend):
    call, nothing = getattr(fl, name), np.zeros((1, 2, 3))
    for smooth in (0.0, 1.0):
        found = call(nothing, nothing, smooth=smooth, from_logits=False, backend=backend, reduction="none")
        np.testing.assert_array_equal(found.loss, [[0.0, 0.0]])
        assert np.isfinite(found.grad).all()
    confident = np.array([[[40.0, -40.0]]])
    assert 0 < call(confident, confident > 0, backend=backend).loss < 1e-15
    with pytest.raises(ValueError, match="first two axes"):
        call(np.zeros(3), np.zeros(3), backend=backend)
    with pytest.raises(ValueError, match=r"input must lie in \[0, 1\], got 2\.0 at index \(0, 1, 2\)"):
        call(np.concatenate([nothing[..., :2], nothing[..., :1] + [[[0], [2]]]], 2), nothing, from_logits=False)
    with pytest.raises(ValueError, match="smooth must be non-negative"):
        call(nothing, nothing, smooth=-1.0)
    assert np.isnan(call(np.zeros((0, 2, 3)), np.zeros((0, 2, 3)), backend=backend).loss)


def test_half_the_smoothing_makes_tversky_dice(backend):
    x, y = arrays("float64", {})
    tversky, dice = fl.tversky_loss(x, y, smooth=0.5, backend=backend), fl.dice_loss(x, y, smooth=1.0, backend=backend)
    assert tversky.loss == pytest.approx(dice.loss)
    np.testing.assert_allclose(tversky.grad, dice.grad)


# --- root mean squares, and errors over the size of the targets


def test_rmse(backend, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50)).astype(dtype)
    weight, kept = rng.random(50), rng.random(50) < 0.5
    for options in ({}, {"mask": kept}, {"sample_weight": weight, "reduction": "weighted_mean", "mask": kept},
                    {"normalizer": 7.0}):  # fmt: skip
        squares, slope = fl.mse_loss(x, y, backend=backend, **options)
        root, grad = fl.rmse_loss(x, y, backend=backend, **options)
        assert root == pytest.approx(np.sqrt(squares))
        np.testing.assert_allclose(grad, slope / (2 * root), rtol=4 * np.finfo(dtype).eps)
        given = np.empty_like(x)
        assert fl.rmse_loss(x, y, backend=backend, out=given, **options).grad is given
        assert fl.rmse_loss(x, y, backend=backend, grad=False, **options) == (root, None)
    same = fl.rmse_loss(x, x, backend=backend)
    assert same.loss == 0.0
    assert not same.grad.any()
    with pytest.raises(ValueError, match="'mean' or 'weighted_mean', got 'none'"):
        fl.rmse_loss(x, y, reduction="none", backend=backend)


@pytest.mark.parametrize("norm", ["mean", "range", "std", "iqr"])
def test_norms_of_targets(norm, backend, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 6, 8)).astype(dtype)
    kept = np.arange(6) % 2 == 0
    size = reference.target_norm(y[kept], norm)
    found = fl.nmae_loss(x, y, norm=norm, mask=kept, backend=backend)
    assert found.loss == pytest.approx(np.abs(x.astype(float) - y)[kept].mean() / size, rel=1e-6)
    assert fl.nmae_loss(x, y, norm=size, mask=kept, backend=backend).loss == found.loss
    second = fl.grad_hess(fl.nmae_loss, x, y, norm=norm, mask=kept, backend=backend)
    np.testing.assert_allclose(second.grad[kept], np.sign(x - y)[kept] / size, rtol=1e-6)
    constant = fl.nmae_loss(x, 0 * y, norm=norm, backend=backend)
    assert np.isnan(constant.loss)
