"""Second derivatives, for boosting and Newton solvers."""

from __future__ import annotations

from collections.abc import Callable

from numpy.typing import ArrayLike

from fastloss import _run
from fastloss._run import GradHess
from fastloss.registry import LOSSES


def grad_hess(
    loss: Callable,
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
    **params: float,
) -> GradHess:
    """First and second derivative of each element's own loss, in one pass.

    Parameters
    ----------
    loss : callable
        An elementwise loss of this package, for example ``fl.huber_loss``.
    input, target : array_like
        As for that loss.
    sample_weight, mask : array_like, optional
        As for that loss: weights scale, a mask selects.
    n_threads, backend
        As for that loss.
    **params : float
        The loss's own parameters, for example ``delta=1.0``.

    Returns
    -------
    GradHess
        ``grad`` and ``hess``, arrays of ``input``'s shape and dtype: unreduced, not divided by anything. Where the
        true second derivative is 0 almost everywhere (absolute error), ``hess`` is 1, as boosting needs it.

    Raises
    ------
    TypeError, ValueError
        As for that loss; also if ``loss`` has no elementwise second derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.grad_hess(fl.huber_loss, np.array([0.5, 3.0]), np.array([0.0, 0.0]), delta=1.0)
    GradHess(grad=array([0.5, 1. ]), hess=array([1., 0.]))
    """
    facts = LOSSES.get(getattr(loss, "__name__", ""))
    if facts is None or facts.kind != "elementwise":
        known = ", ".join(f.name for f in LOSSES.values() if f.kind == "elementwise")
        raise TypeError(f"loss must be an elementwise loss of fastloss ({known}), got {loss!r}")
    given = {name: value for name, value in params.items() if value is not None}
    return _run.grad_hess(facts, input, target, facts.parse(given), sample_weight, mask, n_threads, backend)
