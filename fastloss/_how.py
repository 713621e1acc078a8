"""What a softmax loss is made of; kernels number kinds and forms alike."""

from __future__ import annotations

from typing import NamedTuple

LOGITS, LOG_PROBS, PROBS = range(3)
PLAIN, FOCAL, POLY, JENSEN_SHANNON = range(4)
KINDS = {"logits": LOGITS, "log_probs": LOG_PROBS, "probs": PROBS}


class How(NamedTuple):
    """What a softmax loss is made of; kernels read it by name."""

    form: int = PLAIN
    params: tuple[float, ...] = ()
    kind: int = PROBS
    input_kind: int = LOGITS
    divergence: bool = False
    smoothing: float = 0.0
    temperature: float = 1.0
    softcap: float = 0.0
    z_loss: float = 0.0
    entropy: float = 0.0
