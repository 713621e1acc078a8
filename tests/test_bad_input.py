"""Bad input: one table of every public function, what is wrong with a call, the exception, and what its message says.

The rows follow from the registry and from the signatures, so a new loss has them as soon as it is registered.
"""

import inspect
import re
from functools import partial

import numpy as np
import pytest
from cases import BACKENDS, ELEMENTWISE, LOSS_NAMES, UNIT, Case, build

import fastloss as fl
from fastloss import _soft
from fastloss.registry import DOMAINS, LOSSES

BACKEND = BACKENDS[0]  # arguments are judged before any backend sees them
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
RAGGED = [[1.0, 2.0], [3.0]]
LOSS_NAMES = [name for name in LOSS_NAMES if hasattr(fl, name)]  # that all are public is test_registry_api's to say
ELEMENTWISE = [name for name in ELEMENTWISE if name in LOSS_NAMES]
UNIT = [name for name in UNIT if name in LOSS_NAMES]
INDEXED = [name for name in LOSS_NAMES if LOSSES[name].target in ("class", "action")]
CHECKED = INDEXED + [name for name in LOSS_NAMES if LOSSES[name].target in DOMAINS and LOSSES[name].target != "real"]
NUMBERS = (-1, 2, 3, -0.25, 1.0001, np.nextafter(1, 2), -5e-324, -1.5, np.nan, np.inf, -np.inf)
OUTSIDE = -3  # of every domain, and no index either


def put(array, *places_and_values):
    array = array.copy()
    for place, value in places_and_values:
        array[place] = value
    return array


def good(name):
    """A small call: the case, and the names of its positional arguments."""
    case = build(name, "float64", (4, 3) if LOSSES[name].kind == "elementwise" else (4,), 3)
    parameters = inspect.signature(getattr(fl, name)).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    more = names[len(case.args) :]  # arrays that the formula reads besides
    params = {key: value for key, value in case.params.items() if key not in more}
    return Case(name, (*case.args, *(case.params[key] for key in more)), params), names


def dtypes_refused(array, elements):
    """Dtypes that an argument of this one may not have, ``elements`` if it is an elementwise loss's target."""
    some = ["complex128", "U3", "O", "datetime64[s]", "longdouble"]
    if array.dtype.kind == "f":
        return [*some, "float32", "float16"] + ([] if elements else ["int64", "bool"])
    return [*some, "float64"] + (["bool"] if array.dtype.kind in "iu" else ["int64", "uint8"])


def wrong_arrays(name):
    """Positional arguments: dtype, shape, kind of array."""
    case, names = good(name)
    elements = LOSSES[name].kind == "elementwise"
    for i, what in enumerate(names):
        array = case.args[i]

        def row(value, error, *words, i=i, what=what):
            args = list(case.args)
            args[i] = value
            return f"{what} {words[-1]}", args, {}, error, [what, *words]

        for dtype in dtypes_refused(array, elements and i == 1):
            if i == 0 and dtype.startswith("float"):
                continue  # the others must then follow it: they are named
            if name == "cross_entropy" and i == 1 and dtype.startswith("float"):
                continue  # a probability per class: then the shape is wrong
            with np.errstate(all="ignore"):
                value = np.zeros(array.shape, dtype) if dtype[0] in "Ud" else array.astype(dtype)
            yield row(value, TypeError, str(value.dtype))
        yield row(np.ma.masked_array(array), TypeError, f"mask=~{what}.mask", "masked array")
        yield row(None, (TypeError, ValueError), "")
        yield row(RAGGED, ValueError, "inhomogeneous")
        if i > 0:  # nothing is broadcast
            shapes = [array[:3], array[..., None], array[:2, :2] if array.ndim > 1 else array[:2]]
            if not (elements and i > 1):  # one value per place on the last axis is allowed there
                shapes.append(array[0])
            if not any(p.derive for p in LOSSES[name].params):  # nothing can be derived from no target
                shapes.append(array[:, :0] if array.ndim > 1 else array[:0])
            for value in shapes:
                yield row(value, ValueError, str(array.shape), str(value.shape))
        elif LOSSES[name].kind != "elementwise":
            yield row(array[:, :0], ValueError, "at least one", "(4, 0)")
            yield row(np.float64(1.0), ValueError, "at least one", "()")
    if not elements:
        bad = case.args[0].astype(np.float32)
        if "next_q" in names:  # the other arrays must have the first one's dtype
            yield "dtype of the others", [bad, *case.args[1:]], {}, TypeError, ["rewards", "float32", "float64"]


