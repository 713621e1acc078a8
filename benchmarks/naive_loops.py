"""What a user writes in five minutes: the formula, a loop around it, and ``@njit``."""

from __future__ import annotations

import numpy as np
from numba import njit

from . import GAMMA


@njit
def binary_cross_entropy_with_logits(x, y):
    grad = np.empty_like(x)
    total = 0.0
    for i in range(len(x)):
        total += max(x[i], 0) - x[i] * y[i] + np.log1p(np.exp(-abs(x[i])))
        grad[i] = (1 / (1 + np.exp(-x[i])) - y[i]) / len(x)
    return total / len(x), grad


@njit
def huber_loss(x, y):
    grad = np.empty_like(x)
    total = 0.0
    for i in range(len(x)):
        r = x[i] - y[i]
        if abs(r) <= 1:
            total += 0.5 * r * r
            grad[i] = r / len(x)
        else:
            total += abs(r) - 0.5
            grad[i] = np.sign(r) / len(x)
    return total / len(x), grad


@njit
def mse_loss(x, y):
    grad = np.empty_like(x)
    total = 0.0
    for i in range(len(x)):
        r = x[i] - y[i]
        total += r * r
        grad[i] = 2 * r / len(x)
    return total / len(x), grad


@njit
def cross_entropy(x, y):
    rows, classes = x.shape
    grad = np.empty_like(x)
    total = 0.0
    for i in range(rows):
        largest = x[i].max()
        powers = 0.0
        for j in range(classes):
            grad[i, j] = np.exp(x[i, j] - largest)
            powers += grad[i, j]
        for j in range(classes):
            grad[i, j] /= powers * rows
        grad[i, y[i]] -= 1 / rows
        total += np.log(powers) + largest - x[i, y[i]]
    return total / rows, grad


@njit
def td_loss(x, actions, rewards, next_q, terminated, weight, mask):
    rows = len(x)
    grad = np.zeros_like(x)
    errors = np.empty_like(rewards)
    total = 0.0
    kept = mask.sum()
    for i in range(rows):
        target = rewards[i]
        if not terminated[i]:
            target += GAMMA * next_q[i].max()
        error = target - x[i, actions[i]]
        errors[i] = error
        if mask[i]:
            if abs(error) <= 1:
                total += weight[i] * 0.5 * error * error
                grad[i, actions[i]] = -weight[i] * error / kept
            else:
                total += weight[i] * (abs(error) - 0.5)
                grad[i, actions[i]] = -weight[i] * np.sign(error) / kept
    return total / kept, grad, errors
