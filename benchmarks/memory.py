"""Growth of the peak memory during one call, a process for each contender."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .contenders import CONTENDERS
from .headline import present
from .timing import Effort
from .works import Work

__all__ = ["measure"]

_LOSS, _SIZE = "binary_cross_entropy_with_logits", 10**7
_RESET = Path("/proc/self/clear_refs")


def measure(effort: Effort) -> dict[str, Any]:
    """Return bytes by contender, and the gradient's for comparison; empty where the system can't tell."""
    if not _RESET.exists():
        print("memory is left out: only Linux can reset the peak of a process", file=sys.stderr)
        return {}
    work = Work(_LOSS, "float32", (_SIZE,))  # always: what is freed of smaller arrays stays in the process
    names = list(present([name for name, contender in CONTENDERS.items() if contender.computes]))
    growth = {}
    for name in tqdm(names, desc="memory", unit="process", disable=None, leave=False):
        command = [sys.executable, "-m", __spec__.name, name]
        growth[name] = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return {"label": work.label, "gradient_bytes": 4 * _SIZE, "growth_bytes": growth}


def _grown(name: str) -> int:
    call = CONTENDERS[name].prepare(Work(_LOSS, "float32", (_SIZE,)), 1)
    assert call is not None
    call()  # what a first call compiles and keeps is not the call's
    gc.collect()
    _RESET.write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    result = call()
    grown = _status("VmHWM") - before
    del result
    return grown


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(_grown(sys.argv[1]))
