"""What runs, and getting it ready."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastloss import _dispatch, _environment, _threads
from fastloss._blocks import NARROW
from fastloss._version import __version__
from fastloss.registry import LOSSES


def show_config() -> None:
    """Print versions, the backend that runs and why, why others do not, CPU level, Numba's cache, and threads.

    All backends are loaded to tell; what does not work is shown and raises nothing.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.show_config()  # doctest: +ELLIPSIS
    fastloss...
    """
    lines = {"fastloss": __version__, "python": sys.version.split()[0], "NumPy": np.__version__}
    # They are loaded first: what is found out then counts for the choice.
    lines |= {"backend": ""} | {name: _told(_dispatch.status, name) for name in _environment.BACKENDS}
    lines |= {"backend": _told(_running), "threads": _told(_threads.describe)}
    for key, value in lines.items():
        print(f"{key:9s} {value}")


def _told(tell: Callable[..., str], *arguments: str) -> str:
    try:
        return tell(*arguments)
    except Exception as error:
        return f"error: {error}"


def _running() -> str:
    """The backend that runs calls which name none, and why it is the one."""
    used, wanted = _dispatch.in_use(), _environment.backend()
    if used is not None:
        return f"{used} (use_backend())"
    why = f"FASTLOSS_BACKEND={wanted}" if wanted else "the best of " + ", ".join(_dispatch.backends())
    return f"{_dispatch.choose().name} ({why})"


def warmup(
    losses: Iterable[str] | None = None, *, dtypes: Iterable[str] = ("float32", "float64"), backend: str | None = None
) -> None:
    """Compile Numba's kernels ahead of their first use; quick where nothing needs compiling.

    Parameters
    ----------
    losses : iterable of str, optional
        Names of losses; all by default.
    dtypes : iterable of str, default ("float32", "float64")
        Dtypes of predictions. Targets are taken to be of the same dtype or int64.
    backend : str, optional
        As in the losses.

    Raises
    ------
    ValueError
        For an unknown loss.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.warmup(["mse_loss"], dtypes=["float32"])
    """
    import fastloss as fl

    names = list(LOSSES) if losses is None else list(losses)
    for name in names:
        if name not in LOSSES:
            raise ValueError(f"losses must be some of {', '.join(LOSSES)}, got {name!r}")
        for dtype in dtypes:
            x, index = np.zeros((1, 2), dtype), np.zeros(1, np.int64)
            loss, facts = getattr(fl, name), LOSSES[name]
            if name == "td_loss":
                fl.td_loss(x, index, x[:, 0], x, index == 0, backend=backend)
            elif facts.target in ("class", "distribution", "action"):
                for rows in (x, np.zeros((1, NARROW + 1), dtype)):  # few classes and many have kernels of their own
                    more = (rows[:, 0],) if facts.target == "action" else ()
                    loss(rows, rows if facts.target == "distribution" else index, *more, backend=backend)
                    if name == "cross_entropy":
                        loss(rows, rows, backend=backend)
            else:
                x, y = np.full((1, 2), 0.5, dtype), np.ones((1, 2), dtype)
                third: dict[str, Any] = {str(facts.third): x} if facts.needs_third else {}
                loss(x, y, backend=backend, **third)
                if facts.target in ("unit", "binary", "sign"):
                    loss(x, y.astype(np.int64), backend=backend)
                fl.grad_hess(loss, x, y, backend=backend, **third)
