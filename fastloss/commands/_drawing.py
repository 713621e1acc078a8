"""The pictures of `plot`, drawn with matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import fastloss as fl

from ..registry import Loss
from ._curves import QUANTITIES, Curve, axis_label
from ._surface import Surface

# Okabe and Ito's colours, which the colour-blind can tell apart; and no two lines look alike in grey either.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)))
_GREY = "#666666"
_PATH = re.compile(r"[MLCQ] |<path |<use ")


def save(figure: Figure, path: str) -> None:
    """Write a picture; as SVG it is the same text every time.

    Raises
    ------
    OSError, ValueError
        If the file can't be written, or its ending names no format.
    """
    if not path.endswith(".svg"):
        figure.savefig(path, dpi=160)
        return
    with rc_context({"svg.hashsalt": "fastloss", "svg.fonttype": "none"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    # Half of the file is indentation, and digits of paths beyond a hundredth of a point.
    lines = [line.strip() for line in text.getvalue().splitlines()]
    short = [re.sub(r"(\.\d\d)\d+", r"\1", line) if _PATH.match(line) else line for line in lines]
    Path(path).write_text("\n".join(short) + "\n", encoding="utf-8")


def panels(curves: Sequence[Curve], probability: bool = False) -> Figure:
    """Draw loss, gradient and Hessian side by side, all curves on the same axes."""
    count = max(len(curve.values) for curve in curves)
    varied = _varied([(c.loss, c.params) for c in curves])
    names = [_label(curve, varied, curves) for curve in curves]
    columns = max(1, min(len(names), int(46 * count / (8 + max(map(len, names))))))
    figure = _figure(3.5 * count, 2.75 + 0.22 * (-(-len(names) // columns) if any(names) else 0))
    axes = figure.subplots(1, count, squeeze=False)[0]
    colours, dashes = _styles(curves)
    for place, (ax, quantity) in enumerate(zip(axes, QUANTITIES, strict=False)):
        for i, curve in enumerate(curves):
            if place < len(curve.values):
                _line(ax, curve, curve.values[place], label=names[i], color=colours[i], linestyle=dashes[i])
        ax.axhline(0.0, color=_GREY, linewidth=0.7, zorder=0)
        _limit(ax, [c.values[place] for c in curves if place < len(c.values)])
        label = axis_label(curves[0].loss, probability)
        _finish(ax, label)
        ax.set_ylabel(f"{quantity} wrt logit" if probability and place else quantity)
        if label == axis_label(curves[0].loss, True):
            ax.set_xlim(0.0, 1.0)
    if any(names):
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle(_title(curves), fontsize=11, fontweight="bold")
    return figure


def sample(variants: Sequence[tuple[Loss, dict[str, Any]]], targets: Sequence[float], outlier: float | None) -> Figure:
    """Draw the mean loss of one prediction for all targets, with the outlier and without, each from 0 to 1."""
    figure = _figure(6.6, 4.2)
    ax = figure.subplots()
    every = [*targets, *([] if outlier is None else [outlier])]
    margin = 0.08 * (max(every) - min(every) or 1.0)
    x = np.linspace(min(every) - margin, max(every) + margin, 1201)
    varied = _varied(variants)
    for i, (loss, params) in enumerate(variants):
        colour, minima = _COLOURS[i % len(_COLOURS)], []
        for chosen, dash, fill in ((targets, _DASHES[1], "white"), (every, "-", colour))[outlier is None :]:
            data = np.broadcast_to(np.array(chosen), (len(x), len(chosen)))
            each = getattr(fl, loss.name)(np.repeat(x[:, None], len(chosen), 1), data, reduction="none", **params)[0]
            mean = np.where(np.isfinite(each), each, np.nan).mean(1)
            best = int(np.nanargmin(mean))
            ax.plot(x, (mean - mean[best]) / (np.nanmax(mean) - mean[best]), color=colour, linestyle=dash)
            ax.plot(x[best], 0.0, "o", color=colour, markerfacecolor=fill, markersize=8, zorder=5)
            minima.append(f"{x[best]:.3g}")
        name = ", ".join([loss.name, *_settings(params, varied)])
        ax.plot([], color=colour, linewidth=4, label=f"{name}: least at {' -> '.join(minima)}")
    ax.plot(targets, np.full(len(targets), -0.06), "|", color="black", markersize=11, markeredgewidth=1.6)
    if outlier is not None:
        ax.plot(outlier, -0.06, "|", color=_GREY, markersize=11, markeredgewidth=2.6)
        ax.annotate("outlier", (outlier, -0.05), (0, 9), textcoords="offset points", ha="center", color=_GREY)
        ax.plot([], color=_GREY, linestyle=_DASHES[1], label="without the outlier")
        ax.plot([], color=_GREY, linestyle="-", label="with it")
    ax.set_ylim(-0.11, 0.65)
    _finish(ax, "one prediction for all targets (bars)")
    ax.set_ylabel("mean loss: 0 least, 1 most in this range")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def surfaces(drawn: Sequence[Surface]) -> Figure:
    """Draw each loss over the weights of a model, with the path of gradient descent."""
    figure = _figure(4.3 * len(drawn), 3.9)
    for ax, surface in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _surface(ax, surface, figure)
    figure.suptitle(f"Mean loss of a linear model, {drawn[0].data}", fontsize=11, fontweight="bold")
    return figure


def _surface(ax: Axes, surface: Surface, figure: Figure) -> None:
    path, losses = surface.path, surface.path_losses
    setting = "".join(f", {text}" for text in _settings(surface.params, surface.params))
    if path.shape[1] == 1:
        ax.plot(surface.axes[0], surface.values, color=_COLOURS[0])
        ax.plot(path[:, 0], losses, "o-", color=_COLOURS[1], markersize=4, linewidth=1)
        ax.plot(path[-1, 0], losses[-1], "*", color=_COLOURS[1], markersize=14, markeredgecolor="white")
        ax.set_ylabel("mean loss")
    else:
        low = np.nanmin(surface.values)
        # Levels crowd at the minimum, as equal steps would leave it blank.
        levels = low + (np.nanmax(surface.values) - low) * np.linspace(0.0, 1.0, 13) ** 2
        filled = ax.contourf(*surface.axes, surface.values.T, levels=levels, cmap="cividis")
        filled.set(edgecolor=(1.0, 1.0, 1.0, 0.6), linewidth=0.4)
        figure.colorbar(filled, ax=ax, format="%.3g", ticks=levels[::2], label="mean loss")
        ax.plot(*path.T, "o-", color="white", markersize=4.5, linewidth=2.2, markeredgewidth=0)
        ax.plot(*path.T, "o-", color=_COLOURS[1], markersize=3, linewidth=1.2)
        ax.plot(*path[-1], "*", color=_COLOURS[1], markersize=15, markeredgecolor="white")
        ax.set_ylabel(f"weight of {surface.features[1]}")
    ax.set_xlabel(f"weight of {surface.features[0]}")
    ax.set_title(f"{surface.loss.name}{setting}\n{len(path) - 1} steps of gradient descent to {losses[-1]:.4g}",
                 fontsize=9.5)  # fmt: skip
    ax.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(ax: Axes, label: str) -> None:
    ax.set_xlabel(label)
    ax.locator_params(nbins=6)
    ax.margins(x=0.0)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def _line(ax: Axes, curve: Curve, values: np.ndarray, **style: Any) -> None:
    """Draw a line that is broken where it jumps."""
    shown = values.copy()
    size = np.ptp(values[np.isfinite(values)])
    for i in curve.kinks:
        ax.axvline(curve.x[i], color=_GREY, linewidth=0.7, linestyle=":", zorder=0)
        left, at, right = values[i - 1], values[i], values[i + 1]
        if abs(right - left) > 1e-4 * size:
            shown[i] = np.nan
            dot = {"marker": "o", "markersize": 5, "linestyle": "", "zorder": 4, "color": style["color"]}
            ax.plot([curve.x[i]] * 2, [left, right], **dot, markerfacecolor="white")
            ax.plot(curve.x[i], at, **dot)
    ax.plot(curve.x, shown, linewidth=1.8, **style)


def _limit(ax: Axes, values: Sequence[np.ndarray]) -> None:
    """Leave out of the picture what a few extreme values would flatten."""
    every = np.concatenate(values)
    every = every[np.isfinite(every)]
    if not every.size:
        return
    low, high = np.quantile(every, [0.06, 0.94])
    if np.ptp(every) <= 3.0 * (high - low):
        low, high = every.min(), every.max()
    if high == low:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.07 * (high - low) or 0.5
    ax.set_ylim(low - margin, high + margin)


def _styles(curves: Sequence[Curve]) -> tuple[list[str], list[Any]]:
    """Colours by loss and dashes by target if there are several of both, else both by curve."""
    settings = list(dict.fromkeys(_key(c) for c in curves))
    targets = list(dict.fromkeys(c.target for c in curves))
    if len(settings) == 1 or len(targets) == 1:
        colours = dashes = list(range(len(curves)))
    else:
        colours, dashes = [settings.index(_key(c)) for c in curves], [targets.index(c.target) for c in curves]
    return [_COLOURS[i % len(_COLOURS)] for i in colours], [_DASHES[i % len(_DASHES)] for i in dashes]


def _key(curve: Curve) -> tuple[str, str]:
    return curve.loss.name, repr(curve.params)


def _varied(variants: Sequence[tuple[Loss, dict[str, Any]]]) -> set[str]:
    """Return the parameters that differ between variants of a loss."""
    values: dict[tuple[str, str], set[str]] = {}
    for loss, params in variants:
        for key, value in params.items():
            values.setdefault((loss.name, key), set()).add(repr(value))
    return {key for (_, key), different in values.items() if len(different) > 1}


def _settings(params: dict[str, Any], shown: Any) -> list[str]:
    return [f"{key} = {value}" for key, value in params.items() if key in shown]


def _label(curve: Curve, varied: set[str], curves: Sequence[Curve]) -> str:
    names, targets = {c.loss.name for c in curves}, {c.target for c in curves}
    parts = [curve.loss.name] if len(names) > 1 else []
    parts += _settings(curve.params, varied)
    if len(targets) > 1 and curve.target is not None:
        parts.append(_target(curve))
    return ", ".join(parts)


def _target(curve: Curve) -> str:
    if curve.loss.target == "class":
        return "target: this class" if curve.target == 0 else "target: another class"
    if curve.loss.target == "distribution":
        return f"target: share {curve.target:g}"
    if curve.loss.target == "action":
        return f"advantage {curve.target:g}"
    return f"target {curve.target:g}"


def _title(curves: Sequence[Curve]) -> str:
    names = list(dict.fromkeys(c.loss.name for c in curves))
    fixed = _settings(curves[0].params, curves[0].params.keys() - _varied([(c.loss, c.params) for c in curves]))
    return ", ".join([*names, *fixed] if len(names) == 1 else names)
