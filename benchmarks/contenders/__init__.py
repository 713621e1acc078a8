"""The table ``work x contender -> callable`` that drives checks, timings and README.

A contender prepares a work outside the timing (arrays converted, code compiled) and returns a
callable without arguments that computes ``(loss, grad, ...)`` of the mean over the work's arrays,
or None where it has no such loss. All compute in the work's dtype, on as many threads as told.
One module per contender; what it needs is imported when a work is prepared.
"""

from __future__ import annotations

import sys

from . import (
    fastloss_calls,
    jax_optax,
    limit,
    naive_numba,
    numpy_formulas,
    pytorch,
    scikit_learn,
    torch_compile,
)
from ._contender import Call, Contender

__all__ = ["BASELINE", "CONTENDERS", "Call", "Contender"]

# What torch.compile calls unless CXX names another one.
_COMPILER = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")

BASELINE = "fastloss-cython"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(BASELINE, "fastloss, Cython", ("backend:cython",), fastloss_calls.on("cython")),
        Contender("fastloss-numba", "fastloss, Numba", ("backend:numba",), fastloss_calls.on("numba")),
        Contender("fastloss-numpy", "NumPy reference", (), fastloss_calls.on("numpy"), column=False),
        Contender("numpy", "NumPy", (), numpy_formulas.prepare),
        Contender("naive-numba", "Numba loop", ("numba",), naive_numba.prepare),
        Contender("pytorch", "PyTorch", ("torch",), pytorch.prepare),
        Contender("torch-compile", "torch.compile", ("torch", f"compiler:{_COMPILER}"), torch_compile.prepare),
        Contender("jax", "JAX", ("jax", "optax"), jax_optax.prepare),
        Contender("scikit-learn", "scikit-learn", ("sklearn",), scikit_learn.prepare, reduces=False),
        Contender("limit", "limit", ("numba",), limit.fresh, computes=False),
        Contender("limit-warm", "limit, given gradient", ("numba",), limit.warm, computes=False, column=False),
        Contender("copy", "copy", (), limit.copy, computes=False, column=False),
    )
}
