"""Pictures as files: the format that a name asks for, checked before anything is drawn."""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING

from . import CommandError, from_extra, one_line
from ._files import check_destination, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PATH = re.compile(r"[MLCQ] |<path |<use ")


def check_picture(path: str, extra: str, purpose: str) -> None:
    """Raise an error, before the work, if no picture can be drawn or written there.

    Parameters
    ----------
    path : str
        Where it is to be written.
    extra, purpose : str
        As for `from_extra`, which gets matplotlib.
    """
    check_destination(path)
    from_extra(extra, "matplotlib", "matplotlib", purpose)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    formats = FigureCanvasAgg.get_supported_filetypes()
    if _format(path) not in formats:
        raise CommandError(
            f"{path}: {_format(path)!r} is no format of pictures; there are {', '.join(sorted(formats))}"
        )


def save(figure: Figure, path: str) -> None:
    """Write a picture in the format that its name ends with, else as PNG; as SVG it is the same text every time."""
    from matplotlib import rc_context

    form, content = _format(path), io.BytesIO()
    try:
        with rc_context({"svg.hashsalt": "fastloss", "svg.fonttype": "none"} if form == "svg" else {}):
            figure.savefig(content, format=form, dpi=160, metadata={"Date": None} if form == "svg" else None)
    except (OSError, RuntimeError, ValueError) as error:  # too large, or a format that needs another program
        raise CommandError(f"{path}: {one_line(error)}") from error
    write_file(path, _shorter(content.getvalue()) if form == "svg" else content.getvalue())


def _format(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower() or "png"


def _shorter(svg: bytes) -> bytes:
    """Half of the file is indentation, and digits of paths beyond a hundredth of a point."""
    lines = [line.strip() for line in svg.decode("utf-8").splitlines()]
    short = [re.sub(r"(\.\d\d)\d+", r"\1", line) if _PATH.match(line) else line for line in lines]
    return ("\n".join(short) + "\n").encode("utf-8")
