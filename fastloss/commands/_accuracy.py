"""Runs the tasks of ``_exhaustive.py`` on all cores and keeps the table of accuracy."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fastloss as fl

from .. import __version__, _codegen, _cython, _threads
from . import CommandError, _exhaustive, one_line, progress_bar
from ._coverage import report
from ._exhaustive import KINDS, Found
from ._files import check_destination, write_file

FILE = Path(__file__).parent.parent / "accuracy.json"


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the table, say whether every budget holds."""
    share = 1.0 if arguments.share is None else arguments.share
    tasks = _exhaustive.plan(share, tuple(arguments.part or _exhaustive.WORK))
    if arguments.write:
        check_destination(str(FILE))
    found: Found = {}
    with State(None if arguments.state is None else Path(arguments.state), share) as state:
        for one in state.done.values():
            _exhaustive.merge(found, one)
        left = [task for task in tasks if str(task) not in state.done]
        jobs = min(arguments.jobs or _threads.get_num_threads(), len(left))
        with progress_bar(len(tasks), "task", "check") as advance:
            advance(len(tasks) - len(left))
            for task, one in _results(left, share, jobs):
                state.add(task, one)
                _exhaustive.merge(found, one)
                advance(1)
    failed = [row for row, kinds in found.items() if not _report(row, kinds)]
    if arguments.write:
        write(found, share, {task.part for task in tasks})
    print(f"{len(found) - len(failed)} of {len(found)} rows within their budgets\n")
    report(_measured({task.part for task in tasks}), "python -m fastloss check --exhaustive", "not measured")
    return 1 if failed else 0


def _measured(parts: set[str]) -> list[str]:
    """The backends that some parts measure."""
    compiled = [name for name in fl.backends() if name != "numpy"]
    if parts <= {"primitives", "sums"}:
        return [
            name
            for name in compiled
            if (name == "numba" and "primitives" in parts) or (name == compiled[0] and "sums" in parts)
        ]
    return compiled


def _results(tasks, share: float, jobs: int) -> Iterator[tuple[str, Found]]:
    work = partial(_one, share=share)
    if jobs <= 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(work, tasks)


def _one(task: _exhaustive.Task, share: float) -> tuple[str, Found]:
    return str(task), _exhaustive.run(task, share)


def _report(row: str, kinds: dict[str, tuple[float, str]]) -> bool:
    budgets, good = _exhaustive.budgets()[row], True
    texts = []
    for kind in KINDS:
        if kind in kinds:
            error, place = kinds[kind]
            over = not error <= budgets.get(kind, 0.0)
            good &= not over
            texts.append(f"{kind} {error:.4f} of {budgets[kind]:g}" + (f" FAILED at {place}" if over else ""))
    print(f"{row:<64} {', '.join(texts)}", flush=True)
    return good


class State:
    """What is done: a line of JSON per task, after one that says of which kernels and share."""

    def __init__(self, path: Path | None, share: float) -> None:
        self.path = path
        self.done: dict[str, Found] = {}
        self._header = {"kernels": _codegen._stamp(), "cpu": level(), "share": share}

    def __enter__(self) -> State:
        if self.path is None:
            return self
        check_destination(str(self.path))
        with self._named():
            same = self._header == _header(self.path, self._header)
            if same:
                self.done = dict(_tasks(self.path))
            self._file = self.path.open("a" if same else "w", encoding="utf-8")
            if not same:
                self._line(self._header)
        return self

    def add(self, task: str, found: Found) -> None:
        if self.path is not None:
            with self._named():
                self._line({"task": task, "found": found})

    def _line(self, entry: dict[str, Any]) -> None:
        self._file.write("\n" + json.dumps(entry) + "\n")
        self._file.flush()

    def __exit__(self, *_) -> None:
        if self.path is not None:
            with contextlib.suppress(OSError):  # said when it was written
                self._file.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CommandError(f"{self.path}: {one_line(error)}") from error


def _header(path: Path, like: dict[str, Any]) -> Any:
    """Return a file's first line; one that is none of ours is an error, and the file stays as it is."""
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: --state needs a file that can be read again")
    if not path.exists() or path.stat().st_size == 0:
        return None
    with contextlib.suppress(ValueError), path.open("rb") as file:
        # Each line comes after an empty one.
        found = json.loads(file.read(4096).lstrip().partition(b"\n")[0])
        if isinstance(found, dict) and found.keys() == like.keys():
            return found
    raise CommandError(f"{path}: not a file that --state has written, so it stays as it is")


def _tasks(path: Path) -> Iterator[tuple[str, Found]]:
    """The lines that are whole: what ended a run may have cut one off."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.keys() == {"task", "found"}:
                yield entry["task"], entry["found"]


def level() -> str:
    """CPU level of the Cython kernels, or Numba."""
    return getattr(_cython.kernels, "__name__", "numba").rpartition("_")[2]


# --- the table


def table() -> dict[str, Any]:
    """Per row: which inputs, when and with what measured; per kind of result the budget, the error and its place."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def write(found: Found, share: float, parts: set[str]) -> None:
    """Enter errors; rows of losses that are no more go. Random inputs say nothing of a row measured over all."""
    every = "all" if share == 1 else f"one in {round(1 / share)}"
    old, rows = table(), {}
    stamp = {"date": f"{datetime.date.today()}", "version": __version__, "cpu": level()}
    for row, budgets in _exhaustive.budgets().items():
        entry = old.get(row, {})
        whole = "binary" if row.startswith(_exhaustive.BINARY) else "primitives"
        if row in found and (row not in _exhaustive.complete() or whole in parts):
            entry = {"inputs": every if row in _exhaustive.complete() else "random and climbed", **stamp}
            entry |= {kind: {"measured": error, "at": place} for kind, (error, place) in found[row].items()}
        kinds = {kind: {"budget": budgets[kind]} | entry.get(kind, {}) | {"budget": budgets[kind]} for kind in budgets}
        rows[row] = {key: value for key, value in entry.items() if key not in KINDS} | kinds
    lines = [f"{json.dumps(row)}: {json.dumps(entry)}" for row, entry in rows.items()]
    write_file(str(FILE), ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8"))
