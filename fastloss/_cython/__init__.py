"""The backend "cython": kernels compiled ahead of time, one module per CPU level, the best one chosen here."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np

from fastloss._blocks import blocks_of
from fastloss._threads import GRAIN as GRAIN
from fastloss.registry import LOSSES

name = "cython"
LEVELS = {1: "v1", 3: "v3", 4: "v4"}
# Per loss on the TD error: number of its loops. Their only parameter is delta, and squares have none.
_TD = {name: LOSSES[f"{name}_loss"].index for name in ("huber", "mse", "smooth_l1")}


def _level() -> str:
    """CPU level to use: what FASTLOSS_CPU says, else the fastest one that the CPU has."""
    cpu = importlib.import_module("fastloss._cython.cpu")
    forced = os.environ.get("FASTLOSS_CPU", "")
    if forced:
        if forced not in LEVELS.values():
            raise ImportError(f"FASTLOSS_CPU must be one of {', '.join(LEVELS.values())}, got {forced!r}")
        if int(forced[1:]) > cpu.level():
            raise ImportError(f"FASTLOSS_CPU={forced}, but this CPU only has level v{cpu.level()}")
        return forced
    return LEVELS[cpu.best()]


def _import():
    try:
        level = _level()
        return level, importlib.import_module(f"fastloss._cython.kernels_{level}")
    except ModuleNotFoundError as error:
        note = Path(__file__).with_name("build_failed.txt")
        if note.exists():
            raise ImportError(f"the build failed: {note.read_text().strip()}") from error
        raise ImportError("the package was installed with FASTLOSS_DISABLE_EXT=1") from error


level, kernels = _import()


def describe() -> str:
    """A line for show_config()."""
    forced = " (FASTLOSS_CPU)" if os.environ.get("FASTLOSS_CPU") else ""
    fma = "with fused multiply-add" if kernels.HAS_FMA else "without fused multiply-add"
    return f"CPU level {level}{forced} {fma}"


plain_elementwise = kernels.plain_elementwise  # loss and gradient of a call on plain arrays, or None; so do the next
plain_rows = kernels.plain_rows
plain_softmax = kernels.plain_softmax


def plain_td_loss(
    q, actions, rewards, next_q, terminated, gamma, online, legal, loss, delta, weight, mask, reduction, normalizer,
    grad, out, n_threads,
):  # fmt: skip
    return kernels.plain_td_loss(
        q, actions, rewards, next_q, terminated, gamma, online, legal, _TD[loss], (delta,), weight, mask, reduction,
        normalizer, grad, out, n_threads,
    )  # fmt: skip


def elementwise(loss, mode, x, y, third, params, weight, mask, scale, losses, grad, hess, partials, threads):
    arguments = (mode, x, y, third, params, weight, mask, scale, losses, grad, hess)
    return kernels.elementwise(LOSSES[loss].codes, *arguments, partials, threads)


def rows(loss, x, target, params, class_weight, ignore_index, weight, mask, scale, losses, grad, partials, threads):
    arguments = (x, target, params, class_weight, ignore_index, weight, mask, scale, losses, grad)
    return kernels.rows(LOSSES[loss].index, *arguments, partials, threads)


softmax = kernels.softmax


def target_weight(target, classes, class_weight, ignore_index, weight, mask):
    partials = np.empty(blocks_of(target.size))
    bad = kernels.target_weight(target, classes, class_weight, ignore_index, weight, mask, partials)
    return partials, bad


def td_loss(
    q, actions, rewards, next_q, terminated, gamma, online, legal, loss, delta, weight, mask, scale, losses, grad,
    td_error, partials, threads,
):  # fmt: skip
    return kernels.td_loss(
        q, actions, rewards, next_q, terminated, gamma, online, legal, _TD[loss], (delta,), weight, mask, scale,
        losses, grad, td_error, partials, threads,
    )  # fmt: skip
