"""Errors: the type, the argument that is named, and the first offending index."""

import re

import numpy as np
import pytest
from cases import BACKENDS, ELEMENTWISE, LOSS_NAMES, UNIT, build

import fastloss as fl
from fastloss.registry import LOSSES

X, Y, I = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros(4, np.int64)  # noqa: E741
Q = (X, I, np.zeros(4), np.zeros((4, 3)), np.zeros(4, bool))
MASKED = np.ma.masked_array(X, X == 0)
BACKEND = BACKENDS[0]  # arguments are judged before any backend sees them


def put(array, *places_and_values):
    array = array.copy()
    for place, value in places_and_values:
        array[place] = value
    return array


def bad_target(facts):
    """A target that the loss must refuse."""
    return -7 if facts.target in ("non_negative", "positive", "above_minus_one") else 7


# Options that all losses share: keyword arguments, error, words of the message.
COMMON = [
    ({"reduction": "avg"}, ValueError, ["reduction", "'mean'", "'sum'", "'none'", "'weighted_mean'", "'avg'"]),
    ({"reduction": None}, ValueError, ["reduction", "None"]),
    ({"normalizer": 0.0}, ValueError, ["normalizer", "positive"]),
    ({"normalizer": -1}, ValueError, ["normalizer", "-1"]),
    ({"normalizer": np.nan}, ValueError, ["normalizer"]),
    ({"normalizer": np.inf}, ValueError, ["normalizer", "finite"]),
    ({"normalizer": "a"}, TypeError, ["normalizer", "str"]),
    ({"normalizer": 2.0, "reduction": "sum"}, ValueError, ["normalizer", "'sum'"]),
    ({"normalizer": 2.0, "reduction": "none"}, ValueError, ["normalizer", "'none'"]),
    ({"backend": "fortran"}, ValueError, ["backend", "'cython'", "'numba'", "'numpy'", "'fortran'"]),
    ({"n_threads": 0}, ValueError, ["n_threads", "at least 1", "0"]),
    ({"n_threads": -2}, ValueError, ["n_threads", "-2"]),
    ({"n_threads": 1.5}, TypeError, ["n_threads", "float"]),
    ({"n_threads": True}, TypeError, ["n_threads", "bool"]),
    ({"mask": np.ones(4)}, TypeError, ["mask", "bool", "float64"]),
    ({"mask": np.ones(4, np.int8)}, TypeError, ["mask", "bool", "int8"]),
    ({"mask": np.ones(3, bool)}, ValueError, ["mask", "(4,", "(3,)"]),
    ({"mask": np.ones((4, 3, 1), bool)}, ValueError, ["mask", "(4, 3, 1)"]),
    ({"mask": np.ma.masked_array(np.ones(4, bool), False)}, TypeError, ["mask", "masked array"]),
    ({"sample_weight": np.ones(3)}, ValueError, ["sample_weight", "(4,", "(3,)"]),
    ({"sample_weight": np.ones((1, 3))}, ValueError, ["sample_weight", "(1, 3)"]),
    ({"sample_weight": np.ones(4, bool)}, TypeError, ["sample_weight", "bool"]),
    ({"sample_weight": np.ones(4, complex)}, TypeError, ["sample_weight", "complex128"]),
    ({"sample_weight": ["a"] * 4}, TypeError, ["sample_weight"]),
    ({"sample_weight": np.ma.masked_array(np.ones(4))}, TypeError, ["sample_weight", "masked array", "mask="]),
    ({"out": [[0.0] * 3] * 4}, TypeError, ["out", "list"]),
    ({"out": np.zeros((4, 3), np.float32)}, TypeError, ["out", "float64", "float32"]),
    ({"out": np.zeros((3, 4))}, ValueError, ["out", "(4, 3)", "(3, 4)"]),
    ({"out": np.broadcast_to(np.zeros(3), (4, 3))}, ValueError, ["out", "read-only"]),
    ({"out": np.zeros((4, 3)), "grad": False}, ValueError, ["out", "grad=False"]),
]


def arguments(name):
    if LOSSES[name].needs_third:
        return X, Y, X + 1
    return {"elementwise": (X, Y), "rows": (X, I), "gather": Q}[LOSSES[name].kind]


