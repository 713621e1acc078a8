"""Dtypes: targets of every integer type, half precision, byte order."""

import numpy as np
import pytest
from cases import COMPILED, DRIVERS, ELEMENTWISE, ROWS, assert_same_bits, bits, build, keep, weights

import fastloss as fl
from fastloss import reference
from fastloss.registry import LOSSES


@pytest.fixture(params=DRIVERS, scope="session")
def loss(request):
    """A loss of every kernel: what is tested here does not depend on the formula."""
    return request.param


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
# Numba compiles a kernel for every pair of dtypes: there, one loss shows what is the same code for all.
FEW = {"elementwise": "binary_cross_entropy_with_logits", "rows": "cross_entropy", "gather": "td_loss"}


def halves():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@pytest.mark.parametrize("kind", ["bool", *INTEGERS])
def test_binary_targets_of_every_integer_type(backend, kind):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(2000).astype(np.float32), rng.integers(0, 2, 2000)
    wanted = fl.bce_with_logits(x, y.astype(np.float32), backend=backend)
    assert_same_bits(fl.bce_with_logits(x, y.astype(kind), backend=backend), wanted, kind)


@pytest.mark.parametrize("kind", ["bool", *INTEGERS])
def test_integer_targets_of_every_elementwise_loss(elementwise, kind):
    if (
        LOSSES[elementwise].input != "real"
        or LOSSES[elementwise].target == "positive"
        or LOSSES[elementwise].needs_third
    ):
        pytest.skip("not a loss of any number and of 0 and 1")
    if "cython" not in COMPILED:
        pytest.skip("without Cython, Numba would compile every pair")
    x, y = np.linspace(-2, 3, 100), np.arange(100) % 2
    wanted = getattr(fl, elementwise)(x, y.astype(float), backend="cython")
    assert_same_bits(getattr(fl, elementwise)(x, y.astype(kind), backend="cython"), wanted, kind)


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("name", [*ROWS, "td_loss"])
def test_indices_of_every_integer_type(name, backend, kind):
    if backend == "numba" and kind in ("int32", "uint8") and name != "cross_entropy":
        pytest.skip("cross_entropy shows the index types that Numba compiles for")
    case = build(name, "float32", (70,), 70 if name in ROWS else 4)
    changed = case.with_args(case.args[0], case.args[1].astype(kind), *case.args[2:])
    assert_same_bits(changed(backend), case(backend), kind)


def test_large_unsigned_integers_are_never_negative(backend):
    huge = np.array([2**64 - 100], np.uint64)  # -100, if it wrapped: the ignore_index
    with pytest.raises(IndexError, match="18446744073709551516 at index 0"):
        fl.cross_entropy(np.zeros((1, 3)), huge, backend=backend)
    with pytest.raises(IndexError, match="18446744073709551516 at index 0"):
        fl.td_loss(np.zeros((1, 3)), huge, np.zeros(1), np.zeros((1, 3)), [False], backend=backend)
    with pytest.raises(ValueError, match=r"\[0, 1\].* at index 0"):
        fl.bce_with_logits(np.zeros(1), huge, backend=backend)


def test_ignore_index_of_any_sign_and_type(backend):
    x = np.zeros((3, 2))
    for kind, value in (("int8", -100), ("uint8", 255), ("int64", -(2**63)), ("int64", 2**63 - 1)):
        y = np.array([0, value, 1], kind)
        loss, grad = fl.cross_entropy(x, y, ignore_index=value, backend=backend)
        assert loss == pytest.approx(np.log(2))
        assert not grad[1].any()


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", FEW)
def test_half_precision_rounds_the_float32_result(kind, half, backend):
    if backend == "numba" and half == "bfloat16" and kind != "elementwise":
        pytest.skip("float16 shows the loops over rows, the elementwise loss how bfloat16 is converted")
    check_half(FEW[kind], half, backend)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_of_every_loss(loss, half):
    if "cython" not in COMPILED:
        pytest.skip("without Cython, Numba would compile every pair")
    check_half(loss, half, "cython")


