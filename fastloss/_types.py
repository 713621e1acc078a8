"""Names of options, for editors and type checkers."""

from typing import Literal

Reduction = Literal["mean", "sum", "none", "weighted_mean"]
TDLoss = Literal["huber", "mse", "smooth_l1"]