def options(name):
    """Options that all losses share."""
    case, names = good(name)
    x, shape = case.args[0], case.shape
    leading, first = f"({shape[0]},", names[0]

    def row(error, words, **keywords):
        return ", ".join(f"{key}={value!r:.20}" for key, value in keywords.items()), case.args, keywords, error, words

    reductions = ["reduction", "'mean'", "'sum'", "'none'", "'weighted_mean'"]
    for value in ("avg", None, b"mean", 1, ["mean"], np.array(["mean", "sum"])):
        yield row(ValueError, [*reductions, repr(value)], reduction=value)
    for value in (0.0, -1.0, np.nan, np.inf, -np.inf, 2**5000):
        yield row(ValueError, ["normalizer", "positive and finite", "got"], normalizer=value)
    for value in ("1", 1j, [1.0], object()):
        yield row(TypeError, ["normalizer", "real number", type(value).__name__], normalizer=value)
    for value in ("sum", "none"):
        yield row(ValueError, ["normalizer", repr(value)], normalizer=2.0, reduction=value)
    for value in ("fortran", "", [], np.array(["a", "b"]), 1):
        yield row(ValueError, ["backend", "'cython'", "'numba'", "'numpy'", repr(value)], backend=value)
    for value in (0, -2, -(2**80)):
        yield row(ValueError, ["n_threads", "at least 1", str(value)], n_threads=value)
    for value in (1.5, True, "2", [2], np.array([1, 2])):
        yield row(TypeError, ["n_threads", "integer", type(value).__name__], n_threads=value)
    for value in (None, "no", 2, 0.0, np.zeros(2)):
        yield row(TypeError, ["grad", "True or False"], grad=value)
    for dtype in ("float64", "int8", "O", "U1"):
        yield row(TypeError, ["mask", "bool", str(np.dtype(dtype))], mask=np.zeros(shape, dtype))
    for dtype in ("bool", "complex128", "O", "U1", "longdouble"):
        yield row(TypeError, ["sample_weight", str(np.dtype(dtype))], sample_weight=np.zeros(shape, dtype))
    for what, ones in (("mask", np.ones(shape, bool)), ("sample_weight", np.ones(shape))):
        for value in (ones[:3], np.ones((*shape, 1), ones.dtype), np.ones((1, 3), ones.dtype)):
            yield row(ValueError, [what, leading, str(value.shape)], **{what: value})
        yield row(TypeError, [what, "masked array"], **{what: np.ma.masked_array(ones)})
        yield row(ValueError, [what, "inhomogeneous"], **{what: RAGGED})
    yield row(TypeError, ["unexpected keyword argument 'nonsense'"], nonsense=1.0)
    yield "too many", [*case.args, 1.0], {}, TypeError, ["positional"]
    # The gradient's array, and what it may overlap.
    shared = np.zeros(x.size + 1)
    twice = np.lib.stride_tricks.as_strided(shared, x.shape, (8, 0))
    near = np.lib.stride_tricks.as_strided(shared, x.shape, (8, 8))
    yield row(TypeError, ["out", "NumPy array", "list"], out=x.tolist())
    yield row(TypeError, ["out", first, "float64", "float32"], out=np.zeros(x.shape, np.float32))
    yield row(TypeError, ["out", first, "float64", "int64"], out=np.zeros(x.shape, np.int64))
    yield row(ValueError, ["out", first, str(x.shape), "(3, 4)"], out=np.zeros((3, 4)))
    yield row(ValueError, ["out", "writeable", "read-only"], out=np.broadcast_to(np.zeros(3), x.shape))
    yield row(ValueError, ["out", "grad=False"], out=np.zeros(x.shape), grad=False)
    yield row(ValueError, ["out overlaps itself"], out=twice)
    yield row(ValueError, ["out overlaps itself"], out=near)
    view = shared[1:].reshape(x.shape)
    yield (
        "out partly the first",
        [shared[:-1].reshape(x.shape), *case.args[1:]],
        {"out": view},
        ValueError,
        [f"out overlaps {first} partly"],
    )
    yield "out reversed", [x, *case.args[1:]], {"out": x[::-1]}, ValueError, [f"out overlaps {first} partly"]
    buffer = np.zeros(x.nbytes, np.uint8)  # the gradient's memory under other descriptions
    out = buffer.view(np.float64).reshape(x.shape)
    lent = {what: buffer.view(array.dtype)[: array.size].reshape(array.shape)
            for what, array in zip(names[1:], case.args[1:], strict=True)}  # fmt: skip
    for what, value in lent.items():
        args = [value if n == what else a for n, a in zip(names, case.args, strict=True)]
        yield f"out is {what}", args, {"out": out}, ValueError, [f"out overlaps {what}"]
    flat = int(np.prod(shape))
    yield row(ValueError, ["out overlaps sample_weight"], out=out, sample_weight=out.reshape(-1)[:flat].reshape(shape))
    yield row(ValueError, ["out overlaps mask"], out=out, mask=buffer.view(bool)[:flat].reshape(shape))


