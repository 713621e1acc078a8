"""Compute a loss over arrays in files of any size, in constant memory.

The files are read in batches of rows. INPUT holds predictions or logits, TARGET
what they are compared with. Losses of classes, such as cross_entropy, take
logits of shape (rows, ..., classes), and class indices of shape (rows, ...) or
a value per class. What else a loss takes is a --param; `fastloss list` shows
their defaults. No result depends on the size of a batch, down to the last bit.

An array is a file.npy, a member of an archive as file.npz::name, or - for
standard input (one of them). Two bytes of no type known to NumPy, '<V2', are
bfloat16, as ml_dtypes writes it. Files must not change while they are read.

The loss is a mean over samples, or what --reduction says; accuracy goes by the
samples' weights, perplexity is printed where the mean does too. nmae_loss reads
the targets for its norm first; for norm=iqr all of them are held in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from .._accumulate import NAMES, LossSum, array_names, entries_shape
from ..registry import LOSSES
from . import CommandError, add_backend_argument, one_line, positive_int, progress_bar
from ._hits import Hits
from ._losses import full_name, name_and_value, own_parameters, shortest_name
from ._nonfinite import NonFinite, first_nonfinite
from ._norm import norm_of
from ._npy import NpyFile, names_array

_BATCH_BYTES = 4 << 20
_REDUCTIONS = ("mean", "sum", "weighted_mean")
_WORDS = {"true": True, "yes": True, "false": False, "no": False, "none": None}

# What the library raises about arrays, parameters and backends.
_LIBRARY_ERRORS = (TypeError, ValueError, IndexError, RuntimeError, ImportError)

Arrays = dict[str, np.ndarray]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("loss", metavar="LOSS", help="a loss, by its full or short name (ce, bce, mse)")
    parser.add_argument("input", metavar="INPUT.npy", help="predictions or logits")
    parser.add_argument("target", metavar="TARGET.npy", help="targets, class indices or a value per class")
    parser.add_argument("--weights", metavar="W.npy", help="weight of each sample")
    parser.add_argument("--mask", metavar="M.npy", help="booleans; False leaves a sample out")
    parser.add_argument(
        "--reduction",
        choices=_REDUCTIONS,
        default="mean",
        help="mean divides by the number of samples (or by their class weights, where the loss does), "
        "weighted_mean by their weights (default: mean)",
    )
    parser.add_argument("--batch", metavar="ROWS", type=positive_int, help="rows at a time (default: 4 MiB of input)")
    add_backend_argument(parser)
    parser.add_argument("--threads", metavar="N", type=positive_int, help="number of threads")
    parser.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="parameter of the loss: a number, several with commas, True, False, None, a word or an array as above; "
        "others may follow, NAME=VALUE each, or another --param",
    )
    parser.add_argument("--json", action="store_true", help='print JSON; what is not finite is "nan", "inf" or "-inf"')
    parse = parser.parse_known_args
    parser.parse_known_args = lambda args=None, namespace=None: parse(_each_by_itself(args), namespace)  # type: ignore[method-assign, assignment, misc]


def _each_by_itself(arguments: Any) -> list[str]:
    """Write ``--param a=1 b=2`` as ``--param a=1 --param b=2``: several values would swallow the files behind them."""
    found: list[str] = []
    following = False  # whether a parameter or its value stands before
    for argument in arguments or ():
        named = argument == "--param"
        value = following and re.match(r"[a-z]\w*=", argument)
        if value and found[-1] != "--param":
            found.append("--param")
        following = named or argument.startswith("--param=") or bool(value) or found[-1:] == ["--param"]
        found.append(argument)
    return found


@dataclass
class _Task:
    """What is evaluated."""

    loss: str
    files: dict[str, NpyFile]  # read in rows, by the names that LossSum gives to their arrays
    params: dict[str, Any]  # the same for all rows
    fixed: dict[str, np.ndarray]  # further arrays that are the same for all rows, such as a variance for each column
    paths: dict[str, str]  # where arrays come from, by the names in the library's messages

    @property
    def shape(self) -> tuple[int, ...]:
        return self.files["input"].shape

    @property
    def has_hits(self) -> bool:
        """Whether targets are class indices, so that there is an accuracy."""
        return (
            self.loss in LOSSES
            and LOSSES[self.loss].target == "class"
            and len(self.shape) > len(self.files["target"].shape)
        )

    def error(self, message: str) -> CommandError:
        """An error that names the file of what a message is about, the first argument in it."""
        named = re.search(rf"\b({'|'.join({**self.paths, **self.params, **self.fixed})})\b", message)
        return CommandError(f"{self.paths[named[1]]}: {message}" if named and named[1] in self.paths else message)


def run(arguments: argparse.Namespace) -> int:
    """Stream the files through the loss and print the results."""
    with contextlib.ExitStack() as stack:
        return _run(arguments, _task(arguments, stack))


def _run(arguments: argparse.Namespace, task: _Task) -> int:
    try:
        total, seconds, hits, bad = _stream(arguments, task)
    except CommandError:
        for file in task.files.values():
            file.check_unchanged()  # which may be why
        raise
    for file in task.files.values():
        file.finish()
    results = _results(arguments, task, total, hits)
    size = sum(math.prod(file.shape) * file.dtype.itemsize for file in task.files.values())
    amounts = {"rows": task.shape[0], "elements": math.prod(task.shape), "GB": size / 1e9}
    rates = {name: amount / max(seconds, 1e-9) for name, amount in amounts.items()}
    if arguments.json:
        speed = {f"{name}_per_second": rate for name, rate in rates.items()}
        where = {"first_nonfinite": bad.as_dict()} if bad else {}
        _print_json({"name": task.loss, "reduction": arguments.reduction, **results, **where, **speed})
        return 0
    for name, value in results.items():
        print(f"{name:<11} {value!r}")
    if bad:
        print(f"{'first ' + str(bad.loss):<11} {bad}")
    print("throughput  {rows:.4g} rows/s, {elements:.4g} elements/s, {GB:.3g} GB/s".format(**rates))
    return 0


def _task(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> _Task:
    """Open the files, for as long as the stack lasts, sort the parameters, and compare shapes."""
    name = full_name(arguments.loss, NAMES)
    if name == "rmse_loss" and arguments.reduction == "sum":
        raise CommandError("rmse_loss is the root of a mean; --reduction sum has none")
    paths = {"input": arguments.input, "target": arguments.target}
    paths |= {"sample_weight": arguments.weights} if arguments.weights is not None else {}
    paths |= {"mask": arguments.mask} if arguments.mask is not None else {}
    values = _parameters(name, arguments.param)
    paths |= {key: value.path for key, value in values.items() if isinstance(value, _Path)}
    if list(paths.values()).count("-") > 1:
        raise CommandError("only one array can come from standard input")
    opened = {key: stack.enter_context(contextlib.closing(NpyFile(path))) for key, path in paths.items()}
    _check_shapes(name, opened)
    files = {key: file for key, file in opened.items() if key not in values or _in_rows(name, key, opened)}
    read = {key: _all(opened[key]) for key in opened.keys() - files.keys()}
    given = {key: value for key, value in values.items() if not isinstance(value, _Path)} | read
    if name == "nmae_loss" and isinstance(norm := given.get("norm", "mean"), str):
        given["norm"] = norm_of(norm, files["target"], files.get("mask"))
    further = array_names(name)[2:]
    missing = [key for key in further if key not in given and key not in files]
    if missing:
        raise CommandError(f"{name} needs {missing[0]}: --param {missing[0]}=FILE.npy")
    sources = {key: file.name for key, file in opened.items()}
    sources |= dict(zip(array_names(name), [sources["input"], sources["target"]], strict=False))
    fixed = {key: given.pop(key) for key in further if key in given}
    return _Task(name, files, given, fixed, sources)


@dataclass
class _Path:
    """A parameter's value that is in a file."""

    path: str


