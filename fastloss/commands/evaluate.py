"""Compute a loss over .npy files of any size, in constant memory.

The files are memory-mapped and read in batches of rows. INPUT holds predictions
or logits, TARGET what they are compared with; cross_entropy and the other losses of
classes take logits of shape (rows, ..., classes) and class indices of shape (rows, ...). The results do not
depend on the size of a batch, down to the last bit.
"""

from __future__ import annotations

import argparse
import math
import re
from time import perf_counter
from typing import Any

import numpy as np

from .. import registry
from .._accumulate import LossSum
from . import CommandError, add_backend_argument, one_line, positive_int, progress_bar
from ._losses import full_name, name_and_value, own_parameters
from ._npy import NpyFile

_BATCH_BYTES = 4 << 20

# What the library raises about arrays, parameters and backends.
_LIBRARY_ERRORS = (TypeError, ValueError, IndexError, RuntimeError, ImportError)

# Where a message names an argument, and where it counts rows.
_ARGUMENT = re.compile(r"\b(input|target|sample_weight|mask)\b")
_ROW = re.compile(r"(\b(?:input|target|sample_weight|mask)\[|\b(?:row|index|position|at) [(\[]?)(\d+)")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("loss", metavar="LOSS", help="an elementwise loss, or one of classes such as cross_entropy")
    parser.add_argument("input", metavar="INPUT.npy", help="predictions or logits")
    parser.add_argument("target", metavar="TARGET.npy", help="targets or class indices")
    parser.add_argument("--weights", metavar="W.npy", help="weight of each sample")
    parser.add_argument("--mask", metavar="M.npy", help="booleans; False leaves a sample out")
    parser.add_argument("--batch", metavar="ROWS", type=positive_int, help="rows at a time (default: 4 MiB of input)")
    add_backend_argument(parser)
    parser.add_argument("--threads", metavar="N", type=positive_int, help="number of threads")
    parser.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="parameter of the loss, a number or an .npy file; may be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Stream the files through the loss and print the results."""
    two_arrays = [k for k, loss in registry.LOSSES.items() if loss.kind in ("elementwise", "rows")]
    name = full_name(arguments.loss, two_arrays)
    params = _parameters(name, arguments.param)
    files = _open(arguments, name)
    total, seconds, hits, kept = _stream(arguments, name, params, files)
    _report(name, files, total, seconds, hits, kept)
    return 0


<<<<<<< HEAD
def _has_classes(name: str) -> bool:
    return registry.LOSSES[name].kind == "rows"
=======
def _loss_name(given: str) -> str:
    names = [loss.name for loss in registry.LOSSES.values() if loss.pointwise or loss.name == "cross_entropy"]
    # A short alias is the same function under another name.
    name = getattr(getattr(fl, given, None), "__name__", given)
    if name not in names:
        problem = "has no two-array form" if name in registry.LOSSES else "is not a loss"
        raise CommandError(f"{given!r} {problem}; choose from {', '.join(sorted(names))}")
    return name
>>>>>>> 122a360d7a74ef9bc77f7ecdf74a7e7177700b06


