"""What a careful user writes in NumPy: whole arrays, the input's dtype, stable formulas."""

from __future__ import annotations

import numpy as np

from . import GAMMA


def binary_cross_entropy_with_logits(x, y):
    tail = np.exp(-np.abs(x))
    loss = np.mean(np.maximum(x, 0) - x * y + np.log1p(tail))
    sigmoid = np.where(x < 0, tail, x.dtype.type(1)) / (1 + tail)
    return loss, (sigmoid - y) / x.size


def huber_loss(x, y):
    r = x - y
    clipped = np.clip(r, -1, 1)
    return np.mean(clipped * (r - clipped / 2)), clipped / x.size


def smooth_l1_loss(x, y):
    return huber_loss(x, y)  # the same at beta = 1


def mse_loss(x, y):
    r = x - y
    return np.mean(r * r), r * (2 / x.size)


def l1_loss(x, y):
    r = x - y
    return np.mean(np.abs(r)), np.sign(r) / x.size


def cross_entropy(x, y):
    rows = np.arange(len(x))
    shifted = x - x.max(axis=1, keepdims=True)
    right = shifted[rows, y]
    grad = np.exp(shifted, out=shifted)
    total = grad.sum(axis=1, keepdims=True)
    grad /= total * len(x)
    grad[rows, y] -= 1 / len(x)
    return np.mean(np.log(total[:, 0]) - right), grad


def multi_margin_loss(x, y):
    rows = np.arange(len(x))
    violation = np.maximum(x - x[rows, y][:, None] + 1, 0)
    violation[rows, y] = 0
    grad = (violation > 0).astype(x.dtype)
    grad[rows, y] = -grad.sum(axis=1)
    grad /= x.size
    return violation.sum() / x.size, grad


def crammer_singer_loss(x, y):
    rows = np.arange(len(x))
    rivals = x.copy()
    rivals[rows, y] = -np.inf
    best = rivals.argmax(axis=1)
    violation = np.maximum(rivals[rows, best] - x[rows, y] + 1, 0)
    grad = np.zeros_like(x)
    grad[rows, best] = (violation > 0) / len(x)
    grad[rows, y] = -grad[rows, best]
    return np.mean(violation), grad


def nll_loss(x, y):
    rows, grad = np.arange(len(x)), np.zeros_like(x)
    grad[rows, y] = -1 / len(x)
    return -np.mean(x[rows, y]), grad


def td_loss(x, actions, rewards, next_q, terminated, weight, mask):
    rows, kept = np.arange(len(x)), np.count_nonzero(mask)
    zero = x.dtype.type(0)
    error = rewards + GAMMA * np.where(terminated, zero, next_q.max(axis=1)) - x[rows, actions]
    clipped = np.clip(error, -1, 1)
    scale = np.where(mask, weight, zero) / kept
    grad = np.zeros_like(x)
    grad[rows, actions] = -scale * clipped
    return np.sum(scale * clipped * (error - clipped / 2)), grad, error
