"""What a call costs where it gets one core only, by its own choice of threads against one thread asked for.

``python tools/one_core.py`` prints ratios of medians, the two interleaved: 1.00 is no slow-down, the promise is 1.10.
Cases: the process pinned to one CPU, one thread by the environment, and a control group quota of one CPU where such a
group can be made (as root).
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 31


def measure() -> dict[str, float]:
    """Ratio of the time of a default call to one on one thread, by backend and size."""
    import numpy as np

    import fastloss as fl

    ratios = {}
    for backend in ("cython", "numba"):
        if backend not in fl.backends():
            continue
        for n in (1_000, 100_000, 3_000_000):
            x = np.linspace(-3, 3, n, dtype=np.float32)
            y, out, repeats = (x > 0).astype(np.float32), np.empty_like(x), max(1, 200_000 // n)
            times: dict[int | None, list[float]] = {None: [], 1: []}
            for _ in range(ROUNDS + 3):
                for n_threads, found in times.items():
                    start = time.perf_counter()
                    for _ in range(repeats):
                        fl.bce_with_logits(x, y, out=out, backend=backend, n_threads=n_threads)
                    found.append(time.perf_counter() - start)
            ratios[f"{backend} {n}"] = statistics.median(times[None][3:]) / statistics.median(times[1][3:])
    return ratios


def quota_group() -> Path | None:
    """A new control group that may use one CPU, or None."""
    root, old = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")
    if (root / "cgroup.controllers").exists():
        group, limits = root / "fastloss-one-core", {"cpu.max": "100000 100000"}
    elif (old / "cpu.cfs_quota_us").exists() or (old / "cgroup.procs").exists():
        group, limits = old / "fastloss-one-core", {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}
    else:
        return None
    try:
        group.mkdir(exist_ok=True)
        for name, value in limits.items():
            (group / name).write_text(value, encoding="utf-8")
    except OSError:
        return None
    return group


def run(title: str, prepare=None, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, "--measure"],
        env=os.environ | variables, preexec_fn=prepare, capture_output=True, text=True, check=True,
    )  # fmt: skip
    ratios = json.loads(done.stdout)
    print(f"{title:28s} " + "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()), flush=True)


def threads_in(group: Path) -> str:
    """What a process in the group takes for its number of threads."""
    code = "import fastloss as fl; print(fl.get_num_threads())"
    enter = lambda: (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=enter, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    run("all that there is")
    run("OMP_NUM_THREADS=1", OMP_NUM_THREADS="1")
    if hasattr(os, "sched_setaffinity"):
        cpu = {max(os.sched_getaffinity(0))}
        run("pinned to one CPU", lambda: os.sched_setaffinity(0, cpu))
    group = quota_group()
    if group is None:
        print("no control group with a quota can be made here")
        return
    print(f"threads with the quota: {threads_in(group)}")
    try:
        run("a quota of one CPU", lambda: (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8"))
    finally:
        group.rmdir()


if __name__ == "__main__":
    if "--measure" in sys.argv:
        print(json.dumps(measure()))
    else:
        main()
