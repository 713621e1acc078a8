"""Draw losses: curves over the prediction, or the surface over a model's weights.

Loss, gradient and Hessian are drawn over the prediction for each target; several losses,
or one with a parameter given several times, share the axes. A kink of the loss is a dotted
line; where a quantity jumps, circles show the limits and a dot the value at the kink.

    plot huber_loss --params delta=0.5 delta=1 delta=2 -o huber.png
    plot bce_with_logits --x probability
    plot mse_loss l1_loss --sample 0.8 1 1.1 1.3 --outlier 6
    plot mse_loss l1_loss --surface
"""

from __future__ import annotations

import argparse
import ast
from itertools import product
from typing import TYPE_CHECKING, Any

from ..registry import LOSSES, Loss
from . import CommandError, check_folder, from_extra, one_line
from ._curves import curves
from ._losses import full_name, name_and_value, own_parameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DATA = ("auto", "breast_cancer", "diabetes")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("losses", metavar="LOSS", nargs="+", help="names as `list` prints them")
    parser.add_argument(
        "--params",
        metavar="NAME=VALUE",
        nargs="+",
        default=[],
        help="parameters, of the losses that have them; a name may come again with another value",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="PNG, SVG or PDF (default: the losses' names, .png)")
    over = parser.add_argument_group("curves")
    over.add_argument("--targets", metavar="Y", nargs="+", type=float, help="targets, or classes, to draw")
    over.add_argument("--range", metavar=("LOW", "HIGH"), nargs=2, type=float, help="ends of the horizontal axis")
    over.add_argument(
        "--x", choices=("prediction", "probability"), default="prediction", help="horizontal axis for losses of logits"
    )
    over.add_argument(
        "--sample", metavar="Y", nargs="+", type=float, help="mean loss of one prediction for all these targets"
    )
    over.add_argument("--outlier", metavar="Y", type=float, help="one more target of the sample: with it and without")
    surface = parser.add_argument_group("surface", "mean loss of a linear model and the path of gradient descent")
    surface.add_argument("--surface", metavar="DATA", nargs="?", const="auto", choices=_DATA, help=" or ".join(_DATA))
    surface.add_argument(
        "--features", metavar="NAME", nargs="+", help="one or two columns of the data, each with its weight"
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw the picture."""
    names = list(dict.fromkeys(map(full_name, arguments.losses)))
    variants = _variants(names, arguments.params)
    path = arguments.output or f"{'-'.join(names)}.png"
    check_folder(path)
    from_extra("plot", "matplotlib", "matplotlib", "plot")
    from ._drawing import save

    try:
        save(_figure(arguments, variants), path)
    except (TypeError, ValueError, IndexError, OSError) as error:
        raise CommandError(f"{path}: {one_line(error)}" if isinstance(error, OSError) else one_line(error)) from error
    print(f"picture: {path}")
    return 0


def _figure(arguments: argparse.Namespace, variants: list[tuple[Loss, dict[str, Any]]]) -> Figure:
    from . import _drawing

    if arguments.surface:
        from ._surface import surfaces

        return _drawing.surfaces(surfaces(variants, arguments.surface, arguments.features))
    if arguments.sample:
        return _drawing.sample(variants, arguments.sample, arguments.outlier)
    probability = arguments.x == "probability"
    drawn = [c for v in variants for c in curves(*v, arguments.targets, arguments.range, probability)]
    return _drawing.panels(drawn, probability)


def _variants(names: list[str], given: list[str]) -> list[tuple[Loss, dict[str, Any]]]:
    """Return each loss with each combination of the values given to its parameters."""
    values: dict[str, list[Any]] = {}
    for text in given:
        key, value = name_and_value("--params", text)
        if not any(key in own_parameters(name) for name in names):
            known = dict.fromkeys(key for name in names for key in own_parameters(name))
            raise CommandError(f"{', '.join(names)}: no parameter {key!r}; there are {', '.join(known) or 'none'}")
        values.setdefault(key, []).append(_value(value))
    found = []
    for name in names:
        own = {key: values[key] for key in values if key in own_parameters(name)}
        found += [(LOSSES[name], dict(zip(own, chosen, strict=True))) for chosen in product(*own.values())]
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # the name of an option, as in loss=mse
