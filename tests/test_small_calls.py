"""Plain calls take a shorter way through the code; it must not show in any result or error."""

import contextlib

import numpy as np
import pytest
from cases import DRIVERS, ROWS, SOFTMAX, UNIT, assert_same_bits, build, keep, variants, weights

import fastloss as fl
from fastloss import _dispatch
from fastloss._blocks import BLOCK
from fastloss.registry import LOSSES


@pytest.fixture(params=DRIVERS, scope="session")
def loss(request):
    """A loss of every kernel: what is tested here does not depend on the formula."""
    return request.param


@contextlib.contextmanager
def general_way(backend):
    engine = _dispatch.engine(backend)
    ways = [name for name in vars(engine) if name.startswith("plain_")]
    assert ways
    with pytest.MonkeyPatch.context() as patch:
        for name in ways:
            patch.setattr(engine, name, None)
        yield


def in_general(case, backend, **options):
    with general_way(backend):
        return case(backend, **options)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 15, 16, 17, 31, 63, 64, 65, 100, 200])
def test_the_bits_of_the_general_way(loss, backend, dtype, size):
    for case in variants(loss, dtype, (size,))[:: 1 if size in (1, 65) else 5]:
        for options in ({}, {"reduction": "sum"}, {"grad": False}):
            assert_same_bits(case(backend, **options), in_general(case, backend, **options), (case.params, options))


