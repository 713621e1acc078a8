"""How many threads a call may use."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from time import perf_counter

from fastloss import _environment

__all__ = [
    "FINER", "GRAIN", "PATIENCE", "SPAN", "choose", "describe", "ended", "get_num_threads", "set_num_threads",
]  # fmt: skip

_limit: tuple[int, str] | None = None  # threads and the reason for that number, found on first use
_MOST = 256  # more threads than this are never used
SPAN = 1 << 20  # elements that are worked on without a look at pending signals
GRAIN = 2**18  # elements that are worth a thread that has to be woken
FINER = 16  # so many times less work is worth a thread that is awake
PATIENCE = 300  # looks, a fraction of a microsecond each, for more work before a thread goes to sleep
_SOON = 75e-6  # seconds that those take
_STREAK = 8  # calls in a row after which the next is expected soon, and threads stay awake for it
_last_end = 0.0  # of a call that threads may have been worth
_streak = 0  # of such calls, one soon after the other


def _cgroup_quota() -> float | None:
    """CPUs granted by the control group (version 2 or 1) or None."""
    try:
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2: the tightest of the group and its parents
                folder = Path("/sys/fs/cgroup" + path)
                found = []
                for place in (folder, *folder.parents):
                    file = place / "cpu.max"
                    if file.exists():
                        quota, period = file.read_text(encoding="utf-8").split()
                        if quota != "max":
                            found.append(int(quota) / int(period))
                if found:
                    return min(found)
            elif "cpu" in controllers.split(","):
                for place in (Path("/sys/fs/cgroup/cpu" + path), Path("/sys/fs/cgroup/cpu")):
                    file = place / "cpu.cfs_quota_us"
                    if file.exists():
                        granted = int(file.read_text(encoding="utf-8"))
                        if granted <= 0:
                            return None
                        return granted / int((place / "cpu.cfs_period_us").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    return None


def _find_limit() -> tuple[int, str]:
    asked = _environment.threads()
    if asked is not None:
        return min(asked, _MOST), f"FASTLOSS_NUM_THREADS={asked}"
    # Not ours, so what it cannot mean is left to others. It may be a list, one number per nesting level.
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    number = _environment.positive(text)
    if number is not None:
        return min(number, _MOST), f"OMP_NUM_THREADS={number}"
    cores, reason = os.cpu_count() or 1, "cores of the machine"
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
        if usable < cores:
            cores, reason = usable, "CPU affinity"
    quota = _cgroup_quota()
    if quota is not None and quota < cores:
        cores, reason = max(1, int(quota)), f"control group quota of {quota:g} CPUs"
    return cores, reason


def get_num_threads() -> int:
    """Return the largest number of threads that a call uses.

    Returns
    -------
    int
        What :func:`set_num_threads` set; else ``FASTLOSS_NUM_THREADS`` or ``OMP_NUM_THREADS``; else the
        number of CPUs that affinity and control group quota leave to the process. Small work uses fewer.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.get_num_threads() >= 1
    True
    """
    global _limit
    if _limit is None:
        _limit = _find_limit()
    return _limit[0]


def set_num_threads(n: int) -> None:
    """Set the largest number of threads that a call uses, for the whole process.

    Parameters
    ----------
    n : int
        At least 1. Results do not depend on it: every loss has the same bits for any number of threads.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is not an integer of at least 1.

    Examples
    --------
    >>> import fastloss as fl
    >>> before = fl.get_num_threads()
    >>> fl.set_num_threads(1)
    >>> fl.get_num_threads()
    1
    >>> fl.set_num_threads(before)
    """
    global _limit
    _limit = (check(n, "n"), "set_num_threads()")


def check(n: int, name: str = "n_threads") -> int:
    """Return a number of threads or raise."""
    try:
        number = None if isinstance(n, bool) else operator.index(n)
    except TypeError:  # a float, an array
        number = None
    if number is None:
        raise TypeError(f"{name} must be an integer, got {type(n).__name__}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")
    return min(number, _MOST)


def describe() -> str:
    """The number of threads and where it comes from."""
    n = get_num_threads()
    assert _limit is not None
    return f"{n} ({_limit[1]})"


def choose(n_threads: int | None, work: int, grain: int) -> int:
    """Threads for a call of ``work`` units of which ``grain`` are worth a thread that has to be woken."""
    if n_threads is not None:
        return check(n_threads)
    if FINER * work < 2 * grain:
        return 1
    global _streak
    _streak = _streak + 1 if perf_counter() - _last_end < _SOON else 0
    if _streak >= _STREAK:
        grain //= FINER
    return 1 if work < 2 * grain else min(get_num_threads(), work // grain)


def ended() -> None:
    """Note that a call ends that threads may have been worth."""
    global _last_end
    _last_end = perf_counter()
