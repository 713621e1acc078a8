"""Calls from threads that other libraries start, and beside other libraries' threads."""

import importlib.util
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from cases import assert_same_bits, build, weights
from processes import output

import fastloss as fl


def test_sixteen_threads_at_once(compiled):
    # The barrier lets all of them into the kernels at the same moment, again and again.
    case = build("cross_entropy", "float32", (6_000,), 12, label_smoothing=0.375)
    weight, barrier = weights((6_000,)), threading.Barrier(16)
    wanted = case(compiled, sample_weight=weight)

    def work(number):
        for round_ in range(12):
            barrier.wait(timeout=60)
            assert_same_bits(case(compiled, sample_weight=weight, n_threads=(number + round_) % 4 + 1), wanted)

    with ThreadPoolExecutor(16) as pool:
        for job in [pool.submit(work, number) for number in range(16)]:
            job.result(timeout=120)


def test_nested_pools(compiled):
    case = build("mse_loss", "float32", (40_000,))
    wanted = case(compiled)

    def inner(_):
        assert_same_bits(case(compiled, n_threads=2), wanted)
        return 1

    def outer(_):
        with ThreadPoolExecutor(3) as pool:
            return sum(pool.map(inner, range(3)))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(outer, range(8))) == 24


def test_a_call_inside_a_callback_of_a_call(compiled):
    # A garbage collector's hook, a signal handler or __array__ may call in the middle of another call.
    case = build("mse_loss", "float64", (50,))
    wanted = case(compiled)

    class Lazy:
        def __array__(self, dtype=None, copy=None):
            assert_same_bits(case(compiled), wanted)
            return case.args[0]

    found = fl.mse_loss(Lazy(), case.args[1], backend=compiled)
    assert_same_bits(found, wanted)


# Numba's threading layers belong to the process; ours are not among them, and must go well with each.
LAYER = """
    import os, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    import numba
    import numpy as np
    import fastloss as fl

    numba.set_num_threads(1)  # starts the layer's threads
    x = np.linspace(-3, 3, 400_000, dtype=np.float32)

    def call(backend):
        return fl.mse_loss(x, 0 * x, backend=backend, n_threads=2).loss

    wanted = {call("cython"), call("numba")}
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(call, ["cython", "numba"] * 32))
    child = os.fork()
    if child == 0:
        os._exit({call("cython"), call("numba")} != wanted)
    assert os.waitpid(child, 0)[1] == 0
    print(numba.threading_layer(), found == wanted, len(wanted))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue"])
def test_beside_every_threading_layer_of_numba(layer, both_compiled):
    module = {"omp": "omppool", "tbb": "tbbpool"}.get(layer, layer)
    if importlib.util.find_spec(f"numba.np.ufunc.{module}") is None:
        pytest.skip(f"Numba's layer {layer} is not installed")
    try:
        # The package tbb puts its libraries where the loader does not look by itself.
        path = os.pathsep.join(filter(None, [f"{sys.prefix}/lib", os.environ.get("LD_LIBRARY_PATH")]))
        found = output(LAYER, timeout=120, NUMBA_THREADING_LAYER=layer, LD_LIBRARY_PATH=path)
    except AssertionError as error:
        if "No threading layer could be loaded" not in str(error):
            raise
        pytest.skip(f"Numba's layer {layer} does not load here")
    assert found == f"{layer} True 1"


@pytest.mark.parametrize("kind", ["threading", "loky"])
def test_joblib(compiled, kind):
    # Each job starts threads of its own with jobs of their own.
    pytest.importorskip("joblib")
    code = """
        import sys
        import joblib
        import numpy as np
        import fastloss as fl

        x = np.linspace(-3, 3, 60_000).reshape(3_000, 20)
        y = np.arange(3_000) % 20

        def outer(backend):
            job = joblib.delayed(fl.cross_entropy)(x, y, backend=backend, n_threads=2)
            return joblib.Parallel(3, backend="threading")([job] * 3)

        wanted = fl.cross_entropy(x, y, backend=sys.argv[1])
        found = sum(joblib.Parallel(2, backend=sys.argv[2])([joblib.delayed(outer)(sys.argv[1])] * 4), [])
        print(len(found), all(loss == wanted.loss and np.array_equal(grad, wanted.grad) for loss, grad in found))
    """
    assert output(code, compiled, kind, timeout=120) == "12 True"


def test_dask_threads(compiled):
    pytest.importorskip("dask")
    code = """
        import sys
        import dask
        import numpy as np
        import fastloss as fl

        x = np.linspace(-3, 3, 60_000).reshape(3_000, 20)
        y = np.arange(3_000) % 20

        def compute(function, count):
            return dask.compute(*[dask.delayed(function)() for _ in range(count)], scheduler="threads", num_workers=4)

        def call():
            return fl.cross_entropy(x, y, backend=sys.argv[1], n_threads=2).loss

        nested = compute(lambda: compute(call, 3), 4)
        print({*compute(call, 8), *sum(nested, ())} == {call()})
    """
    assert output(code, compiled, timeout=120) == "True"
