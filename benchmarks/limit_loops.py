"""Loops that read and write what a loss of their kind has to, vectorised, with trivial arithmetic."""

from __future__ import annotations

from numba import njit

_jit = njit(nogil=True, fastmath=True)  # the order of a sum must not keep it from being vectorised


@_jit
def elementwise(x, y, grad):
    total = x.dtype.type(0)
    for i in range(len(x)):
        grad[i] = x[i] - y[i]
        total += x[i] * y[i]
    return total


@_jit
def rows(x, y, grad):
    total = 0
    for i in range(len(x)):
        total += y[i]
    # Over the flat array: a loop per row would have ends of its own.
    source, target = x.reshape(-1), grad.reshape(-1)
    for k in range(len(source)):
        target[k] = source[k]
    return total


@_jit
def gather(x, actions, rewards, next_q, terminated, weight, mask, grad, errors):
    classes = x.shape[1]
    total = x.dtype.type(0)
    for i in range(len(x)):
        # The action's value alone is read of x; all of next_q, and all of the gradient is written.
        after = x.dtype.type(0)
        for j in range(classes):
            after += next_q[i, j]
            grad[i, j] = 0
        errors[i] = rewards[i] + after * terminated[i] - x[i, actions[i]]
        grad[i, actions[i]] = errors[i] * weight[i] * mask[i]
        total += errors[i]
    return total
