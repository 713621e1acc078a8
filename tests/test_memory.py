"""No temporaries: what a call adds to the peak memory of its process."""

import pytest
from processes import output

pytest.importorskip("resource", reason="peak memory is measured by resource.getrusage")

# The arrays are filled and the kernels run before the measurement; what is left is the call itself.
MEASURE = """
    import resource, sys
    from pathlib import Path
    import numpy as np
    import fastloss as fl

    backend, kind, n, in_place = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "in_place"

    def peak():
        # On Linux, getrusage's figure begins with that of the process that started this one.
        status = Path("/proc/self/status")
        if status.exists():
            return next(int(line.split()[1]) * 1024 for line in status.open() if line.startswith("VmHWM"))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def reset():
        # Compiling a kernel may have taken more memory than the arrays: forget that peak where the system can.
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass

    def call(x, y, **options):
        return fl.binary_cross_entropy_with_logits(x, y, backend=backend, **options).loss

    small = np.zeros(300_000, np.float32)
    for options in ({"grad": False}, {"out": np.empty_like(small)}):
        call(small, small.astype(kind), n_threads=2, **options)
    x, y = np.empty(n, np.float32), np.empty(n, kind)
    x.fill(0.5), y.fill(1)
    out = x if in_place else np.empty_like(x)
    if not in_place:
        out.fill(0)
    for options in ({"grad": False}, {"out": out}):
        reset()
        before = peak()
        call(x, y, **options)
        print(peak() - before)
"""
LIMIT = 2 * 2**20


def growth(*arguments):
    return [int(line) for line in output(MEASURE, *arguments).split()]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_no_temporaries(compiled, kind):
    assert max(growth(compiled, kind, 20_000_000, "out")) < LIMIT


def test_in_place_needs_nothing_either(compiled):
    # The targets are checked first, part by part.
    assert max(growth(compiled, "float32", 20_000_000, "in_place")) < LIMIT


def test_the_measurement_sees_a_temporary(compiled):
    # A copy of a strided input is 80 MB: if this fails, the tests above prove nothing.
    head, _, tail = MEASURE.rpartition("call(x, y, **options)")
    code = f"{head}call(x[::-1], y, **options){tail}"
    assert int(output(code, compiled, "int8", 20_000_000, "out").split()[0]) > 10 * LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_no_temporaries_over_a_hundred_million(compiled, kind):
    assert max(growth(compiled, kind, 100_000_000, "out")) < LIMIT