def check(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize(("options", "error", "words"), COMMON)
def test_common_options(loss, options, error, words):
    check(lambda: getattr(fl, loss)(*arguments(loss), **{"backend": BACKEND} | options), error, words)


ELEMENTWISE_TABLE = [
    ((X, Y[:3]), ValueError, ["target", "(4, 3)", "(3, 3)"]),
    ((X, np.zeros(3)), ValueError, ["target", "(4, 3)", "(3,)"]),  # no broadcasting
    ((X, 0.0), ValueError, ["target", "(4, 3)", "()"]),
    ((X.astype(np.float32), Y), TypeError, ["target", "float32", "float64"]),
    ((X, Y.astype(np.float16)), TypeError, ["target", "float64", "float16"]),
    ((X, Y.astype(complex)), TypeError, ["target", "complex128"]),
    ((X, MASKED), TypeError, ["target", "masked array", "mask=~target.mask"]),
    ((MASKED, Y), TypeError, ["input", "masked array", "mask=~input.mask"]),
    ((X.astype(int), Y), TypeError, ["input", "float32", "int64"]),
    ((X.astype(bool), Y), TypeError, ["input", "bool"]),
    ((X.astype(complex), Y), TypeError, ["input", "complex128"]),
    ((X.astype(str), Y), TypeError, ["input"]),
    ((None, Y), TypeError, ["input", "object"]),
    (([[1.0, 2.0], [3.0]], Y), ValueError, []),
]


@pytest.mark.parametrize(("args", "error", "words"), ELEMENTWISE_TABLE)
def test_arguments_of_elementwise_losses(elementwise, args, error, words):
    third = {LOSSES[elementwise].third: X + 1} if LOSSES[elementwise].needs_third else {}
    check(lambda: getattr(fl, elementwise)(*args, backend=BACKEND, **third), error, words)
    check(lambda: fl.grad_hess(getattr(fl, elementwise), *args, backend=BACKEND, **third), error, words)


ROWS_TABLE = [
    ((X, I[:3]), {}, ValueError, ["target", "(4,)", "(3,)"]),
    ((X, I[:, None]), {}, ValueError, ["target", "(4,)", "(4, 1)"]),
    ((X, I.astype(float)), {}, TypeError, ["target", "integer", "float64"]),
    ((X, I.astype(bool)), {}, TypeError, ["target", "integer", "bool"]),
    ((X, np.ma.masked_array(I)), {}, TypeError, ["target", "masked array"]),
    ((X.astype(int), I), {}, TypeError, ["input", "int64"]),
    ((np.float64(1.0), 0), {}, ValueError, ["input", "class"]),
    ((np.zeros((4, 0)), I), {}, ValueError, ["input", "class", "(4, 0)"]),
    ((X, I), {"weight": [1.0, 2.0]}, ValueError, ["weight", "(3,)", "(2,)"]),
    ((X, I), {"weight": 1.0}, ValueError, ["weight", "(3,)", "()"]),
    ((X, I), {"weight": [1.0, -2.0, 1.0]}, ValueError, ["weight", "-2.0", "index 1"]),
    ((X, I), {"weight": [1.0, 1.0, np.nan]}, ValueError, ["weight", "nan", "index 2"]),
    ((X, I), {"weight": [np.inf, 1.0, 1.0]}, ValueError, ["weight", "inf", "index 0"]),
    ((X, I), {"weight": ["a", "b", "c"]}, TypeError, ["weight"]),
    ((X, I), {"ignore_index": 1.5}, TypeError, ["ignore_index", "float"]),
    ((X, I), {"ignore_index": None}, TypeError, ["ignore_index", "NoneType"]),
    ((X, I), {"ignore_index": 2**63}, ValueError, ["ignore_index", "64 bits"]),
]


@pytest.mark.parametrize(("args", "options", "error", "words"), ROWS_TABLE)
def test_arguments_of_cross_entropy(args, options, error, words):
    check(lambda: fl.cross_entropy(*args, backend=BACKEND, **options), error, words)


TD_TABLE = [
    ({0: X.astype(int)}, {}, TypeError, ["q must", "int64"]),
    ({0: np.zeros((4, 0))}, {}, ValueError, ["q must", "action", "(4, 0)"]),
    ({1: I[:2]}, {}, ValueError, ["actions", "(4,)", "(2,)"]),
    ({1: np.zeros(4)}, {}, TypeError, ["actions", "integer", "float64"]),
    ({2: np.zeros(3)}, {}, ValueError, ["rewards", "(4,)", "(3,)"]),
    ({2: np.zeros(4, np.float32)}, {}, TypeError, ["rewards", "float64", "float32"]),
    ({2: np.zeros(4, int)}, {}, TypeError, ["rewards", "int64"]),
    ({3: np.zeros((4, 2))}, {}, ValueError, ["next_q", "(4, 3)", "(4, 2)"]),
    ({3: np.zeros((4, 3), np.float32)}, {}, TypeError, ["next_q", "float64", "float32"]),
    ({4: np.zeros(4)}, {}, TypeError, ["terminated", "bool", "float64"]),
    ({4: np.zeros(5, bool)}, {}, ValueError, ["terminated", "(4,)", "(5,)"]),
    ({}, {"next_q_online": np.zeros((4, 4))}, ValueError, ["next_q_online", "(4, 3)", "(4, 4)"]),
    ({}, {"next_q_online": np.zeros((4, 3), np.float32)}, TypeError, ["next_q_online", "float32"]),
    ({}, {"next_action_mask": np.zeros((4, 3))}, TypeError, ["next_action_mask", "bool"]),
    ({}, {"next_action_mask": np.zeros(4, bool)}, ValueError, ["next_action_mask", "(4, 3)", "(4,)"]),
    ({}, {"loss": "l1"}, ValueError, ["loss", "'huber'", "'mse'", "'smooth_l1'", "'l1'"]),
    ({}, {"delta": 0.0}, ValueError, ["delta", "huber"]),
    ({3: np.ma.masked_array(X)}, {}, TypeError, ["next_q", "masked array"]),
]


@pytest.mark.parametrize(("changes", "options", "error", "words"), TD_TABLE)
def test_arguments_of_td_loss(changes, options, error, words):
    args = [changes.get(i, argument) for i, argument in enumerate(Q)]
    check(lambda: fl.td_loss(*args, backend=BACKEND, **options), error, words)


@pytest.mark.parametrize(("name", "param"), [(n, p) for n, facts in LOSSES.items() for p in facts.params])
def test_parameters_outside_their_domain(name, param):
    def call(value):
        return getattr(fl, name)(*arguments(name), **{param.name: value})

    bad = [value for value in (-0.5, 0.0, 1.5, -np.inf, np.inf, np.nan) if not param.valid(value)]
    assert len(bad) >= 2
    for value in bad:
        check(lambda value=value: call(value), ValueError, [param.name, param.domain])
    if not param.derive:  # there a string may be a name
        check(lambda: call("a"), TypeError, [param.name, "str"])


def test_unknown_keywords(loss):
    with pytest.raises(TypeError, match="unexpected keyword argument 'temperature'"):
        getattr(fl, loss)(*arguments(loss), temperature=1.0)
    if LOSSES[loss].kind == "elementwise":
        third = {LOSSES[loss].third: X + 1} if LOSSES[loss].needs_third else {}
        with pytest.raises(TypeError, match="unexpected keyword argument 'temperature'"):
            fl.grad_hess(getattr(fl, loss), *arguments(loss)[:2], temperature=1.0, **third)


def test_options_are_keyword_only(loss):
    with pytest.raises(TypeError, match="positional"):
        getattr(fl, loss)(*arguments(loss), 1.0)


def test_grad_hess_wants_an_elementwise_loss():
    for other in (fl.cross_entropy, fl.td_loss, np.sum, "mse_loss", None):
        check(lambda other=other: fl.grad_hess(other, X, Y), TypeError, ["loss", *ELEMENTWISE])


# --- values, judged by the kernels: every backend, far enough in to reach later blocks and other threads


@pytest.mark.parametrize("name", UNIT)
@pytest.mark.parametrize("bad", [-0.25, 1.0001, np.nan, np.inf, 2.0])
def test_the_first_target_outside_the_unit_interval(name, backend, dtype, bad):
    y = np.zeros((40, 500), dtype)
    y[17, 3] = y[17, 4] = y[30, 1] = bad
    x = np.zeros_like(y)
    for options in ({}, {"reduction": "none"}, {"n_threads": 2}, {"grad": False}):
        with pytest.raises(ValueError, match=re.escape(f"got {dtype_of(bad, dtype)} at index (17, 3)")):
            getattr(fl, name)(x, y, backend=backend, **options)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\].* at index 8503$"):
        getattr(fl, name)(x.ravel(), y.ravel(), backend=backend)
    with pytest.raises(ValueError, match=r"at index \(17, 3\)"):
        fl.grad_hess(getattr(fl, name), x, y, backend=backend)
    kept = y == 0
    kept[30, 1] = True
    with pytest.raises(ValueError, match=r"at index \(30, 1\)"):
        getattr(fl, name)(x, y, backend=backend, mask=kept)
    with pytest.raises(ValueError, match=r"at index \(30, 1\)"):
        getattr(fl, name)(x, y, backend=backend, mask=np.arange(40) != 17)


