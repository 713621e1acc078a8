"""Many calls, failing ones among them: no memory grows, no reference is kept or lost."""

import itertools
import json
import statistics

import pytest
from processes import output

# One round is twenty calls, of which eight fail.
ROUNDS = """
    import gc, json, sys
    import numpy as np
    import psutil
    import fastloss as fl

    backend, rounds = sys.argv[1], int(sys.argv[2])
    x, y, index = np.linspace(-3, 3, 60).reshape(20, 3), np.zeros((20, 3)), np.arange(20) % 3
    large = np.linspace(-3, 3, 9000)
    weight, mask, out = np.ones(20), index > 0, np.empty((20, 3))
    beyond, two, nothing = index + 2, y + 2, np.zeros((0, 3))
    view, shared = x[::-1], np.zeros(80)
    inputs = [x, y, index, large, weight, mask, out, beyond, two, nothing, view, shared]
    options = {"backend": backend}
    q = (x, index, weight, y, mask)

    def fails(loss, *args, **more):
        try:
            loss(*args, **options, **more)
        except (TypeError, ValueError, IndexError):
            return
        raise AssertionError("no error")

    def call():
        fl.mse_loss(x, y, **options)
        fl.mse_loss(large, large, **options, n_threads=2)
        fl.huber_loss(view, y, **options, reduction="none", sample_weight=weight)
        fl.bce_with_logits(x, y, **options, mask=mask, out=out)
        fl.cross_entropy(x, index, **options)
        fl.cross_entropy(x, index, **options, weight=weight[:3], label_smoothing=0.25, reduction="none")
        fl.td_loss(*q, **options)
        fl.td_loss(*q, **options, next_q_online=x, next_action_mask=x > 0, reduction="none")
        fl.grad_hess(fl.huber_loss, x, y, **options)
        fl.mse_loss(nothing, nothing, **options)
        fl.l1_loss(x, y, **options, grad=False)
        fl.smooth_l1_loss(x, y, **options, normalizer=3.0)
        fails(fl.bce_with_logits, x, two)
        fails(fl.bce_with_logits, x, two, mask=mask, out=out)
        fails(fl.cross_entropy, x, beyond)
        fails(fl.td_loss, x, beyond, weight, y, mask, n_threads=2)
        fails(fl.mse_loss, x, index)
        fails(fl.cross_entropy, x, index, weight=-weight[:3])
        fails(fl.l1_loss, shared[:60].reshape(20, 3), y, out=shared[20:].reshape(20, 3))
        fails(fl.grad_hess, fl.bce_with_logits, x, two, sample_weight=weight)

    def state():
        gc.collect()
        counts = [sys.getrefcount(array) for array in inputs]
        return counts, sys.getallocatedblocks(), psutil.Process().memory_info().rss

    for _ in range(rounds // 4):  # imports, compilation, caches, threads
        call()
    states = [state()]
    for _ in range(10):
        for _ in range(rounds // 10):
            call()
        states.append(state())
    print(json.dumps(states))
"""


def check(compiled, rounds, size):
    states = json.loads(output(ROUNDS, compiled, rounds, timeout=3000))
    references, blocks, resident = zip(*states, strict=True)
    assert references[0] == references[-1]
    # A leak of one object per round would be far above.
    assert blocks[-1] - blocks[0] < rounds / 2
    # A leak grows in every lap, a page that the system gives or takes is in one.
    growth = statistics.median(after - before for before, after in itertools.pairwise(resident))
    assert growth < size * rounds / 10


def test_twenty_thousand_calls(compiled):
    check(compiled, 1_000, 240)  # half a small array a round


@pytest.mark.slow
def test_a_million_calls(compiled):
    check(compiled, 50_000, 40)  # 2 MB in all