def parameters(name):
    """The loss's own float parameters, outside their domains."""
    case, _ = good(name)
    more = (_soft._Z_LOSS, _soft._SOFTCAP, _soft._TEMPERATURE) if name == "cross_entropy" else ()
    for param in (*LOSSES[name].params, *more):
        bad = [
            v
            for v in (-0.5, 0.0, 1.5, -np.inf, np.inf, np.nan, 1e-300, 2**5000)
            if not (v < 2**2000 and param.valid(v))
        ]
        if param.derive:
            bad = [v for v in bad if v == v]  # what is derived from no target is NaN
        assert len(bad) >= 3
        for value in bad:
            words = [param.name, param.domain, "got"]
            yield f"{param.name}={value!r:.20}", case.args, {param.name: value}, ValueError, words
        if param.name == LOSSES[name].third or param.length or param.derive:
            odd, words = (object(),), [param.name]  # arrays, sequences or names mean something here
        else:
            odd, words = ("1", b"1", 1j, [1.0], object()), [param.name, "real number"]
        for value in odd:
            yield f"{param.name}={value!r:.20}", case.args, {param.name: value}, TypeError, words


def own_options(name):
    """Options of single losses that are no float parameters."""
    case, _ = good(name)
    if LOSSES[name].kind == "rows":
        table = [
            ("weight", [1.0, 2.0], ValueError, ["(3,)", "(2,)"]),
            ("weight", 1.0, ValueError, ["(3,)", "()"]),
            ("weight", [1.0, -2.0, 1.0], ValueError, ["non-negative", "-2.0", "index 1"]),
            ("weight", [1.0, 1.0, np.nan], ValueError, ["nan", "index 2"]),
            ("weight", [np.inf, 1.0, 1.0], ValueError, ["finite", "inf", "index 0"]),
            ("weight", ["a", "b", "c"], TypeError, ["<U1"]),
            ("weight", np.ones(3, bool), TypeError, ["bool"]),
            ("weight", np.ma.masked_array(np.ones(3)), TypeError, ["masked array"]),
            ("ignore_index", 1.5, TypeError, ["integer", "float"]),
            ("ignore_index", None, TypeError, ["integer", "NoneType"]),
            ("ignore_index", 2**63, ValueError, ["64 bits", str(2**63)]),
        ]
    elif name == "td_loss":
        table = [
            ("next_q_online", np.zeros((4, 4)), ValueError, ["(4, 3)", "(4, 4)"]),
            ("next_q_online", np.zeros((4, 3), np.float32), TypeError, ["float64", "float32"]),
            ("next_q_online", np.zeros((4, 3), int), TypeError, ["int64"]),
            ("next_action_mask", np.zeros((4, 3)), TypeError, ["bool", "float64"]),
            ("next_action_mask", np.zeros(4, bool), ValueError, ["(4, 3)", "(4,)"]),
            ("loss", "l1", ValueError, ["'huber'", "'mse'", "'smooth_l1'", "'l1'"]),
            ("loss", np.array(["mse", "huber"]), ValueError, ["'huber'", "got"]),
            ("delta", 0.0, ValueError, ["positive", "huber", "0.0"]),
        ]
    else:
        table = []
    for what, value, error, words in table:
        yield f"{what}={value!r:.20}", case.args, {what: value}, error, [what, *words]


def refused(domain, dtype):
    """Values outside a domain, or outside three classes, in a dtype."""
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        numbers = [v for v in (-1, 2, 3, limits.min, limits.max) if limits.min <= v <= limits.max]
        return [v for v in numbers if not (0 <= v < 3 if domain not in DOMAINS else DOMAINS[domain].valid(np.array(v)))]
    return [v for v in NUMBERS if domain in DOMAINS and not DOMAINS[domain].valid(np.array(v))]


