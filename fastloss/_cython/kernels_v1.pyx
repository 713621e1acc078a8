# The Cython backend, compiled for one CPU level.
include "kernels.pxi"
