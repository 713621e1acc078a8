"""Fuzz the argument layer, guided by coverage: ``python tools/fuzz.py --seconds 600``.

Shapes, strides, dtypes, flags, masks, values and options come from bytes that atheris (``python -m pip install
atheris``) varies by which lines of the package they reach. Only the documented exceptions may come out, inputs may not
change, and the backends must agree on what is an error. The bytes of a failure are written to a file ``crash-*``, which
``python tools/fuzz.py crash-...`` runs again. Without atheris, random bytes are tried for as long.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
warnings.simplefilter("ignore")

try:
    import atheris
except ImportError:
    atheris = None

if atheris is not None:
    with atheris.instrument_imports(include=["fastloss"]):
        import fastloss.api.classification
        import fastloss.api.derivatives
        import fastloss.api.regression
        import fastloss.api.reinforcement  # noqa: F401
import arguments  # noqa: E402


class Bytes(arguments.Choices):
    """Choices from bytes; zeros when they are used up."""

    def __init__(self, data: bytes):
        self._data, self._place = data, 0

    def integer(self, low: int, high: int) -> int:
        taken = self._data[self._place : self._place + 1] or b"\0"
        self._place += 1
        return low + taken[0] % (high - low + 1)


def one(data: bytes) -> None:
    arguments.check(Bytes(data), ours.backend, ours.against)


def random_bytes(seconds: float) -> None:
    """What is left without atheris."""
    end, tried = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = os.urandom(300)
        try:
            one(data)
        except BaseException:
            Path("crash-random").write_bytes(data)
            raise
        tried += 1
    print(f"{tried} calls without a failure (random bytes: atheris is not installed)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="failures to run again, or a folder of inputs to begin with")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--backend", default="cython")
    parser.add_argument("--against", default="numpy")
    ours = parser.parse_args()
    failures = [Path(name) for name in ours.files if Path(name).is_file()]
    if failures:
        for file in failures:
            one(file.read_bytes())
    elif atheris is None:
        random_bytes(ours.seconds)
    else:
        options = [f"-max_total_time={ours.seconds}", "-max_len=600", "-len_control=0", "-timeout=60", *ours.files]
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()
