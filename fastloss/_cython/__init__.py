"""The backend "cython": kernels compiled ahead of time, one module per CPU level, the best one chosen here."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from fastloss import _environment
from fastloss._blocks import blocks_of
from fastloss._cython import _missing
from fastloss._dispatch import NotBuilt
from fastloss._threads import GRAIN as GRAIN
from fastloss.registry import LOSSES

name = "cython"
LEVELS = {1: "v1", 3: "v3", 4: "v4"}
# Per loss on the TD error: number of its loops. Their only parameter is delta, and squares have none.
_TD = {name: LOSSES[f"{name}_loss"].index for name in ("huber", "mse", "smooth_l1")}


def _kernels(level: str) -> ModuleType:
    # Statements and no names in strings: tools that freeze programs see what to take along.
    if level == "v4":
        import fastloss._cython.kernels_v4 as found
    elif level == "v3":
        import fastloss._cython.kernels_v3 as found
    else:
        import fastloss._cython.kernels_v1 as found
    return found


def _choose() -> tuple[str, ModuleType, dict[str, str]]:
    """The CPU level that FASTLOSS_CPU says, else the best one that is there; why better ones are not."""
    wanted = _environment.level()
    if wanted == "none":
        raise NotBuilt("FASTLOSS_CPU=none switches it off")
    try:
        import fastloss._cython.cpu as cpu
    except Exception as error:
        raise NotBuilt(_missing.why_none(error)) from error
    runs = [n for n in sorted(LEVELS, reverse=True) if n <= cpu.level()]
    if wanted and wanted not in [LEVELS[n] for n in runs]:
        raise NotBuilt(f"FASTLOSS_CPU={wanted}, but this CPU only has level v{cpu.level()}")
    order = [wanted] if wanted else list(dict.fromkeys(LEVELS[n] for n in (cpu.best(), *runs)))
    passed: dict[str, str] = {}
    for level in order:
        try:
            return level, _kernels(level), passed
        except Exception as error:  # a module that is not there, or does not fit this Python or NumPy
            passed[level] = _missing.why(f"kernels_{level}", error)
    raise NotBuilt(
        "; ".join(f"the kernels of CPU level {level} {reason}" for level, reason in passed.items())
        + f" (there are those of {', '.join(_missing.built(LEVELS.values())) or 'none'})"
    )


level, kernels, _passed = _choose()
_forced = " (FASTLOSS_CPU)" if _environment.level() else ""


def describe() -> str:
    """A line for show_config()."""
    fma = "with fused multiply-add" if kernels.HAS_FMA else "without fused multiply-add"
    better = "".join(f"; the kernels of {other}, better here, {reason}" for other, reason in _passed.items())
    return f"CPU level {level}{_forced} {fma}{better}"


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
