"""Infinities, NaN, subnormals and the largest numbers."""

import mpmath
import numpy as np
import pytest
from cases import ROWS, UNIT, build, param_sets
from oracle import assert_close, expected

import fastloss as fl
from fastloss.commands._ulp import formula
from fastloss.registry import DOMAINS, LOSSES

INF, NAN = np.inf, np.nan

pytestmark = pytest.mark.filterwarnings("error")  # a kernel must not leak floating-point warnings either


def numbers(dtype):
    info = np.finfo(dtype)
    half = [0.0, info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny, 1e-3, 1.0, 50.0, 1e4, info.max, INF]
    return np.array([*half, *(-np.array(half)), NAN], dtype)


def pairs(name, dtype):
    """Every special prediction in the loss's domain with every target."""
    facts, x = LOSSES[name], numbers(dtype)
    y = x if facts.target == "real" else np.array([0.0, 1.0, 0.5, 3.0, -1.0], dtype)
    x = x[DOMAINS[facts.input].valid(x) | np.isnan(x)]
    y = y[DOMAINS[facts.target].valid(y)]
    return np.repeat(x, y.size), np.tile(y, x.size)


def named_third(name, x):
    """The third array of a loss that needs one."""
    return {LOSSES[name].third: np.full_like(x, 0.75)} if LOSSES[name].needs_third else {}


def test_elementwise_losses_at_special_numbers(elementwise, backend, dtype):
    x, y = pairs(elementwise, dtype)
    run = formula(elementwise)
    for params in param_sets(elementwise):
        more = named_third(elementwise, x)
        result = getattr(fl, elementwise)(x, y, backend=backend, reduction="none", **params, **more)
        given = [*(values[0].item() for values in more.values()), *LOSSES[elementwise].parse(params)]
        with mpmath.workprec(200):
            places = zip(x.tolist(), y.tolist(), strict=True)
            wanted = [run(mpmath.mpf(a), mpmath.mpf(b), *given)[:2] for a, b in places]
        info = np.finfo(dtype)
        for k in (0, 1):
            right = np.array([float(values[k]) for values in wanted])
            actual = result[k].astype(np.float64)
            assert np.array_equal(np.isnan(actual), np.isnan(right)), f"{params} NaN"
            # A residual beyond the largest number is infinite before it is multiplied by a small parameter.
            with np.errstate(over="ignore", invalid="ignore"):
                beyond = np.isfinite(x) & np.isfinite(y) & (np.abs(x - y) > info.max / 8)
            exact = LOSSES[elementwise].family in ("distance", "residual")
            beyond &= exact
            if elementwise == "asymmetric_huber_loss":  # its slope jumps where a residual is rounded to -delta
                with np.errstate(over="ignore", invalid="ignore"):
                    beyond |= (x - y).astype(dtype) == -params.get("delta", 1.0)
            fits = ~beyond & (np.abs(right) < info.max)
            # Between 0 and 1 a target makes the gradient a difference; test_accuracy.py has the digits of the others.
            floor = 4 * info.smallest_subnormal if exact else 32 * info.eps
            np.testing.assert_allclose(actual[fits], right[fits], rtol=8 * info.eps, atol=floor)
            infinite = ~beyond & np.isinf(right)
            np.testing.assert_array_equal(actual[infinite], right[infinite])
            if elementwise in ("cauchy_loss", "asymmetric_huber_loss"):
                continue  # not one that grows with the residual
            assert np.all(np.abs(actual[beyond]) >= np.minimum(np.abs(right[beyond]), info.max) * (1 - 4 * info.eps))


@pytest.mark.parametrize("name", UNIT)
def test_infinite_logits_give_the_limits(name, backend, dtype):
    x, y = np.array([INF, -INF, INF, -INF], dtype), np.array([1, 0, 0, 1], dtype)
    result = getattr(fl, name)(x, y, backend=backend, reduction="none")
    np.testing.assert_array_equal(result.loss, [0, 0, INF, INF])
    np.testing.assert_array_equal(result.grad, [0, 0, 1, -1])
    assert getattr(fl, name)(x[:2], y[:2], backend=backend).loss == 0.0
    assert getattr(fl, name)(x, y, backend=backend).loss == INF


