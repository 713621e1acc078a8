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
    fl.show_config()
    print(f"{'platform':9s} {platform.platform()}")
    print(f"{'packages':9s} {', '.join(_described(name) for name in _DISTRIBUTIONS)}")
    return 0


def _described(distribution: str) -> str:
    # Read from the metadata: importing Numba to ask for its version takes a second.
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"{distribution} not installed"
    except Exception:  # metadata that can't be read
        return f"{distribution} of unknown version"
