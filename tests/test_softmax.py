"""Softmax losses that take more than an index per row: values, gradients, options, backends, bits."""

import numpy as np
import pytest
from cases import BACKENDS, COMPILED, assert_same_bits

import fastloss as fl
from fastloss.registry import LOSSES

NAMES = [name for name, facts in LOSSES.items() if facts.kind == "softmax"]
KINDS = ("logits", "log_probs", "probs")


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def as_kind(z, kind):
    return {"logits": z, "log_probs": np.log(softmax(z)), "probs": softmax(z)}[kind]


def case(name, dtype="float64", rows=9, classes=5, seed=0):
    """Arguments and a list of options."""
    rng = np.random.default_rng(seed)
    x = (2 * rng.standard_normal((rows, classes))).astype(dtype)
    y = rng.integers(0, classes, rows)
    legal = rng.random((rows, classes)) < 0.7
    legal[np.arange(rows), y] = True
    weight = rng.choice([0.5, 1.0, 2.0], classes)
    if name == "cross_entropy":
        several = {"z_loss": 0.25, "softcap": 2.0, "temperature": 1.5, "class_mask": legal, "label_smoothing": 0.25}
        each = [{key: value} for key, value in several.items() if key != "label_smoothing"]
        return (x, y), [
            *each,
            several,
            several | {"weight": weight, "class_mask": np.isin(np.arange(classes), y)},
        ]
    if name == "soft targets":
        q = softmax(rng.standard_normal((rows, classes))).astype(dtype)
        return (x, q), [{}, {"label_smoothing": 0.25, "weight": weight}, {"z_loss": 0.5, "temperature": 0.5}]
    if name in ("kl_div", "js_div"):
        z = rng.standard_normal((rows, classes))
        found = [{"temperature": 2.0}] if dtype else []
        return (x, as_kind(z, "probs").astype(dtype)), [{}, *found]
    if name == "policy_gradient_loss":
        advantages = rng.standard_normal(rows).astype(dtype)
        return (x, y, advantages), [{}, {"entropy_coef": 0.5}, {"entropy_coef": 0.25, "action_mask": legal}]
    params = {"softmax_focal_loss": ("gamma", (0.0, 0.5, 1.0, 2.5)), "poly_loss": ("epsilon", (-0.5, (1.0, 0.25, 2.0)))}
    key, values = params[name]
    smoothed = {"label_smoothing": 0.25, "weight": weight}
    return (x, y), [{}, *({key: value} for value in values), {"weight": weight, "ignore_index": 1}, smoothed]


EVERY = ["cross_entropy", "soft targets", *NAMES]


def call(name, *args, **options):
    return getattr(fl, "cross_entropy" if name == "soft targets" else name)(*args, **options)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_the_losses(name, backend):
    args, options = case(name)
    x, step = args[0], 2.0**-17
    for extra in options:
        grad = call(name, *args, reduction="none", backend=backend, **extra).grad
        for k in range(x.shape[1]):
            up, down = x.copy(), x.copy()
            up[:, k] += step
            down[:, k] -= step
            high = call(name, up, *args[1:], reduction="none", backend=backend, **extra).loss
            low = call(name, down, *args[1:], reduction="none", backend=backend, **extra).loss
            np.testing.assert_allclose(grad[:, k], (high - low) / (2 * step), rtol=2e-7, atol=2e-8, err_msg=str(extra))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("classes", [1, 2, 5, 70, 1030])
def test_backends_agree(name, classes, dtype):
    args, options = case(name, dtype, classes=classes)
    tolerance = {"rtol": 2e-6 if dtype == "float32" else 1e-13, "atol": 1e-6 if dtype == "float32" else 1e-14}
    for extra in options:
        expected = call(name, *args, reduction="none", backend="numpy", **extra)
        found = {b: call(name, *args, reduction="none", backend=b, **extra) for b in COMPILED}
        for result in found.values():
            np.testing.assert_allclose(result.loss, expected.loss, **tolerance)
            np.testing.assert_allclose(result.grad, expected.grad, **tolerance)
            assert_same_bits(result, found[COMPILED[0]])


