"""What it costs that kernels check targets while they compute: ``python -m benchmarks.checks``.

Builds the Cython kernels once more without those checks, in a temporary folder, and times both builds interleaved in
one process, on one thread. Ratios of the best times: 1.01 means that checks cost 1 %; the last line is the noise.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

import fastloss as fl
from fastloss import _cython
from fastloss.registry import LOSSES

from .works import Work

ROOT = Path(__file__).resolve().parent.parent
# Where each kernel judges a target, and what stands there in the build without checks.
EDITS = {
    "elementwise.pxi": [("    if domain != 0 and suspect(", "    if False and suspect(")],
    "elementwise_generated.pxi": [
        *(
            (f"most_{v} = watched_{v} if watched_{v} > most_{v} else most_{v}", f"most_{v} = 0")
            for v in ("xs_", "ys_", "zs_")
        ),
        ("most_ys_ = most_ys_ | watched_ys_", "most_ys_ = 0"),
    ],
    "rows.pxi": [
        ("    if beyond >> 63 == 0 and", "    if False and"),
        ("        bad |= ((k < 0) | (k >= classes)) & (k != ignore)\n", ""),
        ("-1 if (k < 0) | (k >= classes) | (k == ignore) else k", "-1 if k == ignore else k"),
    ],
    "gather.pxi": [("            if outside < 0:\n", "            if False:\n")],
}
ROUNDS = 4000  # of one call each: the best of many short times is that of an idle core


def without_checks(folder: Path):
    """The kernels' module of this CPU level, built without checks."""
    room = folder / "source"
    shutil.copytree(ROOT, room, ignore=shutil.ignore_patterns(".git", "build", "*.so", "*.c", "__pycache__"))
    for name, edits in EDITS.items():
        file = room / "fastloss" / "_cython" / name
        text = file.read_text(encoding="utf-8")
        for old, new in edits:
            assert old in text, f"{name} has no {old!r}"
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    environment = os.environ | {"FASTLOSS_REQUIRE_EXT": "1", "FASTLOSS_LEVELS": _cython.level}
    subprocess.run(command, cwd=room, env=environment, check=True, stdout=subprocess.DEVNULL)
    name = _cython.kernels.__name__
    spec = importlib.util.spec_from_file_location(
        name, next((room / "fastloss" / "_cython").glob(f"{name.rpartition('.')[2]}.*.so"))
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def works():
    """Titles and calls."""
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for n in (4096, 100_000):
            x = rng.standard_normal(n).astype(dtype)
            for kind in (dtype, "int8"):
                y, out = (x > 0).astype(kind), np.empty_like(x)
                call = partial(fl.binary_cross_entropy_with_logits, x, y, out=out)
                yield f"BCE with logits, {dtype}, targets {kind}, {n}", call
    for rows, classes in ((4096, 2), (4096, 10), (64, 1000)):
        x = rng.standard_normal((rows, classes)).astype(np.float32)
        call = partial(fl.cross_entropy, x, rng.integers(0, classes, rows), out=np.empty_like(x))
        yield f"cross-entropy, {rows} x {classes}", call
    for name, facts in LOSSES.items():
        checked = {facts.input, facts.target, facts.third_domain} != {"real"}
        if facts.kind == "elementwise" and checked and name != "binary_cross_entropy_with_logits":
            arrays = Work(name, "float32", (100_000,)).arrays().copy()
            x, y = arrays.pop("x"), arrays.pop("y")
            yield f"{name}, float32, 100000", partial(getattr(fl, name), x, y, **arrays, out=np.empty_like(x))
    arrays = Work("kl_div", "float32", (64, 1000)).arrays()
    yield "kl_div, 64 x 1000", partial(fl.kl_div, arrays["x"], arrays["y"], out=np.empty_like(arrays["x"]))
    q = rng.standard_normal((4096, 18)).astype(np.float32)
    reward = q[:, 0].copy()
    call = partial(fl.td_loss, q, rng.integers(0, 18, 4096), reward, q, reward > 1, out=np.empty_like(q))
    yield "TD, 4096 x 18", call
    yield "squared error, float32, 4096: nothing to check", partial(fl.mse_loss, q[:227].copy(), q[1:228].copy())


def main() -> None:
    fl.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, fl.use_backend("cython"):
        modules = (_cython.kernels, without_checks(Path(folder)))
        for title, call in works():
            best = [float("inf")] * 2
            for round_ in range(ROUNDS):
                for i in (0, 1) if round_ % 2 else (1, 0):
                    _cython.kernels = modules[i]
                    for name in ("plain_rows", "plain_elementwise", "plain_softmax", "softmax"):
                        setattr(_cython, name, getattr(modules[i], name))
                    start = time.perf_counter()
                    call()
                    best[i] = min(best[i], time.perf_counter() - start)
            print(f"{title:55s} {best[0] / best[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
