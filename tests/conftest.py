"""What every test may ask for: a backend, a loss, a float type; and which tests run.

The fixtures are of session scope because hypothesis wants them unchanged between its examples.
"""

import pytest
from cases import BACKENDS, COMPILED, ELEMENTWISE, FLOATS, LOSS_NAMES
from hypothesis import settings

import fastloss as fl
from fastloss.commands._ulp import worst_of

# Derandomized: a run that fails can be repeated. No deadline: Numba may be compiling.
settings.register_profile("fastloss", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("fastloss")


def pytest_collection_modifyitems(config, items):
    """Leave out the tests marked as slow unless -m names them."""
    if "slow" in (config.getoption("markexpr") or ""):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def pytest_collection_finish(session):
    """In a large run on several processes, each compiles one float type's Numba kernels for all of them."""
    worker = getattr(session.config, "workerinput", None)
    if worker is not None and "numba" in COMPILED and len(session.items) > 1000:
        first = int(worker["workerid"].removeprefix("gw")) % len(FLOATS)
        for dtype in (*FLOATS[first:], *FLOATS[:first]):
            fl.warmup(dtypes=[dtype], backend="numba")


@pytest.fixture(params=BACKENDS, scope="session")
def backend(request):
    return request.param


@pytest.fixture(params=COMPILED, scope="session")
def compiled(request):
    return request.param


@pytest.fixture
def both_compiled():
    """Skip where a run does without one of the compiled backends by its own choice."""
    if len(COMPILED) < 2:
        pytest.skip("FASTLOSS_TEST_BACKENDS leaves out a compiled backend")


@pytest.fixture(params=FLOATS, scope="session")
def dtype(request):
    return request.param


@pytest.fixture(params=LOSS_NAMES, scope="session")
def loss(request):
    return request.param


@pytest.fixture(params=ELEMENTWISE, scope="session")
def elementwise(request):
    return request.param


_worst: dict[str, float] = {}


@pytest.fixture
def within():
    """Checks a bound in ULP and keeps the worst error by name, for the table at the end of the run."""

    def check(name, actual, reference, bound, *inputs, size=0):
        error, place = worst_of(actual, reference, *inputs, size=size)
        _worst[name] = max(error, _worst.get(name, 0.0))
        assert error <= bound, f"{name}: {error:.3f} ULP {place}"

    return check


def pytest_terminal_summary(terminalreporter):
    if _worst:
        terminalreporter.section("worst errors in units in the last place")
        for name in sorted(_worst):
            terminalreporter.line(f"{_worst[name]:8.2f}  {name}")