@pytest.mark.parametrize("name", EVERY)
def test_masks_weights_and_reductions(name, backend):
    args, options = case(name)
    rng = np.random.default_rng(1)
    keep, weight = rng.random(len(args[0])) < 0.6, rng.random(len(args[0]))
    spoiled = args[0].copy()
    spoiled[~keep] = np.nan
    for extra in options:
        each = call(name, *args, reduction="none", backend=backend, sample_weight=weight, **extra)
        only = call(
            name, spoiled, *args[1:], reduction="sum", backend=backend, sample_weight=weight, mask=keep, **extra
        )
        np.testing.assert_allclose(only.loss, each.loss[keep].sum(), rtol=1e-13)
        np.testing.assert_allclose(only.grad[keep], each.grad[keep], rtol=1e-13, atol=1e-16)
        assert not only.grad[~keep].any()
        half = call(name, *args, reduction="sum", normalizer=None, backend=backend, **extra)
        mean = call(name, *args, normalizer=4.0, backend=backend, **extra)
        np.testing.assert_allclose(
            [4 * mean.loss, *(4 * mean.grad).ravel()], [half.loss, *half.grad.ravel()], rtol=1e-13, atol=1e-16
        )


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("classes", [5, 1030])
def test_special_logits(name, classes, dtype, compiled):
    args, options = case(name, dtype, classes=classes)
    x = args[0]
    for row, specials in enumerate(
        [[np.inf], [-np.inf], [np.inf, np.inf], [np.nan], [np.inf, np.nan], [np.inf, -np.inf]]
    ):
        x[row, : len(specials)] = specials
    x[6], x[7], x[8] = -np.inf, x[7] + 3e4, 300 * x[8]
    for extra in options[:2]:
        with np.errstate(all="ignore"):
            expected = call(name, *args, reduction="none", backend="numpy", **extra)
        found = call(name, *args, reduction="none", backend=compiled, **extra)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=4e-6 if dtype == "float32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("rows", "classes"), [(3000, 5), (400, 1030)])
def test_the_same_bits_in_place_on_threads_and_without_a_gradient(name, rows, classes, compiled):
    args, options = case(name, "float32", rows=rows, classes=classes)
    for extra in options:
        expected = call(name, *args, backend=compiled, **extra)
        assert call(name, *args, backend=compiled, n_threads=3, **extra).loss == expected.loss
        assert call(name, *args, backend=compiled, grad=False, **extra).loss == expected.loss
        x = args[0].copy()
        result = call(name, x, *args[1:], backend=compiled, out=x, **extra)
        assert result.grad is x
        assert_same_bits(result, expected)


@pytest.mark.parametrize("input_kind", KINDS)
@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("classes", [4, 70, 1100])
def test_divergences_of_every_kind(input_kind, target_kind, classes, backend):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 6, classes))
    p, q = softmax(a), softmax(b)
    m = (p + q) / 2
    kinds = {"input_kind": input_kind, "target_kind": target_kind, "reduction": "none", "backend": backend}
    x, y = as_kind(a, input_kind), as_kind(b, target_kind)
    loss, grad = fl.kl_div(x, y, **kinds)
    np.testing.assert_allclose(loss, (q * np.log(q / p)).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        grad, {"logits": p - q, "log_probs": -q, "probs": -q / p}[input_kind], rtol=1e-12, atol=1e-15
    )
    loss, grad = fl.js_div(x, y, **kinds)
    np.testing.assert_allclose(loss, (p * np.log(p / m) + q * np.log(q / m)).sum(axis=1) / 2, rtol=1e-12)
    u = np.log(p / m)
    slopes = {"logits": p * (u - (p * u).sum(axis=1, keepdims=True)), "log_probs": p * u, "probs": u}
    np.testing.assert_allclose(grad, slopes[input_kind] / 2, rtol=1e-11, atol=1e-15)


def test_probabilities_of_zero(backend):
    q = np.array([[0.0, 0.25, 0.75]])
    loss, grad = fl.kl_div(np.array([[-np.inf, 0.0, 0.0]]), q, backend=backend)
    assert np.isclose(loss, 0.25 * np.log(0.5) + 0.75 * np.log(1.5))
    np.testing.assert_allclose(grad, [[0.0, 0.25, -0.25]])
    assert fl.js_div(q, q, input_kind="probs", backend=backend).loss == 0
    assert fl.js_div(
        np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), input_kind="probs", backend=backend
    ).loss == np.log(2)
    assert fl.cross_entropy(np.array([[-np.inf, 0.0]]), np.array([[0.0, 1.0]]), backend=backend).loss == 0


