"""Any arguments for any public function, good and bad, from a source of choices: hypothesis or a fuzzer's bytes."""

from __future__ import annotations

import numpy as np

import fastloss as fl
from fastloss.registry import LOSSES

ALLOWED = (TypeError, ValueError, IndexError)
DTYPES = ("float32", "float64", "float16", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
          "uint64", "complex64", "object", "U3", "datetime64[s]", ">f4", ">i8", "longdouble", "V4")  # fmt: skip
NUMBERS = (0.0, -0.0, 1.0, 0.5, 2.0, -1.0, 1e-45, 1e-310, 3e38, -1e300, np.inf, -np.inf, np.nan, 2**31, 2**63, -(2**63))
ODD = (
    None,
    "mean",
    "huber",
    b"x",
    (),
    [],
    {},
    [[1.0], [2.0, 3.0]],
    object(),
    1j,
    True,
    2**80,
    -1,
    0,
    1.5,
    float("nan"),
)


class Choices:
    """What a source must offer."""

    def integer(self, low: int, high: int) -> int:
        raise NotImplementedError

    def of(self, options):
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) < percent


def _laid_out(source: Choices, array: np.ndarray) -> np.ndarray:
    """The array with other strides, alignment or flags."""
    kind = source.integer(0, 9)
    if kind == 1 and array.ndim:
        return array[::-1]
    if kind == 2 and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    if kind == 3:
        return np.asfortranarray(array)
    if kind == 4 and array.dtype.hasobject is False:
        room = np.zeros(array.nbytes + 1, np.uint8)[1:]
        moved = np.ndarray(array.shape, array.dtype, room)
        moved[...] = array
        return moved
    if kind == 5:
        array.flags.writeable = False
    if kind == 6 and array.ndim and len(array):
        return np.broadcast_to(array[:1], array.shape)
    if kind == 7:
        return np.ma.masked_array(array) if source.chance(30) else array.view(np.matrix) if array.ndim == 2 else array
    return array


def _array(source: Choices, dtype: str, shape: tuple[int, ...]):
    """An array of small whole numbers, a few of them replaced by extremes."""
    size = int(np.prod(shape))
    values = np.array([source.integer(-1, 6) for _ in range(min(size, 8))] or [0], np.float64)
    values = np.array(np.resize(values, shape))
    if source.chance(50):
        values = np.array(np.clip(values, 0, 1))
    with np.errstate(all="ignore"):
        array = np.zeros(shape, dtype) if np.dtype(dtype).kind in "VMU" else np.array(values, dtype)
        for _ in range(source.integer(0, 3) if size and array.dtype.kind in "fiu" else 0):
            number = source.of(NUMBERS)
            if array.dtype.kind == "f" or (np.isfinite(number) and number == int(number)):
                array.reshape(-1)[source.integer(0, size - 1)] = np.array(number).astype(array.dtype)
    return _laid_out(source, array)


def _shape(source: Choices) -> tuple[int, ...]:
    return tuple(source.of((0, 1, 2, 3, 5, 7, 40)) for _ in range(source.integer(0, 3)))


def _wrong(source: Choices, shape: tuple[int, ...]):
    """Now and then another shape than the right one."""
    return _shape(source) if source.chance(6) else shape


def arguments(source: Choices):
    """A public function, its positional arguments, and its keyword arguments."""
    name = source.of((*LOSSES, "grad_hess"))
    facts = LOSSES[
        source.of([n for n, f in LOSSES.items() if f.kind == "elementwise"]) if name == "grad_hess" else name
    ]
    dtype = source.of(DTYPES[:3]) if source.chance(92) else source.of(DTYPES)
    entries = _shape(source)
    shape = entries if facts.kind == "elementwise" else (*entries, source.of((1, 2, 3, 5, 33, 70, 0)))

    def floats(shape):
        return _array(source, dtype if source.chance(95) else source.of(DTYPES), _wrong(source, shape))

    def whole(shape, kinds=DTYPES[4:12]):
        return _array(source, source.of(kinds) if source.chance(95) else source.of(DTYPES), _wrong(source, shape))

    def flags(shape):
        return whole(shape, ("bool",))

    x = floats(shape)
    if facts.kind == "elementwise":
        args = [x, floats(shape) if source.chance(60) else whole(shape, DTYPES[3:12])]
        args += [floats(shape)] if facts.needs_third and name != "grad_hess" else []
    elif facts.kind == "rows":
        args = [x, whole(entries)]
    else:
        args = [x, whole(entries), floats(entries), floats(shape), flags(entries)]
    if source.chance(6):
        args[source.integer(0, len(args) - 1)] = source.of(ODD)

    options = {}
    leading = entries[: source.integer(0, len(entries))] if source.chance(30) else entries
    makers = {
        "sample_weight": lambda: _array(source, source.of(DTYPES[:3] + DTYPES[4:12]), _wrong(source, leading)),
        "mask": lambda: flags(leading),
        "n_threads": lambda: source.integer(-1, 5),
    }
    if name != "grad_hess":
        makers |= {
            "reduction": lambda: source.of(("mean", "sum", "none", "weighted_mean", "max")),
            "normalizer": lambda: source.of(NUMBERS),
            "grad": lambda: source.chance(50),
            "out": lambda: x if source.chance(50) else floats(shape),
        }
    if facts.kind == "rows":
        makers |= {"weight": lambda: floats(shape[-1:]), "ignore_index": lambda: source.integer(-2, 4)}
    if facts.kind == "gather":
        makers |= {
            "next_q_online": lambda: floats(shape),
            "next_action_mask": lambda: flags(shape),
            "loss": lambda: source.of(("huber", "mse", "smooth_l1", "l1")),
        }
    makers |= {param.name: lambda: source.of(NUMBERS) for param in facts.params}
    if facts.third:
        makers |= {facts.third: lambda: floats(shape)} if name == "grad_hess" or not facts.needs_third else {}
    for key, make in makers.items():
        if source.chance(30):
            options[key] = source.of(ODD) if source.chance(4) else make()
    if name == "grad_hess":
        return "grad_hess", [getattr(fl, facts.name), *args], options
    return name, args, options


def outcome(name: str, args: list, options: dict, backend: str):
    """What a call gives: its result, or the type and message of an allowed exception."""
    try:
        with np.errstate(all="ignore"):
            return getattr(fl, name)(*args, **options, backend=backend)
    except ALLOWED as error:
        return type(error), str(error)


def check(source: Choices, backend: str = "cython", other: str = "numpy") -> bool:
    """Call one backend and another with the same arguments; whether they were good.

    No other exception may come out, the inputs stay as they are, and both backends agree on what is an error and how it
    is put.
    """
    name, args, options = arguments(source)
    readers = {key: value for key, value in [*enumerate(args), *options.items()] if isinstance(value, np.ndarray)}
    out = options.get("out")
    kept = {
        key: value.copy()
        for key, value in readers.items()
        if not (isinstance(out, np.ndarray) and np.may_share_memory(value, out))
    }
    first = outcome(name, args, options, backend)
    for key, before in kept.items():
        assert readers[key].tobytes() == before.tobytes(), f"{key} was changed"
    wrong = type(first) is tuple
    if not wrong and isinstance(out, np.ndarray):
        assert first.grad is out
        return True  # an input may be gone
    second = outcome(name, args, options, other)
    assert wrong == (type(second) is tuple), (first, second)
    if wrong:
        assert first == second
        return False
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert np.shape(a) == np.shape(b)
            assert np.asarray(a).dtype == np.asarray(b).dtype
    return True
