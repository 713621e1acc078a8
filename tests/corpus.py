"""A fixed corpus of calls and the hashes of all their results, which no thread count, layout or backend may change.

``python tests/corpus.py`` compares this machine's results with ``corpus.json``; ``--write`` writes the file anew, after
a change of the kernels that is meant to change bits. The inputs come from a bit generator by exact arithmetic, so they
are the same on every system and with every NumPy.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from cases import ELEMENTWISE, LOSS_NAMES, Case, bits, param_sets

import fastloss as fl
from fastloss.registry import DOMAINS, LOSSES

FILE = Path(__file__).with_suffix(".json")
# More blocks than threads, and a tail; rows worked on side by side, one by one, and in pieces.
LENGTH, ROWS = 33_001, {5: 7_001, 40: 901, 80: 451, 1500: 23}
HALF = ("binary_cross_entropy_with_logits", "cross_entropy", "td_loss")  # Numba compiles for every dtype
SPECIALS = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -3e-39, 88.0, -104.0, 3e38, -1e30, 65504.0)


class _Source:
    """Arrays from the raw output of a bit generator, whose stream is fixed for all time."""

    def __init__(self, *seed):
        self._bits = np.random.PCG64(np.random.SeedSequence(list("".join(map(str, seed)).encode())))

    def raw(self, shape):
        return self._bits.random_raw(int(np.prod(shape))).reshape(shape)

    def integers(self, shape, count):
        return (self.raw(shape) % np.uint64(count)).astype(np.int64)

    def flags(self, shape):
        return self.integers(shape, 5) > 1

    def values(self, shape, dtype):
        """Both signs, magnitudes from 2^-12 to 2^5, 20 bits each."""
        raw = self.raw(shape)
        mantissa = 1.0 + (raw & np.uint64(0xFFFFF)).astype(np.float64) * 2.0**-20
        exponent = (raw >> np.uint64(32) & np.uint64(15)).astype(np.int64)
        sign = 1.0 - 2.0 * (raw >> np.uint64(63)).astype(np.float64)
        return np.ldexp(sign * mantissa, exponent - 11).astype(dtype)

    def units(self, shape, dtype):
        return np.minimum(self.integers(shape, 12) / 8, 1.0).astype(dtype)


def _target(source, domain, dtype):
    if domain == "unit":
        return source.units(LENGTH, dtype)
    if domain in ("binary", "sign"):
        return source.flags(LENGTH).astype(dtype)
    values = source.values(LENGTH, dtype)
    return values if domain == "real" else np.abs(values)


def _case(name, dtype, width):
    source, facts = _Source(name, np.dtype(dtype).name, width), LOSSES[name]
    if facts.kind == "elementwise":
        target = _target(source, facts.target, dtype)
        x = source.units(LENGTH, dtype) if facts.input == "unit" else source.values(LENGTH, dtype)
        x = np.abs(x) if facts.input == "above_minus_one" else x
        third = {facts.third: np.abs(source.values(LENGTH, dtype))} if facts.needs_third else {}
        return source, Case(name, (x, target), third)
    n = ROWS[width]
    x, index = source.values((n, width), dtype), source.integers(n, width)
    if facts.kind in ("rows", "softmax"):
        if facts.target == "distribution":
            return source, Case(name, (x, source.units((n, width), dtype)))
        return source, Case(name, (x, index, *([source.values(n, dtype)] if facts.target == "action" else [])))
    return source, Case(name, (x, index, source.values(n, dtype), source.values((n, width), dtype), source.flags(n)))


def _params(name, dtype, width, source):
    """Keyword arguments of a loss: none, and many at once."""
    if LOSSES[name].target == "class":
        weight, other = source.integers(width, 9) / 4, (param_sets(name)[1:2] or [{}])[0]
        return [{}, {"weight": weight, "ignore_index": 1, **other}]
    if name == "td_loss":
        shape = (ROWS[width], width)
        double = {"next_q_online": source.values(shape, dtype), "next_action_mask": source.flags(shape)}
        return [{}, {"loss": "mse", "gamma": 0.375}, {"loss": "smooth_l1", "delta": 2.5, **double}]
    return [param_sets(name)[0], param_sets(name)[-1]] if LOSSES[name].params else [{}]


def _with_specials(case):
    x = case.args[0].copy()
    specials = np.array(SPECIALS)
    if case.facts.kind == "elementwise":
        specials = specials[DOMAINS[case.facts.input].valid(specials) | np.isnan(specials)]
    with np.errstate(over="ignore"):
        x.reshape(-1)[: 1000 * len(specials) : 1000] = specials[: -(-x.size // 1000)].astype(x.dtype)
    return case.with_args(x, *case.args[1:])


def _dtypes(name):
    import ml_dtypes

    half = {"float16": np.float16} if name in HALF else {}
    if name == HALF[0]:
        half["bfloat16"] = ml_dtypes.bfloat16
    return {"float32": np.float32, "float64": np.float64, **half}


def entries(names=None):
    """Key, case and options of every call; the option ``hess`` asks for grad_hess."""
    for name in names or LOSS_NAMES:
        for label, kind in _dtypes(name).items():
            for width in [1] if name in ELEMENTWISE else [5] if LOSSES[name].kind == "gather" else ROWS:
                source, case = _case(name, kind, width)
                shape, size = case.shape, f" {width}" if LOSSES[name].kind in ("rows", "softmax") else ""
                full = {"sample_weight": source.integers(shape, 9) / 4.0, "mask": source.flags(shape)}
                for number, params in enumerate(_params(name, kind, width, source)):
                    key, each = f"{name} {label}{size} {number}", case.with_params(**params)
                    yield f"{key} mean", each, {}
                    yield f"{key} none", _with_specials(each), {"reduction": "none", **full}
                    if name in ELEMENTWISE:
                        yield f"{key} hess", _with_specials(each), {"hess": True, **full}


def call(case, backend, hess=False, **options):
    """A corpus call's result."""
    if hess:
        options.pop("out", None)
        return fl.grad_hess(getattr(fl, case.loss), *case.args, **case.params, **options, backend=backend)
    return case(backend, **options)


