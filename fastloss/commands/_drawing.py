"""The pictures of `plot`, drawn with matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..registry import Loss
from . import CommandError
from ._curves import PROBABILITY, QUANTITIES, Curve
from ._sample import mean_losses
from ._surface import Surface

# Okabe and Ito's colours, which the colour-blind can tell apart; and no two lines look alike in grey either.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)))
_GREY, _WIDTH = "#666666", 1.8
_CONVENTION = "convention of boosting"


def panels(curves: Sequence[Curve]) -> Figure:
    """Draw loss, gradient and Hessian side by side, all curves on the same axes."""
    styles = _styles(curves)
    count = max(len(curve.values) for curve in curves)
    varied = _varied([(c.loss, c.params) for c in curves])
    names = [_label(curve, varied, curves) for curve in curves]
    figure = _figure(3.5 * count, 2.75)
    axes = figure.subplots(1, count, squeeze=False)[0]
    inputs = {curve.input for curve in curves}
    for place, (ax, quantity) in enumerate(zip(axes, QUANTITIES, strict=False)):
        for i, curve in enumerate(curves):
            if place < len(curve.values):
                _line(ax, curve, curve.values[place], label=names[i], **styles[i])
        ax.axhline(0.0, color=_GREY, linewidth=0.7, zorder=0)
        _limit(ax, [c.values[place] for c in curves if place < len(c.values)])
        _finish(ax, curves[0].axis)
        ax.set_ylabel(quantity)
        if curves[0].axis == PROBABILITY:
            ax.set_xlim(0.0, 1.0)
            if place and inputs != {"probability"}:
                ax.set_ylabel(f"{quantity} wrt {inputs.copy().pop() if len(inputs) == 1 else 'own input'}")
    conventional = [curve.conventional for curve in curves if len(curve.values) == len(QUANTITIES)]
    if any(conventional):
        note = f"{_CONVENTION},\nnot the second derivative"
        axes[-1].set_title(note if all(conventional) else f"in part a {note}", fontsize=8.5, color=_GREY)
    if any(names):
        _legend(figure, axes[0])
    _headline(figure, _title(curves))
    return figure


def sample(variants: Sequence[tuple[Loss, dict[str, Any]]], targets: Sequence[float], outlier: float | None) -> Figure:
    """Draw the mean loss of one prediction for all targets, with the outlier and without, each from 0 to 1."""
    if len(variants) > len(_COLOURS):
        raise CommandError(
            f"{len(variants)} losses can't be told apart in one picture of a sample, {len(_COLOURS)} can"
        )
    figure = _figure(6.6, 3.54)
    ax = figure.subplots()
    samples = [targets] if outlier is None else [targets, [*targets, outlier]]
    means = mean_losses(variants, samples)
    varied = _varied(variants)
    for (loss, params), colour, of_loss in zip(variants, _COLOURS, means.values, strict=False):
        minima = []
        for mean, (dash, fill) in zip(of_loss, ((_DASHES[1], "white"), ("-", colour))[-len(samples) :], strict=True):
            best = int(np.nanargmin(mean))
            ax.plot(means.x, (mean - mean[best]) / (np.nanmax(mean) - mean[best]), color=colour, linestyle=dash)
            ax.plot(means.x[best], 0.0, "o", color=colour, markerfacecolor=fill, markersize=8, zorder=5)
            side = {0: "below ", len(means.x) - 1: "above "}.get(best, "")
            minima.append(f"{side}{means.x[best]:.3g}")
        name = ", ".join([loss.name, *_settings(params, varied)])
        ax.plot([], color=colour, linewidth=4, label=f"{name}: least at {' -> '.join(minima)}")
    ax.plot(targets, np.full(len(targets), -0.06), "|", color="black", markersize=11, markeredgewidth=1.6)
    if outlier is not None:
        ax.plot(outlier, -0.06, "|", color=_GREY, markersize=11, markeredgewidth=2.6)
        ax.annotate("outlier", (outlier, -0.05), (0, 9), textcoords="offset points", ha="center", color=_GREY)
        ax.plot([], color=_GREY, linestyle=_DASHES[1], label="without the outlier")
        ax.plot([], color=_GREY, linestyle="-", label="with it")
    ax.set_ylim(-0.11, 0.65)
    _finish(ax, f"one {means.what} for all targets (bars)")
    ax.set_ylabel("mean loss: 0 least, 1 most in this range")
    _legend(figure, ax)
    return figure


def surfaces(drawn: Sequence[Surface]) -> Figure:
    """Draw each loss over the weights of a model, with the path of gradient descent."""
    figure = _figure(4.3 * len(drawn), 3.9)
    for ax, surface in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _surface(ax, surface, figure)
    _headline(figure, f"Mean loss of a linear model, {drawn[0].data}")
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
    title = textwrap.fill(f"{surface.loss.name}{setting}", 44)
    ax.set_title(f"{title}\n{len(path) - 1} steps of gradient descent to {losses[-1]:.4g}", fontsize=9.5)
    ax.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _headline(figure: Figure, text: str) -> None:
    """Write over the picture, on as many lines as its width asks for."""
    lines = textwrap.wrap(text, int(10 * figure.get_figwidth()))
    figure.suptitle("\n".join(lines), fontsize=11, fontweight="bold")
    figure.set_figheight(figure.get_figheight() + 0.19 * (len(lines) - 1))


def _legend(figure: Figure, ax: Axes) -> None:
    """Write what the lines are below the picture, which gets as much higher."""
    handles, labels = ax.get_legend_handles_labels()
    letters = int(13.2 * figure.get_figwidth())
    labels = [textwrap.fill(label, letters - 8) for label in labels]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    columns = max(1, min(len(labels), letters // (8 + longest)))
    lines = sum(1 + label.count("\n") for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.22 * -(-lines // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


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
    ax.plot(curve.x, shown, **style)


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


def _styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Colours by loss and dashes by target if there are several of both, else both by curve; no two curves alike."""
    settings = list(dict.fromkeys(_key(c) for c in curves))
    targets = list(dict.fromkeys(c.target for c in curves))
    many, most = len(curves), len(_COLOURS) * len(_DASHES)
    if many > most:
        raise CommandError(
            f"{many} curves can't be told apart in one picture, {most} can: draw fewer losses or targets"
        )
    # Seven colours and four dashes meet in all 28 ways when both go round.
    colours = dashes = list(range(many))
    widths = [_WIDTH] * many
    if 1 < len(settings) <= len(_COLOURS) and 1 < len(targets) <= len(_DASHES):
        colours, dashes = [settings.index(_key(c)) for c in curves], [targets.index(c.target) for c in curves]
        # Where curves of the same dashes coincide, the lower one is still to be seen.
        widths = [_WIDTH * (1.0 + 0.6 * (1.0 - i / (len(settings) - 1))) for i in colours]
    return [
        {"color": _COLOURS[colour % len(_COLOURS)], "linestyle": _DASHES[dash % len(_DASHES)], "linewidth": width}
        for colour, dash, width in zip(colours, dashes, widths, strict=True)
    ]


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
    names, targets, inputs = {c.loss.name for c in curves}, {c.target for c in curves}, {c.input for c in curves}
    parts = [curve.loss.name] if len(names) > 1 else []
    parts += _settings(curve.params, varied)
    if len(targets) > 1 and curve.target is not None:
        parts.append(_target(curve))
    if curve.axis == PROBABILITY and len(inputs) > 1:
        parts.append(f"derivatives wrt {curve.input}")
    if curve.conventional and not all(c.conventional for c in curves):
        parts.append(f"Hessian: {_CONVENTION}")
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