def test_no_nan_that_the_input_does_not_carry(elementwise, backend, dtype):
    x, y = pairs(elementwise, dtype)
    carried, more = np.isnan(x) | np.isnan(y), named_third(elementwise, x)
    if LOSSES[elementwise].target == "real":
        carried |= np.isinf(x) & (x == y)  # the difference of equal infinities
    if elementwise == "mape_loss":  # an error in percent of infinity
        x, y, carried = x[np.isfinite(y)], y[np.isfinite(y)], carried[np.isfinite(y)]
    for params in param_sets(elementwise):
        if params.get("log_input") == 0.0:
            continue  # a negative rate has no logarithm
        result = getattr(fl, elementwise)(x, y, backend=backend, reduction="none", **params, **more)
        np.testing.assert_array_equal(np.isnan(result.loss), carried, err_msg=str(params))
        np.testing.assert_array_equal(np.isnan(result.grad), carried, err_msg=str(params))
        more_kept = {key: values[~carried] for key, values in more.items()}
        found = fl.grad_hess(getattr(fl, elementwise), x[~carried], y[~carried], backend=backend, **params, **more_kept)
        assert not np.isnan(found.grad).any()
        assert not np.isnan(found.hess).any()


@pytest.mark.parametrize("name", UNIT)
def test_saturated_ends_are_monotonic_and_positive(name, backend, dtype):
    x = np.linspace(-100, 100, 4001).astype(dtype)
    result = getattr(fl, name)(x, np.zeros_like(x), backend=backend, reduction="none")
    assert np.all(np.diff(result.loss) >= 0)
    assert np.all(result.loss > 0)
    assert np.all((result.grad > 0) & (result.grad <= 1))


def test_nan_stays_in_its_entry_and_reaches_the_reduced_loss(loss, backend, dtype):
    case = build(loss, dtype, (150,))
    clean = case(backend, reduction="none")
    case.args[0][70] = NAN
    result = case(backend, reduction="none")
    others = np.arange(150) != 70
    assert np.isnan(result.loss[70])
    assert np.isnan(result.grad[70]).any()
    for a, b in zip(clean, result, strict=True):
        np.testing.assert_array_equal(a[others], b[others])
    assert np.isnan(case(backend).loss)
    assert np.isnan(case(backend, reduction="sum").loss)


@pytest.mark.parametrize("width", [3, 70, 1500])
def test_impossible_classes(backend, dtype, width):
    # -inf is a class of probability 0: the row is that of the other classes.
    case = build("cross_entropy", dtype, (20,), width)
    x, y = case.args
    x, y = x.copy(), np.zeros_like(y)
    x[:, 2] = -INF
    result = case.with_args(x, y)(backend, reduction="none")
    without = case.with_args(np.delete(x, 2, axis=1), y)(backend, reduction="none")
    np.testing.assert_allclose(result.loss, without.loss, rtol=1e-6)
    np.testing.assert_allclose(np.delete(result.grad, 2, axis=1), without.grad, rtol=1e-5)
    assert not result.grad[:, 2].any()
    # The true class impossible: infinitely wrong, and the gradient still says what to do.
    wrong = case.with_args(x, np.full_like(y, 2))(backend, reduction="none")
    assert np.all(wrong.loss == INF)
    assert np.all(wrong.grad[:, 2] == -1)
    np.testing.assert_allclose(wrong.grad.sum(axis=1), 0, atol=1e-5)


@pytest.mark.parametrize(("width", "place"), [(3, 1), (70, 1), (1500, 1), (1500, 700), (1500, -1)])
def test_an_infinite_class(backend, dtype, width, place):
    x = np.zeros((2, width), dtype)
    x[:, place] = INF
    x[:, 2 if place == 1 else 1] = -INF
    y = np.array([place % width, 0])
    result = fl.cross_entropy(x, y, backend=backend, reduction="none")
    np.testing.assert_array_equal(result.loss, [0, INF])
    wanted = np.zeros((2, width))
    wanted[1, [0, place]] = [-1, 1]
    np.testing.assert_array_equal(result.grad, wanted)
    result = fl.cross_entropy(x, y, label_smoothing=0.5, backend=backend, reduction="none")
    assert np.all(result.loss == INF)  # smoothing wants some of every class
    np.testing.assert_allclose(result.grad[0, [0, place]], [-0.5 / width, 0.5 - 0.5 / width], rtol=1e-6)


