"""Write the results into README's tables: ``python -m benchmarks.report``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import tables

__all__ = ["RESULTS", "rendered"]

_ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results.json"
_REPEAT = "To repeat: `python -m benchmarks.run && python -m benchmarks.report`."


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS, help="results of benchmarks.run")
    parser.add_argument("--readme", type=Path, default=_ROOT / "README.md", help="file with the markers")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a table is out of date")
    options = parser.parse_args(arguments)
    try:
        results, text = json.loads(options.json.read_text(encoding="utf-8")), options.readme.read_text(encoding="utf-8")
        new = rendered(text, results)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if options.check:
        if new != text:
            print(f"{options.readme} differs from {options.json}: run python -m benchmarks.report", file=sys.stderr)
        return int(new != text)
    options.readme.write_text(new, encoding="utf-8")
    return 0


def rendered(text: str, results: dict[str, Any]) -> str:
    """Fill the space between the markers; where there are no figures, there is no table.

    Raises
    ------
    ValueError
        If a marker that begins a table has none that ends it, or there is none at all.
    """
    parts = {}
    if results.get("works"):
        parts["works"] = f"{tables.circumstances(results)} {_REPEAT}\n\n{tables.works(results)}\n"
    for name, (title, table) in tables.all_of(results).items():
        if name != "works":
            parts[name] = f"<details><summary>{title}</summary>\n\n{table}\n\n</details>\n"
    found = 0
    for name in tables.NAMES:
        mark = "benchmarks" if name == "works" else f"benchmarks:{name}"
        before, begin, rest = text.partition(f"<!-- {mark}:begin -->")
        if not begin:
            continue
        _, end, after = rest.partition(f"<!-- {mark}:end -->")
        if not end:
            raise ValueError(f"the line <!-- {mark}:end --> is missing")
        text, found = f"{before}{begin}\n{parts.get(name, '')}{end}{after}", found + 1
    if not found:
        raise ValueError("there is no line <!-- benchmarks:begin -->")
    return text


if __name__ == "__main__":
    sys.exit(main())
