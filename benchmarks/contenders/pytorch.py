"""PyTorch, eager, with autograd."""

from __future__ import annotations

from .. import GAMMA
from ..works import Work
from ._contender import Call

__all__ = ["prepare"]


def prepare(work: Work, threads: int) -> Call | None:
    """Return forward and backward of the loss of ``torch.nn.functional``."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    a = {name: torch.from_numpy(array) for name, array in work.arrays().items()}
    x = a["x"].detach().requires_grad_()
    more: list[torch.Tensor] = []

    def td() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            target = a["rewards"] + GAMMA * a["next_q"].amax(1).masked_fill_(a["terminated"], 0)
        value = x.gather(1, a["actions"][:, None])[:, 0]
        scale = a["weight"].where(a["mask"], 0) / a["mask"].sum()
        loss = (functional.huber_loss(value, target, reduction="none") * scale).sum()
        return loss, target - value.detach()

    def call() -> tuple[torch.Tensor, ...]:
        loss, *others = forward()
        loss.backward()
        grad, x.grad = x.grad, None  # what zero_grad does
        for third in more:
            third.grad = None
        return loss, grad, *others

    if work.loss == "td_loss":
        forward = td
    elif hasattr(functional, work.loss):
        of, y, *more = getattr(functional, work.loss), *list(a.values())[1:]
        more = [third.detach().requires_grad_() for third in more]
        forward = lambda: (of(x, y, *more),)  # noqa: E731
    else:
        return None
    return call
