"""Write docs/losses.md and its pictures: ``python -m tools.losses_doc``.

The words are those of the public docstrings, the facts those of the registry. ``--check`` writes nothing and
fails if the page differs; pictures are compared where the same matplotlib drew them.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import re
import sys
import tempfile
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import fastloss as fl
from fastloss import cli
from fastloss.commands._curves import axis_label
from fastloss.commands._losses import has_hessian, own_parameters
from fastloss.registry import LOSSES, Loss

__all__ = ["page", "picture"]

_ROOT = Path(__file__).resolve().parents[1]
_DOCS = _ROOT / "docs"
_IMAGES = _DOCS / "images"
# Pictures of README and of this page's head, with the arguments of `plot` that draw them.
_SHOWN = {
    "distances.svg": ["mse_loss", "l1_loss", "huber_loss"],
    "probability.svg": ["bce_with_logits", "--x", "probability"],
    "outlier.svg": ["mse_loss", "l1_loss", "huber_loss", "--sample", "0.8", "1", "1.1", "1.3", "--outlier", "4"],
    "surface.svg": ["bce_with_logits", "--surface"],
}
_TARGETS = {
    "real": "any number",
    "unit": "in [0, 1]",
    "binary": "0 or 1",
    "sign": "-1 or 1, or 0 or 1",
    "above_minus_one": "above -1",
    "class": "class index",
    "action": "action index",
}
_INTRODUCTION = """# The losses

Written by `python -m tools.losses_doc` from the docstrings and the registry; edit those.

Every loss also takes `sample_weight`, `mask`, `reduction`, `normalizer`, `grad`, `out`, `n_threads` and `backend`;
the formulas are those of one entry, before weights and reduction. ULP are units in the last place: the largest errors
that the tests allow, over the whole domain. In the pictures a dotted line marks a kink, circles the limits of a jump,
a dot the value there; `python -m fastloss plot LOSS` draws them with other parameters.
"""
_STORIES = """Squared error follows an outlier, absolute error hardly moves
(`python -m fastloss plot mse_loss l1_loss huber_loss --sample 0.8 1 1.1 1.3 --outlier 4`):

![Mean losses with and without an outlier](images/outlier.svg)

The surface over the weights of a model, here of logistic regression on scikit-learn's breast cancer data
(`python -m fastloss plot bce_with_logits --surface`):

![Mean binary cross-entropy over two weights, with the path of gradient descent](images/surface.svg)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.losses_doc", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    drawn = {_IMAGES / name: given for name, given in _SHOWN.items()}
    drawn |= {_picture_file(loss): [loss.name, *_variants(loss)] for loss in LOSSES.values()}
    files = {_DOCS / "losses.md": page()} | {path: picture(given) for path, given in drawn.items()}
    stale = [
        path for path, text in files.items() if not path.is_file() or _differs(path.read_text(encoding="utf-8"), text)
    ]
    left = sorted({*(_IMAGES / "losses").iterdir()} - files.keys()) if (_IMAGES / "losses").is_dir() else []
    if check:
        for path in [*stale, *left]:
            print(f"{path.relative_to(_ROOT)} is out of date: run python -m tools.losses_doc", file=sys.stderr)
        return int(bool(stale or left))
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
    for path in left:
        path.unlink()
    return 0


def page() -> str:
    """Return the text of docs/losses.md."""
    fields = {
        field: list(losses)
        for field, losses in groupby(sorted(LOSSES.values(), key=_field), key=_field)  # sorted keeps the order within
    }
    rows = ["| loss | | target | Hessian | ULP, loss | ULP, gradient |", "|---|---|---|---|---:|---:|"]
    sections = []
    for field, losses in fields.items():
        sections.append(f"## {_title(field)}\n")
        for loss in losses:
            doc = _docstring(loss.name)
            rows.append(
                f"| [`{loss.name}`](#{loss.name}) | {' '.join(doc['Summary'])} | {_targets(loss)} |"
                f" {'yes' if has_hessian(loss) else ''} | {' | '.join(loss.bound_texts())} |"
            )
            sections.append(_section(loss, doc))
    return "\n".join([_INTRODUCTION, *rows, "", _STORIES, *sections]).rstrip() + "\n"


