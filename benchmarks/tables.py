"""Tables in Markdown from what ``results.json`` holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .contenders import BASELINE, CONTENDERS
from .variants import VARIANTS

__all__ = ["NAMES", "all_of", "circumstances", "works"]

_BACKENDS = {"cython": "Cython", "numba": "Numba"}


def all_of(results: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return title and table by name, for all that there are figures of."""
    rendered = {n: (title, render(results)) for n, (title, needs, render) in _TABLES.items() if results.get(needs)}
    return {name: (title, table) for name, (title, table) in rendered.items() if table}


def circumstances(results: dict[str, Any]) -> str:
    """What the table of all works was measured on."""
    base = CONTENDERS[_works_base(results)[0]].label.replace(", ", " with ")
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    threads = _counted(results["threads"], "thread")
    return (
        f"{results['cpu']}, {_counted(results['cores'], 'core')} ({results['system']}), {threads} for every contender; "
        f"{versions}; fastloss's kernels: {results['kernels']}; {results['date']}. Medians of {results['rounds']} "
        "interleaved rounds; "
        f"6x means six times as long as {base}."
    )


def works(results: dict[str, Any]) -> str:
    """Rows are works, columns fastloss's time and the others' ratios to it."""
    base, others = _works_base(results)
    rows = []
    for work in results["works"]:
        median = _medians(work)
        time = _time(median[base], work)
        rows.append([work["label"], time, *(_ratio(median.get(name), median[base]) for name in others)])
    return _markdown(["loss + gradient", *(CONTENDERS[name].label for name in [base, *others])], rows)


def _works_base(results: dict[str, Any]) -> tuple[str, list[str]]:
    """The contender that the others are compared with, and the others."""
    names = _seen(results["works"], [name for name, contender in CONTENDERS.items() if contender.column])
    base = BASELINE if BASELINE in names else names[0]
    return base, [name for name in names if name != base]


def _bandwidth(results: dict[str, Any]) -> str:
    """GB/s: the bytes that a call has to move over its time."""
    own = _seen(results["works"], ["fastloss-cython", "fastloss-numba"])
    bounds = _seen(results["works"], ["limit", "limit-warm", "copy"])
    rows = []
    for work in results["works"]:
        size = work.get("bytes_per_call")
        if size is None or "copy" not in work["contenders"]:
            continue
        median = _medians(work)
        rivals = [n for n in median if n not in own and CONTENDERS[n].computes]
        best = min(rivals, key=lambda name: median[name], default=None)
        named = f" ({CONTENDERS[best].label})" if best else ""
        rate = {name: f"{size / seconds / 1e9:.3g}" for name, seconds in median.items()}
        share = f"{median['copy'] / median[own[0]]:.0%}" if own else ""
        cells = [rate.get(name, "") for name in own], [rate.get(name, "") for name in bounds]
        rows.append([work["label"], *cells[0], f"{rate.get(best or '', '')}{named}", *cells[1], share])
    if not rows:
        return ""
    head = ["GB/s", *(CONTENDERS[n].label for n in own), "best other", *(CONTENDERS[n].label for n in bounds)]
    return _markdown([*head, "fastloss / copy"], rows)


def _small(results: dict[str, Any]) -> str:
    """Microseconds per call."""
    entries = results["small"]
    labels = {**{name: contender.label for name, contender in CONTENDERS.items()}, "out": "fastloss, Cython, `out=`"}
    names = _seen(entries, ["fastloss-cython", "out", "fastloss-numba", "scikit-learn", "limit"])
    rows = []
    for entry in entries:
        median = _medians(entry)
        rows.append([entry["label"], *(f"{median[name] * 1e6:.3g}" if name in median else "" for name in names)])
    return _markdown(["µs per call", *(labels[name] for name in names)], rows)


def _losses(results: dict[str, Any]) -> str:
    """As ``works``, every loss once."""
    entries = results["losses"]
    base, *others = _seen(entries, ["fastloss-cython", "fastloss-numba", "fastloss-numpy", "numpy", "pytorch"])
    rows = []
    for entry in entries:
        median = _medians(entry)
        rows.append(
            [entry["label"], _time(median[base], entry), *(_ratio(median.get(n), median[base]) for n in others)]
        )
    return _markdown(["loss + gradient", *(CONTENDERS[name].label for name in [base, *others])], rows)


