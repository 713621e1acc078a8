"""What the environment asks for. A value that cannot be understood is an error at the first call, never at import."""

from __future__ import annotations

import os
from collections.abc import Collection

__all__ = ["BACKENDS", "LEVELS", "backend", "check", "level", "positive", "threads"]

BACKENDS = ("cython", "numba", "numpy")  # best first
LEVELS = ("v1", "v3", "v4")
_OFF = "none"


def backend() -> str | None:
    """What FASTLOSS_BACKEND names."""
    return _one_of("FASTLOSS_BACKEND", BACKENDS)


def level() -> str | None:
    """The CPU level that FASTLOSS_CPU names; "none" switches the backend "cython" off."""
    return _one_of("FASTLOSS_CPU", (*LEVELS, _OFF))


def threads() -> int | None:
    """The number that FASTLOSS_NUM_THREADS says."""
    text = _text("FASTLOSS_NUM_THREADS")
    number = positive(text)
    if text and number is None:
        raise ValueError(f"FASTLOSS_NUM_THREADS must be an integer of at least 1, got {text[:80]!r}")
    return number


def positive(text: str) -> int | None:
    """The integer of at least 1 that a text is, of no more than nine digits; int() alone takes "1_0" too."""
    digits = text.lstrip("0")
    return int(digits[:9]) if text.isascii() and text.isdecimal() and digits else None


def check() -> None:
    """Raise for the first variable that cannot be understood."""
    backend()
    level()
    threads()


def _text(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _one_of(variable: str, choices: Collection[str]) -> str | None:
    text = _text(variable)
    if text and text not in choices:
        raise ValueError(f"{variable} must be one of {', '.join(choices)}, got {text[:80]!r}")
    return text or None