def test_weights_and_masks(loss, backend, dtype):
    for seed in range(4):
        case = build(loss, dtype, (20,), seed=seed)
        kept, weight = keep((20,), seed), weights((20,), seed)
        for options in ({"mask": kept}, {"sample_weight": weight}, {"mask": kept, "sample_weight": weight}):
            assert_same_bits(case(backend, **options), in_general(case, backend, **options))


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1])
def test_both_sides_of_the_switch(loss, backend, size):
    rows = LOSSES[loss].kind != "elementwise"
    case = build(loss, "float32", (size // 8 + size % 2,) if rows else (size,), 8)
    assert_same_bits(case(backend), in_general(case, backend))


@pytest.mark.parametrize("width", [1, 2, 33, 64, 65, 100, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("name", [*ROWS, *SOFTMAX, "td_loss"])
def test_widths(name, backend, dtype, width):
    for rows in (1, 3, 66):
        case = build(name, dtype, (rows,), width)
        assert_same_bits(case(backend), in_general(case, backend))


@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (2, 3, 70), (3, 5000)])
def test_softmax_with_everything(backend, dtype, shape):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal(shape).astype(dtype), rng.integers(0, shape[-1], shape[:-1])
    shares = (np.abs(x) / np.abs(x).sum(-1, keepdims=True)).astype(dtype)
    legal = rng.random(shape) < 0.7
    np.put_along_axis(legal, y[..., None], True, -1)
    kept, weight, advantages = rng.random(shape[:-1]) < 0.7, rng.random(shape[:-1]), rng.standard_normal(shape[:-1])
    kept[..., 0] = True
    calls = [
        lambda **k: fl.cross_entropy(x, shares, **k),
        lambda **k: fl.cross_entropy(x, shares, label_smoothing=0.1, temperature=2.0, mask=kept, **k),
        lambda **k: fl.cross_entropy(x, y, class_mask=legal, sample_weight=weight, **k),
        lambda **k: fl.cross_entropy(x, y, z_loss=0.1, softcap=3.0, ignore_index=int(y.flat[-1]), **k),
        lambda **k: fl.policy_gradient_loss(x, y, advantages.astype(dtype), entropy_coef=0.1, action_mask=legal, **k),
    ]
    for call in calls:
        for options in ({}, {"reduction": "sum"}, {"grad": False}, {"out": np.empty_like(x)}):
            found = call(backend=backend, **options)
            with general_way(backend):
                assert_same_bits(found, call(backend=backend, **{k: v for k, v in options.items() if k != "out"}))
    for call in (lambda a, **k: fl.cross_entropy(a, shares, **k), lambda a, **k: fl.softmax_focal_loss(a, y, **k)):
        a = x.copy()
        assert_same_bits(call(a, out=a, backend=backend), call(x, backend=backend))


def test_no_class_is_ignored_by_accident(backend):
    # -2^63 stands in where there is no ignore_index.
    x, advantages = np.zeros((2, 3)), np.ones(2)
    for mask in (None, np.array([False, True])):
        with pytest.raises(IndexError, match=f"got {-(2**63)} at index 1"):
            fl.policy_gradient_loss(x, np.array([0, -(2**63)]), advantages, mask=mask, backend=backend)
    kept = np.array([True, False])
    assert fl.policy_gradient_loss(x, np.array([0, -(2**63)]), advantages, mask=kept, backend=backend).loss > 0


def test_shapes_and_numbers(loss, backend, dtype):
    for shape in ((), (1, 1), (2, 3), (2, 1, 4)):
        case = build(loss, dtype, shape)
        found, wanted = case(backend), in_general(case, backend)
        assert type(found) is type(wanted)
        assert type(found.loss) is float
        assert found.grad.shape == wanted.grad.shape == case.args[0].shape
        assert_same_bits(found, wanted)


def test_what_is_not_plain(loss, backend):
    # Strides, byte order, read-only memory, lists, subclasses: the other way, the same answer.
    case = build(loss, "float64", (12,))
    wanted = case(backend)
    for change in (
        lambda a: np.repeat(a, 2, axis=0)[::2],
        lambda a: a.astype(a.dtype.newbyteorder()),
        lambda a: a.view(type("Sub", (np.ndarray,), {})),
        np.ndarray.tolist,
    ):
        found = case.each(change)(backend)
        assert type(found.grad) is np.ndarray
        assert_same_bits(found, wanted)


def test_results_are_fresh(loss, backend):
    case = build(loss, "float64", (12,))
    first = case(backend)
    kept = first.grad.copy()
    second = case.each(lambda a: a[::-1].copy())(backend)
    assert not np.shares_memory(first.grad, second.grad)
    assert not np.shares_memory(first.grad, case.args[0])
    np.testing.assert_array_equal(first.grad, kept)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_errors(backend, reduction):
    x, index = np.zeros((3, 4)), np.array([0, 4, 9])
    options = {"backend": backend, "reduction": reduction}
    calls = [
        (lambda: fl.cross_entropy(x, index, **options), IndexError, "got 4 at index 1"),
        (lambda: fl.cross_entropy(x, index - 5, **options), IndexError, "got -5 at index 0"),
        (
            lambda: fl.td_loss(x, index, np.zeros(3), x, np.zeros(3, bool), **options),
            IndexError,
            "got 4 at index 1",
        ),
        (lambda: fl.mse_loss(x, x.T, **options), ValueError, r"\(3, 4\).*\(4, 3\)"),
        (lambda: fl.mse_loss(x, x.astype("f4"), **options), TypeError, "float64.*float32"),
        *((lambda n=n: getattr(fl, n)(x, x + 2, **options), ValueError, r"2\.0 at index \(0, 0\)") for n in UNIT),
    ]
    for call, error, message in calls:
        with pytest.raises(error, match=message):
            call()


def test_over_nothing(loss, backend):
    case = build(loss, "float64", (5,))
    result = case(backend, mask=np.zeros(5, bool))
    assert np.isnan(result.loss)
    assert not result.grad.any()
    if LOSSES[loss].kind == "rows":
        ignored = case.with_args(case.args[0], np.full(5, -100))(backend)
        assert np.isnan(ignored.loss)
        assert not ignored.grad.any()


def test_nothing_on_several_threads(loss, backend):
    case = build(loss, "float32", (0,), 3)
    assert_same_bits(case(backend, n_threads=4, reduction="sum"), in_general(case, backend, reduction="sum"))


def test_a_parameter_that_changes_is_read_again():
    x, y, delta = np.array([3.0]), np.array([0.0]), np.array(1.0)
    found = []
    for value in (1.0, 2.0, 1.0):
        delta[...] = value
        found.append(fl.huber_loss(x, y, delta=delta).loss)
    assert found == [2.5, 4.0, 2.5]


def test_what_was_found_right_does_not_excuse_what_is_wrong():
    x, y = np.array([3.0]), np.array([0.0])
    for good in (1.0, 1, np.float64(1)):
        assert fl.huber_loss(x, y, delta=good).loss == 2.5
    for bad in ("1.0", -1.0, 0.0, float("nan"), None, [1.0]):
        with pytest.raises((TypeError, ValueError), match="delta"):
            fl.huber_loss(x, y, delta=bad)
    # More sets of parameters than are remembered.
    assert [fl.huber_loss(x, y, delta=1.0 + k).loss for k in range(100)][-1] == 4.5
