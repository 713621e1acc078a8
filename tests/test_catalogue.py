"""The commands `list` and `plot`, and the page that is generated with them."""

import json
import re
import sys
from itertools import combinations
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
    for curve in _curves.curves([(LOSSES[loss], {})]):
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

    axes = _drawing.panels(_curves.curves([(LOSSES["l1_loss"], {})])).axes[1]
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
    assert "predicted probability" in drawn("binary_cross_entropy", "--range", "0", "1")
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
        (("hubber_loss",), "'hubber_loss' is not a loss; did you mean huber_loss"),
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
        (("msle_loss", "--surface"), "predictions must be above -1"),
        *(
            (("huber_loss", option, bad, *more), f"{option}: must be a number.*{bad!r}")
            for option, *more in [("--targets",), ("--sample",), ("--range", "9")]
            for bad in ("nan", "inf", "1e300", "x")
        ),
        (("mse_loss", "--sample", "1", "--outlier", "nan"), "--outlier: must be a number"),
        (("mse_loss", "--targets", "1e30"), "1e.30 is too large for an axis of -3 to 3"),
        (("exponential_loss", "--range", "1e9", "1e10"), "exponential_loss: no finite value"),
        (("bce_with_logits", "--x", "probability", "--range", "-1", "2"), r"--range must lie in \[0, 1\]"),
        (("huber_loss", "--params", "delta=1", "delta=1.0"), "delta=1.0 is given twice"),
        (("mse_loss", "--outlier", "3"), "--outlier needs --sample"),
        (("mse_loss", "--features", "bmi"), "--features needs --surface"),
        (("mse_loss", "--sample", "3", "--x", "prediction"), "--x does not go with --sample"),
        (("mse_loss", "--surface", "--targets", "1"), "--targets does not go with --surface"),
        (("mse_loss", "-o", "."), r"\.: a folder"),
        (("mse_loss", "-o", "new/"), "new/: a folder"),
        (("mse_loss", "-o", ""), "must not be empty"),
        (("mse_loss", "-o", "n" * 300), "name too long"),
        ((), "LOSS"),
    ],
)
def test_plot_mistakes(folder, coarse, capsys, arguments, says):
    if "--surface" in arguments:
        pytest.importorskip("sklearn")
    assert re.search(says, failure(capsys, "plot", *arguments))
    assert not list(folder.iterdir())


AXES = {  # one loss for each of them
    "mse_loss": "prediction - target",
    "msle_loss": "prediction",
    "bce_with_logits": "logit",
    "binary_cross_entropy": "predicted probability",
    "cross_entropy": "logit of one of 3 classes, others 0",
    "multi_margin_loss": "prediction of one of 3 classes, others 0",
    "nll_loss": "log-probability of one class",
    "td_loss": "value of the action taken - target",
}
PREDICTIONS = {"prediction - target", "prediction", "logit"}


@pytest.mark.parametrize(("first", "second"), [*combinations(AXES, 2)])
def test_losses_share_the_axis_of_the_prediction_or_are_refused(folder, coarse, capsys, first, second):
    if {AXES[first], AXES[second]} <= PREDICTIONS:
        text = drawn(first, second)
        assert ">prediction<" in text
        assert "prediction - target" not in text
        return
    message = failure(capsys, "plot", first, second)
    assert all(repr(AXES[name]) in message for name in (first, second))
    logits = {"bce_with_logits", "binary_cross_entropy", "cross_entropy"}
    assert ("--x probability" in message) == ({first, second} <= logits)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.family in ("distance", "residual")])
def test_over_the_prediction_a_residual_has_its_minimum_and_kinks_at_the_target(coarse, name):
    from fastloss.commands import _curves

    alone, *_ = _curves.curves([(LOSSES[name], {})], [2.0])
    assert alone.axis == "prediction - target"
    curve, *_ = _curves.curves([(LOSSES[name], {}), (LOSSES["hinge_loss"], {})], [1.0])
    assert curve.axis == "prediction"
    assert curve.x[np.argmin(curve.values[0])] == pytest.approx(1.0, abs=0.4)
    assert {curve.x[i] - 1.0 for i in curve.kinks} == {alone.x[i] for i in alone.kinks}


def test_both_binary_cross_entropies_are_one_curve_over_the_probability(coarse):
    from fastloss.commands import _curves, _drawing

    names = ("binary_cross_entropy_with_logits", "binary_cross_entropy")
    curves = _curves.curves([(LOSSES[name], {}) for name in names], probability=True)
    for logit, probability in zip(curves[:2], curves[2:], strict=True):
        assert logit.target == probability.target
        np.testing.assert_allclose(
            logit.values[0], np.interp(logit.x, probability.x, probability.values[0]), 1e-3, 1e-3
        )
    figure = _drawing.panels(curves)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [f"derivatives wrt {what}" in text for what in ("logit", "probability") for text in legend] == [
        True, True, False, False, False, False, True, True
    ]  # fmt: skip