def _variants(results: dict[str, Any]) -> str:
    """Times of the plain call, and ratios to it."""
    head = [f"fastloss, {VARIANTS['plain']}", "backend", "ms"]
    rows = []
    for entry in results["variants"]:
        seconds = entry["seconds"]
        ratios = [_ratio(seconds[name], seconds["plain"]) for name in VARIANTS if name != "plain"]
        rows.append([entry["label"], _BACKENDS[entry["backend"]], f"{seconds['plain'] * 1e3:.3g}", *ratios])
    return _markdown([*head, *(label for name, label in VARIANTS.items() if name != "plain")], rows)


def _sweep(results: dict[str, Any]) -> str:
    """Times with one thread, and ratios of two threads to one."""
    head = [
        "fastloss, up to 2 threads",
        "backend",
        "1 thread, µs",
        "2 allowed",
        "2 forced",
        "limit on 2 / fastloss on 2",
    ]
    rows = []
    for entry in results["sweep"]:
        seconds = entry["seconds"]
        one, two = seconds["up to 1"], seconds["up to 2"]
        forced = seconds["n_threads=2"] / seconds["n_threads=1"]
        limit = f"{seconds['limit, 2'] / two:.2f}" if "limit, 2" in seconds else ""
        cells = [f"{one * 1e6:.3g}", f"{two / one:.2f}", f"{forced:.2f}", limit]
        rows.append([entry["label"], _BACKENDS[entry["backend"]], *cells])
    return _markdown(head, rows)


def _memory(results: dict[str, Any]) -> str:
    """Megabytes, and how many gradients that is."""
    entry = results["memory"]
    rows = [
        [CONTENDERS[name].label, f"{grown / 1e6:.0f}", f"{grown / entry['gradient_bytes']:.1f}"]
        for name, grown in entry["growth_bytes"].items()
    ]
    return _markdown([entry["label"], "MB", "gradients"], rows)


def _startup(results: dict[str, Any]) -> str:
    """Seconds."""
    rows = [
        [
            e["label"],
            *(
                f"{s:.2f}"
                for s in (e["import_seconds"], e["call_seconds"], sum((e["import_seconds"], e["call_seconds"])))
            ),
        ]
        for e in results["startup"]
    ]
    return _markdown(["seconds", "imports", "first call", "together"], rows)


_TABLES = {
    "works": ("All contenders", "works", works),
    "small": ("Cost of small calls", "small", _small),
    "losses": ("Every loss over a million elements", "losses", _losses),
    "variants": ("Weights, masks, float16, loss only: times as long as the plain call", "variants", _variants),
    "threads": ("Two threads: times as long as with one", "sweep", _sweep),
    "bandwidth": ("Memory bandwidth, beside a copy of as many bytes in all into a warm array", "works", _bandwidth),
    "memory": ("Memory that a call takes at its peak, the returned gradient included", "memory", _memory),
    "startup": ("From a fresh interpreter to the first result", "startup", _startup),
}
NAMES = tuple(_TABLES)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"


def _seen(entries: Iterable[dict[str, Any]], names: Sequence[str]) -> list[str]:
    present = {name for entry in entries for name in entry["contenders"]}
    return [name for name in names if name in present]


def _medians(entry: dict[str, Any]) -> dict[str, float]:
    return {name: timing["median_seconds"] for name, timing in entry["contenders"].items()}


def _time(seconds: float, work: dict[str, Any]) -> str:
    if work["unit"] == "call":
        return f"{seconds * 1e6:.3g} µs per call"
    return f"{seconds / work['units_per_call'] * 1e9:.3g} ns per {work['unit']}"


def _ratio(seconds: float | None, base: float) -> str:
    if seconds is None:
        return ""
    ratio = seconds / base
    digits = 0 if ratio >= 9.95 else 1 if ratio >= 0.995 else 2
    return f"{ratio:.{digits}f}x"


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [head, rule, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
