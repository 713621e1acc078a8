"""Random arguments of every kind: only documented exceptions come out, the same from every backend.

The long form, guided by coverage, is ``python tools/fuzz.py``.
"""

import arguments
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Drawn(arguments.Choices):
    """Choices that hypothesis makes and shrinks."""

    def __init__(self, data):
        self._data = data

    def integer(self, low, high):
        return self._data.draw(st.integers(low, high))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_arguments(data):
    arguments.check(Drawn(data))


def test_good_and_bad_arguments_are_tried():
    # If nearly all were refused at the door, or none, little would be tested.
    import random

    class Random(arguments.Choices):
        def __init__(self, seed):
            self.integer = random.Random(seed).randint

    good = sum(arguments.check(Random(seed)) for seed in range(2_000))
    assert 300 < good < 1_700
