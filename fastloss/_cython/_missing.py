"""Why compiled kernels are not there, as far as it is known."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
import sys
import zipimport
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = "fastloss._cython"


def built(levels: Iterable[str]) -> list[str]:
    """The CPU levels that there are kernels of."""
    return [level for level in levels if importlib.util.find_spec(f"{_PACKAGE}.kernels_{level}") is not None]


def why(module: str, error: Exception) -> str:
    """Why one module cannot be imported: what follows on its name."""
    if not (isinstance(error, ModuleNotFoundError) and error.name == f"{_PACKAGE}.{module}"):
        return f"do not load: {type(error).__name__}: {error}"
    for line in _note("build_failed.txt").splitlines():
        name, colon, reason = line.partition(": ")
        if colon and name == module:
            return f"were not built: {reason}"
    return "were not built"


def why_none(error: Exception) -> str:
    """Why there are no kernels at all, and what to do."""
    if not (isinstance(error, ModuleNotFoundError) and error.name == f"{_PACKAGE}.cpu"):
        return f"the compiled kernels do not load: {type(error).__name__}: {error}"
    # Modules fail for the same reason where there is no compiler.
    lines = [re.sub(r"^(cpu|kernels_v\d): ", "", line) for line in _note("build_failed.txt").splitlines()]
    failed = " | ".join(dict.fromkeys(lines))
    if failed:
        return f"the build failed: {failed}; mend that and install fastloss again"
    if _note("build_disabled.txt"):
        return "it was installed with FASTLOSS_DISABLE_EXT=1; install fastloss again without it"
    if getattr(sys, "frozen", False):
        return "the compiled kernels are not in this frozen program"
    if isinstance(getattr(__spec__, "loader", None), zipimport.zipimporter):
        return "the package lies in an archive, and compiled modules cannot be loaded from one; unpack it into a folder"
    folder = Path(__file__).parent
    others = sorted(file.name for ending in ("so", "pyd") for file in folder.glob(f"cpu.*.{ending}"))
    if others:
        return f"the compiled kernels are for another Python ({others[0]}); install fastloss with this one"
    if (folder.parents[1] / "setup.py").exists() and (folder / "kernels.pxi").exists():
        return (
            f"the compiled kernels of this source tree have not been built; in {folder.parents[1]}: "
            "python -m pip install -e ."
        )
    return f"there are no compiled kernels in {folder}; to get them, install fastloss where there is a C compiler"


def _note(name: str) -> str:
    """What the build has left in the package."""
    try:
        return (pkgutil.get_data(_PACKAGE, name) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