def dtype_of(value, dtype):
    return np.dtype(dtype).type(value)


@pytest.mark.parametrize("name", UNIT)
def test_integer_targets_outside_the_unit_interval(name, backend):
    for kind, bad in (("int64", 2), ("int64", -1), ("uint8", 255), ("int8", -128)):
        y = np.zeros(9000, kind)
        y[5000] = bad
        with pytest.raises(ValueError, match=rf"got {bad} at index 5000"):
            getattr(fl, name)(np.zeros(9000, np.float32), y, backend=backend)


def test_a_target_just_inside_is_fine(backend, dtype):
    y = np.array([0.0, -0.0, 1.0, np.finfo(dtype).smallest_subnormal, np.nextafter(1, 0)], dtype)
    assert np.isfinite(fl.bce_with_logits(np.zeros_like(y), y, backend=backend).loss)


@pytest.mark.parametrize("name", ["cross_entropy", "td_loss"])
@pytest.mark.parametrize("width", [3, 40])
@pytest.mark.parametrize("bad", [-1, "width", 10**12, -(2**63)])
def test_the_first_index_out_of_range(name, backend, width, bad):
    bad = width if bad == "width" else bad
    case = build(name, "float64", (30, 70), width)
    what = "target" if name == "cross_entropy" else "actions"
    index = put(case.args[1], ((11, 5), bad), ((11, 6), bad), ((20, 0), bad))
    changed = case.with_args(case.args[0], index, *case.args[2:])
    message = re.escape(f"{what} must lie in [0, {width}), got {bad} at index (11, 5)")
    for options in ({}, {"reduction": "none"}, {"n_threads": 2}, {"grad": False}, {"normalizer": 3.0}):
        with pytest.raises(IndexError, match=message):
            changed(backend, **options)
    kept = np.ones((30, 70), bool)
    kept[11] = False
    with pytest.raises(IndexError, match=r"at index \(20, 0\)"):
        changed(backend, mask=kept)
    flat = changed.each(lambda a: a.reshape(-1, *a.shape[2:]))
    with pytest.raises(IndexError, match=rf"got {bad} at index 775$"):
        flat(backend)


