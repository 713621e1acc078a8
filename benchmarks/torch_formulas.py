"""Losses and their gradients in closed form, in the shapes that Inductor compiles to the fastest code."""

from __future__ import annotations

import torch

from . import GAMMA


def binary_cross_entropy_with_logits(x, y):
    tail = torch.exp(-x.abs())
    loss = (x.clamp(min=0) - x * y + torch.log1p(tail)).mean()
    sigmoid = torch.where(x < 0, tail, 1.0) / (1 + tail)
    return loss, (sigmoid - y) * (1 / x.numel())


def huber_loss(x, y):
    r = x - y
    clipped = r.clamp(-1, 1)
    return (clipped * (r - clipped * 0.5)).mean(), clipped * (1 / x.numel())


def mse_loss(x, y):
    r = x - y
    return (r * r).mean(), r * (2 / x.numel())


def cross_entropy(x, y):
    largest = x.amax(1, keepdim=True)
    power = torch.exp(x - largest)
    total = power.sum(1, keepdim=True)
    loss = (torch.log(total) + largest - x.gather(1, y[:, None])).mean()
    grad = power * (1 / (total * len(x)))
    # A comparison with all class indices would be one more operation per element.
    return loss, grad.scatter_add_(1, y[:, None], torch.full_like(total, -1 / len(x)))


def td_loss(x, actions, rewards, next_q, terminated, weight, mask):
    value = x.gather(1, actions[:, None])[:, 0]
    error = rewards + GAMMA * torch.where(terminated, 0.0, next_q.amax(1)) - value
    clipped = error.clamp(-1, 1)
    scale = torch.where(mask, weight, 0.0) / mask.sum()
    right = torch.arange(x.shape[1]) == actions[:, None]
    grad = torch.where(right, (-scale * clipped)[:, None], 0.0)
    return (scale * clipped * (error - clipped * 0.5)).sum(), grad, error