@pytest.mark.parametrize("classes", [3, 40, 1100])
def test_predictions_of_zero_and_nan(classes, backend):
    rng = np.random.default_rng(classes)
    p, q = rng.dirichlet(np.ones(classes), (2, 4))
    p[0, 0] = p[1, 1] = q[1, 1] = q[2, 2] = 0.0
    p[3, 0] = np.nan
    loss, grad = fl.js_div(p, q, input_kind="probs", reduction="none", backend=backend)
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.log(2 * p / (p + q)) / 2
    wanted[1, 1], wanted[3, 0] = np.log(2) / 2, np.nan
    np.testing.assert_allclose(grad, wanted, rtol=1e-9, atol=1e-15)
    assert grad[0, 0] == -np.inf
    np.testing.assert_array_equal(np.isnan(loss), [False, False, False, True])


@pytest.mark.parametrize("name", ["kl_div", "js_div"])
@pytest.mark.parametrize("classes", [3, 64, 65, 1100])
def test_a_prediction_that_is_no_probability_is_an_error(name, classes, backend, dtype):
    loss, rng = getattr(fl, name), np.random.default_rng(classes)
    p, q = rng.dirichlet(np.ones(classes), (2, 70)).astype(dtype)
    options = {"input_kind": "probs", "backend": backend}
    kept = np.arange(70) != 4
    p[4] = -1.0
    clean = loss(p, q, mask=kept, **options)  # what a mask leaves out may hold anything
    assert np.isfinite(clean.loss)
    for bad in (-1e-6, 1 + 2 * float(np.finfo(dtype).eps), 2.0, np.inf, -np.inf):
        x = p.copy()
        x[60, classes - 1] = bad
        before = x.copy()
        words = rf"input must lie in \[0, 1\], got {np.dtype(dtype).type(bad)} at index \(60, {classes - 1}\)"
        for extra in ({}, {"grad": False}, {"out": x}, {"reduction": "none"}):
            with pytest.raises(ValueError, match=words):
                loss(x, q, mask=kept, **options, **extra)
        with pytest.raises(ValueError, match=words):
            fl.grad_hess(loss, x, q, mask=kept, **options)
        np.testing.assert_array_equal(x, before)
    x = p.copy()
    x[60, 1] = np.nan
    q[60, 1] = 0.0
    result = loss(x, q, mask=kept, reduction="none", **options)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.loss)), [60])


