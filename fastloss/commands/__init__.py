"""The commands of the command line, one module each, and what they share."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from time import perf_counter
from types import ModuleType


class CommandError(Exception):
    """A mistake of the user's: its message is printed as one line, `below` after it; the exit status is 2."""

    def __init__(self, message: str, below: str = "") -> None:
        super().__init__(message)
        self.below = below


def from_extra(extra: str, module: str, distribution: str, purpose: str) -> ModuleType:
    """Import a module that an extra brings, or say in one line how to get it."""
    try:
        return import_module(module)
    except Exception as error:  # it may be there, and broken
        raise CommandError(
            f"{purpose} needs {distribution} ({one_line(error)}): python -m pip install {distribution.lower()}; "
            f"the extra [{extra}] has it"
        ) from error


@contextmanager
def progress_bar(total: int, unit: str, label: str) -> Iterator[Callable[[int], object]]:
    """Show progress on a terminal's stderr, as a bar if tqdm is installed; gives the function that advances it."""
    # Not in log files and pipes, where stderr is for errors only.
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    label, width = label[:20], min(80, shutil.get_terminal_size().columns)
    try:
        from tqdm import tqdm
    except ImportError:
        with _progress_line(total, unit, label, width) as advance:
            yield advance
        return
    with tqdm(
        total=total, desc=label, unit=unit, unit_scale=total > 9999, leave=False, ncols=width, file=sys.stderr
    ) as bar:
        yield bar.update


@contextmanager
def _progress_line(total: int, unit: str, label: str, width: int) -> Iterator[Callable[[int], object]]:
    """Write over one line, a few times a second, and clear it in the end."""
    finished, shown = 0, -math.inf

    def advance(done: int) -> None:
        nonlocal finished, shown
        finished += done
        if perf_counter() - shown > 0.2:
            shown = perf_counter()
            text = f"{label}: {finished} of {total} {unit.strip()} ({finished / max(1, total):.0%})"
            sys.stderr.write("\r" + text[: width - 1].ljust(width - 1))
            sys.stderr.flush()

    advance(0)
    try:
        yield advance
    finally:
        sys.stderr.write("\r" + " " * (width - 1) + "\r")
        sys.stderr.flush()


def positive_int(text: str) -> int:
    """Parse an argument that must be a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return number


def add_backend_argument(parser: argparse.ArgumentParser, default: str = "the best available") -> None:
    """Add ``--backend``, whose values mean the same in every command."""
    parser.add_argument("--backend", metavar="B", help=f"cython, numba or numpy (default: {default})")


def one_line(error: BaseException) -> str:
    """Return an exception's message without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """Return a text in which what is no printable character is escaped: it stays one line, whatever a file's name."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
