"""JAX: ``jit(value_and_grad)`` of Optax's losses."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np

from .. import GAMMA
from ..works import Work
from ._contender import Call

__all__ = ["prepare"]


def prepare(work: Work, threads: int) -> Call | None:
    """Return the jitted call, which waits for its results."""
    # Read once, when JAX starts; the flags alone leave it more than one thread, NPROC does not.
    eigen = "true" if threads > 1 else "false"
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    os.environ["NPROC"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA reports at length that it takes a while to compile
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