def digest(result) -> str:
    """Hash of all fields, every NaN alike."""
    text = hashlib.sha256()
    for array in bits(result):
        text.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return text.hexdigest()[:16]


def table(backend) -> str:
    """Which hashes hold for a backend here: with fused multiply-add or without."""
    from fastloss import _cython

    return "baseline" if backend == "cython" and not _cython.kernels.HAS_FMA else "fma"


def expected(backend) -> dict[str, str]:
    """The stored hashes by key."""
    return json.loads(FILE.read_text())[table(backend)]


def inputs() -> str:
    """The hash of all inputs."""
    return digest(array.astype(np.float64) for _, case, _ in entries() for array in case.args)


def compute(backend) -> dict[str, str]:
    """The hashes of all results, and of the inputs."""
    with np.errstate(all="ignore"):
        found = {key: digest(call(case, backend, **options)) for key, case, options in entries()}
    return found | {"inputs": inputs()}


def differences(backend) -> list[str]:
    """Keys whose results have other bits than those stored."""
    stored, found = expected(backend), compute(backend)
    return sorted(key for key in stored.keys() | found.keys() if stored.get(key) != found.get(key))


def write() -> None:
    """Write all hashes: of the best CPU level here, which must have fused multiply-add, and of the baseline."""
    if "--baseline" in sys.argv:
        print(json.dumps(compute("cython")))
        return
    assert table("cython") == "fma", "this CPU has no fused multiply-add"
    found = compute("cython")
    other = compute("numba")
    assert found == other, [key for key in found if found[key] != other[key]]
    command = [sys.executable, __file__, "--write", "--baseline"]
    lines = subprocess.run(command, env=os.environ | {"FASTLOSS_CPU": "v1"}, capture_output=True, text=True, check=True)
    FILE.write_text(json.dumps({"baseline": json.loads(lines.stdout), "fma": found}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        wrong = {name: differences(name) for name in (sys.argv[1:] or ["cython", "numba"])}
        print(json.dumps(wrong))
        sys.exit(any(wrong.values()))