@pytest.mark.parametrize("width", [3, 70, 1500])
def test_rows_without_an_answer_are_nan_alone(backend, dtype, width):
    case = build("cross_entropy", dtype, (5,), width)
    x = case.args[0]
    clean = case(backend, reduction="none")
    x[1], x[2, :2], x[3, 0], x[3, 1] = -INF, INF, NAN, INF
    result = case(backend, reduction="none")
    np.testing.assert_array_equal(np.isnan(result.loss), [False, True, True, True, False])
    np.testing.assert_array_equal(np.isnan(result.grad).any(axis=1), [False, True, True, True, False])
    np.testing.assert_array_equal(result.grad[[0, 4]], clean.grad[[0, 4]])
    # The rows before and after it in memory come out the same under any reduction.
    np.testing.assert_array_equal(case(backend, reduction="sum").grad[[0, 4]], clean.grad[[0, 4]])


@pytest.mark.parametrize("width", [3, 70])
@pytest.mark.parametrize("name", ROWS)
def test_a_class_of_weight_zero_does_not_count_even_if_impossible(name, backend, dtype, width):
    x = np.random.default_rng(0).standard_normal((2, width)).astype(dtype)
    x[:, 1] = -INF
    weight = np.ones(width)
    weight[1] = 0.0
    for params in param_sets(name):
        case = build(name, dtype, (2,), width, weight=weight, **params)
        case = case.with_args(x, np.array([1, 0]))
        result = case(backend, reduction="none")
        assert np.isfinite(result.loss).all(), params
        assert np.isfinite(result.grad).all(), params
        assert_close(result, expected(case, reduction="none"), dtype, params)


def margins(name):
    """Losses of rows whose scores compete by differences, under both powers."""
    return [{}, {"p": 2}] if name == "multi_margin_loss" else [{}]


@pytest.mark.parametrize("width", [3, 70, 1500])
@pytest.mark.parametrize("name", ["multi_margin_loss", "crammer_singer_loss"])
def test_infinite_and_absent_rivals(name, backend, dtype, width):
    x = np.full((5, width), -INF, dtype)  # nobody but the target, at any score: costs nothing
    x[:3, 1] = [2.0, INF, -INF]
    x[3:, 0], x[3:, 1] = INF, [3.0, INF]  # an infinite rival, and one that is as high
    for params in margins(name):
        result = getattr(fl, name)(x, np.ones(5, int), backend=backend, reduction="none", **params)
        np.testing.assert_array_equal(result.loss, [0, 0, 0, INF, NAN])
        assert not result.grad[:3].any()
        assert not result.grad[:, 2:].any()
        top = 1.0 if name == "crammer_singer_loss" else (INF if params else 1 / width)
        np.testing.assert_array_equal(result.grad[3, :2], np.array([top, -top], dtype))
        assert np.isnan(result.grad[4, :2]).all()


@pytest.mark.parametrize("width", [5, 40, 1500])
@pytest.mark.parametrize("name", ["multi_margin_loss", "crammer_singer_loss"])
def test_a_nan_stays_with_its_class_and_the_target(name, backend, dtype, width):
    x = np.zeros((3, width), dtype)
    x[0, 3], x[1, 1], x[2, [2, 4]] = NAN, NAN, [INF, NAN]
    for params in margins(name):
        result = getattr(fl, name)(x, np.ones(3, int), backend=backend, reduction="none", **params)
        assert np.isnan(result.loss).all()
        assert np.isnan(result.grad[:, 1]).all()
        assert np.isnan(result.grad[[0, 2], [3, 4]]).all()
        assert np.isfinite(np.delete(result.grad[0], [1, 3])).all()


