# Compiled without CPU options, so that it runs anywhere: which of the other modules may be imported.

cdef extern from "platform.h" nogil:
    int fastloss_cpu_level()


def level():
    """CPU level: 1 (x86-64 baseline or another architecture), 3 (AVX2 and FMA) or 4 (AVX-512)."""
    return fastloss_cpu_level()
