"""Contenders on works: checked, then timed side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from .agreement import Disagreement, disagreement, expected
from .contenders import BASELINE, CONTENDERS, Contender
from .timing import Effort, interleaved
from .works import Work

__all__ = ["measure", "present"]


def present(names: Iterable[str] = tuple(CONTENDERS), but: Iterable[str] = ()) -> dict[str, Contender]:
    """Return the contenders that are installed; says which are not."""
    found = {}
    for name in [name for name in names if name not in set(but)]:
        if missing := CONTENDERS[name].missing():
            print(f"{name} is left out: {', '.join(missing)} is not installed", file=sys.stderr)
        else:
            found[name] = CONTENDERS[name]
    return found


def measure(works: list[Work], contenders: dict[str, Contender], threads: int, effort: Effort) -> list[dict[str, Any]]:
    """Check and time works; returns an entry for each.

    Raises
    ------
    Disagreement
        If a contender computes other numbers than NumPy in float64.
    """
    timed = []
    with tqdm(total=len(works) * effort.rounds, unit="round", disable=None, leave=False) as bar:
        for work in works:
            bar.set_description(work.name)
            calls = {n: call for n, c in contenders.items() if (call := c.prepare(work, threads)) is not None}
            _check(work, {name: call for name, call in calls.items() if contenders[name].computes}, contenders)
            timings = interleaved(calls, effort, threads, bar.update)
            base = timings.get(BASELINE)
            for timing in timings.values():
                timing["ratio"] = timing["median_seconds"] / base["median_seconds"] if base else None
            timed.append(_facts(work) | {"contenders": timings})
    return timed


def _check(work: Work, calls: dict[str, Any], contenders: dict[str, Contender]) -> None:
    truth = expected(work)
    for name, call in calls.items():
        result = call()
        if truth is not None and (problem := disagreement(work, contenders[name], result, truth)):
            raise Disagreement(f"{work.name}: contenders disagree: {problem}")


def _facts(work: Work) -> dict[str, Any]:
    unit, count = work.unit
    return {
        "name": work.name,
        "label": work.label,
        "loss": work.loss,
        "size": work.size,
        "unit": unit,
        "units_per_call": count,
        "bytes_per_call": work.traffic,
    }
