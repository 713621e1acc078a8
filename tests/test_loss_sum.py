"""Sums of every loss over chunks: options, weighted means, and what is refused."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from cases import LOSS_NAMES, build

import fastloss as fl
from fastloss import LossSum
from fastloss._accumulate import array_names, own_parameters
from fastloss._exact import ExactSum
from fastloss.registry import LOSSES


def of_chunks(name, arrays, rows, backend, params=None, reduction="mean"):
    """A sum over chunks of so many rows; arrays by name, prediction first."""
    first, *others = arrays.values()
    running = LossSum(name, first.shape, reduction=reduction, backend=backend, **(params or {}))
    for start in range(0, len(first), rows * running.granularity):
        part = slice(start, start + rows * running.granularity)
        named = {key: array[part] for key, array in list(arrays.items())[2:]}
        running.update(first[part], others[0][part], **named)
    return running


def arrays_of(case):
    return dict(zip(array_names(case.loss), case.args, strict=False))


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_every_loss_can_be_summed_over_chunks(name):
    case = build(name, "float64", (9000,), 3)
    arrays = arrays_of(case) | {key: case.params[key] for key in ("var",) if key in case.params}
    params = {"norm": 2.5} if name == "nmae_loss" else {}
    wanted = getattr(fl, name)(*arrays.values(), grad=False, backend="numpy", **params)
    running = of_chunks(name, arrays, 1, "numpy", params)
    assert (running.mean, running.count) == (wanted.loss, 9000)


@pytest.mark.parametrize("name", ["dice_loss", "tversky_loss"])
@pytest.mark.parametrize("shape", [(70, 3, 50), (200, 4)])
def test_losses_of_overlap_are_summed_sample_by_sample(name, shape, backend):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape).astype(np.float32), rng.integers(0, 2, shape)
    weight, mask = rng.random(shape[0]), rng.random(shape[:2]) < 0.7
    function, options = getattr(fl, name), {"sample_weight": weight, "mask": mask, "grad": False, "backend": backend}
    for rows in (1, 17, 200):
        arrays = {"input": x, "target": y, "sample_weight": weight, "mask": mask}
        running = of_chunks(name, arrays, rows, backend, {"smooth": 0.5})
        assert running.mean == function(x, y, smooth=0.5, **options).loss
        assert running.count == mask.sum()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_root_of_a_mean_of_squares_is_taken_at_the_end(dtype, backend):
    rng = np.random.default_rng(0)
    x, y, mask = (
        rng.standard_normal(20_000).astype(dtype),
        rng.standard_normal(20_000).astype(dtype),
        rng.random(20_000) < 0.5,
    )
    for reduction in ("mean", "weighted_mean"):
        options = {"sample_weight": np.arange(20_000) % 4, "mask": mask}
        running = of_chunks("rmse_loss", {"input": x, "target": y, **options}, 2, backend, reduction=reduction)
        assert running.mean == fl.rmse_loss(x, y, reduction=reduction, grad=False, backend=backend, **options).loss
    assert math.isnan(LossSum("rmse_loss", (0,)).mean)


ROWS, CLASSES = 3000, 7
OPTIONS = [
    {"z_loss": 0.25},
    {"softcap": 2.0, "temperature": 1.5},
    {"class_mask": np.arange(CLASSES) > 0},
    {"weight": np.arange(CLASSES) / 2, "label_smoothing": 0.25, "ignore_index": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["indices", "soft"])
def test_cross_entropy_is_summed_with_all_its_options(options, soft, backend):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((ROWS, CLASSES)).astype(np.float32)
    shares = np.eye(CLASSES)[1] / 2 + np.eye(CLASSES)[rng.integers(1, CLASSES, ROWS)] / 2
    y = shares.astype(np.float32) if soft else rng.integers(1, CLASSES, ROWS)
    arrays = {"input": x, "target": y, "sample_weight": np.arange(ROWS) % 4 / 2, "mask": np.arange(ROWS) % 5 > 0}
    for reduction in ("mean", "weighted_mean"):
        running = of_chunks("cross_entropy", arrays, 2, backend, options, reduction)
        wanted = fl.cross_entropy(**arrays, **options, reduction=reduction, grad=False, backend=backend).loss
        assert running.mean == wanted
    kept = arrays["mask"] if soft else arrays["mask"] & (y != options.get("ignore_index", -100))
    assert running.count == kept.sum()


def test_class_masks_may_come_with_each_row(backend):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((ROWS, CLASSES)).astype(np.float32), np.zeros(ROWS, int)
    legal = (rng.random(x.shape) < 0.5) | (np.arange(CLASSES) == 0)
    running = of_chunks("cross_entropy", {"input": x, "target": y, "class_mask": legal}, 1, backend)
    assert running.mean == fl.cross_entropy(x, y, class_mask=legal, grad=False, backend=backend).loss


def test_binary_cross_entropy_is_summed_by_its_short_name_with_all_its_options(backend):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((6000, 3)).astype(np.float32), rng.integers(-1, 2, (6000, 3))
    params = {"pos_weight": np.array([0.5, 2.0, 3.0], np.float32), "ignore_index": -1}
    running = of_chunks("bce_with_logits", {"input": x, "target": y}, 1, backend, params)
    assert running.loss == "binary_cross_entropy_with_logits"
    assert running.mean == fl.bce_with_logits(x, y, grad=False, backend=backend, **params).loss
    assert running.count == running.weight == np.sum(y != -1)
    params["pos_weight"] = rng.random(x.shape).astype(np.float32) + 0.5
    arrays = {"input": x, "target": y, "pos_weight": params["pos_weight"]}
    running = of_chunks("bce_with_logits", arrays, 1, backend, {"ignore_index": -1})
    assert running.mean == fl.bce_with_logits(x, y, grad=False, backend=backend, **params).loss


@pytest.mark.parametrize("name", ["mse_loss", "cross_entropy", "softmax_focal_loss"])
def test_the_divisor_is_exact_whatever_the_chunks_and_the_weights(name):
    rng = np.random.default_rng(4)
    rows = LOSSES[name].kind != "elementwise"
    x = rng.standard_normal((9000, 3))
    y = rng.integers(0, 3, 9000) if rows else rng.standard_normal(x.shape)
    classes = rng.random(3)
    weight, mask = rng.random(9000) * 10.0 ** rng.integers(-200, 200, 9000), rng.random(9000) < 0.5
    params = {"weight": classes} if rows else {}
    class_weighted = rows and LOSSES[name].class_weighted_mean
    share = classes[y] * weight if class_weighted else weight
    exact = sum(map(Fraction, share[mask].tolist())) * (1 if rows else 3)
    arrays = {"input": x, "target": y, "sample_weight": weight, "mask": mask}
    for size in (1, 2, 10):
        running = of_chunks(name, arrays, size, "numpy", params, "weighted_mean")
        assert running.weight == float(exact)
    if class_weighted:
        running = of_chunks(name, arrays, 1, "numpy", params)
        assert running.weight == float(sum(map(Fraction, classes[y][mask].tolist())))


@pytest.mark.parametrize("size", [1, 63, 64, 1000, 40_000])
@pytest.mark.parametrize("spread", [0, 5, 300])
def test_the_exact_sum_is_that_of_fractions(size, spread):
    rng = np.random.default_rng(size + spread)
    values = rng.standard_normal(size) * 10.0 ** rng.integers(-spread, spread + 1, size)
    values[::7] = 5e-324
    values[::11] = -1e303 * rng.random(len(values[::11]))
    total = ExactSum()
    total.add(values, 3)
    assert total.value() == float(3 * sum(map(Fraction, values.tolist())))
    values[size // 2] = -np.inf
    total.add(values)
    assert total.value() == -np.inf
    total.add(np.array([np.inf]))
    assert math.isnan(total.value())


def test_a_sum_takes_no_more_rows_than_it_was_told(backend):
    x = np.zeros(4096)
    running = LossSum("mse_loss", (8192,), backend=backend)
    running.update(x, x)
    running.update(x, x + 1)
    with pytest.raises(ValueError, match=r"input has 4096 rows.*input_shape \(8192,\) only 0 are left"):
        running.update(x, x)
    assert (running.total, running.count, running.weight) == (4096.0, 8192, 8192.0)
    half = LossSum("mse_loss", (8192,), backend=backend)
    half.update(x, x)
    with pytest.raises(ValueError, match="8192 and 4096 rows are more than the 8192 in input_shape"):
        running.merge(half)


def test_a_chunk_that_is_refused_leaves_the_sum_as_it_was(backend):
    running = LossSum("cross_entropy", (6, 3), backend=backend)
    with pytest.raises(IndexError):
        running.update(np.zeros((6, 3)), np.full(6, 3))
    running.update(np.zeros((6, 3)), np.zeros(6, int))
    assert running.mean == fl.cross_entropy(np.zeros((6, 3)), np.zeros(6, int), grad=False, backend=backend).loss


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        *((shape, TypeError) for shape in (3, "a", ("a",), (2.0,), None)),
        *((shape, ValueError) for shape in ((-3,), (), (4, -1))),
    ],
)
@pytest.mark.parametrize("name", ["mse_loss", "cross_entropy", "dice_loss", "rmse_loss"])
def test_bad_shapes_are_named(name, shape, error):
    with pytest.raises(error, match="input_shape must"):
        LossSum(name, shape)


@pytest.mark.parametrize(
    ("name", "params", "error", "words"),
    [
        ("huber_loss", {"delta": -1}, ValueError, "delta"),
        ("huber_loss", {"beta": 1}, TypeError, "beta"),
        ("cross_entropy", {"weight": np.ones(4)}, ValueError, "weight"),
        ("cross_entropy", {"z_loss": -1}, ValueError, "z_loss"),
        ("cross_entropy", {"grad": True}, TypeError, "grad"),
        ("bce_with_logits", {"ignore_index": 0.5}, TypeError, "ignore_index"),
        ("kl_div", {"input_kind": "odds"}, ValueError, "input_kind"),
        ("dice_loss", {"smooth": -1}, ValueError, "smooth"),
        ("nmae_loss", {}, ValueError, "norm must be a number"),
        ("nmae_loss", {"norm": "iqr"}, ValueError, "norm must be a number, got 'iqr'"),
        ("mse_loss", {"reduction": "sum"}, ValueError, "reduction"),
        ("mse_loss", {"reduction": ["mean"]}, ValueError, "reduction"),
        (["mse_loss"], {}, ValueError, "loss"),
        ("grad_hess", {}, ValueError, "loss must be one of"),
    ],
)
def test_bad_parameters_are_named_before_any_data(name, params, error, words):
    with pytest.raises(error, match=words):
        LossSum(name, (5, 3), **params)


def test_sums_under_other_parameters_are_not_merged():
    def make(**params):
        return LossSum("cross_entropy", (5, 3), **params)

    for params in ({"weight": np.ones(3)}, {"z_loss": 1.0}, {"reduction": "weighted_mean"}):
        with pytest.raises(ValueError, match=rf"{next(iter(params))} differs"):
            make().merge(make(**params))
    make(weight=[1, 1, 1]).merge(make(weight=np.ones(3)))
    make(temperature=1).merge(make())
    with pytest.raises(TypeError, match="other must be a LossSum, got float"):
        make().merge(1.0)


def test_sums_can_be_pickled():
    running = LossSum("cross_entropy", (6, 3), weight=np.ones(3), class_mask=np.ones(3, bool), backend="numpy")
    running.update(np.zeros((6, 3)), np.zeros(6, int))
    again = pickle.loads(pickle.dumps(running))
    assert (again.mean, again.count, again.loss) == (running.mean, 6, "cross_entropy")


def test_arrays_of_rows_that_a_loss_does_not_have_are_refused():
    with pytest.raises(TypeError, match="var"):
        LossSum("mse_loss", (5,)).update(np.zeros(5), np.zeros(5), var=np.ones(5))
    with pytest.raises(TypeError, match="var"):
        LossSum("gaussian_nll_loss", (5,)).update(np.zeros(5), np.zeros(5))
    assert "var" in array_names("gaussian_nll_loss")
    assert "sample_weight" not in own_parameters("mse_loss")
