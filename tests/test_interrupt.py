"""Ctrl-C during a long call."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from processes import environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a child")

# Zeros that were never written are one page of memory, read over and over.
LONG = """
    import signal, sys
    import numpy as np
    import fastloss as fl

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
    backend, kind, n_threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    n, rest = 10**9, {"grad": False, "backend": backend, "n_threads": n_threads or None}

    def call(n):
        if kind == "elements":
            fl.binary_cross_entropy_with_logits(np.zeros(n, np.float16), np.zeros(n, np.bool_), **rest)
        elif kind == "actions":
            # Chosen so that the kernel reads 10^9 values, of which a call needs no copy.
            q, index = np.zeros((n // 64, 32), np.float16), np.zeros(n // 64, np.int64)
            fl.td_loss(q, index, q[:, 0], q, index > 0, next_q_online=q, **rest)
        elif kind == "plain":
            fl.binary_cross_entropy_with_logits(np.zeros(n, np.float32), np.zeros(n, np.bool_), **rest)
        elif kind == "in place":
            # All targets are looked at before anything is overwritten.
            x = np.zeros(n, np.float32)
            fl.binary_cross_entropy_with_logits(x, np.zeros(n, np.bool_), **(rest | {"grad": True, "out": x}))
        elif kind == "targets":
            # A class each: as many targets as logits, counted before the kernel runs.
            fl.cross_entropy(np.zeros((n, 1), np.float32), np.zeros(n, np.uint8), **rest)
        else:
            x = np.zeros((n // int(kind), int(kind)), np.float16)
            fl.cross_entropy(x, np.zeros(len(x), np.int64), **rest)

    call(10_000_000 // 64 * 64)  # imports and compiles
    print("ready", flush=True)
    try:
        while True:
            call(n)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def delay(*arguments):
    """Seconds from SIGINT to the KeyboardInterrupt of a process that is inside a call of 10^9 elements."""
    command = [sys.executable, "-P", "-c", textwrap.dedent(LONG), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        limit = threading.Timer(120, process.kill)
        limit.start()
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.1)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            return time.monotonic() - start
        finally:
            limit.cancel()
            process.kill()


@pytest.mark.parametrize(
    ("kind", "n_threads"),
    [("elements", 1), ("elements", 2), ("1000", 2), ("actions", 1), ("plain", 0), ("in place", 0), ("targets", 0)],
)
def test_a_long_call_ends_within_half_a_second(compiled, kind, n_threads):
    assert delay(compiled, kind, n_threads) < 0.5


def test_many_rows_of_few_classes(compiled):
    assert delay(compiled, 10, 1) < 0.5


def test_few_rows_of_many_classes(compiled):
    # A thousand blocks of a million classes each.
    assert delay(compiled, 1_000_000, 1) < 0.5
