"""How many threads a call may use, and the pool that helps the calling one."""

from __future__ import annotations

import itertools
import operator
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from fastloss import _environment

__all__ = ["GRAIN", "choose", "describe", "get_num_threads", "set_num_threads", "split", "submit"]

_limit: tuple[int, str] | None = None  # threads and the reason for that number, found on first use
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()
_PATIENCE = 100  # times that the caller yields before it goes to sleep
_MOST = 256  # more threads than this are never started
_SPAN = 1 << 23  # elements between two looks at pending signals
GRAIN = 2**18  # elements that are worth a thread of their own: waking one of the pool's takes 60 to 90 µs


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
    """Threads for a call of ``work`` units of which ``grain`` are worth a thread of their own."""
    if n_threads is not None:
        return check(n_threads)
    if work < 2 * grain:
        return 1
    return min(get_num_threads(), work // grain)


def split(call: Callable[[int, int], bool], blocks: int, size: int, threads: int) -> bool:
    """Run ``call(first, last)`` over all blocks, ``size`` elements each, on ``threads`` threads, the caller's too.

    Pieces are claimed one after the other, so a thread that comes late, or whose core is busy elsewhere, does not
    hold up the call: the others have done its share, and one that has not begun by then is not waited for.
    """
    if threads <= 1 and blocks * size <= _SPAN:
        return call(0, blocks)
    pieces = min(blocks, max(-(-blocks * size // _SPAN), 8 * threads if threads > 1 else 1))
    claims = itertools.count()

    def work() -> bool:
        bad = False
        while (k := next(claims)) < pieces:  # Ctrl-C is seen between pieces
            bad |= call(blocks * k // pieces, blocks * (k + 1) // pieces)
        return bad

    others = [submit(work, threads) for _ in range(min(threads, pieces) - 1)]
    try:
        bad = work()
    finally:
        pieces = 0
        _finish(others)
    return any([bad, *(other.result() for other in others if not other.cancelled())])


def _finish(others: list[Future[bool]]) -> None:
    """Wait for those that have begun: the memory they work on must outlive them, also if Ctrl-C is pressed twice."""
    interrupt: BaseException | None = None
    for other in others:
        for _ in range(_PATIENCE):
            if other.cancel() or other.done():
                break
            time.sleep(0)  # a piece is short: to fall asleep and be woken takes longer
        while not other.cancel() and not other.done():
            try:
                other.exception()
            except BaseException as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def submit(work: Callable[[], bool], threads: int) -> Future[bool]:
    """Have one of the pool's threads, at least ``threads - 1``, call ``work``."""
    global _pool
    with _pool_lock:
        if _pool is None or _pool._max_workers < threads - 1:
            # A pool that was too small is left to finish what it has; its idle threads end with it.
            _pool = ThreadPoolExecutor(max(threads, get_num_threads()) - 1, thread_name_prefix="fastloss")
        try:
            return _pool.submit(work)
        except RuntimeError:  # no thread can be started: a limit is reached, or the interpreter is ending
            future: Future[bool] = Future()
            future.cancel()
            return future  # the caller does all of it


def _after_fork() -> None:
    global _pool, _pool_lock
    _pool = None  # its threads are the parent's
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