@pytest.mark.parametrize("name", [name for name, facts in LOSSES.items() if facts.target != "real"])
def test_an_in_place_call_that_fails_leaves_the_input_untouched(name, backend, dtype):
    facts = LOSSES[name]
    case = build(name, dtype, (9000,))
    target = put(case.args[1], (8999, bad_target(facts)))
    changed = case.with_args(case.args[0], target, *case.args[2:])
    before = case.args[0].copy()
    for error_options in ({}, {"reduction": "none"}, {"n_threads": 2}):
        with pytest.raises((ValueError, IndexError), match="8999"):
            changed(backend, out=case.args[0], **error_options)
        np.testing.assert_array_equal(case.args[0], before)
    # The same through another view, and with strides.
    with pytest.raises((ValueError, IndexError), match="8999"):
        changed(backend, out=case.args[0][:])
    np.testing.assert_array_equal(case.args[0], before)


def test_errors_of_settings():
    for call, error, words in [
        (lambda: fl.set_num_threads(0), ValueError, ["n", "at least 1"]),
        (lambda: fl.set_num_threads(2.0), TypeError, ["n", "float"]),
        (lambda: fl.use_backend("fortran").__enter__(), ValueError, ["backend", "'fortran'"]),
        (lambda: fl.warmup(["mse"]), ValueError, [*LOSS_NAMES, "'mse'"]),
    ]:
        check(call, error, words)


def test_a_bad_value_far_into_the_data(backend):
    # Bad values are searched for part by part.
    x, y = np.zeros((20, 10_000), np.float32), np.zeros((20, 10_000), np.float32)
    y[15, 7] = y[18, 0] = 2.0
    with pytest.raises(ValueError, match=r"at index \(15, 7\)"):
        fl.bce_with_logits(x, y, backend=backend)
    for kept in (np.arange(20) != 15, (y != 2.0) | (np.arange(20) > 15)[:, None]):
        with pytest.raises(ValueError, match=r"at index \(18, 0\)"):
            fl.bce_with_logits(x, y, backend=backend, mask=kept)
    index = np.zeros(200_000, np.int64)
    index[150_000:] = 2
    with pytest.raises(IndexError, match=r"got 2 at index 150000$"):
        fl.cross_entropy(np.zeros((200_000, 2), np.float32), index, backend=backend)


@pytest.mark.parametrize("place", [0, 29_999])
@pytest.mark.parametrize("name", [name for name, facts in LOSSES.items() if facts.target != "real"])
def test_every_thread_reports_what_it_finds(name, backend, place):
    case = build(name, "float32", (30_000,), 3)
    target = put(case.args[1], (place, bad_target(LOSSES[name])))
    changed = case.with_args(case.args[0], target, *case.args[2:])
    for n_threads in (2, 3):
        with pytest.raises((ValueError, IndexError), match=rf"at index {place}$"):
            changed(backend, n_threads=n_threads)
