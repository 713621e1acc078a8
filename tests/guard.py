"""Memory between protected pages: a kernel that reads or writes past the end of an array ends the process.

While :func:`guarded` runs, every array that NumPy allocates, in Python or in C, ends at a protected page or begins
right after one, and holds NaN until it is written. Linux and NumPy's allocation hooks (NEP 49), through ctypes.
"""

import contextlib
import ctypes
import mmap

import numpy as np
from numpy._core import multiarray

_PAGE = mmap.PAGESIZE
_SET_HANDLER = 304  # PyDataMem_SetHandler in NumPy's C interface, whose numbering is stable
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_PROT_NONE, _POISON = 0, 0xFF  # all bits set: NaN in every float type

_void, _size = ctypes.c_void_p, ctypes.c_size_t
_Malloc = ctypes.CFUNCTYPE(_void, _void, _size)
_Calloc = ctypes.CFUNCTYPE(_void, _void, _size, _size)
_Realloc = ctypes.CFUNCTYPE(_void, _void, _void, _size)
_Free = ctypes.CFUNCTYPE(None, _void, _void, _size)


class _Handler(ctypes.Structure):
    """PyDataMem_Handler, version 1."""

    _fields_ = [
        ("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("ctx", _void),
        ("malloc", _Malloc), ("calloc", _Calloc), ("realloc", _Realloc), ("free", _Free),
    ]  # fmt: skip


_ends = True  # whether arrays end at a protected page; otherwise they begin after one
_given: dict[int, tuple[int, int, int]] = {}  # address: size, pages, address of the first page
_spare: dict[int, list[int]] = {}  # number of pages: areas that were freed


def _area(pages: int) -> int:
    """Address of so many pages with a protected one before and one after them."""
    if _spare.get(pages):
        return _spare[pages].pop()
    access, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc.mmap(None, (pages + 2) * _PAGE, access, kind, -1, 0)
    assert address not in (None, ctypes.c_void_p(-1).value), "mmap failed"
    for edge in (address, address + (pages + 1) * _PAGE):
        assert _libc.mprotect(edge, _PAGE, _PROT_NONE) == 0
    return address + _PAGE


def _allocate(size: int, value: int) -> int:
    size = max(size, 1)
    pages = -(-size // _PAGE)
    start = _area(pages)
    address = start + pages * _PAGE - size if _ends else start
    _given[address] = size, pages, start
    ctypes.memset(address, value, size)
    return address


def _release(address: int) -> None:
    if address:
        _, pages, start = _given.pop(address)
        _spare.setdefault(pages, []).append(start)


def _reallocate(address: int, size: int) -> int:
    moved = _allocate(size, _POISON)
    if address:
        ctypes.memmove(moved, address, min(size, _given[address][0]))
        _release(address)
    return moved


_handler = _Handler(
    b"guarded", 1, None,
    _Malloc(lambda ctx, size: _allocate(size, _POISON)),
    _Calloc(lambda ctx, count, size: _allocate(count * size, 0)),
    _Realloc(lambda ctx, address, size: _reallocate(address, size)),
    _Free(lambda ctx, address, size: _release(address)),
)  # fmt: skip


def _set_handler():
    """NumPy's function that exchanges the allocator."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(multiarray._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])


def _capsule():
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(_handler), b"mem_handler", None)


@contextlib.contextmanager
def guarded(ends: bool):
    """Guard the arrays that this thread allocates: at their end, or at their beginning."""
    global _ends
    _ends = ends
    exchange = _set_handler()
    before = exchange(_capsule())
    try:
        assert multiarray.get_handler_name(np.empty(3)) == "guarded"
        yield
    finally:
        exchange(before)


def just_outside(array: np.ndarray) -> int:
    """Read the first byte of the protected page beside a guarded array, which must end the process."""
    _, pages, start = _given[array.ctypes.data]
    return ctypes.c_uint8.from_address(start + pages * _PAGE if _ends else start - 1).value
