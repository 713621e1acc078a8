"""Time per element over size, for each contender and the limit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from fastloss.commands._pictures import save

from .contenders import CONTENDERS

__all__ = ["draw"]

# fastloss stands out, the limit is a floor, and no two of the others look alike without colours either.
_STYLES: dict[str, dict[str, Any]] = {
    "fastloss-cython": {"color": "#c1121f", "linewidth": 2.8, "marker": "o", "markersize": 5, "zorder": 5},
    "fastloss-numba": {"color": "#f4845f", "linewidth": 2.2, "marker": "o", "markersize": 4, "zorder": 4},
    "numpy": {"color": "#4d6cb3", "marker": "s"},
    "naive-numba": {"color": "#2a9d8f", "marker": "P"},
    "pytorch": {"color": "#8e5ea2", "marker": "^"},
    "torch-compile": {"color": "#b08bbf", "marker": "v"},
    "jax": {"color": "#3a7d44", "marker": "D"},
    "scikit-learn": {"color": "#c9962c", "marker": "X"},
    "limit": {"color": "#222222", "linewidth": 1.6, "linestyle": "--", "marker": ""},
}
_OTHERS = {"linewidth": 1.3, "markersize": 4, "alpha": 0.9}
_FLOOR = "limit: memory alone"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw a panel per loss; the file's ending names the format."""
    panels: dict[str, list[dict[str, Any]]] = {}
    for work in results["works"]:
        panels.setdefault(work["loss"], []).append(work)
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * columns + 0.6, 4.2 * rows + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, works in zip(grid, panels.values(), strict=False):
        _panel(axes, works)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[::columns]:
        axes.set_ylabel("time per element, loss + gradient")
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5 if columns > 1 else 3, frameon=False
    )
    threads = f"{results['threads']} thread{'s' * (results['threads'] > 1)}"
    figure.suptitle(f"Loss and gradient on a CPU, {threads}: lower is faster", fontweight="bold")
    save(figure, str(path))


def _panel(axes: Any, works: list[dict[str, Any]]) -> None:
    for name, style in _STYLES.items():
        points = [(w["size"], w["contenders"][name]) for w in works if name in w["contenders"]]
        if points:
            sizes = [size for size, _ in points]
            times = [timing["median_seconds"] / size for size, timing in points]
            label = _FLOOR if name == "limit" else CONTENDERS[name].label
            axes.loglog(sizes, times, label=label, **(_OTHERS | style))
    first = works[-1]["label"].split(", ")
    columns = first[-1].rpartition(" x ")[2] if " x " in first[-1] else ""
    shape = f", rows of {columns}" if columns else ""
    axes.set_title(f"{', '.join(first[:-1])}{shape}", fontsize=10.5)
    axes.set_xlabel("elements in a call")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.minorticks_off()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _seconds(value: float, position: int | None = None) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if value >= 0.999 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