def values(name):
    """Targets, indices, predictions outside their domain, in every dtype, first, last and in between."""
    case, names = good(name)
    facts, n = LOSSES[name], len(case.args)
    # Backends differ in how they look for what is outside a domain, not in the loss: the first one of each will do.
    alike = [other for other in LOSS_NAMES if (LOSSES[other].kind, LOSSES[other].target) == (facts.kind, facts.target)]
    backends = BACKENDS if name == alike[0] else BACKENDS[:1]
    where = {4: [0, 2, 3], 12: [(0, 0), (2, 1), (3, 2)]}
    # Argument, array, domain, dtypes.
    judged = [(names[1], case.args[1], facts.target, (*INTEGERS, "float64") if facts.target in DOMAINS else INTEGERS)]
    judged.append((names[0], case.args[0], facts.input, ["float64"]))
    third = inspect.signature(getattr(fl, name)).parameters.get(facts.third or "")
    if third is not None and "ArrayLike" in str(third.annotation):
        judged.append((facts.third, np.ones(case.args[0].shape), facts.third_domain, ["float64"]))
    for what, array, domain, dtypes in judged:
        if domain not in (*DOMAINS, "class", "action"):
            continue
        demand = DOMAINS[domain].demand if domain in DOMAINS else "lie in [0, 3)"
        for dtype in dtypes:
            for i, value in enumerate(refused(domain, dtype)):
                if what != names[1] and value != value:
                    continue  # a prediction that is NaN is no error
                place = where[array.size][i % 3]
                bad = put(np.ones(array.shape, dtype) if what != names[0] else array, (place, value))
                args = [bad if k < n and names[k] == what else case.args[k] for k in range(n)]
                keywords = {what: bad} if what not in names else {}
                words = [f"{what} must {demand}", f"got {bad[place]}", f"at index {place}"]
                for backend in backends:  # the kernels find them
                    error = ValueError if domain in DOMAINS else IndexError
                    yield f"{what} {value} {dtype} {backend}", args, keywords | {"backend": backend}, error, words


def table():
    for name in LOSS_NAMES:
        for part in (wrong_arrays, options, parameters, own_options, values):
            for label, args, keywords, *row in part(name):
                keywords = good(name)[0].params | keywords
                yield pytest.param(getattr(fl, name), args, keywords, *row, id=f"{name}: {label}")
    for name in ELEMENTWISE:
        for part in (wrong_arrays, parameters, values):
            call = partial(fl.grad_hess, getattr(fl, name))
            for label, args, keywords, *row in part(name):
                # What the loss takes besides by place, this takes by name.
                args, keywords = args[:2], dict(zip(good(name)[1][2:], args[2:], strict=True)) | keywords
                keywords = good(name)[0].params | keywords
                yield pytest.param(call, args, keywords, *row, id=f"grad_hess of {name}: {label}")
    for part in (wrong_arrays, options, parameters, own_options, values):
        for label, args, keywords, *row in part("cross_entropy"):
            if label == "ignore_index=None":
                continue  # there, nothing is ignored
            yield pytest.param(fl.cross_entropy_stats, args, keywords, *row, id=f"cross_entropy_stats: {label}")
    for label, args, keywords, *row in wrong_arrays("mse_loss"):
        yield pytest.param(fl.rmse_loss, args, keywords, *row, id=f"rmse_loss: {label}")
    for call in (fl.dice_loss, fl.tversky_loss):
        for part in (wrong_arrays, values):
            for label, args, keywords, *row in part("binary_cross_entropy"):
                if part is wrong_arrays or label.startswith("target"):  # predictions may be any number there
                    yield pytest.param(call, args, keywords, *row, id=f"{call.__name__}: {label}")
    case, _ = good("mse_loss")
    for value in ("sum", "none", None, np.array(["mean", "sum"])):
        words = ["reduction", "'mean'", "'weighted_mean'", repr(value)]
        yield pytest.param(fl.rmse_loss, case.args, {"reduction": value}, ValueError, words, id=f"rmse_loss {value}")
    flat = [name for name in LOSS_NAMES if LOSSES[name].kind in ("rows", "gather") and name != "cross_entropy"]
    for other in (*(getattr(fl, name) for name in flat), np.sum, "mse_loss", None):
        yield pytest.param(
            fl.grad_hess, (other, *case.args), {}, TypeError, ["loss", *ELEMENTWISE], id=f"grad_hess {other}"
        )
    for key, value, error, words in [
        ("nonsense", 1.0, TypeError, ["unexpected keyword argument 'nonsense'"]),
        ("mask", np.ones(4), TypeError, ["mask", "bool", "float64"]),
        ("sample_weight", np.ones(3), ValueError, ["sample_weight", "(4, 3)", "(3,)"]),
        ("n_threads", 0, ValueError, ["n_threads", "at least 1", "0"]),
        ("backend", "fortran", ValueError, ["backend", "'fortran'"]),
    ]:
        yield pytest.param(fl.grad_hess, (fl.mse_loss, *case.args), {key: value}, error, words, id=f"grad_hess {key}")
    for call, value, error, words in [
        (fl.set_num_threads, 0, ValueError, ["n must", "at least 1", "0"]),
        (fl.set_num_threads, 2.0, TypeError, ["n must", "integer", "float"]),
        (fl.set_num_threads, None, TypeError, ["n must", "integer", "NoneType"]),
        (lambda name: fl.use_backend(name).__enter__(), "fortran", ValueError, ["backend", "'cython'", "'fortran'"]),
        (lambda name: fl.use_backend(name).__enter__(), None, ValueError, ["backend", "'cython'", "None"]),
        (fl.warmup, ["mse"], ValueError, ["losses", *LOSS_NAMES, "'mse'"]),
    ]:
        yield pytest.param(call, (value,), {}, error, words, id=f"settings {words[0]} {value}")


