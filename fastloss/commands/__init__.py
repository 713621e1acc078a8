"""The commands of the command line, one module each, and what they share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


class CommandError(Exception):
    """A mistake of the user's: its message is printed as one line, and the exit status is 2."""


def from_extra(extra: str, module: str, distribution: str, purpose: str) -> ModuleType:
    """Import a module that an extra brings, or say in one line how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise CommandError(
            f'{purpose} needs {distribution} ({error}): python -m pip install "fastloss[{extra}]"'
        ) from error


def check_folder(path: str) -> None:
    """Raise an error if the folder of a file to be written is missing: found out before the work, not after it."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise CommandError(f"{path}: there is no folder {folder}")


@contextmanager
def progress_bar(total: int, unit: str, label: str) -> Iterator[Callable[[int], object]]:
    """Show progress on a terminal's stderr, if tqdm is installed; gives the function that advances it."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None:
        yield lambda done: None
        return
    # disable=None: no bar in log files and pipes, where stderr is for errors only.
    style = {"unit": unit, "unit_scale": total > 9999, "leave": False, "disable": None, "file": sys.stderr}
    with tqdm(total=total, desc=label, **style) as bar:
        yield bar.update


def positive_int(text: str) -> int:
    """Parse an argument that must be a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return number


def add_backend_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--backend``, which means the same in every command."""
    parser.add_argument("--backend", metavar="B", help="cython, numba or numpy (default: the best available)")


def one_line(error: BaseException) -> str:
    """Return an exception's message without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
