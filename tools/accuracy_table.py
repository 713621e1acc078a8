"""Write README's table of accuracy from ``fastloss/accuracy.json``: ``python tools/accuracy_table.py [--check]``."""

import json
import sys
from pathlib import Path

from fastloss.registry import LOSSES

ROOT = Path(__file__).resolve().parent.parent
README, TABLE = ROOT / "README.md", ROOT / "fastloss" / "accuracy.json"
BEGIN, END = "<!-- accuracy:begin -->\n", "<!-- accuracy:end -->\n"


def rendered() -> str:
    """One line per function and result: the bound, and the largest error in either float type."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    lines = ["| result | bound | float32 | float64 |", "|---|---:|---:|---:|"]
    for what in dict.fromkeys(row.rpartition(" ")[0] for row in table):
        rows = [table.get(f"{what} {dtype}") for dtype in ("float32", "float64")]
        name, _, result = what.partition(" ")
        bound = f"{next(row['normal']['budget'] for row in rows if row):g}"
        if name in LOSSES:
            bound += "".join(f" + {each:g} {exponent}" for exponent, each in LOSSES[name].growth.items())
        label = f"`{name}` {result}".rstrip() if "of 10^8" not in what else what
        lines.append(f"| {label} | {bound} | {' | '.join(map(_cell, rows))} |")
    return "\n".join(lines) + "\n"


def _cell(row) -> str:
    if row is None or "measured" not in row["normal"]:
        return ""
    return f"{row['normal']['measured']:.2f}" + (" (all)" if row["inputs"] == "all" else "")


def main(arguments: list[str]) -> int:
    """Write the table; with --check, only say whether it is current."""
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    new = before + begin + rendered() + end + after
    if "--check" in arguments:
        print("" if new == text else "README's table of accuracy is stale: run python tools/accuracy_table.py", end="")
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
