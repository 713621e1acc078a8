"""Second derivatives, for boosting and Newton solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run, _validate
from fastloss._norms import target_norm
from fastloss._run import GradHess
from fastloss.registry import LOSSES


def grad_hess(
    loss: Callable,
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    floor: float | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
    **params: Any,
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
    floor : float, optional
        Least value of the Hessian where the mask keeps: that of a loss that is not convex (focal, Cauchy) may be
        negative, and boosting libraries divide by its sum. By default the Hessian is the true one.
    n_threads, backend
        As for that loss.
    **params
        The loss's own parameters, for example ``delta=1.0``; arrays such as ``var`` among them.

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
    >>> fl.grad_hess(fl.sigmoid_focal_loss, np.array([-3.0, 3.0]), np.array([1, 1]), floor=1e-16).hess.round(6)
    array([0.      , 0.000895])
    >>> fl.grad_hess(fl.huber_loss, np.array([0.5, 3.0]), np.array([0.0, 0.0]), delta=1.0)
    GradHess(grad=array([0.5, 1. ]), hess=array([1., 0.]))
    """
    facts = LOSSES.get(getattr(loss, "__name__", ""))
    if facts is None or facts.kind != "elementwise":
        known = ", ".join(f.name for f in LOSSES.values() if f.kind == "elementwise")
        raise TypeError(f"loss must be an elementwise loss of fastloss ({known}), got {loss!r}")
    given = {name: value for name, value in params.items() if value is not None}
    if facts.name == "binary_cross_entropy_with_logits" and "ignore_index" in given:
        mask = _run.ignoring(target, given.pop("ignore_index"), mask)
    name = facts.third or ""
    third = given.pop(name, None) if facts.needs_third or np.ndim(given.get(name, 0.0)) else None
    if facts.needs_third and third is None:
        raise TypeError(f"{facts.name}() needs the array {name!r}")
    if third is not None and not facts.needs_third:
        third = _validate.per_label(name, third, input)
    for param in facts.params:
        if param.derive:
            given[param.name] = target_norm(given.get(param.name, "mean"), target, mask)
    found = _run.grad_hess(facts, input, target, facts.parse(given), sample_weight, mask, n_threads, backend, third)
    if floor is not None:
        kept = True if mask is None else _run.spread(mask, found.hess.shape)
        np.maximum(found.hess, float(floor), out=found.hess, where=kept)
    return found
