"""Second derivatives, for boosting and Newton solvers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastloss import _run, _soft, _validate
from fastloss._how import How
from fastloss._norms import target_norm
from fastloss._run import GradHess
from fastloss.api import reinforcement, softmax
from fastloss.registry import LOSSES, Loss, Param

# Losses of softmax probabilities: what turns their own parameters into what the kernel is told.
_SOFTMAX: dict[str, Callable[..., How]] = {
    "cross_entropy": _soft.how,
    "softmax_focal_loss": softmax.focal,
    "poly_loss": softmax.poly,
    "kl_div": softmax.kullback_leibler,
    "js_div": softmax.jensen_shannon,
    "policy_gradient_loss": reinforcement.policy,
}
_HESSIANS = ("exact", "upper", "scaled")
_FLOOR = Param("floor", 0.0, lambda v: 0.0 <= v < math.inf, "non-negative and finite")


def grad_hess(
    loss: Callable,
    input: ArrayLike,
    target: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    hessian: Literal["exact", "upper", "scaled"] = "exact",
    floor: float | None = None,
    n_threads: int | None = None,
    backend: str | None = None,
    **params: Any,
) -> GradHess:
    """First and second derivative of each element's own loss, in one pass; of rows of classes, the diagonal.

    Parameters
    ----------
    loss : callable
        An elementwise loss of this package, for example ``fl.huber_loss``, or one of softmax probabilities:
        ``cross_entropy``, ``softmax_focal_loss``, ``poly_loss``, ``kl_div``, ``js_div``, ``policy_gradient_loss``.
    input, target : array_like
        As for that loss.
    sample_weight, mask : array_like, optional
        As for that loss: weights scale, a mask selects.
    hessian : {"exact", "upper", "scaled"}, default "exact"
        For losses of softmax probabilities: the diagonal of each row's matrix of second derivatives; twice that
        (XGBoost's ``2 p (1 - p)``), which as a diagonal matrix bounds the whole matrix of cross-entropy with logits
        that are neither capped nor regularised; or C / (C - 1) times it (Friedman's, LightGBM's), C the number of
        classes.
    floor : float, optional
        Least value of the Hessian, non-negative, but where an element or row is masked or ignored: that of a loss that
        is not convex (focal, Cauchy) may be negative, and boosting libraries divide by its sum. By default the Hessian
        is the true one.
    n_threads, backend
        As for that loss.
    **params
        The loss's own parameters, for example ``delta=1.0``; arrays such as ``var`` or ``advantages`` among them.

    Returns
    -------
    GradHess
        ``grad`` and ``hess``, arrays of ``input``'s shape and dtype: unreduced, not divided by anything. Where the
        true second derivative is 0 almost everywhere (absolute error), ``hess`` is 1, as boosting needs it.

    Raises
    ------
    TypeError, ValueError
        As for that loss; also if ``loss`` has no second derivative here, or no such ``hessian``, or for a ``floor``
        that is no real number, negative or not finite.

    Notes
    -----
    With p = softmax(input), cross-entropy has ``p_k (1 - p_k)``, and a loss f(c) of the target's cost
    c = -log p_y has ``f'(c) p_k (1 - p_k) + f''(c) (p_k - [k = y])^2``, which may be negative for the focal loss.

    References
    ----------
    Friedman, J. H. (2001). Greedy function approximation: a gradient boosting machine. Annals of Statistics 29(5).

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.grad_hess(fl.sigmoid_focal_loss, np.array([-3.0, 3.0]), np.array([1, 1]), floor=1e-16).hess.round(6)
    array([0.      , 0.000895])
    >>> fl.grad_hess(fl.huber_loss, np.array([0.5, 3.0]), np.array([0.0, 0.0]), delta=1.0)
    GradHess(grad=array([0.5, 1. ]), hess=array([1., 0.]))
    >>> fl.grad_hess(fl.cross_entropy, np.zeros((1, 4)), np.array([2])).hess
    array([[0.1875, 0.1875, 0.1875, 0.1875]])
    """
    facts = LOSSES.get(getattr(loss, "__name__", ""))
    if facts is None or not (facts.kind == "elementwise" or facts.name in _SOFTMAX):
        known = ", ".join(f.name for f in LOSSES.values() if f.kind == "elementwise" or f.name in _SOFTMAX)
        raise TypeError(f"loss must be one of fastloss with a second derivative ({known}), got {loss!r}")
    least = None if floor is None else _FLOOR(floor)[0]
    if not isinstance(hessian, str) or hessian not in _HESSIANS:
        raise ValueError(f"hessian must be one of {', '.join(map(repr, _HESSIANS))}, got {hessian!r}")
    if facts.name in _SOFTMAX:
        grad, hess = _of_rows(facts, input, target, params, sample_weight, mask, n_threads, backend)
        if hessian != "exact":
            classes = hess.shape[-1]
            hess *= hess.dtype.type(2.0 if hessian == "upper" else classes / max(1, classes - 1))
        ignored = params.get("ignore_index", -100)
        if least is not None and facts.target == "class" and ignored is not None and not _soft.is_soft(target):
            mask = _run.ignoring(target, ignored, mask)
        return _at_least(least, GradHess(grad, hess), mask)
    if hessian != "exact":
        raise ValueError(f"hessian must be 'exact' for {facts.name}, got {hessian!r}")
    given = {name: value for name, value in params.items() if value is not None}
    if facts.name == "binary_cross_entropy_with_logits" and "ignore_index" in given:
        mask = _run.ignoring(target, given.pop("ignore_index"), mask)
    name = facts.third or ""
    third = given.pop(name, None) if facts.needs_third or np.ndim(given.get(name, 0.0)) else None
    if facts.needs_third and third is None:
        raise TypeError(f"{facts.name}() needs the array {name!r}")
    if third is not None and not facts.needs_third:
        third = _run.per_label(name, third, input, mask, backend)
    for param in facts.params:
        if param.derive:
            given[param.name] = target_norm(given.get(param.name, "mean"), input, target, mask)
    found = _run.grad_hess(facts, input, target, facts.parse(given), sample_weight, mask, n_threads, backend, third)
    return _at_least(least, found, mask)


def _at_least(floor: float | None, found: GradHess, mask: ArrayLike | None) -> GradHess:
    """Lift the Hessian to `floor` where the mask keeps."""
    if floor is not None:
        kept = True if mask is None else _run.spread(mask, found.hess.shape)
        np.maximum(found.hess, floor, out=found.hess, where=kept)
    return found


def _of_rows(
    facts: Loss, input: ArrayLike, target: ArrayLike, params: dict[str, Any], sample_weight, mask, n_threads, backend
) -> GradHess:
    """The same for a loss of softmax probabilities."""
    build, given = _SOFTMAX[facts.name], dict(params)
    how = build(**{name: given.pop(name) for name in inspect.signature(build).parameters if name in given})
    options: dict[str, Any] = {"takes": _soft.EITHER}
    weight, ignore, legal, factor = None, None, None, None
    if facts.target == "action":
        if "advantages" not in given:
            raise TypeError(f"{facts.name}() needs the array 'advantages'")
        legal, factor = given.pop("action_mask", None), ("advantages", given.pop("advantages"))
        options = {"takes": _soft.INDICES, "name": "logits", "target_name": "actions", "mask_name": "action_mask"}
    elif facts.target == "class":
        weight, ignore = given.pop("weight", None), given.pop("ignore_index", -100)
        if facts.kind == "rows":
            legal = given.pop("class_mask", None)
        else:
            options["takes"] = _soft.INDICES
    else:
        ignore, options["takes"] = -100, _soft.SHARES
    if given:
        raise TypeError(f"{facts.name}() got an unexpected keyword argument {min(given)!r}")
    x = _validate.floats(options.get("name", "input"), input)
    hess = np.empty(x.shape, x.dtype)
    (_, grad), _ = _soft.run(
        input, target, how, weight, ignore, legal, factor, sample_weight, mask, "none", None, True, None, n_threads,
        backend, hess=hess, **options,
    )  # fmt: skip
    assert grad is not None
    return GradHess(grad, hess)
