"""Which backend runs a call. A backend that is named explicitly never falls back."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType

__all__ = ["backends", "engine", "use_backend"]

_MODULES = {"cython": "fastloss._cython", "numba": "fastloss._numba", "numpy": "fastloss._numpy"}
_HOW_TO_GET = {
    "cython": "install a C compiler, then fastloss again: python -m pip install --force-reinstall fastloss",
    "numba": 'python -m pip install "fastloss[numba]"',
}
_loaded: dict[str, ModuleType] = {}
_default: ModuleType | None = None
_chosen: ContextVar[str | None] = ContextVar("fastloss_backend", default=None)


def _load(name: str) -> ModuleType:
    module = _loaded.get(name) if isinstance(name, str) else None
    if module is None:
        if not isinstance(name, str) or name not in _MODULES:
            raise ValueError(f"backend must be one of {', '.join(map(repr, _MODULES))}, got {name!r}")
        try:
            module = importlib.import_module(_MODULES[name])
        except ImportError as error:
            raise RuntimeError(
                f"backend {name!r} is not available ({error}); to get it: {_HOW_TO_GET[name]}"
            ) from error
        _loaded[name] = module
    return module


def engine(name: str | None = None) -> ModuleType:
    """The backend module that a call runs on: named, in use, from the environment, or the best there is."""
    global _default
    if name is None:
        name = _chosen.get()
    if name is not None:
        return _load(name)
    if _default is None:
        wanted = os.environ.get("FASTLOSS_BACKEND") or None
        _default = _load(wanted) if wanted else _best()
    return _default


def _best() -> ModuleType:
    for name in backends():
        with contextlib.suppress(RuntimeError):  # there, but broken
            return _load(name)
    return _load("numpy")


def _has_numba() -> bool:
    # A folder of that name on the path, a cache say, makes a spec without an origin.
    spec = importlib.util.find_spec("numba")
    return spec is not None and spec.origin is not None


def in_use() -> str | None:
    """The backend that use_backend() has chosen here, if any."""
    return _chosen.get()


def status(name: str) -> str:
    """A line about a backend: details of an available one, or why it is missing."""
    if name == "numba" and name not in _loaded:
        import importlib.metadata  # slow to import, and only for this

        if not _has_numba():
            return f"missing; {_HOW_TO_GET[name]}"
        try:
            version = importlib.metadata.version("numba")
        except importlib.metadata.PackageNotFoundError:  # on the path, but not installed
            version = "(version unknown)"
        return f"numba {version}, not loaded yet"
    try:
        return _load(name).describe()
    except RuntimeError as error:
        return f"missing: {error}"


def backends() -> tuple[str, ...]:
    """Return the names of the available backends, best first.

    Returns
    -------
    tuple of str
        Some of ``"cython"``, ``"numba"``, ``"numpy"``; the last one is always there.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.backends()[-1]
    'numpy'
    """
    names = []
    try:
        _load("cython")
        names.append("cython")
    except RuntimeError:
        pass
    # Numba takes a second to import: it is looked for, not loaded.
    if _has_numba():
        names.append("numba")
    return (*names, "numpy")


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run all calls inside a ``with`` block on one backend.

    Parameters
    ----------
    name : {"cython", "numba", "numpy"}
        The choice holds for the current thread or task only. ``backend=`` on a call has precedence.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    RuntimeError
        If it is not installed; the message says how to get it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> with fl.use_backend("numpy"):
    ...     fl.mse_loss(np.array([1.0, 2.0]), np.array([1.0, 0.0])).loss
    2.0
    """
    _load(name)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)
