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

import numpy as np

from ..registry import LOSSES, Loss
from . import CommandError, one_line, printable
from ._curves import curves
from ._losses import full_name, name_and_value, own_parameters
from ._pictures import check_picture, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DATA = ("auto", "breast_cancer", "diabetes")
# Far beyond it, axes and their ticks overflow.
_LARGEST = 1e100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("losses", metavar="LOSS", nargs="+", help="names as `list` prints them")
    parser.add_argument(
        "--params",
        "--param",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="parameters, of the losses that have them; a name that comes again with another value is another curve",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="its ending names the format, PNG without (default: the losses' names, .png)",
    )
    over = parser.add_argument_group("curves")
    over.add_argument("--targets", metavar="Y", nargs="+", type=_number, help="targets, or classes, to draw")
    over.add_argument("--range", metavar=("LOW", "HIGH"), nargs=2, type=_number, help="ends of the horizontal axis")
    over.add_argument(
        "--x", choices=("prediction", "probability"), help="horizontal axis for losses of logits (default: prediction)"
    )
    over.add_argument(
        "--sample", metavar="Y", nargs="+", type=_number, help="mean loss of one prediction for all these targets"
    )
    over.add_argument("--outlier", metavar="Y", type=_number, help="one more target of the sample: with it and without")
    surface = parser.add_argument_group("surface", "mean loss of a linear model and the path of gradient descent")
    surface.add_argument("--surface", metavar="DATA", nargs="?", const="auto", choices=_DATA, help=" or ".join(_DATA))
    surface.add_argument(
        "--features", metavar="NAME", nargs="+", help="one or two columns of the data, each with its weight"
    )


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) <= _LARGEST:
        raise argparse.ArgumentTypeError(f"must be a number, at most {_LARGEST:g} in magnitude, got {text!r}")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Draw the picture."""
    _check_options(arguments)
    names = list(dict.fromkeys(map(full_name, arguments.losses)))
    variants = _variants(names, arguments.params)
    path = _default_name(names) if arguments.output is None else arguments.output
    check_picture(path, "plot", "plot")
    try:
        with np.errstate(all="ignore"):
            figure = _figure(arguments, variants)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise CommandError(one_line(error)) from error
    save(figure, path)
    print(f"picture: {printable(path)}")
    return 0


def _default_name(losses: list[str]) -> str:
    # Of many losses, all names would be too long for a file's.
    return f"{'-'.join(losses)}.png" if len(losses) < 5 else f"{losses[0]}-and-{len(losses) - 1}-more.png"


def _check_options(arguments: argparse.Namespace) -> None:
    """Raise an error for an option that would do nothing beside the others, or without one."""
    curves = ("targets", "range", "x")
    for chosen, others in (("sample", (*curves, "surface")), ("surface", curves)):
        for option in others:
            if getattr(arguments, chosen) and getattr(arguments, option) is not None:
                raise CommandError(f"--{option} does not go with --{chosen}")
    for option, other in (("outlier", "sample"), ("features", "surface")):
        if getattr(arguments, option) is not None and getattr(arguments, other) is None:
            raise CommandError(f"--{option} needs --{other}")


def _figure(arguments: argparse.Namespace, variants: list[tuple[Loss, dict[str, Any]]]) -> Figure:
    from . import _drawing

    if arguments.surface:
        from ._surface import surfaces

        return _drawing.surfaces(surfaces(variants, arguments.surface, arguments.features))
    if arguments.sample:
        return _drawing.sample(variants, arguments.sample, arguments.outlier)
    return _drawing.panels(curves(variants, arguments.targets, arguments.range, arguments.x == "probability"))


def _variants(names: list[str], given: list[str]) -> list[tuple[Loss, dict[str, Any]]]:
    """Return each loss with each combination of the values given to its parameters."""
    values: dict[str, list[Any]] = {}
    for text in given:
        key, value = name_and_value("--params", text)
        if not any(key in own_parameters(name) for name in names):
            known = dict.fromkeys(key for name in names for key in own_parameters(name))
            raise CommandError(f"{', '.join(names)}: no parameter {key!r}; there are {', '.join(known) or 'none'}")
        chosen = values.setdefault(key, [])
        if _value(value) in chosen:
            raise CommandError(f"--params {text} is given twice")
        chosen.append(_value(value))
    found = []
    for name in names:
        own = {key: values[key] for key in values if key in own_parameters(name)}
        found += [(LOSSES[name], dict(zip(own, chosen, strict=True))) for chosen in product(*own.values())]
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text  # the name of an option, as in loss=mse
