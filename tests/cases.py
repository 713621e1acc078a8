"""Arguments for any registered loss, so that a new one needs no test code of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import numpy as np

import fastloss as fl
from fastloss.registry import LOSSES

# All three are expected: a test run must not pass because a backend was not there.
BACKENDS = tuple(os.environ.get("FASTLOSS_TEST_BACKENDS", "cython,numba,numpy").split(","))
COMPILED = tuple(name for name in BACKENDS if name != "numpy")
FLOATS = ("float32", "float64")
LOSS_NAMES = tuple(LOSSES)
ELEMENTWISE = tuple(name for name, facts in LOSSES.items() if facts.kind == "elementwise")
ROWS = tuple(name for name, facts in LOSSES.items() if facts.kind == "rows")
SOFTMAX = tuple(name for name, facts in LOSSES.items() if facts.kind == "softmax")
INDEXED = tuple(name for name, facts in LOSSES.items() if facts.target in ("class", "action"))
# Binary losses of a logit with targets between 0 and 1.
UNIT = tuple(name for name, facts in LOSSES.items() if facts.target == "unit" and facts.family == "logit")
# Piecewise linear: the true second derivative is 0, what stands in its place is a convention.
CONVENTIONAL = ("l1_loss", "smooth_l1_loss", "nmae_loss", "mape_loss", "pinball_loss", "hinge_loss")
# One loss of every kernel and of every way in which data reaches it, for what does not depend on the formula.
DRIVERS = (
    "binary_cross_entropy_with_logits",
    "huber_loss",
    "gaussian_nll_loss",
    "poly_loss",
    "kl_div",
    "policy_gradient_loss",
    *(name for name in LOSS_NAMES if LOSSES[name].kind in ("rows", "gather")),
)

# Exact in every float type, so that a reference in float64 sees the parameter the kernel sees.
_CANDIDATES = (0.0, 0.375, 1.0, 2.5)
_OTHERS = (1.25,)


@dataclass(frozen=True)
class Case:
    """A loss with its positional arguments and its own keyword arguments."""

    loss: str
    args: tuple[np.ndarray, ...]
    params: dict = field(default_factory=dict)

    @property
    def facts(self):
        return LOSSES[self.loss]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the unreduced loss."""
        shape = self.args[0].shape
        return shape if self.facts.kind == "elementwise" else shape[:-1]

    @property
    def numbers(self) -> tuple[float, ...]:
        """What a formula gets as parameters."""
        return numbers(self.loss, self.params)

    @property
    def third(self) -> tuple[np.ndarray, ...]:
        """The third array of the formula, if it has one."""
        array = self.params.get(self.facts.third)
        return (array,) if isinstance(array, np.ndarray) else ()

    def __call__(self, backend, **options):
        return getattr(fl, self.loss)(*self.args, **self.params, backend=backend, **options)

    def with_args(self, *args) -> Case:
        return replace(self, args=args)

    def with_params(self, **params) -> Case:
        return replace(self, params=self.params | params)

    def each(self, change) -> Case:
        """The case with ``change`` applied to every array, those among the keyword arguments included."""
        params = {k: change(v) if isinstance(v, np.ndarray) and k != "weight" else v for k, v in self.params.items()}
        return replace(self, args=tuple(map(change, self.args)), params=params)

    def rows(self, index) -> Case:
        """The case on some of its entries, along the first axis."""
        return self.each(lambda array: array[index])


def numbers(name, params) -> tuple[float, ...]:
    own = {p.name for p in LOSSES[name].params}
    return LOSSES[name].parse({k: v for k, v in params.items() if k in own and not isinstance(v, np.ndarray)})


def position(name, x, y):
    """What the kinks of an elementwise loss are points of: residual, margin or prediction."""
    family = LOSSES[name].family
    if family == "margin":
        return np.where(np.asarray(y) > 0, x, -x)
    return x if family == "probability" else x - y


def inputs(name, values):
    """Predictions in the loss's domain, from numbers of both signs."""
    if LOSSES[name].input == "unit":
        return (1 / (1 + np.exp2(-values.astype(np.float64) / 4))).astype(values.dtype)
    return np.abs(values) - values.dtype.type(0.875) if LOSSES[name].input == "above_minus_one" else values


def targets(name, values, rng):
    """Targets in the loss's domain, from numbers of both signs."""
    domain, kind = LOSSES[name].target, values.dtype.type
    choices = {"unit": [0, 1, 0.25, 0.8125], "binary": [0, 1], "sign": [-1, 0, 1]}
    if domain in choices:
        return rng.choice(choices[domain], values.shape).astype(kind)
    if domain == "real":
        return values
    return np.abs(values) + kind({"non_negative": 0, "positive": 0.125, "above_minus_one": -0.875}[domain])


