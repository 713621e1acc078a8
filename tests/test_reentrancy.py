"""Calls in the middle of calls: greenlets, signal handlers, finalizers, forks; and while the interpreter ends."""

import importlib.util
import os
import signal
import textwrap

import pytest
from processes import output

import fastloss as fl

# One call per kind of kernel, large enough for several threads and for pauses in which Python code may run.
CALLS = """
    import sys
    import numpy as np
    import fastloss as fl

    random = np.random.default_rng(0)
    x = random.standard_normal(2_500_000, dtype=np.float32)
    rows = random.standard_normal((12_000, 200), dtype=np.float32)
    q, index = rows.reshape(-1, 4)[:400_000], random.integers(0, 4, 400_000)
    classes, backend = random.integers(0, 200, 12_000), sys.argv[1]
    calls = [
        lambda **options: fl.huber_loss(x, 0 * x[:1].repeat(x.size), backend=backend, **options),
        lambda **options: fl.cross_entropy(rows, classes, backend=backend, **options),
        lambda **options: fl.td_loss(q, index, q[:, 0].copy(), q, index > 2, backend=backend, **options),
        lambda **options: fl.multi_margin_loss(rows, classes, backend=backend, **options),
    ]

    def hashed(found):
        return found.loss, hash(found.grad.tobytes())

    right = [hashed(call(n_threads=1)) for call in calls]
    assert [hashed(call(n_threads=2)) for call in calls] == right
"""

SPAWN = {
    "gevent": """
        from gevent import monkey; monkey.patch_all()
        import gevent
        def together(work, arguments):
            jobs = [gevent.spawn(work, k) for k in arguments]
            gevent.joinall(jobs, raise_error=True)
            return [job.value for job in jobs]
        current, sleep = gevent.getcurrent, gevent.sleep
    """,
    "eventlet": """
        import eventlet; eventlet.monkey_patch()
        def together(work, arguments):
            jobs = [eventlet.spawn(work, k) for k in arguments]
            return [job.wait() for job in jobs]
        current, sleep = eventlet.getcurrent, eventlet.sleep
    """,
}


def program(*parts):
    """Parts of a program, each indented in its own way."""
    return "\n".join(textwrap.dedent(part) for part in parts)


def needs(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.mark.parametrize("library", SPAWN)
@pytest.mark.parametrize("switching", [False, True], ids=["", "switching inside calls"])
@pytest.mark.filterwarnings("ignore")
def test_greenlets_get_the_results_of_calls_of_their_own(compiled, library, switching):
    needs(library)
    code = program(
        SPAWN[library],
        CALLS,
        """
        import signal
        calling, switches = set(), 0

        def handler(*_):
            # Lets other greenlets run while a call waits in the middle of its work.
            global switches
            me = current()
            if me in calling:
                calling.remove(me)  # not in the middle of a switch
                switches += 1
                sleep(0)
                calling.add(me)

        def request(k):
            calling.add(current())
            found = calls[k % 4](n_threads=(2, None, 3)[k % 3])
            calling.remove(current())
            return hashed(found)

        if sys.argv[2] == "True":
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
        for round_ in range(5):
            assert together(request, range(24)) == right * 6, round_
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("right", switches > 0)
        """,
    )
    assert output(code, compiled, switching, timeout=240) == f"right {switching}"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_a_signal_handler_may_compute_losses(compiled):
    code = program(
        CALLS,
        """
        import signal, time
        inside, count = False, 0
        small, large = np.ones(9, np.float32), x[:300_000].copy()
        target = np.zeros_like(large)
        wanted = fl.mse_loss(large, target, backend=backend).loss, fl.l1_loss(small, 0 * small, backend=backend).loss

        def handler(*_):
            global inside, count
            if inside:
                return
            inside = True
            assert fl.mse_loss(large, target, backend=backend, n_threads=2).loss == wanted[0]
            assert fl.l1_loss(small, 0 * small, backend=backend).loss == wanted[1]
            inside, count = False, count + 1

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 5e-4, 5e-4)
        end, k = time.monotonic() + 10, 0
        while time.monotonic() < end:
            assert hashed(calls[k % 4](n_threads=2 + k % 3)) == right[k % 4]
            k += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(count > 100)
        """,
    )
    assert output(code, compiled, timeout=240) == "True"


def test_finalizers_may_compute_losses(compiled):
    code = program(
        CALLS,
        """
        import gc, weakref
        large, count = x[:300_000].copy(), 0
        target = np.zeros_like(large)
        wanted = fl.mse_loss(large, target, backend=backend).loss

        def compute(*_):
            global count
            assert fl.mse_loss(large, target, backend=backend, n_threads=2).loss == wanted
            count += 1

        class Node:
            def __init__(self, round_):
                self.me = self
                if round_ % 2:
                    weakref.finalize(self, compute)
                else:
                    self.reference = weakref.ref(self)

            def __del__(self):
                compute()

        gc.freeze()
        gc.set_threshold(5, 1, 1)
        for k in range(60):
            Node(k)
            assert hashed(calls[k % 4](n_threads=2)) == right[k % 4]
        gc.collect()
        print(count >= 60)
        """,
    )
    assert output(code, compiled, timeout=240) == "True"


def test_calls_work_until_the_interpreter_is_gone(compiled):
    code = program(
        "import atexit\natexit.register(lambda: last('first in, last out'))",
        CALLS,
        """
        import threading

        def last(text):
            assert [hashed(call(n_threads=2)) for call in calls] == right
            print(text, flush=True)

        class Late:
            def __del__(self, fl=fl, x=x, backend=backend, print=print):
                a = fl.mse_loss(x, x, backend=backend, n_threads=2).loss
                print("finalizer", a, flush=True)

        late = Late()
        def forever():
            while True:
                calls[0](n_threads=2)
        threading.Thread(target=forever, daemon=True).start()
        atexit.register(last, "last in, first out")
        """,
    )
    found = output(code, compiled, timeout=240).splitlines()
    assert found[:2] == ["last in, first out", "first in, last out"]
    assert found[2:] in ([], ["finalizer 0.0"])  # whether modules' finalizers run is the interpreter's affair


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_in_the_middle_of_a_call_leaves_parent_and_child_their_results(compiled):
    # A signal handler forks: parent and child both go on with the call that it came into.
    code = program(
        CALLS,
        """
        import signal
        forked = None

        def handler(*_):
            global forked
            if forked is None:
                forked = os.fork()

        import os
        signal.signal(signal.SIGALRM, handler)
        statuses, inside = [], 0
        for k in range(40):
            forked = None
            # In the middle of the call, not before it.
            signal.setitimer(signal.ITIMER_REAL, 1e-4 * (1 + k % 10))
            fine = hashed(calls[k % 4](n_threads=2)) == right[k % 4]
            inside += forked is not None
            signal.setitimer(signal.ITIMER_REAL, 0)
            if forked == 0:
                again = hashed(calls[k % 4](n_threads=2)) == right[k % 4]
                os._exit(0 if fine and again else 3)
            if forked is not None:
                statuses.append(os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]))
            assert fine, k
        print(set(statuses), inside > 10)
        """,
    )
    assert output(code, compiled, timeout=240) == "{0} True"


def test_a_result_has_the_hash_of_a_tuple(compiled):
    found = fl.mse_loss([1.0, 2.0], [0.0, 0.0], grad=False, backend=compiled)
    assert hash(found) == hash((found.loss, None))
