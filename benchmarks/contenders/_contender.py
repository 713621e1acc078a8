"""What a contender is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import fastloss as fl

from ..works import Work

__all__ = ["Call", "Contender", "Prepare"]

Call = Callable[[], tuple[Any, ...]]
Prepare = Callable[[Work, int], Call | None]

_NEEDS = {"backend": "fastloss's backend {}", "compiler": "the C++ compiler {}"}


@dataclass(frozen=True)
class Contender:
    """One way to compute a loss and its gradient.

    Attributes
    ----------
    name, label : str
        In ids and results, and in tables.
    needs : tuple of str
        Modules to be installed, fastloss's backend as ``"backend:NAME"``, a compiler as ``"compiler:NAME"``.
    prepare : callable
        ``prepare(work, threads)`` returns the callable, or None.
    reduces : bool
        False: losses and gradients are per sample, neither averaged nor divided.
    computes : bool
        False: it moves the same memory and returns nothing to check.
    column : bool
        Whether it has a column in the table of all works.
    """

    name: str
    label: str
    needs: tuple[str, ...]
    prepare: Prepare
    reduces: bool = True
    computes: bool = True
    column: bool = True

    def missing(self) -> list[str]:
        """What has to be installed first."""
        return [_spelled(need) for need in self.needs if not _installed(need)]


@cache
def _installed(need: str) -> bool:
    kind, _, name = need.rpartition(":")
    if kind == "backend":
        return name in fl.backends()
    if kind == "compiler":
        return _runs(os.environ.get("CXX", name))
    return importlib.util.find_spec(name) is not None


def _runs(compiler: str) -> bool:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _spelled(need: str) -> str:
    kind, _, name = need.rpartition(":")
    return _NEEDS.get(kind, "{}").format(name)
