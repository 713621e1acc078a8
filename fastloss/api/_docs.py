"""What the docstrings of all losses share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

_PARTS = {
    "{input}": """
        input : array_like of float, shape (...)
            Predictions: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.""",
    "{logits}": """
        input : array_like of float, shape (...)
            Logits: float16, bfloat16, float32 or float64, any strides. A non-contiguous array costs a copy.""",
    "{target}": """
        target : array_like, shape of ``input``
            Targets: ``input``'s dtype, bool or any integer type; integers up to 2^53 are not rounded.""",
    "{labels}": """
        target : array_like, shape of ``input``
            0 or 1: ``input``'s dtype, bool or any integer type.""",
    "{signs}": """
        target : array_like, shape of ``input``
            -1 or 1, or 0 or 1 (what is above 0 is the positive class): ``input``'s dtype, bool or any integer type.""",
    "{common}": """
        sample_weight : array_like of float or int, optional
            Factor of each element's loss and gradient, carried in float64. Its shape is the loss's, or the loss's
            leading dimensions (one value per sample).
        mask : array_like of bool, optional
            True keeps an element. A masked element contributes exactly 0, whatever it holds. Shape as
            ``sample_weight``.
        reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
            ``"mean"`` divides by the number of kept elements, ``"weighted_mean"`` by the sum of their weights,
            whose scale does not matter, ``"none"`` returns each element's loss and its own gradient. A mean over
            nothing is NaN, its gradient 0.
        normalizer : float, optional
            Replaces the divisor of a mean (gradient accumulation over micro-batches).
        grad : bool, default True
            False computes no gradient.
        out : ndarray, optional
            Receives the gradient; shape and dtype of ``input``. It may be ``input`` itself. After an exception its
            content is undefined, except that ``input`` is never lost to bad indices or targets.
        n_threads : int, optional
            Threads to use; by default as many as pay, up to :func:`get_num_threads`. No result depends on it.
        backend : {"cython", "numba", "numpy"}, optional
            By default the best that is available, or what :func:`use_backend` says.""",
    "{classes}": """
        input : array_like of float, shape (..., C)
            Logits, classes on the last axis: float16, bfloat16, float32 or float64, any strides. -inf is a class of
            probability 0.""",
    "{index}": """
        target : array_like of int, shape (...)
            Classes in [0, C), in any integer type.""",
    "{rows}": """
        sample_weight : array_like of float or int, optional
            Factor of each row's loss and gradient. Its shape is the loss's, or the loss's leading dimensions
            (one value per sample).
        mask : array_like of bool, optional
            True keeps a row. A masked row contributes exactly 0, whatever it holds. Shape as ``sample_weight``.
        reduction : {"mean", "sum", "none", "weighted_mean"}, default "mean"
            ``"mean"`` divides by the number of kept rows, ``"weighted_mean"`` by the sum of their weights,
            ``"none"`` returns each row's loss and its own gradient. A mean over nothing is NaN, its gradient 0.
        normalizer : float, optional
            Replaces the divisor of a mean (gradient accumulation over micro-batches).
        grad : bool, default True
            False computes no gradient.
        out : ndarray, optional
            Receives the gradient; shape and dtype of ``input``. It may be ``input`` itself. After an exception its
            content is undefined, except that ``input`` is never lost to bad indices or targets.
        n_threads : int, optional
            Threads to use; by default as many as pay, up to :func:`get_num_threads`. No result depends on it.
        backend : {"cython", "numba", "numpy"}, optional
            By default the best that is available, or what :func:`use_backend` says.""",
    "{row_returns}": """
        LossGrad
            ``loss``, a float (an array with one value per row for ``reduction="none"``), and ``grad``, the derivative
            of that loss with respect to ``input``.""",
    "{row_raises}": """
        TypeError
            For a wrong dtype or type.
        ValueError
            For a wrong shape, parameter or option, or a probability outside [0, 1]; the message names the argument (and
            the first bad index).
        IndexError
            For a class out of range; the message names the first one.""",
    "{returns}": """
        LossGrad
            ``loss``, a float (an array of ``input``'s shape and dtype for ``reduction="none"``), and ``grad``, the
            derivative of that loss with respect to ``input``.""",
    "{raises}": """
        TypeError
            For a wrong dtype or type.
        ValueError
            For a wrong shape, parameter or option, or a value outside its domain; the message names the argument (and
            the first bad index). Parameters must lie within float64's normal range, within float32's unless ``input``
            is float64.""",
}
_TEXTS = {name: inspect.cleandoc(text) for name, text in _PARTS.items()}


def documented(function: _Function) -> _Function:
    """Fill in the parts of a docstring that are named in braces, each on a line of its own."""
    if function.__doc__:  # there is none under python -OO
        lines = inspect.cleandoc(function.__doc__).split("\n")
        function.__doc__ = "\n".join(_TEXTS.get(line, line) for line in lines)
    return function
