"""What commands ask about a loss: its full name, its own parameters, whether it has a Hessian."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Collection, Iterable

import numpy as np

import fastloss as fl

from .._accumulate import NAMES, own_parameters
from ..registry import LOSSES, Loss
from . import CommandError
from ._cases import ordinary

__all__ = ["columns", "full_name", "has_hessian", "name_and_value", "own_parameters", "short_names", "shortest_name"]

# Those that are no more than the name without "_loss".
_SHORT = {
    "bce": "binary_cross_entropy_with_logits",
    "ce": "cross_entropy",
    "mae": "l1_loss",
    "kl": "kl_div",
    "js": "js_div",
}


def short_names() -> dict[str, str]:
    """Return short names of losses, and the full ones."""
    return {name.removesuffix("_loss"): name for name in NAMES} | _SHORT


def shortest_name(name: str) -> str:
    """Return the shortest name of a loss."""
    return min((short for short, full in short_names().items() if full == name), key=len, default=name)


def full_name(given: str, names: Collection[str] = LOSSES) -> str:
    """Return the name of one of the losses `names`, of which an alias or a short name may be given."""
    name = short_names().get(given, _own_name(given))
    if name in names:
        return name
    if name in NAMES:
        raise CommandError(
            f"{given!r} is a loss, but none of those that this command takes; choose from", columns(names)
        )
    near = _nearest(given, names)
    if near:
        raise CommandError(f"{given!r} is not a loss; did you mean {near}? (fastloss list shows all)")
    raise CommandError(f"{given!r} is not a loss; choose from", columns(names))


def _own_name(alias: str) -> str:
    """Return the name of a function that may have another one."""
    return getattr(getattr(fl, alias, None), "__name__", alias)


def _nearest(given: str, names: Collection[str]) -> str | None:
    """Return the loss that was probably meant."""
    known = {_letters(name): name for name in names}
    known |= {_letters(short): name for short, name in short_names().items() if name in names}
    known |= {_letters(alias): name for alias in fl.__all__ if (name := _own_name(alias)) in names}
    near = difflib.get_close_matches(_letters(given), known, 1, 0.7)
    return known[near[0]] if near else None


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower())).removesuffix("loss")


def columns(names: Iterable[str]) -> str:
    """Return names in columns, sorted downwards, as wide as the terminal but no more than 80."""
    names = sorted(names)
    width = max(map(len, names)) + 2
    count = max(1, (min(shutil.get_terminal_size().columns, 80) - 2) // width)
    rows = -(-len(names) // count)
    return "\n".join("  " + "".join(name.ljust(width) for name in names[row::rows]).rstrip() for row in range(rows))


def name_and_value(option: str, text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"{option} takes NAME=VALUE, got {text!r}")
    return name, value


def has_hessian(loss: Loss) -> bool:
    """Whether `grad_hess` takes the loss."""
    try:
        ordinary(loss, np.dtype(np.float64), 2)[0].hess("numpy")
    except TypeError:
        return False
    return True
