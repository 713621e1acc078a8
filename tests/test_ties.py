"""Which of several classes or actions is taken: the lowest, on both sides of every threshold between kernels."""

import ml_dtypes
import numpy as np
import pytest

import fastloss as fl

INF, NAN = np.inf, np.nan
KINDS = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
# Rows side by side up to 64; no look for the maximum from 768 on; chunks of 1 024; blocks of 4 096.
COUNTS = (1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 767, 768, 769, 1023, 1024, 1025, 2047, 2048, 2049, 5000)
ENDS = (1, 2, 16, 32, 64, 768, 1024, 2048, 4096)

pytestmark = pytest.mark.filterwarnings("error")


def tied(classes, kind):
    """Rows whose maximum stands at several places, as -inf, +inf and NaN do."""
    rng = np.random.default_rng(classes)
    last = classes - 1
    places = [[0, last], [last], [classes // 2, last], *([end - 1, end] for end in ENDS if end < classes)]
    x = rng.integers(0, 4, (8 + 3 * len(places), classes)).astype(np.float64)
    x[0], x[1], x[2] = 0.0, -INF, INF
    x[3] = np.where(np.arange(classes) % 2, 0.0, -0.0)
    x[4] = NAN
    x[5], x[5, 0] = -INF, NAN
    x[6, last] = NAN
    for row, at in enumerate(places):
        for value, shift in ((9.0, 8), (INF, 8 + len(places)), (NAN, 8 + 2 * len(places))):
            x[shift + row, at] = value
    return x.astype(kind)


def highest(x, legal=True):
    """The place of the maximum, in float64; -1 where nothing is legal."""
    legal = np.broadcast_to(legal, x.shape)
    values = np.where(legal, x.astype(np.float64), -INF)
    alike = legal & ((values == values.max(axis=1, keepdims=True)) | np.isnan(values))
    alike = np.where(np.isnan(values).any(axis=1, keepdims=True), np.isnan(values), alike)
    return np.where(alike.any(axis=1), alike.argmax(axis=1), -1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_class_is_the_lowest_of_several_at_every_class_count(kind, backend):
    for classes in COUNTS:
        x = tied(classes, KINDS[kind])
        top = x.astype(np.float64).argmax(axis=1)
        for target in (top, (top + 1) % classes):
            stats = fl.cross_entropy_stats(x, target, reduction="none", backend=backend)
            np.testing.assert_array_equal(stats.argmax, top, err_msg=classes)
            hit = (top == target) & (x.astype(np.float64).max(axis=1) > -INF)  # neither NaN nor nothing
            np.testing.assert_array_equal(stats.correct, hit, err_msg=classes)


@pytest.mark.parametrize("classes", [3, 64, 65, 1025, 2049])
def test_the_likeliest_class_takes_part(classes, backend, dtype):
    x = np.tile(tied(classes, dtype), (2, 1))
    legal = np.random.default_rng(0).random(x.shape) < 0.5
    legal[: len(x) // 2] = np.arange(classes) >= classes // 2
    legal[::7] = False
    for extra in ({}, {"temperature": 2.0}, {"z_loss": 0.5}):
        stats = fl.cross_entropy_stats(x, np.zeros(len(x), int), class_mask=legal, backend=backend, **extra)
        np.testing.assert_array_equal(stats.argmax, highest(x, legal))
        assert not stats.correct[::7].any()


def test_rows_of_nan_are_never_hits(backend):
    for classes in (10, 100):
        x = np.random.default_rng(0).normal(size=(100, classes)).astype(np.float32)
        x[:, 3] = NAN
        for target in (3, 4):
            assert not fl.cross_entropy_stats(x, np.full(100, target), backend=backend).correct.any()
            assert not fl.cross_entropy_stats(x[0], target, backend=backend).correct


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_of_equal_rivals_gets_the_gradient(kind, backend):
    for classes in COUNTS[1:]:
        x = tied(classes, KINDS[kind])
        for target in (0, classes - 1):
            rivals = x.copy()
            rivals[:, target] = -INF
            y = np.full(len(x), target)
            grad = fl.crammer_singer_loss(x, y, margin=10.0, reduction="none", backend=backend).grad
            first = rivals.astype(np.float64).argmax(axis=1)
            felt = np.delete(grad.astype(np.float64), target, axis=1) != 0
            place = np.where(first > target, first - 1, first)
            alone = np.arange(classes - 1) == place[:, None]
            some = rivals[np.arange(len(x)), first] != -INF  # a class of -inf is no rival
            np.testing.assert_array_equal(felt, alone & felt, err_msg=classes)
            clear = some & ~np.isnan(x.astype(np.float64)).any(axis=1) & (x[:, target] < INF)
            assert felt[clear].any(axis=1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_double_q_learning_takes_the_lowest_of_the_best_actions(kind, backend):
    for count in COUNTS:
        online = tied(count, KINDS[kind])
        n = len(online)
        values = np.random.default_rng(1).integers(-90, 90, online.shape).astype(KINDS[kind])
        q, index, rewards = np.zeros_like(online), np.zeros(n, int), np.zeros(n, KINDS[kind])
        args = (q, index, rewards, values, np.zeros(n, bool))
        random = np.random.default_rng(2).random(online.shape) < 0.5
        for legal in (None, random, np.zeros_like(random)):
            error = fl.td_loss(
                *args, gamma=1.0, next_q_online=online, next_action_mask=legal, backend=backend
            ).td_error.astype(np.float64)
            best = highest(online, True if legal is None else legal)
            chosen = np.where(best >= 0, values[np.arange(n), best].astype(np.float64), 0.0)
            nan = np.isnan(online.astype(np.float64)) & (True if legal is None else legal)
            np.testing.assert_array_equal(error, np.where(nan.any(axis=1), NAN, chosen), err_msg=count)
