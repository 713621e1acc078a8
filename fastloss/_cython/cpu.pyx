# Compiled without CPU options, so that it runs anywhere: which of the other modules may be imported.

cdef extern from "platform.h" nogil:
    int fastloss_cpu_level()
    int fastloss_long_vectors_pay()


def level():
    """CPU level: 1 (x86-64 baseline or another architecture), 3 (AVX2 and FMA) or 4 (AVX-512)."""
    return fastloss_cpu_level()


def best():
    """The level that is fastest here: 4 only where long vectors do not slow the CPU down."""
    cdef int found = fastloss_cpu_level()
    return found if fastloss_long_vectors_pay() else min(found, 3)
