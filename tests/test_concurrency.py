"""Many Python threads at once, and processes that fork."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from cases import COMPILED, assert_same_bits, build, weights
from processes import output, python

import fastloss as fl


@pytest.mark.parametrize("n_threads", [1, 2, None])
def test_eight_threads_at_once(compiled, n_threads):
    cases = [build(name, "float32", (40_000,) if name == "mse_loss" else (4_000,), 12, seed=seed)
             for seed in range(3) for name in ("cross_entropy", "td_loss", "mse_loss")]  # fmt: skip
    options = [{"sample_weight": weights(case.shape), "n_threads": n_threads} for case in cases]
    wanted = [case(compiled, **o) for case, o in zip(cases, options, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [(i, pool.submit(cases[i], compiled, **options[i])) for _ in range(8) for i in range(len(cases))]
        for i, job in jobs:
            assert_same_bits(job.result(), wanted[i])


def test_threads_come_and_go(compiled):
    # Every caller brings its own number of threads; a pool that is too small must not be waited for.
    case = build("mse_loss", "float32", (100_000,))
    wanted = case(compiled)
    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(case, compiled, n_threads=n) for n in (1, 6, 2, 8, 3, 7) * 4]:
            assert_same_bits(job.result(), wanted)


def test_errors_in_one_thread_leave_the_others_alone(compiled):
    good = build("cross_entropy", "float32", (3_000,), 12)
    bad = good.with_args(good.args[0], good.args[1] + 12)
    wanted = good(compiled)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(case, compiled, n_threads=2) for case in (good, bad) * 12]
        for i, job in enumerate(jobs):
            if i % 2:
                with pytest.raises(IndexError, match="at index 0"):
                    job.result()
            else:
                assert_same_bits(job.result(), wanted)


def test_use_backend_in_threads_does_not_leak():
    def run(name):
        with fl.use_backend(name):
            return fl.mse_loss(2.0, 1.0).loss

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(run, (*COMPILED, "numpy") * 10)) == {1.0}


FORK = """
    import os, sys
    import numpy as np
    import fastloss as fl

    backend, before = sys.argv[1], int(sys.argv[2])
    x = np.linspace(-3, 3, 1_200_000, dtype=np.float32)
    y = np.zeros_like(x)

    def call(n):
        return fl.log_cosh_loss(x, y, backend=backend, n_threads=n).loss

    right = call(before)
    for generation in range(3):
        child = os.fork()
        if child == 0:
            fine = all(call(n) == right for n in (1, 2, None, 4))
            if generation == 2:  # a child of the child
                grandchild = os.fork()
                if grandchild == 0:
                    os._exit(0 if call(2) == right else 5)
                fine = fine and os.waitpid(grandchild, 0)[1] == 0
            os._exit(0 if fine else 3)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, status
        assert call(2) == right  # the parent goes on
    print("right")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("before", [1, 2])
def test_calls_in_a_child_after_fork(compiled, before):
    # A child inherits none of the parent's threads: whoever waits for one hangs, hence the timeout.
    assert output(FORK, compiled, before, timeout=60) == "right"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_multiprocessing_by_fork(compiled):
    code = """
        import multiprocessing, sys
        import numpy as np
        import fastloss as fl

        def work(seed):
            x = np.random.default_rng(seed).standard_normal((3000, 20))
            return fl.cross_entropy(x, np.zeros(3000, int), backend=sys.argv[1], n_threads=2).loss

        here = [work(seed) for seed in range(6)]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(work, range(6)) == here)
    """
    assert output(code, compiled, timeout=60) == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_checks_its_arguments_too(compiled):
    code = """
        import os, sys
        import numpy as np
        import fastloss as fl
        fl.mse_loss(np.zeros(9), np.zeros(9), backend=sys.argv[1])
        if os.fork() == 0:
            try:
                fl.mse_loss(np.zeros(9), np.zeros(9), backend=sys.argv[1], n_threads=0)
            except ValueError:
                os._exit(0)
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
    """
    assert output(code, compiled, timeout=60) == "0"


@pytest.mark.parametrize("n_threads", [1_000, 100_000, 2**31, 2**80])
def test_more_threads_than_can_be(compiled, n_threads):
    code = """
        import sys
        import numpy as np
        import fastloss as fl
        x = np.ones(4096 * 300, np.float32)
        print(fl.mse_loss(x, 0 * x, backend=sys.argv[1], n_threads=int(sys.argv[2])).loss)
    """
    process = python(code, compiled, n_threads, timeout=60)
    assert (process.returncode, process.stdout) == (0, "1.0\n"), process.stderr[-200:]


def test_the_interpreter_ends_while_threads_are_idle(compiled):
    code = """
        import sys
        import numpy as np
        import fastloss as fl
        x = np.zeros(500_000, np.float32)
        fl.mse_loss(x, x, backend=sys.argv[1], n_threads=2)
    """
    process = python(code, compiled, timeout=60)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of the process from /proc")
def test_where_no_thread_can_be_started(compiled):
    code = """
        import resource, sys, threading
        import numpy as np
        import fastloss as fl
        x, out = np.linspace(-3, 3, 300_000, dtype=np.float32), np.empty(300_000, np.float32)
        y = np.zeros_like(x)
        def call(n_threads, options={"backend": sys.argv[1], "out": out}):
            return fl.mse_loss(x, y, n_threads=n_threads, **options).loss
        wanted = call(1)
        if sys.argv[1] == "numba":  # compiles what starts threads, but starts none
            from fastloss._numba import pool
            pool.shared().hire = lambda wanted: None
            call(2)
            del pool.shared().hire
        # The stack of another thread has no room.
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**21,) * 2)
        try:
            threading.Thread(target=print).start()
        except RuntimeError:
            print(call(4) == call(2) == call(None) == wanted)
    """
    assert output(code, compiled, timeout=120) == "True"


def test_threads_that_meet_at_a_first_call(compiled):
    # Numba compiles a loss's loop when it is first called: here by eight threads at once.
    code = """
        import sys, threading
        import numpy as np
        import fastloss as fl
        x, y = np.array([3.0, -1.0]), np.array([1.0, 1.0])
        losses = (fl.mse_loss, fl.l1_loss, fl.huber_loss, fl.hinge_loss, fl.pinball_loss)
        gate, found = threading.Barrier(8), []

        def work():
            for loss in losses:
                gate.wait()
                found.append((loss.__name__, loss(x, y, backend=sys.argv[1]).loss))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(found), len(set(found)))
    """
    assert output(code, compiled, timeout=120) == "40 5"
