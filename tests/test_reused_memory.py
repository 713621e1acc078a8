"""Large gradients are written into memory that an earlier one has left, never into one that is still in use."""

import gc
import os
import pickle

import numpy as np
import pytest
from processes import output

import fastloss as fl
from fastloss import _memory

N = _memory.LEAST // 4


@pytest.fixture(autouse=True)
def _nothing_kept():
    fl.release_memory()
    yield
    fl.release_memory()


def gradient(backend, x, y):
    return fl.huber_loss(x, y, backend=backend).grad


def test_used_again_only_when_gone(compiled):
    x, y = np.zeros(N, np.float32), np.linspace(-2, 2, N, dtype=np.float32)
    first = gradient(compiled, x, y)
    copy, place = first.copy(), first.ctypes.data
    second = gradient(compiled, x, -y)
    assert second.ctypes.data != place
    np.testing.assert_array_equal(first, copy)
    np.testing.assert_array_equal(second, -copy)
    view = first.reshape(2, -1)[1:]
    del first
    gc.collect()
    assert gradient(compiled, x, y).ctypes.data != place  # a view still holds it
    np.testing.assert_array_equal(view.ravel(), copy[N // 2 :])
    fl.release_memory()
    del view
    assert gradient(compiled, x, y).ctypes.data == place


def test_like_any_other_array(compiled):
    x = np.zeros(N, np.float32)
    grad = gradient(compiled, x, x + 1)
    assert type(grad) is np.ndarray
    assert grad.flags.writeable
    assert grad.flags.c_contiguous
    grad += 1
    again = pickle.loads(pickle.dumps(grad[:10]))
    np.testing.assert_array_equal(again, grad[:10])


def test_one_block_is_kept_and_given_back(compiled):
    x = np.zeros(N, np.float32)
    grads = [gradient(compiled, x, x + k) for k in range(3)]
    del grads
    gc.collect()
    assert len(_memory._kept) == 1
    fl.release_memory()
    assert not _memory._kept


def test_another_size_is_not_taken(compiled):
    gradient(compiled, np.zeros(2 * N, np.float32), np.ones(2 * N, np.float32))
    grad = gradient(compiled, np.zeros(N, np.float32), np.ones(N, np.float32))
    assert grad.shape == (N,)
    del grad
    gc.collect()
    assert [block.size for block in _memory._kept] == [4 * N]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of the process from /proc")
@pytest.mark.parametrize("n_threads", [1, 2])
def test_an_error_for_lack_of_memory_is_the_only_one(compiled, n_threads):
    code = """
        import resource, sys
        import numpy as np
        import fastloss as fl
        x, n_threads = np.zeros(4_000_000, np.float32), int(sys.argv[2])
        def call(x):
            return fl.mse_loss(x, x, n_threads=n_threads, backend=sys.argv[1])
        call(x[:1_000_000])
        fl.release_memory()
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        limit = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**26, limit[1]))
        unraisable = []
        sys.unraisablehook = unraisable.append
        kept = []
        try:
            while True:
                kept.append(call(x))
        except MemoryError as error:
            alone = error.__context__ is None
        resource.setrlimit(resource.RLIMIT_AS, limit)
        print(alone, len(unraisable), call(x).loss)
    """
    assert output(code, compiled, n_threads, timeout=120) == "True 0 0.0"