@pytest.mark.parametrize("classes", [2, 64, 65, 130, 1030, 5000])
def test_a_class_that_takes_no_part_has_a_gradient_of_zero_whatever_the_logits(classes, backend, dtype):
    rng = np.random.default_rng(classes)
    x = rng.standard_normal((6, classes)).astype(dtype)
    legal = np.arange(classes) % 2 == 0
    legal = np.tile(legal, (6, 1))
    legal[0] = False  # none takes part
    x[1, 0], x[2, 1], x[3, 1] = np.nan, np.nan, np.inf  # NaN that does and does not, infinity that does not
    y, advantages = np.array([0, 0, 0, 0, 1, 0]), np.array([1, 1, -1, 1, 2, 0], dtype)
    shares = rng.dirichlet(np.ones(classes), 6).astype(dtype)
    cost = np.array([np.nan, np.nan, 0, 0, np.inf, 0])
    own = {"reduction": "none", "backend": backend}
    for options in ({}, {"label_smoothing": 0.25}, {"z_loss": 0.5}, {"temperature": 2.0}, {"softcap": 5.0}):
        for target, loss in ((y, fl.cross_entropy), (shares, fl.cross_entropy), (y, fl.cross_entropy_stats)):
            result = loss(x, target, class_mask=legal, **options, **own)
            assert not result.grad[~legal].any()
            np.testing.assert_array_equal(np.isnan(result.grad).any(axis=1), [False, True, *[False] * 4])
            np.testing.assert_array_equal(np.isnan(result.loss), np.isnan(cost))
            assert not np.isfinite(result.loss[4])
        found = fl.grad_hess(fl.cross_entropy, x, y, class_mask=legal, backend=backend, **options)
        assert not found.grad[~legal].any()
        assert not found.hess[~legal].any()
    for coefficient in (0.0, 0.5):
        result = fl.policy_gradient_loss(x, y, advantages, entropy_coef=coefficient, action_mask=legal, **own)
        assert not result.grad[~legal].any()
        np.testing.assert_array_equal(np.isnan(result.grad).any(axis=1), [False, True, *[False] * 4])
        np.testing.assert_array_equal(np.isnan(result.loss), np.isnan(cost))
        assert result.loss[4] == np.inf
    # What is not legal costs infinitely much; what remains of the gradient is that of the log-sum-exp.
    lone = fl.policy_gradient_loss(x[4:], [1, 1], -advantages[4:], action_mask=legal[4:], **own)
    np.testing.assert_array_equal(lone.loss, [-np.inf, 0.0])
    other = fl.cross_entropy(x[5:], [0], class_mask=legal[5:], **own).grad[0]
    other[0] += 1
    np.testing.assert_allclose(
        fl.cross_entropy(x[5:], [1], class_mask=legal[5:], **own).grad[0], other, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("classes", [2, 64, 65, 800, 5000])
def test_the_square_of_an_infinite_log_sum_exp_pulls_at_the_infinite_logit_alone(classes, backend, dtype):
    rng = np.random.default_rng(classes)
    x = rng.standard_normal((3, classes)).astype(dtype)
    top, y = np.array([0, 1, classes - 1]), np.array([0, 0, classes - 1])
    x[np.arange(3), top] = np.inf
    weight, shares = rng.random(classes) + 0.5, rng.dirichlet(np.ones(classes), 3).astype(dtype)
    others = top[:, None] != np.arange(classes)
    own = {"reduction": "sum", "backend": backend}
    for options in (
        {}, {"label_smoothing": 0.25, "weight": weight}, {"temperature": 2.0}, {"class_mask": np.ones(classes, bool)},
    ):  # fmt: skip
        for target in (y, shares):
            plain = fl.cross_entropy(x, target, **options, **own)
            result = fl.cross_entropy(x, target, z_loss=0.25, **options, **own)
            assert result.loss == np.inf
            assert (result.grad[~others] == np.inf).all()
            np.testing.assert_allclose(result.grad[others], plain.grad[others], rtol=1e-5, atol=1e-30)
            same = x.copy()
            np.testing.assert_array_equal(
                fl.cross_entropy(same, target, z_loss=0.25, out=same, **options, **own).grad, result.grad
            )
    hess = fl.grad_hess(fl.cross_entropy, x, y, z_loss=0.25, backend=backend).hess
    np.testing.assert_array_equal(hess, np.where(others, 0.0, 0.5))


@pytest.mark.parametrize("classes", [5, 1100])
def test_one_hot_targets_are_indices(classes, backend, dtype):
    (x, y), _ = case("cross_entropy", dtype, classes=classes)
    soft = fl.cross_entropy(x, np.eye(classes, dtype=dtype)[y], reduction="none", backend=backend)
    index = fl.cross_entropy(x, y, reduction="none", backend=backend)
    np.testing.assert_allclose(soft.loss, index.loss, rtol=1e-6)
    np.testing.assert_allclose(soft.grad, index.grad, atol=3e-7)


@pytest.mark.parametrize("classes", [5, 70, 1100])
def test_statistics(classes, backend, dtype):
    (x, y), options = case("cross_entropy", dtype, classes=classes)
    y[3] = -100
    for extra in [{}, options[-2]]:
        stats = fl.cross_entropy_stats(x, y, backend=backend, **extra)
        assert_same_bits(stats[:2], fl.cross_entropy(x, y, backend=backend, **extra)) if extra else None
        np.testing.assert_allclose(stats.loss, fl.cross_entropy(x, y, backend=backend, **extra).loss, rtol=1e-6)
    stats = fl.cross_entropy_stats(x, y, backend=backend)
    p = softmax(x.astype(np.float64))
    kept = y >= 0
    np.testing.assert_allclose(stats.lse[kept], np.log(np.exp(x.astype(np.float64)).sum(axis=1))[kept], rtol=1e-6)
    np.testing.assert_allclose(stats.entropy[kept], -(p * np.log(p)).sum(axis=1)[kept], rtol=1e-6)
    assert (stats.argmax[kept] == x.argmax(axis=1)[kept]).all()
    assert (stats.correct == (kept & (x.argmax(axis=1) == y))).all()
    assert (stats.lse[3], stats.argmax[3], stats.correct[3], stats.entropy[3]) == (0, -1, False, 0)
    assert fl.cross_entropy_stats(np.zeros((1, 4)), np.array([2]), backend=backend).argmax[0] == 0


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 70), (0, 1100)])
@pytest.mark.parametrize(
    "options", [{}, {"z_loss": 0.25, "weight": True}, {"label_smoothing": 0.25, "class_mask": True}]
)
def test_soft_targets_of_an_empty_batch_are_taken_like_indices(shape, options, backend):
    classes = shape[-1]
    arrays = {"weight": np.ones(classes), "class_mask": np.ones(classes, bool)}
    options = {name: arrays.get(name, value) for name, value in options.items()}
    x = np.zeros(shape)
    for target in (np.zeros(shape), np.zeros(shape[:-1], int)):
        for reduction, expected in [("mean", np.nan), ("weighted_mean", np.nan), ("sum", 0.0)]:
            loss, grad = fl.cross_entropy(x, target, reduction=reduction, backend=backend, **options)
            np.testing.assert_equal(loss, expected)
            assert grad.shape == shape
        assert fl.cross_entropy(x, target, reduction="none", backend=backend, **options).loss.shape == shape[:-1]
        with fl.use_backend(backend):
            assert fl.grad_hess(fl.cross_entropy, x, target, **options).hess.shape == shape