def _parameters(name: str, texts: list[str]) -> dict[str, Any]:
    known = dict.fromkeys(array_names(name)[2:]) | own_parameters(name)
    params: dict[str, Any] = {}
    for text in texts:
        key, value = name_and_value("--param", text)
        if key not in known:
            raise CommandError(f"{name} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
        if key in params:
            raise CommandError(f"--param {key} is given twice")
        params[key] = _value(key, value, isinstance(known[key], str))
    return params


def _value(key: str, text: str, word: bool) -> Any:
    """What a parameter's text means; ``word``: it may be one."""
    if names_array(text):
        return _Path(text)
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    numbers = [_number(part) for part in text.split(",")]
    if None not in numbers:
        return numbers[0] if len(numbers) == 1 else tuple(numbers)
    if word:
        return text
    raise CommandError(f"--param {key}: {text!r} is no number, True, False, None or array (file.npy, file.npz::name)")


def _number(text: str) -> int | float | None:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return None


def _check_shapes(name: str, files: dict[str, NpyFile]) -> None:
    """Compare the shapes of predictions, targets, weights and mask."""
    first, target = files["input"], files["target"]
    if not first.shape:
        raise first.error("a single number; rows are needed")
    facts = LOSSES.get(name)
    shape = first.shape if facts is None else entries_shape(name, first.shape)
    if facts is not None and facts.kind != "elementwise" and len(first.shape) < 2:
        raise first.error(f"{name} takes logits of shape (rows, ..., classes), got {first.shape}")
    expected = first.shape if facts is not None and facts.target == "distribution" else shape
    if name == "cross_entropy" and target.dtype.kind not in "iu":
        if target.shape == shape:
            raise target.error(f"target must be of an integer type, or hold a value per class, got {target.dtype}")
        expected = first.shape
    if target.shape != expected:
        raise target.error(f"shape {target.shape} does not match {expected}, that of the targets of {first.name}")
    shape = entries_shape(name, first.shape)
    for key in [key for key in ("sample_weight", "mask") if key in files]:
        given = files[key].shape
        if not given or given != shape[: len(given)]:
            raise files[key].error(f"shape {given} must be the leading dimensions of {shape}")


def _in_rows(name: str, key: str, files: dict[str, NpyFile]) -> bool:
    """Whether a parameter's array has a row for each of the predictions', and is not the same for all."""
    shape, given = files["input"].shape, files[key].shape
    of_rows = key in array_names(name) and name in LOSSES and LOSSES[name].kind != "elementwise"
    return given[:1] == shape[:1] and (of_rows or len(given) == len(shape))


def _all(file: NpyFile) -> np.ndarray:
    if not file.shape:
        raise file.error("a single number; give it on the command line")
    array = file.rows(0, file.shape[0])
    file.finish()
    return array


def _stream(arguments: argparse.Namespace, task: _Task) -> tuple[LossSum, float, Hits | None, NonFinite | None]:
    """Sum the loss over all batches; returns the sum, the seconds, the hits and the first loss that is not finite."""
    rows, *rest = task.shape

    def new_sum(rows: int) -> LossSum:
        reduction = "weighted_mean" if arguments.reduction == "weighted_mean" else "mean"
        try:
            return LossSum(
                task.loss, (rows, *rest), reduction=reduction, backend=arguments.backend,
                n_threads=arguments.threads, **task.params,
            )  # fmt: skip
        except _LIBRARY_ERRORS as error:
            raise task.error(one_line(error).replace("input_shape", "input")) from error

    total = new_sum(rows)
    hits = Hits(task.params) if task.has_hits else None
    bad: NonFinite | None = None
    seconds = -perf_counter()
    with progress_bar(rows, " rows", shortest_name(task.loss)) as advance:
        for start, arrays in _batches(task, _batch_rows(arguments, task, total)):
            if start == 0:
                # One row beforehand: the clock is not to measure just-in-time compilation.
                seconds += perf_counter()
                _feed(new_sum(min(1, rows)), task, {key: array[:1] for key, array in arrays.items()}, 0)
                seconds -= perf_counter()
            _feed(total, task, arrays, start)
            if hits:
                hits.count(arrays)
            if bad is None and not math.isfinite(total.total):
                bad = first_nonfinite(task.loss, task.params | task.fixed, arrays, start, task.paths)
            advance(len(arrays["input"]))
    return total, seconds + perf_counter(), hits, bad


def _batch_rows(arguments: argparse.Namespace, task: _Task, total: LossSum) -> int:
    """Rows at a time: whole blocks of sums, unless these are large."""
    row_bytes = max(1, task.files["input"].row_bytes)
    size = arguments.batch or max(1, _BATCH_BYTES // row_bytes)
    whole = -(-size // total.granularity) * total.granularity
    return whole if whole * row_bytes <= max(2 * _BATCH_BYTES, size * row_bytes) else size


def _batches(task: _Task, size: int) -> Iterator[tuple[int, Arrays]]:
    """Read rows; there is one batch at least, if need be an empty one."""
    rows = task.shape[0]
    for start in range(0, max(1, rows), size):
        stop = min(start + size, rows)
        yield start, {key: file.rows(start, stop) for key, file in task.files.items()}


def _feed(total: LossSum, task: _Task, arrays: Arrays, start: int) -> None:
    """Add some rows to a sum."""
    x, target, *more = arrays.values()
    try:
        total.update(x, target, **task.fixed, **dict(zip(list(arrays)[2:], more, strict=True)))
    except _LIBRARY_ERRORS as error:
        raise _explain(error, task, start) from error


def _explain(error: Exception, task: _Task, start: int) -> CommandError:
    """Turn an error about the rows from `start` on into one that names the file and counts from its first row."""
    names = "|".join(task.paths)
    row = re.compile(rf"(\b(?:{names})\[|\b(?:row|index|position|at) [(\[]?)(\d+)")
    message, found = row.subn(lambda m: f"{m[1]}{int(m[2]) + start}", one_line(error), count=1)
    if start and not found:
        message += f" (in the batch that starts at row {start})"
    return task.error(message)


def _results(arguments: argparse.Namespace, task: _Task, total: LossSum, hits: Hits | None) -> dict[str, float]:
    """What is printed, by name."""
    found: dict[str, float] = {"loss": float(total.total if arguments.reduction == "sum" else total.mean)}
    if task.loss != "rmse_loss":
        found["sum"] = float(total.total)
    found["count"] = total.count
    if total.weight != total.count:
        found["weight"] = float(total.weight)
    unweighted = "sample_weight" not in task.files or arguments.reduction == "weighted_mean"
    added = task.params.get("label_smoothing") or task.params.get("z_loss")
    if task.loss == "cross_entropy" and unweighted and not added:
        found["perplexity"] = _exp(total.mean)
    if hits:
        found["accuracy"] = hits.share
    return found


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _print_json(results: dict[str, Any]) -> None:
    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(v) for key, v in value.items()}
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(finite(results), indent=2))
