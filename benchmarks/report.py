"""Write the results into README's table: ``python -m benchmarks.report``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .contenders import BASELINE, CONTENDERS

__all__ = ["RESULTS", "table"]

_ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results.json"
_BEGIN, _END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS, help="results of benchmarks.run")
    parser.add_argument("--readme", type=Path, default=_ROOT / "README.md", help="file with the two markers")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the table is out of date")
    options = parser.parse_args(arguments)
    try:
        results, text = json.loads(options.json.read_text()), options.readme.read_text()
    except OSError as error:
        parser.error(str(error))
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        parser.error(f"{options.readme} lacks the lines {_BEGIN} and {_END}")
    new = f"{before}{begin}\n{section(results)}\n{end}{after}"
    if options.check:
        if new != text:
            print(f"{options.readme} differs from {options.json}: run python -m benchmarks.report", file=sys.stderr)
        return int(new != text)
    options.readme.write_text(new)
    return 0


def section(results: dict[str, Any]) -> str:
    """The table, and above it what it was measured on and how to repeat that."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    threads = f"{results['threads']} thread{'s' * (results['threads'] > 1)}"
    return "\n".join(
        [
            f"{results['cpu']}, {results['cores']} cores ({results['system']}), {threads} for every contender; "
            f"{versions}; fastloss's kernels: {results['kernels']}; {results['date']}. Medians of {results['rounds']} "
            "interleaved rounds; 6x means six times as long as fastloss with Cython. To "
            "repeat: `python -m benchmarks.run && python -m benchmarks.report`.",
            "",
            table(results),
        ]
    )


def table(results: dict[str, Any]) -> str:
    """Markdown: rows are works, columns fastloss's time and the others' ratios to it."""
    seen = [name for name in CONTENDERS if any(name in work["contenders"] for work in results["works"])]
    base = BASELINE if BASELINE in seen else seen[0]
    others = [name for name in seen if name != base]
    head = ["loss + gradient", CONTENDERS[base].label, *(CONTENDERS[name].label for name in others)]
    rows = []
    for work in results["works"]:
        median = {name: timing["median_seconds"] for name, timing in work["contenders"].items()}
        time = _time(median[base], work)
        rows.append([work["label"], time, *(_ratio(median.get(name), median[base]) for name in others)])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for row in [head, rule, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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


if __name__ == "__main__":
    sys.exit(main())
