"""Which backend runs a call. A backend that is named explicitly never falls back."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from fastloss import _environment

__all__ = ["NotBuilt", "backends", "engine", "missing", "use_backend"]

_COMPILED = ("cython", "numba")
_loaded: dict[str, ModuleType] = {}
_failed: dict[str, str] = {}  # why a backend that is there does not load; it is not tried again
_loading = threading.Lock()
_loader: int | None = None  # the thread that has it
_default: ModuleType | None = None
_chosen: ContextVar[str | None] = ContextVar("fastloss_backend", default=None)


class NotBuilt(ImportError):
    """A backend that is not there; the message says why and what to do."""


def _load(name: str) -> ModuleType:
    """The backend that a call names."""
    module = _loaded.get(name) if isinstance(name, str) else None
    if module is None:
        if not isinstance(name, str) or name not in _environment.BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(map(repr, _environment.BACKENDS))}, got {name!r}")
        _environment.check()
        module = _running(name)
    return module


def _running(name: str) -> ModuleType:
    found = _find(name)
    if isinstance(found, str):
        raise RuntimeError(f"backend {name!r} is not available: {found}")
    return found


def _find(name: str) -> ModuleType | str:
    """The backend of that name, or why it does not run here."""
    if name in _loaded:
        return _loaded[name]
    if name in _failed:
        return _failed[name]
    if name == "numba" and not _has_numba():
        return _no_numba()
    if name == "cython":
        _environment.level()  # what cannot be understood is no reason to fall back
    # Python's own locks make other threads wait. A handler or finalizer that runs in the middle of this thread's load
    # would be shown a module that is not complete. What either finds out about a failure is not kept.
    global _loader
    alone = _loading.acquire(blocking=False)
    if not alone and name != "numpy" and _loader == threading.get_ident():
        return "it is being loaded"
    try:
        if alone:
            _loader = threading.get_ident()
            _clear_remains()
        module = _loaded[name] = _import(name)
        return module
    except Exception as error:
        reason = str(error) if isinstance(error, NotBuilt) else f"it does not load: {type(error).__name__}: {error}"
        reason = " ".join(reason.split())  # one line
        if alone:
            _failed[name] = reason
        return reason
    finally:
        if alone:
            _loader = None
            _loading.release()


def _import(name: str) -> ModuleType:
    # Statements and no names in strings: tools that freeze programs see what to take along.
    if name == "cython":
        from fastloss import _cython

        return _cython
    if name == "numba":
        from fastloss import _numba

        return _numba
    from fastloss import _numpy

    return _numpy


def _clear_remains() -> None:
    """Forget the parts of packages whose import was cut off, by Ctrl-C say: it would fail on them when begun anew."""
    for package in ("llvmlite", "numba", "fastloss._numba"):
        if package not in sys.modules:
            for part in [name for name in sys.modules if name.startswith(package + ".")]:
                sys.modules.pop(part, None)


def engine(name: str | None = None) -> ModuleType:
    """The backend module that a call runs on: named, in use, from the environment, or the best there is."""
    global _default
    if name is None:
        name = _chosen.get()
    if name is not None:
        return _load(name)
    if _default is None:
        found = choose()
        named = _environment.backend() is not None
        if found.name != "numpy" or named:
            _default = found
        elif "cython" in _failed and ("numba" in _failed or not _has_numba()):  # else another call was loading one
            _default = found
            _warn()
        return found
    return _default


def choose() -> ModuleType:
    """The backend of calls that name none: what the environment says, else the best that loads."""
    _environment.check()
    wanted = _environment.backend()
    if wanted is not None:
        return _running(wanted)
    for name in _COMPILED:
        found = _find(name)
        if not isinstance(found, str):
            return found
        level = _environment.level()
        if name == "cython" and level not in (None, "none"):  # a level was named, so nothing else takes its place
            raise RuntimeError(f"FASTLOSS_CPU={level}, but backend 'cython' is not available: {found}")
    return _running("numpy")


def _warn() -> None:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in missing().items())
    # The line that the warning names is the caller's.
    here, level, frame = str(Path(__file__).parent), 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"fastloss runs on NumPy, slower than on its compiled backends ({reasons}); "
        "FASTLOSS_BACKEND=numpy, or a filter for this warning, says that this is meant",
        RuntimeWarning,
        stacklevel=level,
    )


def _has_numba() -> bool:
    try:
        spec = importlib.util.find_spec("numba")
    except Exception:  # a stand-in in sys.modules, or somebody's import hook: loading it tells
        return sys.modules.get("numba") is not None
    # A folder of that name on the path, a cache say, makes a spec without an origin.
    return spec is not None and spec.origin is not None


def _no_numba() -> str:
    if getattr(sys, "frozen", False):
        return "Numba is not in this frozen program"
    return "Numba is not installed; to get it: python -m pip install numba"


def in_use() -> str | None:
    """The backend that use_backend() has chosen here, if any."""
    return _chosen.get()


def status(name: str) -> str:
    """A line about a backend: details of one that runs, or why it does not. Loads it to know."""
    reason = _why_not(name)
    return _running(name).describe() if reason is None else f"missing: {reason}"


def missing() -> dict[str, str]:
    """The compiled backends that do not run here, with the reasons. Loads them to know."""
    reasons = {name: _why_not(name) for name in _COMPILED}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _why_not(name: str) -> str | None:
    try:
        found = _find(name)
    except ValueError as error:
        return str(error)
    return found if isinstance(found, str) else None


def backends() -> tuple[str, ...]:
    """Return the names of the available backends, best first.

    Returns
    -------
    tuple of str
        Some of ``"cython"``, ``"numba"``, ``"numpy"``; the last one is always there. Numba takes a second to
        import, so until it is used it is named if it is installed; one that turns out not to load is named no more.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.backends()[-1]
    'numpy'
    """
    names = []
    if _why_not("cython") is None:
        names.append("cython")
    if "numba" in _loaded or ("numba" not in _failed and _has_numba()):
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
        If it does not run here; the message says why.

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
