"""No kernel reads or writes a byte outside its arrays: inputs, outputs and scratch between protected pages."""

import signal
import sys
from pathlib import Path

import pytest
from cases import COMPILED
from processes import PACKAGE, output, python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="guard pages are laid for Linux")

# The default, v3 where the CPU has it, is what the backend's own test runs on.
LEVELS = ["v1", "v4"] if "cython" in COMPILED and any((PACKAGE / "_cython").glob("kernels_v4.*.so")) else []
HEAD = f"""
    import faulthandler, os, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import ml_dtypes
    import numpy as np
    import fastloss as fl
    from cases import LOSS_NAMES, ROWS, build, keep, param_sets, weights
    from fastloss.registry import LOSSES
    from guard import guarded, just_outside
    faulthandler.enable()
"""
# Every tail of the vector loops, alone and after a whole block; every width of a row, side by side and alone.
CALLS = """
    backend, *dtypes = sys.argv[1:]
    tails = range(65)

    def shapes(kind):
        if kind == "elementwise":
            return [(n, 1) for n in (*tails, 128, 129, *(4096 + tail for tail in tails[1:]))]
        few = [(n, 5) for n in (*tails, 128, 129, 819, 820, 883)] + [(3, width) for width in range(1, 97)]
        chunks = [(2, 1024 + tail) for tail in tails[:: 1 if kind == "rows" else 7]]
        return few + chunks + [(1, 4096 + tail) for tail in (0, 1, 7, 8, 31, 32, 33)]

    def guard(value):
        return value.copy() if isinstance(value, np.ndarray) else value

    def call(case, **options):
        case = case.with_params(**{key: guard(value) for key, value in case.params.items()}).each(guard)
        case(backend, **{key: guard(value) for key, value in options.items()})

    def calls(name, dtype, n, width):
        case = build(name, dtype, (n,), width)
        full = {"sample_weight": weights((n,)), "mask": keep((n,))}
        if case.facts.target == "class":
            other = case.with_params(weight=np.arange(width) % 3.0, ignore_index=0, **param_sets(name)[-1])
        elif name == "td_loss":
            legal = np.arange(n * width).reshape(n, width) % 3 > 0
            other = case.with_params(next_q_online=case.args[0], next_action_mask=legal)
        elif case.facts.kind == "softmax":
            other = case.with_params(**param_sets(name)[-1])
        else:
            # Numba would compile for every pair of dtypes.
            other = case.with_args(case.args[0], np.ceil(case.args[1]).astype("int8")) if backend == "cython" else case
        for ends in (False, True):
            with guarded(ends):
                call(case)
                call(case, grad=False, reduction="sum")
                call(other, reduction="none", **full)
                call(other, out=np.empty(case.args[0].shape, case.args[0].dtype), **full)
                if case.facts.kind == "elementwise":
                    x, y = map(guard, case.args)
                    own = {key: guard(value) for key, value in case.params.items()}
                    fl.grad_hess(getattr(fl, name), x, y, backend=backend, **own)
                    fl.grad_hess(getattr(fl, name), x, y, backend=backend, **own, **full)

    def losses(dtype):
        # Numba compiles for every pair of dtypes: of half precision, one loss of each kind.
        few = ("binary_cross_entropy_with_logits", "cross_entropy", "td_loss", *(ROWS if backend == "cython" else ()))
        return {"float16": few, "bfloat16": few[:1]}.get(dtype, LOSS_NAMES)

    for label in dtypes:
        dtype = np.dtype(getattr(ml_dtypes, label, label))
        for name in losses(label):
            for n, width in shapes(LOSSES[name].kind):
                print(name, dtype, n, width, end="; ", file=sys.stderr)
                calls(name, dtype, n, width)
    print("within bounds", flush=True)
    os._exit(0)  # the arrays that are left must not be freed after the functions that free them
"""


@pytest.mark.parametrize("dtypes", [["float32"], ["float64"], ["float16", "bfloat16"]], ids="-".join)
def test_nothing_outside_the_arrays(compiled, dtypes):
    assert output(HEAD + CALLS, compiled, *dtypes) == "within bounds"


@pytest.mark.skipif(not LEVELS, reason="built for one level only")
@pytest.mark.parametrize("level", LEVELS)
def test_nothing_outside_the_arrays_on_other_cpu_levels(level):
    process = python(HEAD + CALLS, "cython", "float32", "float16", FASTLOSS_CPU=level)
    if process.returncode and "but this CPU only has level" in process.stderr:
        pytest.skip(f"this CPU has no level {level}")
    assert process.stdout == "within bounds\n", process.stderr[-2000:]


@pytest.mark.parametrize("ends", [0, 1])
def test_the_protected_pages_are_there(ends):
    # If this fails, the tests above prove nothing. Fault and not exit: nothing can catch it, but for a sanitizer.
    code = "with guarded(bool(int(sys.argv[1]))):\n    print(just_outside(np.empty(5)))"
    process = python(HEAD.replace("\n    ", "\n") + code, ends)
    assert process.returncode == -signal.SIGSEGV or "AddressSanitizer: SEGV" in process.stderr
