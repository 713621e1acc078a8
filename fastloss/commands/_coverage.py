"""What a self-test has tested here, what it has not, and why."""

from __future__ import annotations

from collections.abc import Collection

import fastloss as fl

from .. import _dispatch

_BACKENDS = ("cython", "numba", "numpy")


def report(tested: Collection[str], again: str, why_others: str) -> None:
    """Print which backends and CPU levels were tested, and which were not and why.

    Parameters
    ----------
    tested : collection of str
        Names of backends.
    again : str
        The command that tests another CPU level.
    why_others : str
        Why a backend that runs here was not tested.
    """
    left = [(name, why_others if name in fl.backends() else _dispatch.status(name)) for name in _BACKENDS]
    left = [(name, why) for name, why in left if name not in tested]
    if "cython" in tested:
        left += [(f"cython, CPU level {level}", why) for level, why in _other_levels(again)]
    for title, lines in (("tested", [(name, _dispatch.status(name)) for name in tested]), ("not tested", left)):
        if lines:
            print(f"{title}:")
        for name, text in lines:
            print(f"  {name}: {text}")
    if fl.backends() == ("numpy",):
        print("WARNING: no compiled backend runs here, so losses are computed by NumPy, several times as slowly")


def _other_levels(again: str) -> list[tuple[str, str]]:
    from .. import _cython
    from .._cython import _missing, cpu

    built, found = _missing.built(_cython.LEVELS.values()), []
    for number, level in _cython.LEVELS.items():
        if level == _cython.level:
            continue
        if number > cpu.level():
            why = "this CPU does not have it"
        elif level not in built:
            missing = ModuleNotFoundError(name=f"{_cython.__name__}.kernels_{level}")
            why = f"its kernels {_missing.why(f'kernels_{level}', missing)}"
        elif level in _cython._passed:
            why = f"its kernels {_cython._passed[level]}"
        else:
            why = f"FASTLOSS_CPU={level} {again} tests it"
        found.append((level, why))
    return found
