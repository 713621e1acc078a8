"""Time losses beside PyTorch, JAX, scikit-learn, NumPy and Numba.

A short form of `python -m benchmarks.run`, to be run in a clone of the repository,
which holds the benchmarks. Contenders take turns, and before they are timed their
results are compared. What is not installed is left out with a message.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from . import CommandError, positive_int, printable
from ._pictures import check_picture

_BACKENDS = ("cython", "numba")
_TABLE_LOSSES = ("bce", "huber", "ce", "td")
_PLOT_LOSSES = ("bce", "ce")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--losses",
        metavar="LOSS",
        nargs="+",
        help=f"full or short names (default: {' '.join(_TABLE_LOSSES)}, with --plot {' '.join(_PLOT_LOSSES)})",
    )
    parser.add_argument("--threads", metavar="N", type=positive_int, default=1, help="of every contender (default: 1)")
    parser.add_argument("--backend", metavar="B", choices=_BACKENDS, help="cython or numba (default: both)")
    parser.add_argument("--plot", metavar="FILE", help="sweep over sizes and draw time per element, some minutes")


def run(arguments: argparse.Namespace) -> int:
    """Time, print the table, and draw."""
    if not Path("benchmarks", "short.py").is_file():
        raise CommandError(
            "the benchmarks are not part of an installed fastloss: clone its repository with git and run this in there"
        )
    short, headline, agreement = _module("short"), _module("headline"), _module("agreement")
    drawn = arguments.plot is not None
    losses = _losses(arguments.losses or (_PLOT_LOSSES if drawn else _TABLE_LOSSES), short.losses())
    if drawn:
        picture = _module("picture")
        check_picture(arguments.plot, "plot", "bench --plot")
    works, effort = (short.curve(losses), short.CURVE_EFFORT) if drawn else (short.table(losses), short.TABLE_EFFORT)
    contenders = _contenders(headline, arguments.backend)
    try:
        timed = headline.measure(works, contenders, arguments.threads, effort)
    except agreement.Disagreement as error:
        print(f"fastloss bench: {error}", file=sys.stderr)
        return 1
    results = _module("machine").circumstances()
    results |= {"threads": arguments.threads, "rounds": effort.rounds, "works": timed}
    tables = _module("tables")
    print(f"{tables.circumstances(results)}\n\n{tables.works(results)}")
    if drawn:
        picture.draw(results, Path(arguments.plot))
        print(f"\npicture: {printable(arguments.plot)}")
    return 0


def _module(name: str) -> ModuleType:
    """Import a module of the benchmarks in the current folder."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)  # the installed script has its own folder there
    try:
        return import_module(f"benchmarks.{name}")
    except ImportError as error:
        raise CommandError(f'bench needs more packages ({error}): python -m pip install -e ".[bench]"') from error


def _losses(names: list[str] | tuple[str, ...], known: dict[str, str]) -> list[str]:
    """Return full names, each once."""
    for name in names:
        if name not in known and name not in known.values():
            raise CommandError(f"--losses must be some of {', '.join(known)}, got {name!r}")
    return list(dict.fromkeys(known.get(name, name) for name in names))


def _contenders(headline: ModuleType, backend: str | None) -> dict[str, Any]:
    """Return those that are installed; of fastloss's backends, the one that was asked for must be."""
    others = [f"fastloss-{other}" for other in _BACKENDS if backend and other != backend]
    found = headline.present(but=others)
    if backend and f"fastloss-{backend}" not in found:
        raise CommandError(f"backend {backend!r} is not available: python -m fastloss info says why")
    return {name: contender for name, contender in found.items() if contender.column}
