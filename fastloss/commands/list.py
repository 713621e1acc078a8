"""List the losses: family, target, Hessian, backends, accuracy bounds, parameters.

ULP are the promised largest errors of loss and gradient in units in the last place.
Backends are those that run here. A parameter shown without a value is off by default.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import fastloss as fl

from ..registry import LOSSES, Loss
from ._losses import has_hessian, own_parameters


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the catalogue."""
    entries = [_entry(loss) for loss in LOSSES.values()]
    print(json.dumps(entries, indent=2) if arguments.json else _table(entries))
    return 0


def _entry(loss: Loss) -> dict[str, Any]:
    function = getattr(fl, loss.name)
    return {
        "name": loss.name,
        "aliases": [name for name in fl.__all__ if name != loss.name and getattr(fl, name) is function],
        "family": loss.family,
        "target": loss.target,
        "hessian": has_hessian(loss),
        "backends": list(fl.backends()),
        "loss_ulp": loss.loss_ulp,
        "grad_ulp": loss.grad_ulp,
        "parameters": own_parameters(loss.name),
    }


def _table(entries: list[dict[str, Any]]) -> str:
    rows = [("loss", "family", "target", "Hessian", "backends", "ULP loss", "ULP grad", "parameters")]
    for e in entries:
        name = " = ".join([e["name"], *e["aliases"]])
        given = ", ".join(k if v is None else f"{k}={v!r}" for k, v in e["parameters"].items())
        ulp = (f"{e['loss_ulp']:g}", f"{e['grad_ulp']:g}")
        hessian = "yes" if e["hessian"] else "no"
        rows.append((name, e["family"], e["target"], hessian, ", ".join(e["backends"]), *ulp, given))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