def _parameters(name: str, given: list[str]) -> dict[str, Any]:
    known = own_parameters(name)
    params = {}
    for text in given:
        key, value = name_and_value("--param", text)
        if key not in known:
            raise CommandError(f"{name} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
        params[key] = _value(key, value)
    return params


def _value(key: str, text: str) -> object:
    if text.endswith(".npy"):
        file = NpyFile(text)
        if not file.shape:
            raise file.error("a single number; give it on the command line")
        return file.rows(0, file.shape[0])
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    raise CommandError(f"--param {key}: {text!r} is neither a number nor an .npy file")


def _open(arguments: argparse.Namespace, name: str) -> dict[str, NpyFile]:
    """Open the files under the names that the library gives to their arrays, and compare shapes."""
    paths = {
        "input": arguments.input,
        "target": arguments.target,
        "sample_weight": arguments.weights,
        "mask": arguments.mask,
    }
    files = {key: NpyFile(path) for key, path in paths.items() if path is not None}
    shape = files["input"].shape
    if _has_classes(name):
        if len(shape) < 2:
            raise files["input"].error(f"{name} takes logits of shape (rows, ..., classes), got {shape}")
        shape = shape[:-1]
    elif not shape:
        raise files["input"].error("a single number; rows are needed")
    target = files["target"]
    if target.shape != shape:
        raise target.error(f"shape {target.shape} does not match {shape}, that of the targets of {arguments.input}")
    for key in [key for key in ("sample_weight", "mask") if key in files]:
        given = files[key].shape
        if not given or given != shape[: len(given)]:
            raise files[key].error(f"shape {given} must be the leading dimensions of {shape}")
    return files


def _stream(
    arguments: argparse.Namespace, name: str, params: dict[str, Any], files: dict[str, NpyFile]
) -> tuple[LossSum, float, int, int]:
    """Sum the loss over all batches; returns the sum, the seconds, the hits and the counted targets."""
    rows, *rest = files["input"].shape

    def new_sum(rows: int) -> LossSum:
        try:
            return LossSum(name, (rows, *rest), backend=arguments.backend, n_threads=arguments.threads, **params)
        except _LIBRARY_ERRORS as error:
            raise CommandError(one_line(error)) from error

    total = new_sum(rows)
    size = arguments.batch or max(1, _BATCH_BYTES // max(1, files["input"].row_bytes))
    size = -(-size // total.granularity) * total.granularity
    # One row beforehand: the clock is not to measure just-in-time compilation, and dtypes are checked.
    first = min(1, rows)
    _feed(new_sum(first), files, 0, first)
    hits = kept = 0
    started = perf_counter()
    with progress_bar(rows, " rows", name) as advance:
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            arrays = _feed(total, files, start, stop)
            if _has_classes(name):
                right, counted = _count_hits(arrays, params.get("ignore_index", -100))
                hits, kept = hits + right, kept + counted
            advance(stop - start)
    return total, perf_counter() - started, hits, kept


def _feed(total: LossSum, files: dict[str, NpyFile], start: int, stop: int) -> dict[str, np.ndarray]:
    """Add some rows to a sum; returns their arrays."""
    arrays = {key: file.rows(start, stop) for key, file in files.items()}
    try:
        total.update(
            arrays["input"], arrays["target"], sample_weight=arrays.get("sample_weight"), mask=arrays.get("mask")
        )
    except _LIBRARY_ERRORS as error:
        raise _explain(error, files, start) from error
    return arrays


def _explain(error: Exception, files: dict[str, NpyFile], start: int) -> CommandError:
    """Turn an error about the rows from `start` on into one that names the file and counts from its first row."""
    message, found = _ROW.subn(lambda m: f"{m[1]}{int(m[2]) + start}", one_line(error), count=1)
    if start and not found:
        message += f" (in the batch that starts at row {start})"
    argument = _ARGUMENT.search(message)
    return files[argument[1]].error(message) if argument and argument[1] in files else CommandError(message)


def _count_hits(arrays: dict[str, np.ndarray], ignore_index: int) -> tuple[int, int]:
    """Count the right and all the kept predictions; of equal logits the first is the prediction."""
    logits, target = arrays["input"], arrays["target"]
    keep = target != ignore_index
    if "mask" in arrays:
        mask = arrays["mask"].astype(bool, copy=False)
        keep &= mask.reshape(mask.shape + (1,) * (keep.ndim - mask.ndim))
    if not logits.size:
        return 0, 0
    return int(np.count_nonzero((logits.argmax(-1) == target) & keep)), int(np.count_nonzero(keep))


def _report(name: str, files: dict[str, NpyFile], total: LossSum, seconds: float, hits: int, kept: int) -> None:
    classes = _has_classes(name)
    mean = float(total.mean)
    print(f"loss        {mean!r}")
    print(f"sum         {float(total.total)!r}")
    print(f"count       {kept if classes else int(total.weight)}")
    if registry.LOSSES[name].family == "softmax":
        print(f"perplexity  {_exp(mean)!r}")
    if classes:
        print(f"accuracy    {hits / kept if kept else math.nan!r}")
    shape = files["input"].shape
    size = sum(math.prod(file.shape) * file.dtype.itemsize for file in files.values())
    rates = [amount / max(seconds, 1e-9) for amount in (shape[0], math.prod(shape), size / 1e9)]
    print(f"throughput  {rates[0]:.4g} rows/s, {rates[1]:.4g} elements/s, {rates[2]:.3g} GB/s")


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
