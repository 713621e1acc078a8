"""How kernels are compiled, and the three operations that Python cannot spell."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic, overload

__all__ = ["bare", "bits", "by_type", "f32", "f64", "fma", "from_bits", "inline", "kernel", "u32", "u64"]

f32, f64, u32, u64 = np.float32, np.float64, np.uint32, np.uint64

# Numba looks only at a function's own file to tell whether its cache is stale; kernels call into
# several files, so the hash of them all is made part of the cache's key.
_HERE = Path(__file__).parent
_SOURCES = [*sorted(_HERE.glob("*.py")), _HERE.parent / "_blocks.py"]
_STAMP = hashlib.sha256(b"".join(p.read_bytes() for p in _SOURCES)).hexdigest()


class _StampedCache(FunctionCache):
    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), _STAMP)


# error_model="numpy": a test for zero before every division would keep loops from being vectorised.
inline = numba.njit(nogil=True, error_model="numpy")


def kernel(function):
    """Compile a kernel on first use, cached on disk where some cache directory can be written."""
    dispatcher = inline(function)
    with contextlib.suppress(RuntimeError):  # read-only home and package: compile in every process
        dispatcher._cache = _StampedCache(function)
    return dispatcher


def by_type(for_f32, for_f64):
    """One name for a function's two float types, told apart by the first argument."""

    def function(*arguments):
        raise TypeError("for compiled code only")

    @overload(function)
    def choose(*arguments):
        first = getattr(arguments[0], "dtype", arguments[0])
        chosen = for_f32 if first == types.float32 else for_f64
        return lambda *arguments: chosen(*arguments)

    return function


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c rounded once: one instruction where the CPU has it."""
    if not isinstance(a, types.Float):
        return None

    def generate(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return a(a, a, a), generate


@intrinsic
def bare(typingctx, array):
    """The array without its reference count: slices of it cost no atomic operations. Its owner must outlive it."""

    def generate(context, builder, signature, arguments):
        described = cgutils.create_struct_proxy(array)(context, builder, arguments[0])
        described.meminfo = cgutils.get_null_value(described.meminfo.type)
        return described._getvalue()

    return array(array), generate


_UNSIGNED = {types.float32: types.uint32, types.float64: types.uint64}
_FLOAT = {unsigned: real for real, unsigned in _UNSIGNED.items()}


@intrinsic
def bits(typingctx, x):
    """Reinterpret a float as an unsigned integer."""
    if x not in _UNSIGNED:
        return None

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(x.bitwidth))

    return _UNSIGNED[x](x), generate


@intrinsic
def from_bits(typingctx, k):
    """Reinterpret an unsigned integer as a float."""
    if k not in _FLOAT:
        return None

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType() if k.bitwidth == 32 else ir.DoubleType())

    return _FLOAT[k](k), generate
