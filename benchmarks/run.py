"""Time the contenders side by side: ``python -m benchmarks.run``.

The contenders of a work take turns, round after round, so that a machine that slows down slows
all of them down; what counts is the median over the rounds, and its ratio to fastloss's.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import catalogue, memory, small, startup, sweep, tables, variants
from .agreement import Disagreement
from .headline import measure, present
from .machine import circumstances
from .report import RESULTS
from .timing import Effort
from .works import HEADLINE, WORKS

# What is measured beside the works of all contenders; each has a table of its own.
PARTS: dict[str, Callable[[Effort], Any]] = {
    "small": small.measure,
    "losses": catalogue.measure,
    "variants": variants.measure,
    "sweep": sweep.measure,
    "memory": memory.measure,
    "startup": startup.measure,
}
_QUICK = Effort(9, 0.5e-3, 4.2e6)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples, at most 4.2 million elements")
    parser.add_argument("--works", type=re.compile, metavar="REGEX", help="only works whose name matches; see --list")
    parser.add_argument("--list", action="store_true", help="print the names of all works")
    parser.add_argument(
        "--parts", nargs="+", choices=["works", *PARTS], metavar="PART", help=f"some of: works, {', '.join(PARTS)}"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every contender (default: 1)")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 15, with --quick 9")
    parser.add_argument("--json", type=Path, help=f"default: {RESULTS}, for a complete run; else nothing is written")
    options = parser.parse_args(arguments)
    if options.list:
        print(*(work.name for work in WORKS), sep="\n")
        return 0
    if options.threads < 1 or (options.rounds or 1) < 1:
        parser.error("--threads and --rounds must be at least 1")
    if options.works and set(options.parts or ()) - {"works"}:
        parser.error("--works chooses among the part works; the other parts are measured whole")
    usual = _QUICK if options.quick else Effort()
    effort = Effort(options.rounds or usual.rounds, usual.sample_seconds, usual.largest)
    works = [w for w in WORKS if options.works.search(w.name)] if options.works else list(HEADLINE)
    works = [work for work in works if work.size <= effort.largest]
    if not works:
        parser.error("no such work; --list prints them")
    # Works of one's own choice, or on several threads, are not asked for the sake of the other tables.
    usual_works = not options.works and options.threads == 1
    parts = options.parts or ["works", *(PARTS if usual_works else ())]
    # A part of a table never replaces the whole one by accident.
    path = options.json or (RESULTS if usual_works and not options.quick else None)

    results = circumstances()
    if "works" in parts:
        try:
            timed = measure(works, present(but=("fastloss-numpy",)), options.threads, effort)
        except Disagreement as error:
            raise SystemExit(str(error)) from error
        results |= {"threads": options.threads, "rounds": effort.rounds, "works": timed}
    results |= {part: PARTS[part](effort) for part in PARTS if part in parts}
    print(*(f"{title}\n\n{table}\n" for title, table in tables.all_of(results).values()), sep="\n")
    if path:
        path.write_text(json.dumps(_with_others(results, path), indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}; python -m benchmarks.report puts it into README.md")
    return 0


def _with_others(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Add the parts that were measured before, if it was on the same machine with the same versions."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = [key for key in circumstances() if key != "date"]
    if any(old.get(key) != results[key] for key in same):
        return results
    return {key: old[key] for key in old if key not in results} | results


if __name__ == "__main__":
    sys.exit(main())