@pytest.fixture
def figures(monkeypatch, coarse):
    """Pictures as figures, in place of files."""
    from fastloss.commands import plot

    kept = []
    monkeypatch.setattr(plot, "save", lambda figure, path: kept.append(figure))
    return kept


REAL = [name for name, loss in LOSSES.items() if loss.family in ("distance", "residual")]
MANY = [
    *(REAL[:count] for count in (2, 8, 13)),
    [*REAL[:13], "--targets", "1", "2"],
    [*REAL[:9], "--targets", "1", "2", "3"],
    ["huber_loss", "--params", *(f"delta={k}" for k in range(1, 29))],
    ["bce_with_logits", "--params", *(f"pos_weight={k}" for k in range(1, 8)), "--targets", "0", "0.25", "0.75", "1"],
]


@pytest.mark.parametrize("arguments", MANY)
def test_no_two_curves_look_alike(folder, figures, arguments):
    assert cli.main(["plot", *arguments]) == 0
    lines = [line for line in figures[0].axes[0].lines if not line.get_label().startswith("_")]
    styles = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}
    assert len(lines) == len(styles) == len(figures[0].legends[0].get_texts())


def test_more_curves_than_styles_are_refused(folder, figures, capsys):
    given = ["huber_loss", "--params", *(f"delta={k}" for k in range(1, 30))]
    assert "29 curves can't be told apart" in failure(capsys, "plot", *given)
    assert "8 losses can't be told apart" in failure(capsys, "plot", *given[:10], "--sample", "1", "2")


WIDE = [
    *MANY,
    [*REAL, "--targets", "1"],
    ["bce_with_logits", "--params", "pos_weight=0.5", "pos_weight=2", "label_smoothing=0.1", "label_smoothing=0.2",
     "--sample", "0", "1", "1", "--outlier", "0"],
    ["binary_poly_loss", "--params", f"epsilon={(0.123456789,) * 6}"],
    ["bce_with_logits", "binary_cross_entropy", "cross_entropy", "--x", "probability"],
    *([name] for name in AXES),
]  # fmt: skip


@pytest.mark.parametrize("arguments", WIDE)
def test_no_text_is_cut(folder, figures, arguments):
    from matplotlib.text import Text

    assert cli.main(["plot", *arguments]) == 0
    figure = figures[0]
    figure.canvas.draw()
    texts = [figure._suptitle] if figure._suptitle else []
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    texts += [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    for text in filter(Text.get_text, texts):
        box = text.get_window_extent()
        assert -1 <= box.x0 <= box.x1 <= figure.bbox.width + 1, text.get_text()
        assert -1 <= box.y0 <= box.y1 <= figure.bbox.height + 1, text.get_text()


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].kind == "elementwise"])
def test_a_hessian_by_convention_is_named_in_picture_and_legend(folder, figures, name):
    conventional = {"l1_loss", "nmae_loss", "mape_loss", "pinball_loss", "hinge_loss"}
    assert cli.main(["plot", name]) == 0
    assert ("convention of boosting" in figures[0].axes[2].get_title()) == (name in conventional)
    if name in conventional:
        assert cli.main(["plot", name, "squared_hinge_loss", "--targets", "1"]) == 0
        own, other = (text.get_text() for text in figures[1].legends[0].get_texts())
        assert "in part" in figures[1].axes[2].get_title()
        assert own.endswith("Hessian: convention of boosting")
        assert "convention" not in other


def test_a_sample_shows_where_the_mean_loss_is_least(folder, coarse):
    # The logit of 1/4 lies far from the targets; where all are 1, no logit is the best.
    assert "least at -1.1<" in drawn("bce_with_logits", "--sample", "0", "0", "0", "1")
    assert "least at above" in drawn("bce_with_logits", "--sample", "1", "1")
    assert "least at 0.67" in drawn("gaussian_nll_loss", "--sample", "0", "1", "1").replace("0.66", "0.67")
    assert "least at" in drawn("msle_loss", "--sample", "-0.9", "3")


def test_parameters_may_share_an_option_or_repeat_it(folder, coarse):
    together = drawn("huber_loss", "--params", "delta=1", "delta=2")
    assert drawn("huber_loss", "--params", "delta=1", "--param", "delta=2") == together


STARTS = {
    "ce": b"\x89PNG",
    ".hidden": b"\x89PNG",
    "a.png": b"\x89PNG",
    "a.b.SVG": b"<?xml",
    "a.pdf": b"%PDF",
    "A.PDF": b"%PDF",
}


@pytest.mark.parametrize("name", STARTS)
def test_a_picture_has_the_name_and_format_that_are_given(folder, coarse, capsys, name):
    assert cli.main(["plot", "mse_loss", "-o", name]) == 0
    assert capsys.readouterr().out == f"picture: {name}\n"
    assert [path.name for path in folder.iterdir()] == [name]
    assert Path(name).read_bytes().startswith(STARTS[name])


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
