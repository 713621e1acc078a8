"""Train a softmax classifier and a small network on handwritten digits.

The layers are plain NumPy; the loss and its gradient come from one call to
fastloss. The data are the 1797 images that scikit-learn ships.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter

import numpy as np

import fastloss as fl

from . import CommandError, add_backend_argument, from_extra, one_line, positive_int, printable, progress_bar
from ._pictures import check_picture, save

_BATCH = 64
_MODELS = {"softmax": (64, 10), "MLP": (64, 64, 10)}
_RATE, _MOMENTUM = 0.05, 0.9


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--epochs", metavar="N", type=positive_int, default=30, help="passes over the data (default: 30)"
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="seed of everything random (default: 0)")
    add_backend_argument(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw the loss curves; its ending names the format, PNG without")
    parser.add_argument(
        "--steps-timing", metavar="N", type=positive_int, default=300, help="training steps to time (default: 300)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, test and time both models."""
    if arguments.seed < 0:
        raise CommandError(f"--seed must not be negative, got {arguments.seed}")
    if arguments.plot is not None:
        check_picture(arguments.plot, "demo", "--plot")
    digits = _Digits.load(arguments.seed)
    print(f"handwritten digits: {len(digits.train_x)} to learn from, {len(digits.test_x)} to test on")
    curves = {}
    for name, sizes in _MODELS.items():
        network = Network(sizes, _BATCH, np.random.default_rng(arguments.seed), arguments.backend)
        try:
            curves[name] = _train(network, digits, arguments, name)
        except (ImportError, RuntimeError, ValueError) as error:
            # The arrays are right by construction: what can be wrong is the backend asked for.
            raise CommandError(one_line(error)) from error
        accuracy = np.mean(network.forward(digits.test_x).argmax(1) == digits.test_y)
        print(f"{name:<8} test accuracy {accuracy:.4f}   final loss {curves[name][-1]:.4f}")
    _print_times(digits, arguments)
    if arguments.plot is not None:
        _plot(curves, arguments.plot)
        print(f"loss curves: {printable(arguments.plot)}")
    return 0


@dataclass
class _Digits:
    """Images as rows of 64 floats in [0, 1] and their labels, in two parts."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    @classmethod
    def load(cls, seed: int) -> _Digits:
        datasets = from_extra("demo", "sklearn.datasets", "scikit-learn", "demo")
        images, labels = datasets.load_digits(return_X_y=True)
        images = (images / 16).astype(np.float32)
        order = np.random.default_rng(seed).permutation(len(images))
        test, train = np.split(order, [len(images) // 5])
        return cls(images[train], labels[train], images[test], labels[test])


@dataclass
class Network:
    """Dense layers with ReLU between them; without a hidden layer, a softmax classifier.

    Parameters
    ----------
    sizes : tuple of int
        Width of the input, the hidden layers and the output.
    batch : int
        Largest number of rows in a training step.
    rng : numpy.random.Generator
        Source of the first weights.
    backend : str, optional
        Backend that computes the loss.
    """

    sizes: tuple[int, ...]
    batch: int
    rng: np.random.Generator
    backend: str | None = None
    weights: list[np.ndarray] = field(init=False)
    biases: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        pairs = list(pairwise(self.sizes))
        self.weights = [(self.rng.standard_normal(p) * np.sqrt(2 / p[0])).astype(np.float32) for p in pairs]
        self.biases = [np.zeros(n, np.float32) for n in self.sizes[1:]]
        self._velocities = [np.zeros_like(a) for a in (*self.weights, *self.biases)]
        self._buffers = [np.empty((self.batch, n), np.float32) for n in self.sizes[1:]]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Compute the logits of rows of pixels."""
        return self._layers(x, [None] * len(self.weights))[-1]

    def _layers(self, x: np.ndarray, outs: list[np.ndarray | None]) -> list[np.ndarray]:
        layers = [x]
        for w, b, out in zip(self.weights, self.biases, outs, strict=True):
            x = np.matmul(x, w, out=out)
            x += b
            if len(layers) < len(self.weights):
                np.maximum(x, 0, out=x)
            layers.append(x)
        return layers

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """Take one step of gradient descent with momentum; returns the loss before it."""
        *layers, logits = self._layers(x, [buffer[: len(x)] for buffer in self._buffers])
        # The gradient takes the place of the logits, which are no longer needed.
        loss, _ = fl.cross_entropy(logits, y, out=logits, backend=self.backend)
        self._descend(layers, logits)
        return float(loss)

    def _descend(self, layers: list[np.ndarray], grad: np.ndarray) -> None:
        """Carry the gradient back through the layers, whose inputs are given, and move the parameters."""
        slopes_w: list[np.ndarray] = []
        slopes_b: list[np.ndarray] = []
        for layer, w in zip(reversed(layers), reversed(self.weights), strict=True):
            slopes_w.insert(0, layer.T @ grad)
            slopes_b.insert(0, grad.sum(0))
            if layer is not layers[0]:
                grad = (grad @ w.T) * (layer > 0)
        values, slopes = (*self.weights, *self.biases), (*slopes_w, *slopes_b)
        for value, velocity, slope in zip(values, self._velocities, slopes, strict=True):
            velocity *= _MOMENTUM
            velocity -= _RATE * slope
            value += velocity


def _train(network: Network, digits: _Digits, arguments: argparse.Namespace, name: str) -> list[float]:
    """Train for some epochs; returns the loss over all training images after each."""
    rng = np.random.default_rng(arguments.seed)
    curve = []
    with progress_bar(arguments.epochs, " epochs", name) as advance:
        for _ in range(arguments.epochs):
            order = rng.permutation(len(digits.train_x))
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                network.step(digits.train_x[rows], digits.train_y[rows])
            logits = network.forward(digits.train_x)
            loss, _ = fl.cross_entropy(logits, digits.train_y, grad=False, backend=network.backend)
            curve.append(float(loss))
            advance(1)
    return curve


def _print_times(digits: _Digits, arguments: argparse.Namespace) -> None:
    """Print the time of a training step and of the loss alone, with fastloss and with NumPy."""
    x, y = digits.train_x[:_BATCH], digits.train_y[:_BATCH]
    backends = (arguments.backend, "numpy")
    rows: dict[str, list[Callable[[], object]]] = {}
    for name, sizes in _MODELS.items():
        networks = [Network(sizes, _BATCH, np.random.default_rng(arguments.seed), b) for b in backends]
        rows[f"{name} step"] = [partial(n.step, x, y) for n in networks]
    logits = networks[0].forward(x)
    out = np.empty_like(logits)
    rows["loss alone"] = [partial(fl.cross_entropy, logits, y, out=out, backend=b) for b in backends]
    print(f"\nmicroseconds, batches of {_BATCH}   fastloss   NumPy reference")
    for name, calls in rows.items():
        fast, reference = _medians(calls, arguments.steps_timing)
        print(f"{name:<29}{fast * 1e6:>10.1f}{reference * 1e6:>18.1f}")


def _medians(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Time calls in turns, so that a busy machine disturbs them alike; returns the median seconds of each."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seconds in zip(calls, times, strict=True):
            started = perf_counter()
            call()
            seconds.append(perf_counter() - started)
    return [median(seconds) for seconds in times]


def _plot(curves: dict[str, list[float]], path: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.semilogy(range(1, len(curve) + 1), curve, label=name)
    axes.set(xlabel="epoch", ylabel="cross-entropy of the training images", title="Handwritten digits")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)
