"""What an import costs and brings along."""

import statistics

import pytest
from processes import output

HEAVY = ("numba", "llvmlite", "torch", "jax", "sklearn", "scipy", "matplotlib", "pandas", "tqdm", "mpmath", "ml_dtypes")


def test_the_import_brings_numpy_only():
    loaded = output("import sys, fastloss; print(*sorted({name.partition('.')[0] for name in sys.modules}))").split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


def test_a_call_on_the_default_backend_brings_nothing_more():
    code = """
        import sys, numpy, fastloss as fl
        fl.backends()
        fl.cross_entropy(numpy.zeros((2, 3)), numpy.array([0, 1]))
        fl.mse_loss(numpy.zeros(9000), numpy.zeros(9000), backend="numpy")
        print(fl.backends()[0], *sorted({name.partition('.')[0] for name in sys.modules}))
    """
    best, *loaded = output(code).split()
    wanted = set(HEAVY) - ({"numba", "llvmlite", "scipy"} if best == "numba" else set())
    assert not wanted & set(loaded)


def test_the_import_is_quick():
    # Promised are 60 ms on top of NumPy; three times that, so that a busy machine does not fail the test.
    code = """
        import time, numpy, dataclasses, typing, inspect
        start = time.perf_counter()
        import fastloss
        print(time.perf_counter() - start)
    """
    assert statistics.median(float(output(code)) for _ in range(5)) < 0.18


@pytest.mark.parametrize("name", ["api", "cli", "formulas", "reference", "registry", "_numpy", "_accumulate"])
def test_modules_can_be_imported_first(name):
    assert output(f"import fastloss.{name}; print('imported')") == "imported"


def test_an_import_sets_no_floating_point_mode():
    # Linked with -ffast-math, a library would flush subnormals to zero in the whole process.
    code = """
        import numpy as np, fastloss as fl
        fl.mse_loss(np.ones(3), np.zeros(3))
        print(np.float32(1e-40) * np.float32(0.5) > 0, np.float64(5e-324) + 5e-324 > 5e-324)
    """
    assert output(code) == "True True"