def check_half(name, half, backend):
    half = halves()[half]
    for width in (5, 70) if name in ROWS else (5,):
        narrow = build(name, half, (150,), width)
        # The NumPy backend computes in float64, whatever the input.
        compute = np.float64 if backend == "numpy" else np.float32
        wide = narrow.each(lambda a, compute=compute: a.astype(compute) if a.dtype == half else a)
        for options in ({}, {"mask": keep((150,)), "sample_weight": weights((150,)), "reduction": "none"}):
            found, wanted = narrow(backend, **options), wide(backend, **options)
            assert found.grad.dtype == half
            if "reduction" not in options:
                # The reduced loss sums what float32 gave; nothing is rounded to half before the sum.
                assert found.loss == wanted.loss
            for a, b in zip(found, wanted, strict=True):
                if isinstance(a, np.ndarray):
                    assert a.dtype == half
                    np.testing.assert_array_equal(a.view(np.uint16), b.astype(half).view(np.uint16))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_every_half_precision_number_is_read_and_written(half, compiled):
    half = halves()[half]
    x = np.arange(65536, dtype=np.uint16).view(half)
    loss = getattr(fl, FEW["elementwise"])
    with np.errstate(all="ignore"):
        found = loss(x, np.ones_like(x), backend=compiled, reduction="none")
        wanted = loss(x.astype(np.float32), np.ones(x.size, np.float32), backend=compiled, reduction="none")
        for a, b in zip(found, wanted, strict=True):
            for p, q in zip(bits((a.astype(np.float32),)), bits((b.astype(half).astype(np.float32),)), strict=True):
                np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_rounds_to_nearest_even_everywhere(half):
    # A loss of 1 times a weight: any float32 is written.
    if "cython" not in COMPILED:
        pytest.skip("without Cython, Numba would compile one more pair")
    half = halves()[half]
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 1 << 32, 1 << 18, dtype=np.uint32).view(np.float32)
    ties = np.arange(0, 1 << 16, dtype=np.uint32) << 16
    weight = np.concatenate([weight, (ties | 0x8000).view(np.float32), (ties | 0x1000).view(np.float32)])
    weight = np.concatenate([weight, rng.uniform(-1, 1, 1 << 16).astype(np.float32) * np.float32(2.0**-14)])
    one = np.ones(weight.size, half)
    found = fl.l1_loss(one, np.zeros_like(one), sample_weight=weight, reduction="none", backend="cython")
    with np.errstate(all="ignore"):
        wanted = weight.astype(half)
    for array in found:
        same = (array.view(np.uint16) == wanted.view(np.uint16)) | (np.isnan(array) & np.isnan(wanted))
        assert same.all(), weight[~same][:5]


def test_half_precision_in_place(backend):
    case = build(FEW["elementwise"], np.float16, (1500,))
    wanted = case(backend)
    found = case(backend, out=case.args[0])
    assert found.grad is case.args[0]
    assert_same_bits(found, wanted)


def test_grad_hess_in_half_precision(backend):
    case = build(FEW["elementwise"], np.float16)
    found = fl.grad_hess(getattr(fl, case.loss), *case.args, backend=backend)
    _, grad, hess = getattr(reference, case.loss)(*case.args)
    np.testing.assert_allclose(found.grad.astype(float), grad, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(found.hess.astype(float), hess, rtol=2e-3)


def test_byte_order(loss, backend, dtype):
    case = build(loss, dtype)
    swapped = case.each(lambda a: a.astype(a.dtype.newbyteorder()))
    assert not swapped.args[0].dtype.isnative
    options = {"sample_weight": weights(case.shape), "mask": keep(case.shape)}
    found = swapped(backend, **options | {"sample_weight": options["sample_weight"].astype(">f8")})
    assert found.grad.dtype.isnative
    assert_same_bits(found, case(backend, **options))


def test_python_numbers_and_lists(backend):
    assert fl.mse_loss(3.0, 1.0, backend=backend).loss == 4.0
    assert fl.mse_loss([3.0, 1.0], [1, 1], backend=backend).loss == 2.0
    loss, grad = fl.cross_entropy([0.0, 0.0], 1, backend=backend)
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_allclose(grad, [0.5, -0.5])
    assert np.isnan(fl.cross_entropy(np.zeros((0, 3)), [], backend=backend).loss)


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if not LOSSES[name].needs_third])
def test_zero_dimensions(name, backend, dtype):
    x, y = np.array(0.5, dtype), np.array(1.0, dtype)
    flat = getattr(fl, name)(x[None], y[None], backend=backend)
    loss, grad = getattr(fl, name)(x, y, backend=backend)
    assert loss == flat.loss
    assert grad.shape == ()
    np.testing.assert_array_equal(grad, flat.grad[0])
    unreduced = getattr(fl, name)(x, y, backend=backend, reduction="none")
    assert unreduced.loss.shape == ()
    out = np.empty((), dtype)
    assert getattr(fl, name)(x, y, backend=backend, out=out, sample_weight=2.0, mask=True).grad is out
    assert out == 2 * grad


def test_a_single_row_without_leading_dimensions(backend, dtype):
    for name in (*ROWS, "td_loss"):
        case = build(name, dtype, (1,))
        single = case.rows(0)
        found, wanted = single(backend), case(backend)
        assert found.loss == wanted.loss
        np.testing.assert_array_equal(found.grad, wanted.grad[0])
