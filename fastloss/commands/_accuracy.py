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

from .. import __version__, _codegen, _cython, _threads
from . import CommandError, _exhaustive, from_extra, one_line, progress_bar
from ._exhaustive import KINDS, Found

FILE = Path(__file__).parent.parent / "accuracy.json"


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the table, say whether every budget holds."""
    from_extra("numba", "numba", "Numba", "check --exhaustive")
    if arguments.backend is not None:
        raise CommandError("--exhaustive measures both compiled backends: leave --backend out")
    tasks = _exhaustive.plan(arguments.share, tuple(arguments.part or _exhaustive.WORK))
    found: Found = {}
    with State(arguments.state and Path(arguments.state), arguments.share) as state:
        for one in state.done.values():
            _exhaustive.merge(found, one)
        left = [task for task in tasks if str(task) not in state.done]
        jobs = min(arguments.jobs or _threads.get_num_threads(), len(left))
        with progress_bar(len(tasks), "task", "check") as advance:
            advance(len(tasks) - len(left))
            for task, one in _results(left, arguments.share, jobs):
                state.add(task, one)
                _exhaustive.merge(found, one)
                advance(1)
    failed = [row for row, kinds in found.items() if not _report(row, kinds)]
    if arguments.write:
        write(found, arguments.share, {task.part for task in tasks})
    print(f"{len(found) - len(failed)} of {len(found)} rows within their budgets")
    return 1 if failed else 0


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
        try:
            entries = list(self._entries())
            same = entries[:1] == [self._header]
            self.done = {entry["task"]: entry["found"] for entry in entries[1:] if same}
            self._file = self.path.open("a" if same else "w", encoding="utf-8")
            if not same:
                self._line(self._header)
        except OSError as error:
            raise CommandError(f"{self.path}: {one_line(error)}") from error
        return self

    def _entries(self) -> Iterator[Any]:
        """The lines that are whole: what ended a run may have cut one off."""
        if self.path is not None and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def add(self, task: str, found: Found) -> None:
        if self.path is not None:
            self._line({"task": task, "found": found})

    def _line(self, entry: dict[str, Any]) -> None:
        self._file.write("\n" + json.dumps(entry) + "\n")
        self._file.flush()

    def __exit__(self, *_) -> None:
        if self.path is not None:
            self._file.close()


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
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
