"""Time to the first result in a fresh process: import and first call, with and without compiled code on disk."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .headline import present
from .timing import Effort

__all__ = ["STARTS", "measure"]

_ROUNDS = 3

# JAX has one, too, but not unless it is told to.
_CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")

_MEASURE = """
import json, time
times = [time.perf_counter()]
import numpy as np
x, y = np.linspace(-4, 4, 1000, dtype=np.float32), np.tile(np.float32([0, 1]), 500)
{imports}
times.append(time.perf_counter())
{call}
times.append(time.perf_counter())
print(json.dumps([times[1] - times[0], times[2] - times[1]]))
"""


@dataclass(frozen=True)
class Start:
    """A first call: the contender, and what a user writes."""

    label: str
    contender: str
    imports: str
    call: str


def _fastloss(backend: str) -> tuple[str, str]:
    return "import fastloss as fl", f"fl.binary_cross_entropy_with_logits(x, y, backend={backend!r})"


_TORCH = (
    "import torch; from torch.nn.functional import binary_cross_entropy_with_logits as bce",
    "x = torch.from_numpy(x).requires_grad_(); bce(x, torch.from_numpy(y)).backward()",
)
_COMPILED = (
    "import torch; from benchmarks.torch_formulas import binary_cross_entropy_with_logits as bce",
    "torch.compile(bce, dynamic=False)(torch.from_numpy(x), torch.from_numpy(y))",
)
_JAX = (
    "import jax; from optax import sigmoid_binary_cross_entropy as bce",
    "jax.block_until_ready(jax.jit(jax.value_and_grad(lambda x, y: bce(x, y).mean()))(x, y))",
)
_SKLEARN = (
    "from sklearn._loss import HalfBinomialLoss",
    "HalfBinomialLoss().loss_gradient(y, x)",
)
_NAIVE = (
    "from benchmarks.naive_loops import binary_cross_entropy_with_logits as bce",
    "bce(x, y)",
)

# In this order: what is filled by one is used by the next.
STARTS = (
    Start("fastloss, Cython", "fastloss-cython", *_fastloss("cython")),
    Start("fastloss, Numba, empty cache", "fastloss-numba", *_fastloss("numba")),
    Start("fastloss, Numba, filled cache", "fastloss-numba", *_fastloss("numba")),
    Start("Numba loop, no cache", "naive-numba", *_NAIVE),
    Start("PyTorch", "pytorch", *_TORCH),
    Start("torch.compile, empty cache", "torch-compile", *_COMPILED),
    Start("torch.compile, filled cache", "torch-compile", *_COMPILED),
    Start("JAX", "jax", *_JAX),
    Start("scikit-learn", "scikit-learn", *_SKLEARN),
)


def measure(effort: Effort) -> list[dict[str, Any]]:
    """Run each start several times, in turns; returns the medians."""
    installed = present(dict.fromkeys(start.contender for start in STARTS))
    starts = [start for start in STARTS if start.contender in installed]
    samples: dict[str, list[list[float]]] = {start.label: [] for start in starts}
    with tqdm(total=len(starts) * _ROUNDS, unit="process", disable=None, leave=False) as bar:
        for _ in range(_ROUNDS):
            # Each round begins without caches; those that need one find what an earlier start has left.
            with tempfile.TemporaryDirectory() as caches:
                for start in starts:
                    bar.set_description(start.label)
                    samples[start.label].append(_run(start, caches))
                    bar.update()
    medians = {label: [statistics.median(part) for part in zip(*runs, strict=True)] for label, runs in samples.items()}
    return [
        {"label": label, "import_seconds": imports, "call_seconds": call} for label, (imports, call) in medians.items()
    ]


def _run(start: Start, caches: str) -> list[float]:
    program = _MEASURE.format(imports=start.imports, call=start.call)
    # The folder of this clone, also where the command was started from another one.
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(":")
    environment = os.environ | dict.fromkeys(_CACHES, caches) | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    finished = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return json.loads(finished.stdout.splitlines()[-1])
