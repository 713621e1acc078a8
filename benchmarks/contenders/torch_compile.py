"""``torch.compile`` of loss and gradient written out by hand: no autograd, fused by Inductor."""

from __future__ import annotations

from ..works import Work
from ._contender import Call

__all__ = ["prepare"]


def prepare(work: Work, threads: int) -> Call | None:
    """Return the compiled function of the closed forms, or None where nobody wrote them down."""
    import torch

    from .. import torch_formulas

    formula = getattr(torch_formulas, work.loss, None)
    if formula is None:
        return None
    torch.set_num_threads(threads)
    torch._inductor.config.cpp.threads = threads  # also keeps apart what its disk cache holds for other numbers
    torch.compiler.reset()  # each work is a recompilation, and after eight of them it would give up
    compiled = torch.compile(formula, dynamic=False, fullgraph=True)
    a = [torch.from_numpy(array) for array in work.arrays().values()]
    # No tensor requires a gradient: no graph is recorded, and no_grad() would only add its own 5 µs.
    return lambda: compiled(*a)
