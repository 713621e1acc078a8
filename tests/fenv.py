"""The floating-point environment of a thread: rounding mode, flush to zero; x86-64 with the C library's <fenv.h>."""

import contextlib
import ctypes
import ctypes.util
import platform
import sys

AVAILABLE = sys.platform == "linux" and platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc"
FLUSH = 1 << 15 | 1 << 6  # results to zero (FTZ), operands to zero (DAZ)
ROUNDING = {"nearest": 0x0, "down": 0x400, "up": 0x800, "towards zero": 0xC00}
_STICKY = 0x3F  # the flags that say what has happened
_MXCSR = 28  # where glibc's fenv_t holds the register that SSE and AVX obey

_libm = ctypes.CDLL(ctypes.util.find_library("m")) if AVAILABLE else None


def mxcsr() -> int:
    """The control bits of this thread's MXCSR."""
    room = ctypes.create_string_buffer(32)
    assert _libm.fegetenv(room) == 0
    return int.from_bytes(room.raw[_MXCSR:32], "little") & ~_STICKY


@contextlib.contextmanager
def mode(flush=False, rounding="nearest"):
    """Run a block in another mode, as a library that was built with -ffast-math leaves it behind."""
    before, changed = ctypes.create_string_buffer(32), ctypes.create_string_buffer(32)
    assert _libm.fegetenv(before) == 0
    assert _libm.fesetround(ROUNDING[rounding]) == 0
    assert _libm.fegetenv(changed) == 0
    control = int.from_bytes(changed.raw[_MXCSR:32], "little") | (FLUSH if flush else 0)
    changed.raw = changed.raw[:_MXCSR] + control.to_bytes(4, "little")
    assert _libm.fesetenv(changed) == 0
    try:
        yield
    finally:
        _libm.fesetenv(before)
