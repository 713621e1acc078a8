"""Arrays in, clear errors out: the only place that judges shapes, dtypes and values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fastloss.registry import DOMAINS, Loss, real

REDUCTIONS = ("mean", "sum", "none", "weighted_mean")
_CHUNK = 1 << 16  # entries looked at a time when a bad one is searched for


def is_float(dtype: np.dtype) -> bool:
    """Whether kernels read and write this dtype: float16, bfloat16, float32, float64."""
    return (dtype.kind == "f" and dtype.itemsize in (2, 4, 8)) or dtype.name == "bfloat16"


def plain(name: str, value: Any) -> np.ndarray:
    """An array of any dtype, but not one whose mask would be lost."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass its data and mask=~{name}.mask")
    if type(value) is np.ndarray:
        return value
    try:
        return np.asarray(value)
    except ValueError as error:  # nested lists of several lengths
        raise ValueError(f"{name} does not make an array: {error}") from error


def _kernel_ready(array: np.ndarray) -> np.ndarray:
    """The array itself if it is contiguous, aligned and of native byte order, else a copy that is."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def floats(name: str, value: Any) -> np.ndarray:
    """A floating array that kernels can read."""
    array = plain(name, value)
    if not is_float(array.dtype):
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {array.dtype}")
    return _kernel_ready(array)


def same_floats(name: str, value: Any, like: np.ndarray, like_name: str = "input") -> np.ndarray:
    """A floating array of the shape and dtype of another one."""
    array = floats(name, value)
    same_shape(name, array.shape, like.shape, f"{like_name}'s shape")
    if array.dtype != like.dtype:
        raise TypeError(f"{name} must have {like_name}'s dtype {like.dtype}, got {array.dtype}")
    return array


def same_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...], whose: str) -> None:
    if got != expected:
        raise ValueError(f"{name} must have {whose} {expected}, got {got}")


def element_target(value: Any, x: np.ndarray) -> np.ndarray:
    """Targets of an elementwise loss: the input's shape; bool, any integer, or the input's dtype."""
    array = plain("target", value)
    same_shape("target", array.shape, x.shape, "input's shape")
    if array.dtype.newbyteorder("=") != x.dtype and array.dtype.kind not in "biu":
        raise TypeError(f"target must be bool, an integer type or input's dtype {x.dtype}, got {array.dtype}")
    return _kernel_ready(array)


def computed(dtype: np.dtype) -> np.dtype:
    """The type in which kernels compute with predictions of a dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def third(name: str | None, value: Any, x: np.ndarray, own: bool) -> np.ndarray:
    """What else differs per element, flat: the input's shape or that of its last axis; an ``own`` argument, and no
    parameter, has the input's dtype."""
    array = floats(str(name), value)
    if array.shape != x.shape and array.shape != x.shape[-1:]:
        raise ValueError(f"{name} must have input's shape {x.shape} or that of its last axis, got {array.shape}")
    if own and array.dtype != x.dtype:
        raise TypeError(f"{name} must have input's dtype {x.dtype}, got {array.dtype}")
    return array.reshape(-1)