GROUPS: dict[str, list] = {}
for _row in table():
    GROUPS.setdefault(_row.id.partition(":")[0] if ":" in _row.id else _row.id.split()[0], []).append(_row)


# A test for every row would spend more time on the tests than on the rows.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", GROUPS)
def test_bad_input(group):
    problems = {row.id: problem(*row.values) for row in GROUPS[group]}
    wrong = [f"{name}: {found}" for name, found in problems.items() if found]
    assert not wrong, "\n".join(wrong)


def problem(call, args, keywords, error, words) -> str:
    """What is wrong with the answer to bad arguments; nothing if they raise what they should."""
    bare = {"lambda", "set_num_threads", "warmup"} & {getattr(call, "__name__", "").strip("<>")}
    before = [a.copy() if isinstance(a, np.ndarray) else None for a in args]
    try:
        call(*args, **keywords, **({} if bare or "backend" in keywords else {"backend": BACKEND}))
    except Exception as caught:
        if type(caught) not in (error if type(error) is tuple else (error,)):
            return f"raised {caught!r}"
        missing = [word for word in words if word not in str(caught)]
        if missing:
            return f"said {str(caught)!r} without {missing}"
    else:
        return "passed"
    for a, b in zip(args, before, strict=True):
        if b is not None and a.tobytes() != b.tobytes():
            return "changed an argument"
    return ""


def test_every_public_function_is_in_the_table():
    inside = {
        *LOSS_NAMES,
        "bce_with_logits",
        "cross_entropy_stats",
        "dice_loss",
        "tversky_loss",
        "rmse_loss",
        "grad_hess",
        "set_num_threads",
        "use_backend",
        "warmup",
    }
    for name in fl.__all__:
        thing = getattr(fl, name)
        if inspect.isfunction(thing) and inspect.signature(thing).parameters:
            assert name in inside, name


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


def test_a_target_just_inside_is_fine(backend, dtype):
    y = np.array([0.0, -0.0, 1.0, np.finfo(dtype).smallest_subnormal, np.nextafter(1, 0)], dtype)
    assert np.isfinite(fl.bce_with_logits(np.zeros_like(y), y, backend=backend).loss)


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("width", [3, 70])
@pytest.mark.parametrize("bad", [-1, "width", 10**12, -(2**63)])
def test_the_first_index_out_of_range(name, backend, width, bad):
    bad = width if bad == "width" else bad
    case = build(name, "float64", (30, 70), width)
    what = good(name)[1][1]
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


@pytest.mark.parametrize("name", CHECKED)
def test_an_in_place_call_that_fails_leaves_the_input_untouched(name, backend, dtype):
    case = build(name, dtype, (9000,))
    target = put(case.args[1], (8999, OUTSIDE))
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
@pytest.mark.parametrize("name", CHECKED)
def test_every_thread_reports_what_it_finds(name, backend, place):
    case = build(name, "float32", (30_000,), 3)
    target = put(case.args[1], (place, OUTSIDE))
    changed = case.with_args(case.args[0], target, *case.args[2:])
    for n_threads in (2, 3):
        with pytest.raises((ValueError, IndexError), match=rf"at index {place}$"):
            changed(backend, n_threads=n_threads)