def test_an_empty_list_is_a_target_of_no_rows(backend):
    assert np.isnan(fl.cross_entropy(np.zeros((0, 3)), [], backend=backend).loss)


def test_focal_of_a_certain_row_is_zero(backend):
    for gamma in (0.0, 0.5, 2.0):
        loss, grad = fl.softmax_focal_loss(np.array([[800.0, 0.0]]), np.array([0]), gamma=gamma, backend=backend)
        assert loss == 0
        assert not np.abs(grad).any()


BAD = [
    (lambda x, y: fl.cross_entropy(x, np.full(x.shape, 1.5)), ValueError, ["target", "[0, 1]", "(0, 0)"]),
    (lambda x, y: fl.cross_entropy(x, np.full(x.shape, np.nan)), ValueError, ["target", "[0, 1]"]),
    (lambda x, y: fl.cross_entropy(x, np.zeros((2, 2))), ValueError, ["target", "input's shape"]),
    (lambda x, y: fl.cross_entropy(x, np.zeros(x.shape, "f4")), TypeError, ["target", "float32"]),
    (lambda x, y: fl.cross_entropy(x, y, class_mask=np.ones(3, int)), TypeError, ["class_mask", "bool"]),
    (lambda x, y: fl.cross_entropy(x, y, class_mask=np.ones(4, bool)), ValueError, ["class_mask", "(4,)"]),
    (lambda x, y: fl.cross_entropy(x, y, temperature=0.0), ValueError, ["temperature", "positive"]),
    (lambda x, y: fl.cross_entropy(x, y, softcap=-1.0), ValueError, ["softcap", "positive"]),
    (lambda x, y: fl.cross_entropy(x, y, z_loss=-1.0), ValueError, ["z_loss", "non-negative"]),
    (lambda x, y: fl.cross_entropy_stats(x, np.array([0, 7])), IndexError, ["target", "[0, 3)", "7", "index 1"]),
    (lambda x, y: fl.softmax_focal_loss(x, y, gamma=-1.0), ValueError, ["gamma", "between 0 and 1000"]),
    (lambda x, y: fl.softmax_focal_loss(x, y * 1.0), TypeError, ["target", "integer"]),
    (lambda x, y: fl.poly_loss(x, y, epsilon=(1,) * 7), ValueError, ["epsilon", "6", "7"]),
    (lambda x, y: fl.kl_div(x, x, input_kind="odds"), ValueError, ["input_kind", "'logits'", "'odds'"]),
    (lambda x, y: fl.kl_div(x, x - 1), ValueError, ["target", "[0, 1]", "(0, 0)"]),
    (
        lambda x, y: fl.policy_gradient_loss(x, np.array([0, 3]), np.ones(2)),
        IndexError,
        ["actions", "[0, 3)", "index 1"],
    ),
    (lambda x, y: fl.policy_gradient_loss(x, y, np.ones(3)), ValueError, ["advantages", "(3,)"]),
    (lambda x, y: fl.policy_gradient_loss(x, y, np.ones(2, "f4")), TypeError, ["advantages", "float32"]),
]


@pytest.mark.parametrize(("bad", "error", "words"), BAD)
@pytest.mark.parametrize("engine", BACKENDS)
def test_bad_input_is_named(bad, error, words, engine):
    x, y = np.zeros((2, 3)), np.array([0, 1])
    with fl.use_backend(engine), pytest.raises(error) as caught:
        bad(x, y)
    for word in words:
        assert word in str(caught.value)
