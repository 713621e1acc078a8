"""Print versions, backends, CPU level and threads, and why they were chosen."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import fastloss as fl

_DISTRIBUTIONS = ("numpy", "numba", "tqdm", "scikit-learn", "matplotlib")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print the facts that a bug report needs."""
    print(f"{'fastloss':<14}{fl.__version__}")
    print(f"{'python':<14}{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _DISTRIBUTIONS:
        print(f"{name:<14}{_version(name)}")
    print()
    fl.show_config()
    return 0


def _version(distribution: str) -> str:
    # Read from the metadata: importing Numba to ask for its version takes a second.
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
