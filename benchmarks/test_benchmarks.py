"""Check, then time, every contender on every work.

``python -m pytest benchmarks --benchmark-enable -n 0`` times; without that option each case runs once.
For ratios use ``python -m benchmarks.run``: it interleaves the contenders.
"""

from __future__ import annotations

import pytest

from .agreement import disagreement, expected
from .contenders import CONTENDERS, Call, Contender
from .works import WORKS, Work


def _prepare(work: Work, contender: Contender) -> Call:
    if missing := contender.missing():
        pytest.skip(f"{contender.name} needs {', '.join(missing)}")
    call = contender.prepare(work, 1)
    if call is None:
        pytest.skip(f"{contender.name} has no such work")
    return call


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=lambda c: c.name)
@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.name)
class TestContenders:
    def test_agreement(self, work: Work, contender: Contender) -> None:
        if not contender.computes:
            pytest.skip(f"{contender.name} returns no losses")
        call = _prepare(work, contender)
        truth = expected(work)
        if truth is None:
            pytest.skip("benchmarks/plain_numpy.py has no such loss")
        assert not disagreement(work, contender, call(), truth)

    def test_time(self, work: Work, contender: Contender, benchmark) -> None:
        call = _prepare(work, contender)
        benchmark.group = work.name
        call()  # what a first call compiles is not timed
        benchmark(call)