def per_label(name: str | None, value: Any, input: Any, kept: Any, compiled: bool) -> np.ndarray:
    """Positive factors, one per element or per label on the last axis, in the type that is computed in.

    Of one per element those are judged that the mask keeps, the others become 1.
    """
    array, x = plain(str(name), value), plain("input", input)
    if not (is_float(array.dtype) or array.dtype.kind in "iu"):
        raise TypeError(f"{name} must be a floating or integer type, got {array.dtype}")
    if not is_float(x.dtype):
        return array
    kind = computed(x.dtype)
    least, most = np.finfo(kind).tiny, np.finfo(kind).max
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
    bad = ~((wide >= least) & (wide <= most))
    if bad.any():
        flat = mask(kept, x.shape) if array.shape == x.shape else None
        counts = bad if flat is None else bad & np.repeat(flat, x.size // max(1, flat.size)).reshape(x.shape)
        wrong = np.argwhere(counts)
        if wrong.size:
            at = tuple(int(k) for k in wrong[0])
            place, demand = (at[0] if len(at) == 1 else at), "positive and finite"
            if 0 < wide[at] < np.inf:
                demand += f", within {kind}'s range"
            raise ValueError(f"{name} must be {demand}, got {array[at]} at index {place}")
        wide = np.where(bad, 1.0, wide)
    return wide.astype(kind) if compiled else wide


def indices(name: str, value: Any, shape: tuple[int, ...], whose: str) -> np.ndarray:
    """Classes or actions: any integer dtype (an empty list, which NumPy makes float, passes)."""
    array = plain(name, value)
    same_shape(name, array.shape, shape, whose)
    if array.dtype.kind not in "iu":
        if array.size > 0 or isinstance(value, np.ndarray):
            raise TypeError(f"{name} must be of an integer type, got {array.dtype}")
        array = array.astype(np.int64)
    return _kernel_ready(array)


def flags(name: str, value: Any, shape: tuple[int, ...], whose: str) -> np.ndarray:
    """A bool array of a given shape."""
    array = plain(name, value)
    if array.dtype.kind != "b":
        raise TypeError(f"{name} must be bool, got {array.dtype}")
    same_shape(name, array.shape, shape, whose)
    return _kernel_ready(array)


def _leading(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape[: array.ndim] or array.ndim > len(shape):
        raise ValueError(f"{name} must have the loss's shape {shape} or its leading dimensions, got {array.shape}")
    return _kernel_ready(array).reshape(-1)


def sample_weight(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Weights, flat: one per entry or one per run of entries."""
    if value is None:
        return None
    array = plain("sample_weight", value)
    if not (is_float(array.dtype) or array.dtype.kind in "iu"):
        raise TypeError(f"sample_weight must be a floating or integer type, got {array.dtype}")
    return _leading("sample_weight", array, shape)


def mask(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Mask, flat: one flag per entry or one per run of entries; True keeps."""
    if value is None:
        return None
    array = plain("mask", value)
    if array.dtype.kind != "b":
        raise TypeError(f"mask must be bool (True = keep), got {array.dtype}")
    return _leading("mask", array, shape)


def class_weight(value: Any, classes: int) -> np.ndarray | None:
    """Weights of classes in float64."""
    if value is None:
        return None
    array = plain("weight", value)
    if not (is_float(array.dtype) or array.dtype.kind in "iu"):
        raise TypeError(f"weight must be a floating or integer type, got {array.dtype}")
    if array.shape != (classes,):
        raise ValueError(f"weight must have one value per class, shape {(classes,)}, got {array.shape}")
    array = np.require(array, np.float64, ["C", "ALIGNED"])
    wrong = np.flatnonzero(~(array >= 0) | np.isinf(array))
    if wrong.size:
        raise ValueError(f"weight must be non-negative and finite, got {array[wrong[0]]} at index {wrong[0]}")
    return array


def integer(name: str, value: Any) -> int:
    """An integer that fits into 64 bits."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} must fit into 64 bits, got {value}")
    return number


def switch(name: str, value: Any) -> bool:
    """True or False, also as NumPy's bool or as 1 and 0."""
    if isinstance(value, (bool, np.bool_, int, np.integer)) and value in (0, 1):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {value!r:.60}")


def reduction(value: Any, normalizer: Any) -> None:
    """Check how a loss is reduced."""
    if not isinstance(value, str) or value not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, got {value!r}")
    if normalizer is None:
        return
    if value in ("sum", "none"):
        raise ValueError(f"normalizer replaces the divisor of a mean; reduction={value!r} has none")
    number = real("normalizer", normalizer)
    if not 0.0 < number < math.inf:
        raise ValueError(f"normalizer must be positive and finite, got {number!r}")


def output(out: Any, like: np.ndarray, readers: dict[str, Any]) -> None:
    """Check the array that receives a gradient with respect to ``like``, the first of ``readers``."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    first = next(iter(readers))
    same_shape("out", out.shape, like.shape, f"{first}'s shape")
    if out.dtype != like.dtype:
        raise TypeError(f"out must have {first}'s dtype {like.dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if _overlaps_itself(out):
        raise ValueError("out overlaps itself: several of its elements share memory")
    for name, array in readers.items():
        if not isinstance(array, np.ndarray) or not np.may_share_memory(out, array):
            continue
        if name == first and _same_memory(out, array):
            continue  # in place
        try:
            shared = np.shares_memory(out, array, max_work=10**6)  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            shared = True
        if shared:
            raise ValueError(f"out overlaps {name}" + (" partly" if name == first else ""))


def _same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    return a.__array_interface__["data"][0] == b.__array_interface__["data"][0] and a.strides == b.strides


def _overlaps_itself(array: np.ndarray) -> bool:
    if array.flags.c_contiguous or array.size == 0:
        return False
    reach = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach = stride * (length - 1) + reach
    return False


def bad_entry(
    values: np.ndarray, wrong: Callable[[np.ndarray], np.ndarray], mask: np.ndarray | None, shape: tuple[int, ...]
) -> tuple[Any, str] | None:
    """The first kept entry for which ``wrong`` holds, and its place in an array of the given shape."""
    run = values.size // mask.size if mask is not None and mask.size else 1
    for start in range(0, values.size, _CHUNK):
        part = values[start : start + _CHUNK]
        found = wrong(part)
        if mask is not None:
            found &= mask[np.arange(start, start + part.size) // run]
        if found.any():
            i = start + int(found.argmax())
            place = tuple(int(k) for k in np.unravel_index(i, shape))
            return values[i], str(place[0]) if len(place) == 1 else str(place)
    return None


def check_domains(facts: Loss, x: np.ndarray, y: np.ndarray, third: np.ndarray | None, mask: np.ndarray | None) -> None:
    """Raise for the first kept target, prediction or value of the third array outside its domain."""
    arrays = [("target", y, facts.target), ("input", x, facts.input)]
    if third is not None:
        arrays.append((str(facts.third), np.resize(third, x.size), facts.third_domain))
    for name, array, key in arrays:
        if key == "real":
            continue
        domain, is_target = DOMAINS[key], name == "target"

        def wrong(v, domain=domain, is_target=is_target):
            bad = ~domain.valid(v)
            return bad if is_target else bad & (v == v)  # a prediction that is NaN is no error

        found = bad_entry(array.reshape(-1), wrong, mask, x.shape)
        if found:
            raise ValueError(f"{name} must {domain.demand}, got {found[0]} at index {found[1]}")


def check_unit(name: str, values: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise for the first kept value outside [0, 1]."""
    domain = DOMAINS["unit"]
    found = bad_entry(values.reshape(-1), lambda v: ~domain.valid(v), mask, shape)
    if found:
        raise ValueError(f"{name} must {domain.demand}, got {found[0]} at index {found[1]}")


def check_indices(
    name: str, values: np.ndarray, count: int, ignore: int | None, mask: np.ndarray | None, shape: tuple[int, ...]
) -> None:
    """Raise for the first kept index outside [0, count)."""

    def wrong(part):
        inside = (part >= 0) & (part < count)
        return ~inside if ignore is None else ~(inside | (part == ignore))

    found = bad_entry(values, wrong, mask, shape)
    if found:
        raise IndexError(f"{name} must lie in [0, {count}), got {found[0]} at index {found[1]}")
