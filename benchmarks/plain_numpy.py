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


def binary_cross_entropy(x, y):
    p = np.clip(x, 1e-7, 1 - 1e-7)
    inside = (x == p) / x.dtype.type(x.size)
    return -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)), ((1 - y) / (1 - p) - y / p) * inside


def poisson_nll_loss(x, y):
    rate = np.exp(x)
    return np.mean(rate - y * x), (rate - y) / x.size


def gaussian_nll_loss(x, y, var):
    r, v = x - y, np.maximum(var, 1e-6)
    ratio = r / v
    by_var = (1 / v - ratio * ratio) * (0.5 / x.size)
    return np.mean(np.log(v) + r * ratio) / 2, ratio / x.size, by_var


def soft_margin_loss(x, y):
    margin = x * y
    tail = np.exp(-np.abs(margin))
    share = np.where(margin > 0, tail, x.dtype.type(1)) / (1 + tail)
    return np.mean(np.maximum(-margin, 0) + np.log1p(tail)), -y * share / x.size


def log_cosh_loss(x, y):
    r = x - y
    a = np.abs(r)
    return np.mean(a + np.log1p(np.exp(-2 * a)) - np.log(2)), np.tanh(r) / x.size


def pinball_loss(x, y):
    r = x - y
    return np.mean(np.abs(r)) / 2, np.where(r > 0, x.dtype.type(0.5), x.dtype.type(-0.5)) / x.size


def hinge_loss(x, y):
    open_ = 1 - x * y
    return np.mean(np.maximum(open_, 0)), -y * (open_ > 0) / x.dtype.type(x.size)


def sigmoid_focal_loss(x, y):
    s = np.where(y > 0, x, -x)
    tail = np.exp(-np.abs(s))
    q, cost = np.where(s > 0, tail, x.dtype.type(1)) / (1 + tail), np.maximum(-s, 0) + np.log1p(tail)
    slope = -(q**2) * (2 * (1 - q) * cost + q) / x.size
    return np.mean(q**2 * cost), np.where(y > 0, slope, -slope)


def cross_entropy(x, y):
    rows = np.arange(len(x))
    shifted = x - x.max(axis=1, keepdims=True)
    right = shifted[rows, y]
    grad = np.exp(shifted, out=shifted)
    total = grad.sum(axis=1, keepdims=True)
    grad /= total * len(x)
    grad[rows, y] -= 1 / len(x)
    return np.mean(np.log(total[:, 0]) - right), grad


def _softmax(x):
    shifted = x - x.max(axis=1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    return p, shifted - np.log(total)


def _of_an_index(x, y, loss, slope):
    """What a function of the cost of the right class, and of its probability, has for a gradient."""
    rows, (p, log_p) = np.arange(len(x)), _softmax(x)
    cost, own = -log_p[rows, y], p[rows, y]
    factor = slope(cost, own) / len(x)
    p *= factor[:, None]
    p[rows, y] -= factor
    return np.mean(loss(cost, own)), p


def softmax_focal_loss(x, y):
    return _of_an_index(x, y, lambda cost, p: (1 - p) ** 2 * cost, lambda cost, p: (1 - p) * ((1 - p) + 2 * p * cost))


def poly_loss(x, y):
    return _of_an_index(x, y, lambda cost, p: cost + (1 - p), lambda cost, p: 1 + p)


def policy_gradient_loss(x, y, advantages):
    return _of_an_index(x, y, lambda cost, p: advantages * cost, lambda cost, p: advantages)


def kl_div(x, y):
    p, log_p = _softmax(x)
    return np.sum(y * (np.log(y) - log_p)) / len(x), (p - y) / len(x)


def js_div(x, y):
    p, log_p = _softmax(x)
    log_m = np.log((p + y) / 2)
    mine = p * (log_p - log_m)
    drift = mine.sum(axis=1, keepdims=True)
    return (np.sum(mine) + np.sum(y * (np.log(y) - log_m))) / (2 * len(x)), (mine - p * drift) / (2 * len(x))


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
