"""How kernels are compiled, and the three operations that Python cannot spell."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from importlib.resources import files
from pathlib import Path

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic, overload

__all__ = [
    "apart", "bare", "bits", "by_type", "describe_cache", "f32", "f64", "fetcher", "fma", "from_bits", "inline",
    "kernel", "loop", "native", "ptr", "rest_of", "run_loop", "toward_zero", "u32", "u64", "uncounted",
]  # fmt: skip

if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set, and these kernels run compiled only")

f32, f64, u32, u64 = np.float32, np.float64, np.uint32, np.uint64


# Numba looks only at a function's own file to tell whether its cache is stale; kernels call into
# several files, so the hash of them all is made part of the cache's key.
def _stamp() -> str | None:
    """Hash of the sources, wherever the package lies; None where there are none, as in a package of .pyc files."""
    package = files("fastloss")
    try:
        kernels = sorted(package.joinpath("_numba").iterdir(), key=lambda file: file.name)
        sources = [file for file in kernels if file.name.endswith(".py")]
        if not sources:
            return None
        sources += [package.joinpath(name) for name in ("_blocks.py", "_how.py", "_threads.py")]
        return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()
    except OSError:
        return None


_STAMP = _stamp()


class _KeyedFile(IndexDataCacheFile):
    """Data with their key: an index may name the wrong file if two processes wrote, or one that did not finish."""

    def save(self, key, data):
        super().save(key, (key, data))

    def load(self, key):
        found = super().load(key)
        return found[1] if found is not None and found[0] == key else None


class _StampedCache(FunctionCache):
    """A cache that never ends a call: what cannot be read is compiled, what cannot be written is left."""

    def __init__(self, function):
        super().__init__(function)
        locator, base = self._impl.locator, self._impl.filename_base
        self._cache_file = _KeyedFile(self.cache_path, base, locator.get_source_stamp())

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), _STAMP)

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged file may raise anything; what is compiled now is saved to a new index
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig, data):
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)


# error_model="numpy": a test for zero before every division would keep loops from being vectorised.
inline = numba.njit(nogil=True, error_model="numpy")


def kernel(function):
    """Compile a kernel on first use, cached on disk where some cache directory can be written."""
    dispatcher = inline(function)
    # Without sources nothing tells whether a cache is stale, except in a frozen program: there Numba asks its file.
    if _STAMP is not None or getattr(sys, "frozen", False):
        with contextlib.suppress(Exception):  # read-only home and package, an archive: compile in every process
            dispatcher._cache = _StampedCache(function)
    return dispatcher


def describe_cache(dispatcher) -> str:
    """Where a kernel is cached, or why in no place."""
    cache = dispatcher._cache
    if isinstance(cache, _StampedCache):
        folder = Path(cache.cache_path)
        there = next(place for place in (folder, *folder.parents) if place.exists())
        return f"cached in {folder}" + ("" if os.access(there, os.W_OK) else ", which cannot be written")
    if _STAMP is None:
        return "not cached: the package has no sources here that would tell whether a cache is stale"
    if not os.path.exists(__file__):
        return "not cached: Numba knows no place for the cache of this archive"
    return "not cached: no folder for it can be written (NUMBA_CACHE_DIR names one)"


def native(dispatcher, kinds, name="llvm_cfunc_wrapper_name"):
    """Address of what has been compiled for arguments of these types: C's convention, or by name Numba's own."""
    compiled = dispatcher.overloads[kinds]
    return compiled.library.get_pointer_to_function(getattr(compiled.fndesc, name))


class loop:
    """A loop over a chunk, compiled on first use and called by its address.

    So the kernels around it, which are compiled for every combination of dtypes, are not compiled for every loss.
    """

    def __init__(self, function):
        self.function = function
        self.pointer = None
        self.dispatchers = []  # they own the code

    @property
    def address(self):
        if self.pointer is None:
            # Threads may be here at once, each with its own dispatcher. No lock: a child forked meanwhile would hang.
            real = types.float32 if self.function.__name__.endswith("f32") else types.float64
            array, params = types.CPointer(real), types.CPointer(types.float64)
            arguments = (array, array, array, params, types.float64, array, array, array, types.intp)
            dispatcher = kernel(self.function)
            dispatcher.compile(types.boolean(*arguments))
            self.dispatchers.append(dispatcher)
            self.pointer = native(dispatcher, arguments)
        return self.pointer


@intrinsic
def run_loop(typingctx, address, xs, ys, zs, params, scale, losses, grads, hessians):
    """Call a loop by its address; returns whether values may be outside their domain."""

    def generate(context, builder, signature, arguments):
        number, *described, scale, losses, grads, hessians = arguments
        kinds = [k for k in signature.args if isinstance(k, types.Array)]
        structs = [
            context.make_array(k)(context, builder, v)
            for k, v in zip(kinds, [*described, losses, grads, hessians], strict=True)
        ]
        pointers = [s.data for s in structs]
        count = builder.extract_value(structs[0].shape, 0)
        values = [*pointers[:4], scale, *pointers[4:], count]
        kind = ir.FunctionType(ir.IntType(8), [v.type for v in values])
        found = builder.call(builder.inttoptr(number, kind.as_pointer()), values)
        return builder.trunc(found, ir.IntType(1))

    return types.boolean(address, xs, ys, zs, params, scale, losses, grads, hessians), generate


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
        return uncounted(context, builder, array, arguments[0])

    return array(array), generate


def uncounted(context, builder, array, value):
    """What ``bare`` returns, for code that builds code."""
    described = cgutils.create_struct_proxy(array)(context, builder, value)
    described.meminfo = cgutils.get_null_value(described.meminfo.type)
    return described._getvalue()


@intrinsic
def ptr(typingctx, memory, index):
    """Pointer to an element of an array, or so many elements on: one word to hand on, and no bounds to work out."""

    def generate(context, builder, signature, arguments):
        pointer, index = arguments
        if isinstance(memory, types.Array):
            pointer = context.make_array(memory)(context, builder, pointer).data
        return builder.gep(pointer, [index])

    return types.CPointer(memory.dtype)(memory, types.intp), generate


def fetcher(n):
    """A function that brings n elements' cache lines near, which may lie outside all arrays: nothing is read."""

    @intrinsic
    def fetch(typingctx, pointer):
        def generate(context, builder, signature, arguments):
            number = ir.IntType(32)
            start = builder.bitcast(arguments[0], ir.IntType(8).as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [start.type, number, number, number])
            prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            for at in range(0, n * pointer.dtype.bitwidth // 8, 64):
                place = builder.gep(start, [ir.IntType(64)(at)])
                builder.call(prefetch, [place, number(0), number(3), number(1)])
            return context.get_dummy_value()

        return types.void(pointer), generate

    return fetch


def apart(function):
    """A function that LLVM must not inline.

    Inside a large function it would load the constants of a long loop anew in every iteration; and one that is called
    from several places is compiled for each of them.
    """

    @intrinsic
    def call(typingctx, arguments):
        kinds = tuple(map(types.unliteral, arguments))
        result = typingctx.resolve_function_type(types.Dispatcher(function), kinds, {}).return_type

        def generate(context, builder, signature, values):
            compiled = function.overloads[kinds]
            context.active_code_library.add_linking_library(compiled.library)
            callee = context.declare_function(builder.module, compiled.fndesc)
            items = zip(cgutils.unpack_tuple(builder, values[0]), arguments, kinds, strict=True)
            values = [context.cast(builder, *item) for item in items]
            _, found = context.call_conv.call_function(builder, callee, result, kinds, values, attrs=("noinline",))
            return context.get_dummy_value() if result == types.none else found

        return result(arguments), generate

    def separate(*arguments):
        raise TypeError("for compiled code only")

    @overload(separate)
    def _separate(*arguments):
        return lambda *arguments: call(arguments)

    return separate


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


@inline
def toward_zero(v):
    """The float32 next to it that is not larger."""
    rounded = f32(v)
    return from_bits(u32(bits(rounded) - u32(abs(f64(rounded)) > abs(v))))


@inline
def rest_of(v, part):
    """What a float32 leaves of v, of v's sign and never 0: infinity times it shall not be NaN."""
    rest = f32(v - part)
    return rest if rest != f32(0.0) else part * f32(9.094947017729282e-13)
