"""Child processes of every kind, started at bad moments and beside other libraries' OpenMP."""

import importlib.util
import itertools
import multiprocessing
import os

import pytest
from cases import COMPILED
from processes import output

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

MANY = 1_200_000  # elements that calls without n_threads spread over threads, on either backend

# What the parent has done, a child must be able to do; whoever waits for a thread of the parent hangs.
FORK = """
    import os, sys, threading
    {imports}
    import numpy as np

    x = np.linspace(-3, 3, int(sys.argv[2]), dtype=np.float32)
    y = np.zeros_like(x)

    def call(n_threads, backends=sys.argv[1].split(",")):
        return {{fl.log_cosh_loss(x, y, backend=name, n_threads=n_threads).loss for name in backends}}

    def child(function):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if function() else 3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    right = call(2)
    {use}
    assert len(right) == 1
"""
LIBRARIES = {
    "torch": ("import torch", "torch.set_num_threads(2); (torch.ones(10**6) * 2).exp().sum()"),
    "sklearn": (
        "from sklearn.neighbors import NearestNeighbors",
        "NearestNeighbors(n_neighbors=1, algorithm='brute').fit(x[:3000, None]).kneighbors(x[:3000, None])",
    ),
}


ORDERS = [
    # With both, OpenMP's threads spin in one another's way: up to a minute each.
    pytest.param(order, id="-".join(order), marks=[pytest.mark.slow] if len(order) == 3 else [])
    for libraries in (("torch",), ("sklearn",), ("torch", "sklearn"))
    for order in itertools.permutations(("fastloss", *libraries))
]


def program(text, imports="import fastloss as fl", use=""):
    return FORK.format(imports=imports, use=use) + text


@pytest.mark.parametrize("order", ORDERS)
def test_beside_other_openmp_runtimes(order, both_compiled):
    for library in set(order) & set(LIBRARIES):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    imports = "; ".join(LIBRARIES[name][0] if name in LIBRARIES else "import fastloss as fl" for name in order)
    use = "; ".join(LIBRARIES[name][1] for name in order if name in LIBRARIES)
    code = program(
        """
    for n_threads in (2, None, 1):
        assert child(lambda: call(n_threads) == right) == 0
    assert child(lambda: child(lambda: call(2) == right) == 0) == 0
    assert call(2) == right
    print("right")
    """,
        imports,
        use,
    )
    assert output(code, "cython,numba", MANY, timeout=120) == "right"


def test_fork_while_other_threads_are_inside_kernels(compiled):
    code = program(
        """
    stop = threading.Event()

    def work():
        while not stop.is_set():
            assert call(2) == right

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    found = [child(lambda: call(2) == right and call(None) == right) for _ in range(40)]
    stop.set()
    for thread in threads:
        thread.join()
    print(found == [0] * 40)
    """
    )
    assert output(code, compiled, MANY, timeout=120) == "True"


def test_two_hundred_forks(compiled):
    code = program(
        """
    found = [child(lambda: call(2) == right) for _ in range(200)]
    print(found == [0] * 200, call(2) == right)
    """
    )
    assert output(code, compiled, 40_000, timeout=120) == "True True"


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_multiprocessing_without_plain_fork(compiled, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    code = """
        import functools, multiprocessing, sys
        import numpy as np
        import fastloss as fl

        x, y = np.linspace(-3, 3, 400_000, dtype=np.float32), np.zeros(400_000, np.float32)
        call = functools.partial(fl.mse_loss, backend=sys.argv[1], n_threads=2, grad=False)
        with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
            print(pool.starmap(call, [(x, y)] * 4) == [call(x, y)] * 4)
    """
    assert output(code, compiled, method, timeout=120) == "True"


# --- fewer CPUs or threads than a call asks for


HASH = """
    import os, sys
    if sys.argv[1] == "pin":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import numpy as np
    import fastloss as fl
    x = np.linspace(-3, 3, 1_200_000, dtype=np.float32)
    for backend in sys.argv[2:]:
        print(*(fl.log_cosh_loss(x, 0 * x, backend=backend, n_threads=n).loss.hex() for n in (None, 1, 2, 7)))
"""


def test_one_cpu_or_one_thread():
    wanted = output(HASH, "free", *COMPILED)
    for variables in ({"OMP_NUM_THREADS": 1}, {"OMP_THREAD_LIMIT": 1, "OMP_DYNAMIC": "true"}):
        assert output(HASH, "free", *COMPILED, **variables) == wanted
    if hasattr(os, "sched_setaffinity"):
        assert output(HASH, "pin", *COMPILED) == wanted