def picture(arguments: list[str]) -> str:
    """Return the SVG that `plot` draws, the same text every time."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "picture.svg"
        if cli.main(["plot", *arguments, "-o", str(path)]):
            raise SystemExit(1)  # it has said why
        return path.read_text(encoding="utf-8")


def _section(loss: Loss, doc: Any) -> str:
    formula, _, convention = _markdown(doc["Notes"]).rpartition("```\n")
    if not formula:
        raise ValueError(f"{loss.name}: the docstring's Notes have no formula (an indented block after ::)")
    parts = [
        f"### {loss.name}\n",
        _markdown([*doc["Summary"], "", *doc["Extended Summary"]]),
        f"```python\nfl.{loss.name}({_arguments(loss)})\n```\n",
        f"![Loss and derivatives of {loss.name}]({_picture_file(loss).relative_to(_DOCS)})\n",
        f"**Formula.** {formula.lstrip(': ')}```\n",
    ]
    if convention.strip():
        parts.append(f"**Conventions.** {convention.strip()}\n")
    own = own_parameters(loss.name)
    named = [p for p in doc["Parameters"] if p.name in own or p.name in _positional(loss)]
    parts += [f"* `{p.name}` : {_line(p.type)}. {_line(' '.join(p.desc))}" for p in named]
    parts.append("")
    parts += [f"* {fact}" for fact in _facts(loss)]
    if doc["References"]:
        parts.append(f"\n{_markdown(doc['References'])}".rstrip())
    return "\n".join([*parts, ""])


def _facts(loss: Loss) -> list[str]:
    kinks = loss.kinks(*loss.parse({}))
    axis = axis_label(loss)
    hessian = f"`fl.grad_hess(fl.{loss.name}, ...)`" if has_hessian(loss) else "none"
    return [
        f"Kinks: {axis} = {', '.join(f'{k:g}' for k in kinks)}, with the default parameters." if kinks else "No kinks.",
        f"Hessian: {hessian}.",
        "Error at most {} ULP in the loss, {} ULP in the gradient.".format(*loss.bound_texts()),
    ]


def _variants(loss: Loss) -> list[str]:
    """Return arguments for three values of the first parameter, where that leaves three lines."""
    if loss.family not in ("distance", "residual") or not loss.params:
        return []
    first = loss.params[0]
    # A tiny one guards a division and changes no picture.
    if first.default < 1e-3 or own_parameters(loss.name).get(first.name) != first.default:
        return []
    more = 2.0 * first.default if first.valid(4.0 * first.default) else (1.0 + first.default) / 2.0
    return ["--params", *(f"{first.name}={value:g}" for value in (first.default / 2.0, first.default, more))]


def _docstring(name: str) -> Any:
    try:
        docscrape = import_module("numpydoc.docscrape")
    except ImportError as error:
        raise SystemExit(f"tools.losses_doc needs numpydoc ({error}): python -m pip install numpydoc") from None
    return docscrape.FunctionDoc(getattr(fl, name))


def _field(loss: Loss) -> str:
    return getattr(fl, loss.name).__module__


def _title(field: str) -> str:
    return (import_module(field).__doc__ or field).partition(".")[0].removeprefix("Losses of ").capitalize()


def _targets(loss: Loss) -> str:
    return _TARGETS.get(loss.target, loss.target.replace("_", " "))


def _positional(loss: Loss) -> list[str]:
    return [p for p in _signature(loss) if p not in own_parameters(loss.name)]


def _signature(loss: Loss) -> list[str]:
    parameters = inspect.signature(getattr(fl, loss.name)).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def _arguments(loss: Loss) -> str:
    own = [f"{name}={default!r}" for name, default in own_parameters(loss.name).items()]
    return ", ".join([*_signature(loss), "*", *own, "..."])


def _picture_file(loss: Loss) -> Path:
    return _IMAGES / "losses" / f"{loss.name}.svg"


def _line(text: str) -> str:
    return _markdown(text.split("\n")).strip().replace("\n", " ")


def _markdown(lines: list[str]) -> str:
    """Turn a docstring's text into Markdown: roles, and blocks after a double colon."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", "\n".join(lines).strip())
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(
        r"(?m):?:\n\n((?:(?: {4}.*)?\n?)+)",
        lambda block: f":\n\n```\n{re.sub('(?m)^ {4}', '', block[1]).rstrip()}\n```\n\n",
        text,
    ) + "\n"  # fmt: skip


def _differs(old: str, new: str) -> bool:
    """Whether the texts differ; pictures by different versions of matplotlib are taken to be alike."""
    version = r"Matplotlib v[\d.]+"
    found = [re.search(version, text) for text in (old, new)]
    return old != new and (found[0] and found[0][0]) == (found[1] and found[1][0])


if __name__ == "__main__":
    sys.exit(main())
