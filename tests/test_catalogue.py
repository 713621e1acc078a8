"""The commands `list` and `plot`, and the page that is generated with them."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import cli
from fastloss._accumulate import NAMES
from fastloss.commands._losses import full_name
from fastloss.registry import LOSSES

CLONE = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def coarse(monkeypatch):
    """Curves and surfaces of few points."""
    pytest.importorskip("matplotlib")
    from fastloss.commands import _curves, _surface

    monkeypatch.setattr(_curves, "_POINTS", 41)
    monkeypatch.setattr(_surface, "_POINTS", 7)


def failure(capsys, *arguments):
    """Run a command that must end with status 2; returns the one line on stderr."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    return err


def drawn(*arguments):
    """Draw a picture and return the text of its SVG."""
    assert cli.main(["plot", *arguments, "-o", "picture.svg"]) == 0
    return Path("picture.svg").read_text()


def test_list(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(NAMES)
    assert any("huber_loss" in line and "delta=1.0" in line and "yes" in line for line in lines)


def test_list_json(capsys):
    assert cli.main(["list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(entries) == list(NAMES)
    for name in LOSSES:
        entry = entries[name]
        assert (entry["loss_ulp"], entry["grad_ulp"]) == (LOSSES[name].loss_ulp, LOSSES[name].grad_ulp)
        assert {p.name for p in LOSSES[name].params} <= entry["parameters"].keys()
        assert entry["backends"] == list(fl.backends())
    assert entries["binary_cross_entropy_with_logits"]["aliases"] == ["bce_with_logits"]
    assert entries["huber_loss"]["hessian"]
    assert entries["dice_loss"]["parameters"] == {"smooth": 1.0, "squared": False, "from_logits": True}
    assert all(full_name(entry["short"], NAMES) == name for name, entry in entries.items())


@pytest.mark.parametrize("known", [True, False], ids=["by kind", "one entry"])
def test_curves_are_the_loss_and_its_derivative(loss, known, monkeypatch):
    from fastloss.commands import _curves

    if not known:  # as for a kind of loss that has no way of its own
        monkeypatch.setattr(_curves, "_CALLS", {})
    for curve in _curves.curves(LOSSES[loss], {}):
        values, grad, *_ = curve.values
        slopes = np.diff(values) / np.diff(curve.x)
        means = (grad[1:] + grad[:-1]) / 2
        # The trapezoid is exact enough where the gradient is smooth: not across a kink, nor where it is steep.
        far = np.ones(len(slopes), bool)
        for kink in curve.kinks:
            far[kink - 2 : kink + 3] = False
        far &= np.abs(np.diff(grad)) < 0.05 * (1 + np.abs(means))
        assert far.mean() > 0.5
        assert np.abs(grad).max() > 0 or loss == "nll_loss"
        np.testing.assert_allclose(slopes[far], means[far], rtol=0.01, atol=0.01)


def test_plot(folder, coarse, loss):
    text = drawn(loss)
    assert loss in text
    assert len(text) < 60_000


def test_a_picture_is_the_same_every_time(folder, coarse):
    assert drawn("l1_loss") == drawn("l1_loss")


def test_a_jump_is_a_gap_and_three_dots(coarse):
    from fastloss.commands import _curves, _drawing

    axes = _drawing.panels(_curves.curves(LOSSES["l1_loss"], {})).axes[1]
    line = max(axes.lines, key=lambda line: len(line.get_xdata()))
    at = np.isnan(line.get_ydata())
    assert list(line.get_xdata()[at]) == [0.0]
    dots = [tuple(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    assert dots == [(-1.0, 1.0), (0.0,)]


def test_plot_shares_axes(folder, coarse):
    text = drawn("huber_loss", "mse_loss", "--params", "delta=0.5", "delta=2")
    for label in ("huber_loss, delta = 0.5", "huber_loss, delta = 2", ">mse_loss<", "prediction - target", "Hessian"):
        assert label in text
    assert "this class" in drawn("cross_entropy", "--x", "probability")
    assert "target 0.25" in drawn("bce_with_logits", "--targets", "0.25", "1", "--range", "-2", "5")
    assert "td_loss, loss = mse" in drawn("td_loss", "--params", "loss=mse")


def test_plot_outlier(folder, coarse):
    text = drawn("mse_loss", "l1_loss", "--sample", "0.8", "1", "1.3", "--outlier", "5")
    means = re.search(r"mse_loss: least at ([\d.]+) -&gt; ([\d.]+)", text)
    assert [float(value) for value in means.groups()] == pytest.approx([3.1 / 3, 8.1 / 4], abs=0.01)
    medians = re.search(r"l1_loss: least at ([\d.]+) -&gt; ([\d.]+)", text)
    assert float(medians[1]) == pytest.approx(1.0, abs=0.01)
    assert 1.0 <= float(medians[2]) <= 1.3


@pytest.mark.parametrize("features", [(), ("--features", "mean area")])
def test_plot_surface(folder, coarse, features):
    pytest.importorskip("sklearn")
    text = drawn("bce_with_logits", "cross_entropy", "--surface", *features)
    reached = re.findall(r"steps of gradient descent to ([\d.]+)", text)
    # Two classes with the logits 0 and z are the binary model.
    assert len(reached) == 2
    assert reached[0] == reached[1]


def test_gradient_descent_finds_the_least_squares(coarse):
    pytest.importorskip("sklearn")
    from fastloss.commands._surface import _load, _Model, _standardised

    _, columns, target = _load("diabetes", ("bmi", "bp"))
    target = _standardised(target)
    path, losses = _Model(LOSSES["mse_loss"], {}, columns, target).descend(np.array([3.0, -3.0]), 100)
    np.testing.assert_allclose(path[-1], np.linalg.lstsq(columns, target)[0], atol=1e-5)
    assert (np.diff(losses) < 0).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no_such_loss",), "'no_such_loss' is not a loss; choose from .*huber_loss"),
        (("mse_loss", "--params", "delta=1"), "mse_loss: no parameter 'delta'"),
        (("huber_loss", "--params", "delta"), "NAME=VALUE"),
        (("huber_loss", "--params", "delta=-1"), "delta must be positive"),
        (("huber_loss", "--params", "delta=big"), "delta must be a real number"),
        (("td_loss", "--params", "loss=cubic"), "'cubic'"),
        (("huber_loss", "--x", "probability"), "no axis in probability"),
        (("huber_loss", "--range", "2", "1"), "--range"),
        (("bce_with_logits", "--targets", "2"), "target"),
        (("cross_entropy", "--targets", "7"), "target"),
        (("td_loss", "--sample", "1", "2"), "td_loss"),
        (("mse_loss", "-o", "no/picture.png"), "no/picture.png"),
        (("mse_loss", "-o", "picture.txt"), "txt"),
        (("mse_loss", "--surface", "iris"), "--surface"),
        (("mse_loss", "--surface", "--features", "weight"), "'weight'"),
        (("td_loss", "--surface"), "no surface"),
        ((), "LOSS"),
    ],
)
def test_plot_mistakes(folder, coarse, capsys, arguments, says):
    if "--surface" in arguments:
        pytest.importorskip("sklearn")
    assert re.search(says, failure(capsys, "plot", *arguments))
    assert not list(folder.iterdir())


def test_plot_names_the_missing_extra(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "python -m pip install matplotlib" in failure(capsys, "plot", "mse_loss")


@pytest.fixture
def generator(monkeypatch):
    if not (CLONE / "docs").is_dir():
        pytest.skip("the page lies in the repository alone")
    pytest.importorskip("numpydoc")
    monkeypatch.syspath_prepend(str(CLONE))
    from tools import losses_doc

    return losses_doc


def test_page_is_current(generator):
    assert generator.page() == (CLONE / "docs" / "losses.md").read_text(), "run python -m tools.losses_doc"
    pictures = {path.stem for path in (CLONE / "docs" / "images" / "losses").iterdir()}
    assert pictures == LOSSES.keys()


def test_a_change_is_noticed(generator, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    # Pictures count as different only if the same matplotlib drew them.
    version = re.search("Matplotlib v[0-9.]+", (CLONE / "docs" / "images" / "losses" / "mse_loss.svg").read_text())[0]
    monkeypatch.setattr(generator, "picture", lambda arguments: f"another picture, {version}")
    monkeypatch.setattr(fl.mse_loss, "__doc__", fl.mse_loss.__doc__.replace("Squared error", "Squares"))
    assert generator.main(["--check"]) == 1
    stale = capsys.readouterr().err
    assert "docs/losses.md is out of date" in stale
    assert "docs/images/losses/mse_loss.svg is out of date" in stale
