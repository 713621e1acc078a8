"""The table ``work x contender -> callable`` that drives checks, timings and README.

A contender prepares a work outside the timing (arrays converted, code compiled) and returns a
callable without arguments that computes ``(loss, grad, ...)`` of the mean over the work's arrays,
or None where it has no such loss. All compute in the work's dtype, on as many threads as told.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastloss as fl
from fastloss.registry import LOSSES

from . import plain_numpy
from .works import GAMMA, Work

__all__ = ["BASELINE", "CONTENDERS", "Contender"]

Call = Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Contender:
    """One way to compute a loss and its gradient.

    Attributes
    ----------
    name, label : str
        In ids and results, and in tables.
    needs : tuple of str
        Modules to be installed, or fastloss's backend as ``"backend:NAME"``.
    prepare : callable
        ``prepare(work, threads)`` returns the callable, or None.
    reduces : bool
        False: losses and gradients are per sample, neither averaged nor divided.
    """

    name: str
    label: str
    needs: tuple[str, ...]
    prepare: Callable[[Work, int], Call | None]
    reduces: bool = True

    def missing(self) -> list[str]:
        """What has to be installed first."""
        return [need for need in self.needs if not _installed(need)]


def _installed(need: str) -> bool:
    kind, _, backend = need.rpartition(":")
    return backend in fl.backends() if kind else importlib.util.find_spec(need) is not None


def _fastloss(backend: str) -> Callable[[Work, int], Call]:
    def prepare(work: Work, threads: int) -> Call:
        fl.set_num_threads(threads)  # not per call: most callers leave n_threads out, and so does this
        loss, a = getattr(fl, work.loss), work.arrays()
        x = a["x"]
        options: dict[str, Any] = {"backend": backend}
        if LOSSES[work.loss].kind == "gather":
            others = [a[name] for name in ("actions", "rewards", "next_q", "terminated")]
            options |= {"gamma": GAMMA, "sample_weight": a["weight"], "mask": a["mask"]}
        else:
            others = [a["y"]]
        return lambda: loss(x, *others, **options)

    return prepare


def _numpy(work: Work, threads: int) -> Call | None:
    loss, a = getattr(plain_numpy, work.loss, None), work.arrays()
    return loss and (lambda: loss(**a))


def _pytorch(work: Work, threads: int) -> Call | None:
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    a = {name: torch.from_numpy(array) for name, array in work.arrays().items()}
    x = a["x"].detach().requires_grad_()

    def td() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            target = a["rewards"] + GAMMA * a["next_q"].amax(1).masked_fill_(a["terminated"], 0)
        value = x.gather(1, a["actions"][:, None])[:, 0]
        scale = a["weight"].where(a["mask"], 0) / a["mask"].sum()
        loss = (functional.huber_loss(value, target, reduction="none") * scale).sum()
        return loss, target - value.detach()

    def call() -> tuple[torch.Tensor, ...]:
        x.grad = None  # what zero_grad does
        loss, *others = forward()
        loss.backward()
        return loss, x.grad, *others

    if work.loss == "td_loss":
        forward = td
    elif hasattr(functional, work.loss):
        of, y = getattr(functional, work.loss), a["y"]
        forward = lambda: (of(x, y),)  # noqa: E731
    else:
        return None
    return call


def _jax(work: Work, threads: int) -> Call | None:
    # Read once, when JAX starts; the flags alone leave it more than one thread, NPROC does not.
    eigen = "true" if threads > 1 else "false"
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    os.environ["NPROC"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import optax

    def td(x, actions, rewards, next_q, terminated, weight, mask):
        target = rewards + GAMMA * jax.numpy.where(terminated, 0, next_q.max(1))
        value = jax.numpy.take_along_axis(x, actions[:, None], 1)[:, 0]
        losses = jax.numpy.where(mask, weight, 0) * optax.huber_loss(value, target)
        return losses.sum() / mask.sum(), target - value

    each = {
        "binary_cross_entropy_with_logits": optax.sigmoid_binary_cross_entropy,
        "huber_loss": optax.huber_loss,
        "mse_loss": optax.squared_error,
        "cross_entropy": optax.softmax_cross_entropy_with_integer_labels,
    }.get(work.loss)
    if work.loss == "td_loss":
        loss = td
    elif each is not None:
        loss = lambda x, y: (each(x, y).mean(), ())  # noqa: E731
    else:
        return None
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    # JAX is at its best with 32-bit indices; 64-bit types are switched on for float64 alone.
    wide = jax.enable_x64 if work.dtype == "float64" else contextlib.nullcontext
    with wide(True):
        a = [jax.numpy.asarray(v.astype(np.int32) if v.dtype == np.int64 else v) for v in work.arrays().values()]

    def call() -> tuple[Any, ...]:
        with wide(True):
            (loss, others), grad = jax.block_until_ready(step(*a))
        return loss, grad, others

    return call


def _scikit_learn(work: Work, threads: int) -> Call | None:
    from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss

    a = work.arrays()
    if work.loss == "binary_cross_entropy_with_logits":
        loss = HalfBinomialLoss()
    elif work.loss == "cross_entropy":
        loss = HalfMultinomialLoss(n_classes=work.shape[1])
    else:
        return None
    x, y = a["x"], a["y"].astype(work.dtype)
    losses, grad = np.empty_like(y), np.empty_like(x)
    return lambda: loss.loss_gradient(y, x, loss_out=losses, gradient_out=grad, n_threads=threads)


BASELINE = "fastloss-cython"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(BASELINE, "fastloss, Cython", ("backend:cython",), _fastloss("cython")),
        Contender("fastloss-numba", "fastloss, Numba", ("backend:numba",), _fastloss("numba")),
        Contender("numpy", "NumPy", (), _numpy),
        Contender("pytorch", "PyTorch", ("torch",), _pytorch),
        Contender("jax", "JAX", ("jax", "optax"), _jax),
        Contender("scikit-learn", "scikit-learn", ("sklearn",), _scikit_learn, reduces=False),
    )
}