@pytest.mark.parametrize("width", [4, 40, 1500])
def test_kinks_and_ties_of_margins(backend, dtype, width):
    # Reached exactly, a margin costs nothing and has no gradient; beyond it by the smallest step it has.
    x = np.full((2, width), -9.0, dtype)
    x[:, 1], x[0, 3], x[1, 3] = 1.5, 0.5, np.nextafter(dtype_of(0.5, dtype), dtype_of(1, dtype))
    for name in ("multi_margin_loss", "crammer_singer_loss"):
        result = getattr(fl, name)(x, np.ones(2, int), backend=backend, reduction="none")
        assert result.loss[0] == 0
        assert not result.grad[0].any()
        assert result.loss[1] > 0
        assert result.grad[1, 3] == -result.grad[1, 1] > 0
    # Of equal rivals the first, wherever they stand; zeros of both signs are equal.
    for places in ([0, 3], [3, width - 1], [2, 3]):
        x = np.full((1, width), -9.0, dtype)
        x[0, 1], x[0, places] = 0.5, [-0.0, 0.0]
        grad = fl.crammer_singer_loss(x, [1], backend=backend).grad
        assert [*np.flatnonzero(grad)] == sorted([1, places[0]])


def dtype_of(value, dtype):
    return np.dtype(dtype).type(value)


def test_the_log_likelihood_looks_at_the_target_alone(backend, dtype):
    x = np.array([[-1.0, NAN, INF], [-INF, 0.0, NAN], [NAN, -1.0, -2.0]], dtype)
    result = fl.nll_loss(x, [0, 0, 0], backend=backend, reduction="none")
    np.testing.assert_array_equal(result.loss, [1, INF, NAN])
    np.testing.assert_array_equal(result.grad, [[-1, 0, 0], [-1, 0, 0], [NAN, 0, 0]])


@pytest.mark.parametrize("width", [2, 3, 40])
def test_extreme_logits(backend, dtype, width):
    # The largest numbers apart: differences overflow, the answer does not become NaN.
    top = np.finfo(dtype).max
    x = np.full((3, width), -top, dtype)
    x[:2, 0] = top
    result = fl.cross_entropy(x, np.array([0, 1, 0]), backend=backend, reduction="none")
    assert result.loss[0] == 0
    assert result.loss[1] >= top
    np.testing.assert_allclose(result.loss[2], np.log(width), rtol=1e-6)
    wanted = np.zeros((3, width))
    wanted[1, :2] = [1, -1]
    wanted[2] = 1 / width
    wanted[2, 0] -= 1
    np.testing.assert_allclose(result.grad, wanted, rtol=1e-6)
    tiny = np.full((1, width), np.finfo(dtype).smallest_subnormal, dtype)
    np.testing.assert_allclose(fl.cross_entropy(tiny, np.array([0]), backend=backend).loss, np.log(width), rtol=1e-6)


def test_a_terminal_state_bootstraps_from_nothing(backend, dtype):
    case = build("td_loss", dtype)
    q, actions, rewards, next_q, terminated = case.args
    clean = case(backend, reduction="none")
    for garbage in (NAN, INF):
        bad = next_q.copy()
        bad[terminated] = garbage
        for extra in ({}, {"next_q_online": bad}):
            found = case.with_args(q, actions, rewards, bad, terminated).with_params(**extra)(backend, reduction="none")
            assert np.isfinite(found.loss).all()
            if not extra:
                np.testing.assert_array_equal(found.loss, clean.loss)


@pytest.mark.parametrize("width", [3, 20, 100])
def test_a_discount_of_zero_does_not_look_at_what_comes_next(backend, dtype, width):
    case = build("td_loss", dtype, width=width, gamma=0.0)
    q, actions, rewards, _, terminated = case.args
    for garbage in (NAN, INF, -INF):
        bad = np.full_like(q, garbage)
        for extra in ({}, {"next_q_online": bad}, {"next_action_mask": np.arange(q.size).reshape(q.shape) % 3 == 0}):
            found = case.with_args(q, actions, rewards, bad, terminated).with_params(**extra)(backend)
            np.testing.assert_array_equal(found.td_error, rewards - q[np.arange(len(q)), actions])
            assert np.isfinite(found.loss)
            assert np.isfinite(found.grad).all()


