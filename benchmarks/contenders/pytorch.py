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

    def own() -> tuple[torch.Tensor, torch.Tensor]:
        # c = -log p of the index, and p.
        cost = functional.cross_entropy(x, a["y"], reduction="none")
        return cost, torch.exp(-cost)

    def focal() -> tuple[torch.Tensor]:
        cost, p = own()
        return (((1 - p) ** 2 * cost).mean(),)

    def poly() -> tuple[torch.Tensor]:
        cost, p = own()
        return ((cost + 1 - p).mean(),)

    def kl() -> tuple[torch.Tensor]:
        return (functional.kl_div(functional.log_softmax(x, 1), a["y"], reduction="batchmean"),)

    def js() -> tuple[torch.Tensor]:
        log_p, q = functional.log_softmax(x, 1), a["y"]
        log_m = torch.log((log_p.exp() + q) / 2)
        both = functional.kl_div(log_m, log_p, log_target=True, reduction="batchmean")
        return ((both + functional.kl_div(log_m, q, reduction="batchmean")) / 2,)

    def policy() -> tuple[torch.Tensor]:
        return ((a["advantages"] * functional.cross_entropy(x, a["y"], reduction="none")).mean(),)

    written = {
        "td_loss": td,
        "softmax_focal_loss": focal,
        "poly_loss": poly,
        "kl_div": kl,
        "js_div": js,
        "policy_gradient_loss": policy,
    }
    if work.loss in written:
        forward = written[work.loss]
    elif hasattr(functional, work.loss):
        of, y, *more = getattr(functional, work.loss), *list(a.values())[1:]
        more = [third.detach().requires_grad_() for third in more]
        forward = lambda: (of(x, y, *more),)  # noqa: E731
    else:
        return None
    return call
