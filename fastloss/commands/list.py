"""List the losses: family, target, Hessian, backends, accuracy bounds, parameters.

ULP are the promised largest errors of loss and gradient in units in the last place.
Backends are those that run here. A parameter shown without a value is off by default.
Commands take the short names too.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import fastloss as fl

from .._accumulate import NAMES
from ..registry import LOSSES
from ._losses import has_hessian, own_parameters, shortest_name

# What is made of other losses, or of sums over samples: family and target.
_OTHERS = {"rmse_loss": ("distance", "real"), "dice_loss": ("overlap", "unit"), "tversky_loss": ("overlap", "unit")}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the catalogue."""
    entries = [_entry(name) for name in NAMES]
    print(json.dumps(entries, indent=2) if arguments.json else _table(entries))
    return 0


def _entry(name: str) -> dict[str, Any]:
    function, loss = getattr(fl, name), LOSSES.get(name)
    family, target = (loss.family, loss.target) if loss else _OTHERS[name]
    return {
        "name": name,
        "aliases": [alias for alias in fl.__all__ if alias != name and getattr(fl, alias) is function],
        "short": shortest_name(name),
        "family": family,
        "target": target,
        "hessian": loss is not None and has_hessian(loss),
        "backends": list(fl.backends()),
        "loss_ulp": loss.loss_ulp if loss else None,
        "grad_ulp": loss.grad_ulp if loss else None,
        "ulp_growth": loss.growth if loss else {},
        "parameters": own_parameters(name),
    }


def _table(entries: list[dict[str, Any]]) -> str:
    rows = [("loss", "short", "family", "target", "Hessian", "backends", "ULP loss", "ULP grad", "parameters")]
    for e in entries:
        name = " = ".join([e["name"], *e["aliases"]])
        given = ", ".join(k if v is None else f"{k}={v!r}" for k, v in e["parameters"].items())
        ulp = LOSSES[e["name"]].bound_texts() if e["name"] in LOSSES else ("", "")
        hessian = "yes" if e["hessian"] else "no"
        rows.append((name, e["short"], e["family"], e["target"], hessian, ", ".join(e["backends"]), *ulp, given))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
