"""How many threads a call may use, and the pool for kernels that bring none of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

__all__ = ["choose", "describe", "get_num_threads", "set_num_threads", "split"]

_limit: tuple[int, str] | None = None  # threads and the reason for that number, found on first use
_forked = False  # OpenMP's threads do not survive fork: a child works on one
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()
_MOST = 256  # more threads than this are never started
_SPAN = 1 << 23  # elements between two looks at pending signals, per thread if blocks are longer


def _cgroup_quota() -> float | None:
    """CPUs granted by the control group (version 2 or 1) or None."""
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2: the tightest of the group and its parents
                folder = Path("/sys/fs/cgroup" + path)
                found = []
                for place in (folder, *folder.parents):
                    file = place / "cpu.max"
                    if file.exists():
                        quota, period = file.read_text().split()
                        if quota != "max":
                            found.append(int(quota) / int(period))
                if found:
                    return min(found)
            elif "cpu" in controllers.split(","):
                for place in (Path("/sys/fs/cgroup/cpu" + path), Path("/sys/fs/cgroup/cpu")):
                    file = place / "cpu.cfs_quota_us"
                    if file.exists():
                        granted = int(file.read_text())
                        return granted / int((place / "cpu.cfs_period_us").read_text()) if granted > 0 else None
    except (OSError, ValueError):
        pass
    return None


def _find_limit() -> tuple[int, str]:
    for variable in ("FASTLOSS_NUM_THREADS", "OMP_NUM_THREADS"):
        # OMP_NUM_THREADS may be a list, one number per nesting level.
        text = os.environ.get(variable, "").split(",")[0].strip()
        if text.isdigit() and int(text) > 0:
            return int(text), f"{variable}={text}"
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
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"{name} must be an integer, got {type(n).__name__}")
    if n < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")
    return min(int(n), _MOST)


def describe() -> str:
    """The number of threads and where it comes from."""
    n = get_num_threads()
    assert _limit is not None
    return f"{n} ({_limit[1]})" + (", 1 in this forked process" if _forked else "")


def choose(n_threads: int | None, work: int, grain: int, survives_fork: bool) -> int:
    """Threads for a call of ``work`` units of which ``grain`` are worth a thread of their own."""
    wanted = None if n_threads is None else check(n_threads)
    if _forked and not survives_fork:
        return 1
    if wanted is not None:
        return wanted
    if work < 2 * grain:
        return 1
    return min(get_num_threads(), work // grain)


def split(call: Callable[[int, int], bool], blocks: int, size: int, threads: int) -> bool:
    """Run ``call(first, last)`` over all blocks, ``size`` elements each, on ``threads`` threads, the caller's too."""
    threads = max(1, threads)
    span = -(-_SPAN // (size * threads)) * threads  # whole rounds of blocks
    if threads == 1 and blocks <= span:
        return call(0, blocks)
    bad = False
    # In spans, so that Ctrl-C is seen between them.
    for start in range(0, blocks, span):
        stop = min(start + span, blocks)
        pieces = min(stop - start, threads)
        bounds = [start + (stop - start) * k // pieces for k in range(pieces + 1)]
        others = [_submit(call, bounds[k], bounds[k + 1], pieces) for k in range(1, pieces)]
        bad |= call(bounds[0], bounds[1])
        for other in others:
            bad |= other.result()
    return bad


def _submit(call: Callable[[int, int], bool], first: int, last: int, threads: int) -> Future[bool]:
    global _pool
    with _pool_lock:
        if _pool is None or _pool._max_workers < threads - 1:
            # A pool that was too small is left to finish what it has; its idle threads end with it.
            _pool = ThreadPoolExecutor(max(threads, get_num_threads()) - 1, thread_name_prefix="fastloss")
        return _pool.submit(call, first, last)


def _after_fork() -> None:
    global _forked, _pool, _pool_lock
    _forked = True
    _pool = None
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