def build(name, dtype, shape=(67,), width=5, seed=0, **params) -> Case:
    """Ordinary arguments: no specials, targets in the loss's domain, residuals also at the kinks."""
    rng = np.random.default_rng(seed)
    facts = LOSSES[name]

    def normal(shape):
        return (3 * rng.standard_normal(shape)).astype(dtype)

    if facts.kind == "elementwise":
        x = inputs(name, normal(shape))
        x = x if params.get("log_input", True) else np.abs(x) + x.dtype.type(0.25)  # rates
        y = targets(name, (np.round(4 * normal(shape)) / 8).astype(dtype), rng)
        if facts.needs_third:
            params = params | {facts.third: (rng.random(shape) * 4).astype(dtype)}
        # Sums of these are exact, so the residual (margin, prediction) is the kink itself.
        for i, kink in enumerate(facts.kinks(*numbers(name, params))):
            if x.size > i:
                step, flat = np.asarray(kink, dtype), y.reshape(-1)
                margin = step if flat[i] > 0 else -step
                x.reshape(-1)[i] = {"margin": margin, "probability": step}.get(facts.family, flat[i] + step)
        return Case(name, (x, y.astype(dtype)), params)
    index = rng.integers(0, width, shape)
    if facts.kind == "rows":
        x = normal((*shape, width))
        return Case(name, (-np.abs(x) if facts.family == "log-probability" else x, index), params)
    if facts.kind == "softmax":
        x = normal((*shape, width))
        if facts.target == "distribution":
            e = np.exp2(normal((*shape, width)).astype(np.float64))
            return Case(name, (x, (e / e.sum(axis=-1, keepdims=True)).astype(dtype)), params)
        if "action_mask" in params:  # what was done is legal
            params = params | {"action_mask": params["action_mask"] | (index[..., None] == np.arange(width))}
        # Of both signs, but their sum does not cancel.
        return Case(name, (x, index, *([normal(shape) + x.dtype.type(4)] if facts.target == "action" else [])), params)
    q, next_q = normal((*shape, width)), normal((*shape, width))
    return Case(name, (q, index, normal(shape), next_q, rng.random(shape) < 0.3), params)


def param_sets(name) -> list[dict[str, float]]:
    """The defaults, every parameter at other values it may take, and all of them away from their defaults."""
    facts = LOSSES[name]
    others = {
        p.name: [v for v in _CANDIDATES if p.valid(v) and v != p.default] or [v for v in _OTHERS if p.valid(v)] or [2.0]
        for p in facts.params
    }
    if name == "td_loss":
        others["delta"].remove(0.0)  # for smooth L1 only, see below
    # A norm that comes from the data is no number of the formula.
    first = {p.name: p.default for p in facts.params if p.derive}
    sets = [first] + [{key: value} for key, values in others.items() for value in values]
    return sets + ([{key: values[-1] for key, values in others.items()}] if len(others) > 1 else [])


def extras(name, dtype, shape=(67,), width=5, seed=0) -> list[dict]:
    """Keyword arguments that are no float parameters."""
    rng = np.random.default_rng(seed + 1)
    if name == "binary_cross_entropy_with_logits":
        return [{"pos_weight": rng.choice([0.5, 1.0, 2.5], shape).astype(dtype), "label_smoothing": 0.375}]
    if name == "binary_poly_loss":
        return [{"epsilon": (0.5, -0.25, 0.0, 1.0, 2.0, 0.125)}]
    if name == "policy_gradient_loss":
        return [{"entropy_coef": 0.375, "action_mask": rng.random((*shape, width)) < 0.7}]
    if LOSSES[name].target == "distribution":
        return [{"target_kind": "logits", "temperature": 2.5}]
    if LOSSES[name].target == "class":
        weight = rng.choice([0.5, 1.0, 2.0], width)
        middle, last = param_sets(name)[1:2] or [{}], param_sets(name)[-1:]
        return [
            {"weight": weight},
            {"weight": np.arange(width) % 3.0, **middle[0]},
            {"ignore_index": 1},
            {"ignore_index": 1, "weight": weight, **last[0]},
        ]
    if name == "td_loss":
        online = rng.standard_normal((*shape, width)).astype(dtype)
        legal = rng.random((*shape, width)) < 0.4
        legal.reshape(-1)[: 2 * width] = False  # nothing legal: the next state is worth 0
        return [
            {"loss": "mse"},
            {"loss": "smooth_l1", "delta": 0.0},
            {"loss": "smooth_l1", "delta": 2.5},
            {"next_q_online": online},
            {"next_action_mask": legal},
            {"next_q_online": online, "next_action_mask": legal, "loss": "mse", "gamma": 0.375},
        ]
    return []


def variants(name, dtype, shape=(67,), width=5, seed=0) -> list[Case]:
    """The loss under all its own options."""
    keywords = param_sets(name) + extras(name, dtype, shape, width, seed)
    return [build(name, dtype, shape, width, seed + i, **given) for i, given in enumerate(keywords)]


def weights(shape, seed=0) -> np.ndarray:
    """Sample weights, zeros among them; float64 for all dtypes, since Numba compiles for each."""
    return np.random.default_rng(seed).choice([0.0, 0.5, 1.0, 3.25], shape)


def keep(shape, seed=0) -> np.ndarray:
    """A mask."""
    return np.random.default_rng(seed + 2).random(shape) < 0.6


def spoil(case, kept) -> Case:
    """Fill what a mask leaves out with NaN, infinities, and indices and targets out of range."""

    def change(array):
        array = array.copy()
        if array.dtype.kind in "iu":
            array[~kept] = 10**6
        elif array.dtype.kind != "b":
            array[~kept] = np.nan
            array[~kept & (np.arange(kept.size).reshape(kept.shape) % 3 == 0)] = np.inf
        return array

    return case.each(change)


def bits(result) -> list[np.ndarray]:
    """The fields of a result as integers, all NaNs alike, for comparison bit by bit."""
    found = []
    for value in result:
        if value is not None:
            array = np.array(value)
            array[np.isnan(array)] = np.nan
            found.append(array.view(f"u{array.itemsize}"))
    return found


def assert_same_bits(first, second, what="") -> None:
    for a, b in zip(bits(first), bits(second), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=str(what))