def test_illegal_next_actions_may_hold_anything(backend, dtype):
    case = build("td_loss", dtype)
    q, actions, rewards, next_q, terminated = case.args
    legal = np.random.default_rng(0).random(next_q.shape) < 0.5
    for garbage in (NAN, INF):
        bad = np.where(legal, next_q, garbage).astype(dtype)
        for key in ("next_q", "next_q_online"):
            values = bad if key == "next_q" else next_q
            extra = {"next_action_mask": legal} | ({"next_q_online": bad} if key != "next_q" else {})
            result = case.with_args(q, actions, rewards, values, terminated).with_params(**extra)(backend)
            assert np.isfinite(result.loss)
            assert np.isfinite(result.td_error).all()


def test_a_nan_among_the_next_values_is_seen(backend, dtype):
    # As with NumPy's maximum: NaN wins, it does not vanish.
    for place in range(3):
        next_q = np.array([[1.0, 2.0, 3.0]], dtype)
        next_q[0, place] = NAN
        q = np.zeros((1, 3), dtype)
        result = fl.td_loss(q, [0], np.zeros(1, dtype), next_q, [False], backend=backend)
        assert np.isnan(result.td_error[0])
        result = fl.td_loss(q, [0], np.zeros(1, dtype), np.ones_like(q), [False], next_q_online=next_q, backend=backend)
        assert np.isnan(result.td_error[0])


@pytest.mark.parametrize("width", [2, 9, 20])
def test_zeros_of_both_signs_are_a_tie(backend, dtype, width):
    # The lowest index wins, and the sign of a zero must not depend on how a maximum is searched.
    q, online, next_q = (np.zeros((4, width), dtype) for _ in range(3))
    online[0, 0] = online[1, 1] = next_q[2, 0] = next_q[3, -1] = -0.0
    next_q[:, 0] += np.array([5, 5, -0.0, 0], dtype)
    call = {"gamma": 1.0, "backend": backend, "reduction": "none"}
    args = (q, [0] * 4, np.full(4, -0.0, dtype), next_q, [False] * 4)
    np.testing.assert_array_equal(fl.td_loss(*args, next_q_online=online, **call).td_error[:2], [5, 5])
    plain = fl.td_loss(*args, **call)
    assert np.all(plain.td_error[2:] == 0)


def test_next_values_of_minus_infinity_are_legal_but_hopeless(backend, dtype):
    q, reward = np.zeros((2, 2), dtype), np.ones(2, dtype)
    next_q = np.array([[-INF, 3.0], [-INF, -INF]], dtype)
    error = fl.td_loss(q, [0, 0], reward, next_q, [False, False], gamma=0.5, backend=backend).td_error
    np.testing.assert_array_equal(error, [2.5, -INF])
    online, legal = np.array([[-INF, -INF]], dtype), np.array([[False, True]])
    chosen = fl.td_loss(
        q[:1], [0], reward[:1], np.array([[9.0, 4.0]], dtype), [False], gamma=0.5, next_q_online=online,
        next_action_mask=legal, backend=backend,
    )  # fmt: skip
    assert chosen.td_error[0] == 3.0  # the only legal action, although its value is -inf


def test_parameters_beyond_float32_are_refused(elementwise, backend):
    # Kernels compute in the type of their input: there 1e39 would be infinite and 1e-46 zero.
    x = np.ones(2, np.float32)
    for param in LOSSES[elementwise].params:
        if param.flag or param.derive:
            continue
        # A coefficient of either sign may be as good as 0.
        for value in (1e39,) if param.valid(-2.0) else (1e39, 1e-46) if param.valid(2.0) else (1e-46,):
            with pytest.raises(ValueError, match=param.name):
                getattr(fl, elementwise)(x, x, backend=backend, **{param.name: value}, **named_third(elementwise, x))
