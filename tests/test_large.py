"""More than 2^31 elements: offsets beyond 32 bits. Up to 7 GiB, most of it zeros that were never written."""

import sys

import pytest
from processes import output

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.maxsize < 2**33, reason="needs a 64-bit machine")]

# Ordinary entries are zeros; a few places, beyond 2^31 among them, hold what must be found again.
HEAD = """
    import math, sys
    import numpy as np
    import fastloss as fl
    options = {"backend": sys.argv[1]}
    n = 2**31 + 5000
"""
WORK = {
    "sum": """
        x, y = np.zeros(n, np.float16), np.zeros(n, np.bool_)
        x[[5, 2**31, -1]] = 1, 2, 3
        assert fl.mse_loss(x, y, grad=False, reduction="sum", **options).loss == 14
        assert fl.mse_loss(x, y, grad=False, mask=x < 3, **options).loss == 5 / (n - 1)
        assert math.isclose(fl.bce_with_logits(0 * x, y, grad=False, **options).loss, math.log(2), rel_tol=1e-7)
    """,
    "gradient": """
        x, y = np.zeros(n, np.float16), np.zeros(n, np.bool_)
        x[[5, 2**31, -1]] = 1, 2, 3
        grad = fl.mse_loss(x, y, reduction="sum", **options).grad
        assert grad[[5, 2**31, -1]].tolist() == [2, 4, 6]
        assert np.count_nonzero(grad) == 3
    """,
    "zero strides": """
        x, y = np.broadcast_to(np.float16(1.5), n), np.broadcast_to(np.bool_(True), n)
        assert fl.l1_loss(x, y, grad=False, reduction="sum", **options).loss == n / 2
    """,
    "many classes": """
        rows = 2**31 // 1000 + 50
        x, y = np.zeros((rows, 1000), np.float16), np.zeros(rows, np.int64)
        x[-1, 999], y[-1] = np.inf, 999
        loss, grad = fl.cross_entropy(x, y, reduction="none", **options)
        assert loss[-1] == 0 and np.all(loss[:-1] == np.float16(np.log(1000)))
        assert not grad[-1].any() and np.all(grad[-2, 1:] == np.float16(0.001)) and grad[-2, 0] == np.float16(-0.999)
    """,
    "few classes": """
        rows = 2**31 // 4 + 50
        x, y = np.zeros((rows, 4), np.float16), np.zeros(rows, np.uint8)
        x[-1, 3], y[-1] = np.inf, 3
        loss, grad = fl.cross_entropy(x, y, reduction="none", **options)
        assert loss[-1] == 0 and np.all(loss[:-1] == np.float16(np.log(4)))
        assert grad[-2:].tolist() == [[-0.75, 0.25, 0.25, 0.25], [0, 0, 0, 0]]
    """,
    "actions": """
        rows = 2**31 // 32 + 50
        q, actions = np.zeros((rows, 32), np.float16), np.zeros(rows, np.uint8)
        q[-1, 31], actions[-1] = 2, 31
        given = q, actions, np.zeros(rows, np.float16), q, actions > 99
        found = fl.td_loss(*given, reduction="none", loss="mse", gamma=0.5, **options)
        assert np.count_nonzero(found.td_error) == np.count_nonzero(found.grad) == 1
        assert (found.td_error[-1], found.grad[-1, 31], found.loss[-1]) == (-1, 2, 1)
    """,
    "errors": """
        x, y = np.zeros(n, np.float16), np.zeros(n, np.uint8)
        y[-2:] = 7
        for call, given in ((fl.bce_with_logits, x), (fl.cross_entropy, np.zeros((n, 1), np.float16))):
            try:
                call(given, y, grad=False, **options)
            except (ValueError, IndexError) as error:
                assert str(error).endswith(f"got 7 at index {n - 2}"), error
            else:
                raise AssertionError("no error")
    """,
}


@pytest.mark.parametrize("work", WORK)
def test_more_than_two_to_the_31_elements(compiled, work):
    assert output(HEAD + WORK[work].replace("\n    ", "\n") + "\n    print('right')", compiled, timeout=1200) == "right"
