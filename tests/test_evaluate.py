"""The command evaluate, end to end: every loss over files of every kind, and what it says about bad ones."""

import io
import json
import math
import os
import re
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from cases import LOSS_NAMES, build
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import environment, output

import fastloss as fl
from fastloss import _accumulate, cli
from fastloss._accumulate import NAMES, array_names
from fastloss.commands import CommandError
from fastloss.commands import evaluate as command
from fastloss.commands._losses import short_names
from fastloss.commands._npy import NpyFile
from fastloss.registry import LOSSES

POINTWISE = [loss for loss in LOSSES.values() if loss.pointwise and loss.input == "real"]
ELEMENTWISE = [loss.name for loss in POINTWISE if loss.target in ("real", "unit")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder of its own, so that files have short names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def files(folder):
    """Small arrays, saved as the files that the tests name."""
    rng = np.random.default_rng(0)
    arrays = {
        "logits": rng.standard_normal((501, 10)).astype(np.float32),
        "classes": rng.integers(0, 10, 501),
        "x": rng.standard_normal((501, 3)).astype(np.float32),
        "y": rng.random((501, 3)).astype(np.float32),
        "weights": rng.random(501).astype(np.float32),
        "mask": rng.random(501) < 0.7,
    }
    arrays["classes"][::9] = -100
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return arrays


def evaluate(capsys, *arguments):
    """Run the command in this process; returns its results by name, without the speed."""
    status = cli.main(["evaluate", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    lines = dict(line.split(None, 1) for line in out.splitlines())
    assert re.fullmatch(r"\S+ rows/s, \S+ elements/s, \S+ GB/s", lines.pop("throughput"))
    return {name: float(value) if name != "first" else value for name, value in lines.items()}


def failure(capsys, *arguments, lines=1):
    """Run the command, which must fail; returns the one line that it says, or so many."""
    arguments = ("evaluate", *arguments)
    try:
        status = cli.main(list(map(str, arguments)))
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", lines)
    assert err.startswith(f"fastloss {arguments[0]}: error: ")
    return err


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("options", [(), ("--weights", "weights.npy", "--mask", "mask.npy")], ids=["plain", "masked"])
def test_elementwise(files, capsys, name, options):
    keywords = {"sample_weight": files["weights"], "mask": files["mask"]} if options else {}
    result = evaluate(capsys, name, "x.npy", "y.npy", *options)
    loss = getattr(fl, name)
    assert result["loss"] == pytest.approx(loss(files["x"], files["y"], **keywords).loss, rel=1e-6)
    assert result["sum"] == pytest.approx(loss(files["x"], files["y"], reduction="sum", **keywords).loss, rel=1e-6)
    assert result["count"] == (3 * files["mask"].sum() if options else files["x"].size)


@pytest.mark.parametrize("backend", ["numpy", fl.backends()[0]])
def test_cross_entropy(files, capsys, backend):
    options = ("--weights", "weights.npy", "--mask", "mask.npy", "--backend", backend, "--threads", 2)
    result = evaluate(capsys, "cross_entropy", "logits.npy", "classes.npy", *options)
    expected = fl.cross_entropy(files["logits"], files["classes"], sample_weight=files["weights"], mask=files["mask"])
    kept = files["mask"] & (files["classes"] != -100)
    assert result["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert "perplexity" not in result  # a sum of weighted losses over a count is none
    assert result["count"] == kept.sum()
    right = files["logits"].argmax(1) == files["classes"]
    assert result["accuracy"] == pytest.approx(np.average(right[kept], weights=files["weights"][kept].astype(float)))


def test_sequences(folder, capsys):
    rng = np.random.default_rng(1)
    logits, classes, mask = rng.standard_normal((9, 4, 5)), rng.integers(0, 5, (9, 4)), np.arange(9) < 6
    for name, array in [("x", logits), ("t", classes), ("m", mask)]:
        np.save(f"{name}.npy", array)
    result = evaluate(capsys, "cross_entropy", "x.npy", "t.npy", "--mask", "m.npy", "--batch", 2)
    assert result["loss"] == pytest.approx(fl.cross_entropy(logits, classes, mask=mask).loss, rel=1e-12)
    assert result["accuracy"] == np.mean((logits.argmax(-1) == classes)[:6])


@pytest.mark.parametrize("given", [("cross_entropy", "x.npy", "t.npy"), ("huber_loss", "x.npy", "x.npy")])
def test_does_not_depend_on_batch(folder, capsys, given):
    rng = np.random.default_rng(2)
    np.save("x.npy", (rng.standard_normal((20001, 7)) * 10.0 ** rng.integers(-6, 6, (20001, 1))).astype(np.float32))
    np.save("t.npy", rng.integers(0, 7, 20001))
    np.save("w.npy", rng.random(20001))
    options = [*given, "--weights", "w.npy"]
    whole = evaluate(capsys, *options)
    for rows in (1, 7, 4096, 10**12):
        assert evaluate(capsys, *options, "--batch", rows) == whole


def test_parameters(files, capsys):
    result = evaluate(capsys, "huber_loss", "x.npy", "y.npy", "--param", "delta=0.25")
    assert result["loss"] == pytest.approx(fl.huber_loss(files["x"], files["y"], delta=0.25).loss, rel=1e-6)
    weight = np.linspace(0.5, 1.5, 10)
    np.save("classweight.npy", weight)
    options = ("--param", "weight=classweight.npy", "--param", "ignore_index=3", "--param", "label_smoothing=0.1")
    classes = np.abs(files["classes"]) % 10
    np.save("classes.npy", classes)
    result = evaluate(capsys, "cross_entropy", "logits.npy", "classes.npy", *options)
    expected = fl.cross_entropy(files["logits"], classes, weight=weight, ignore_index=3, label_smoothing=0.1)
    assert result["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert result["count"] == np.sum(classes != 3)


def test_alias(files, capsys):
    names = ("bce_with_logits", "binary_cross_entropy_with_logits")
    assert evaluate(capsys, names[0], "x.npy", "y.npy") == evaluate(capsys, names[1], "x.npy", "y.npy")


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a.astype(a.dtype.newbyteorder())])
def test_other_layouts(files, capsys, change):
    expected = evaluate(capsys, "mse_loss", "x.npy", "y.npy")
    np.save("other.npy", change(files["x"]))
    assert evaluate(capsys, "mse_loss", "other.npy", "y.npy") == expected


def test_nothing(folder, capsys):
    np.save("x.npy", np.empty((0, 4)))
    np.save("t.npy", np.empty(0, int))
    result = evaluate(capsys, "cross_entropy", "x.npy", "t.npy")
    assert np.isnan([result["loss"], result["perplexity"], result["accuracy"]]).all()
    assert (result["sum"], result["count"]) == (0, 0)
    assert np.isnan(evaluate(capsys, "mse_loss", "x.npy", "x.npy")["loss"])


def test_all_masked(files, capsys):
    np.save("mask.npy", np.zeros(501, bool))
    result = evaluate(capsys, "cross_entropy", "logits.npy", "classes.npy", "--mask", "mask.npy")
    assert math.isnan(result["loss"])
    assert result["count"] == 0


def test_infinite_loss(folder, capsys):
    np.save("x.npy", np.array([[0.0, -np.inf], [0.0, 1.0]]))
    np.save("t.npy", np.array([1, 1]))
    result = evaluate(capsys, "cross_entropy", "x.npy", "t.npy")
    assert result["loss"] == result["perplexity"] == math.inf
    assert result["first"] == "inf   at row 0, where x.npy has -inf at index (0, 1)"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), r"."),
        (lambda path: path.write_text("1 2 3"), "not an .npy file"),
        (lambda path: path.write_bytes(b""), "not an .npy file"),
        (lambda path: path.write_bytes(path.with_name("x.npy").read_bytes()[:50]), "header"),
        (lambda path: path.write_bytes(path.with_name("x.npy").read_bytes()[:-1]), "truncated"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x09\x00"), "header|version"),
        (lambda path: np.save(path, np.array([{}], object)), "objects"),
        (lambda path: np.save(path, np.float32(1)), "shape"),
        (lambda path: np.save(path, np.zeros((501, 4), np.float32)), r"shape \(501, 4\)"),
        (lambda path: np.save(path, np.zeros((501, 3), np.complex64)), "complex64"),
        (lambda path: np.save(path, np.zeros((501, 3))), "float64"),
    ],
)
def test_bad_target_file(files, folder, capsys, make, says):
    make(folder / "bad.npy")
    message = failure(capsys, "mse_loss", "x.npy", "bad.npy")
    assert "error: bad.npy: " in message
    assert re.search(says, message)


def test_archive(files, capsys):
    np.savez("both.npz", x=1)
    assert "archive" in failure(capsys, "mse_loss", "x.npy", "both.npz")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("huber_los", "x.npy", "y.npy"), "'huber_los' is not a loss; did you mean huber_loss?"),
        (("td_loss", "logits.npy", "classes.npy"), "td_loss needs rewards: --param rewards=FILE.npy"),
        (("mse_loss", "classes.npy", "classes.npy"), "classes.npy: input"),
        (("cross_entropy", "logits.npy", "y.npy"), "y.npy: shape"),
        (("cross_entropy", "weights.npy", "classes.npy"), r"weights.npy: .*\(501,\)"),
        (("cross_entropy", "logits.npy", "weights.npy"), "weights.npy: target .*float32"),
        (("mse_loss", "x.npy", "y.npy", "--mask", "x.npy"), "x.npy: mask .*float32"),
        (("mse_loss", "x.npy", "y.npy", "--mask", "logits.npy"), "logits.npy: shape"),
        (("mse_loss", "x.npy", "y.npy", "--weights", "gone.npy"), "gone.npy: No such file"),
        (("mse_loss", "x.npy", "y.npy", "--batch", "0"), "--batch"),
        (("mse_loss", "x.npy", "y.npy", "--threads", "two"), "--threads"),
        (("mse_loss", "x.npy", "y.npy", "--backend", "abacus"), "abacus"),
        (("mse_loss", "x.npy", "y.npy", "--param", "delta=1"), "mse_loss has no parameter 'delta'"),
        (("huber_loss", "x.npy", "y.npy", "--param", "delta"), "NAME=VALUE"),
        (("huber_loss", "x.npy", "y.npy", "--param", "delta=big"), "'big'"),
        (("huber_loss", "x.npy", "y.npy", "--param", "delta=-1"), "delta must"),
        (("mse_loss", "x.npy"), "TARGET.npy"),
    ],
)
def test_bad_arguments(files, capsys, arguments, says):
    assert re.search(says, failure(capsys, *arguments))


def test_names_the_row_of_the_file(folder, capsys):
    classes, probabilities = np.zeros(9000, int), np.zeros((9000, 2))
    classes[8765], probabilities[8765, 1] = 2, 1.5
    for name, array in [("t", classes), ("p", probabilities), ("x", np.zeros((9000, 2)))]:
        np.save(f"{name}.npy", array)
    message = failure(capsys, "cross_entropy", "x.npy", "t.npy", "--batch", 1)
    assert "error: t.npy: " in message
    assert "8765" in message
    message = failure(capsys, "bce_with_logits", "x.npy", "p.npy", "--batch", 1)
    assert "error: p.npy: " in message
    assert "8765, 1" in message


def test_interrupted(files, capsys, monkeypatch):
    def update(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(_accumulate.LossSum, "update", update)
    assert cli.main(["evaluate", "mse_loss", "x.npy", "y.npy"]) == 130
    assert capsys.readouterr() == ("", "fastloss evaluate: interrupted\n")


@pytest.mark.parametrize("installed", [True, False], ids=["tqdm", "without tqdm"])
@pytest.mark.parametrize("name", ["mse_loss", "bce_with_logits"])
def test_progress_is_shown_within_80_columns(files, capsys, monkeypatch, installed, name):
    if installed:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["evaluate", name, "x.npy", "y.npy"]) == 0
    shown = capsys.readouterr().err.split("\r")
    assert any("501" in text and "rows" in text for text in shown)
    assert max(map(len, shown)) <= 80
    assert shown[-1] == ""


def test_no_progress_is_shown_where_nobody_looks(files, capsys):
    assert cli.main(["evaluate", "mse", "x.npy", "y.npy"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
def test_memory_is_constant(folder):
    # Zeros that take no space on the disk; the large ones are 96 MiB.
    for name, rows in [("small", 2 << 20), ("large", 24 << 20)]:
        np.lib.format.open_memmap(f"{name}.npy", "w+", np.float32, (rows,))

    def peak(name):
        code = f"from fastloss.cli import main; main(['evaluate', 'mse_loss', *['{name}.npy'] * 2])"
        code += "; print(open('/proc/self/status').read())"
        return int(re.search(r"VmHWM:\s+(\d+) kB", output(code))[1])

    assert peak("large") - peak("small") < 24 << 10


# --- every loss


def save(arrays):
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_every_loss_of_the_catalogue_is_evaluated(folder, capsys, name):
    case = build(name, "float64", (500,), 4)
    names = array_names(name)
    arrays = dict(zip(names, case.args, strict=False)) | case.params
    save(arrays)
    params = [f"{key}={key}.npy" for key in names[2:]]
    options = ["--param", *params] if params else []
    result = evaluate(capsys, name, *(f"{key}.npy" for key in names[:2]), *options, "--batch", 77)
    assert result["loss"] == pytest.approx(getattr(fl, name)(*arrays.values(), grad=False).loss, rel=1e-12)
    assert result["count"] == 500


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LOSS_NAMES)))
def test_losses_made_of_others_are_evaluated(folder, capsys, name):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((300, 4)), "y": rng.integers(0, 2, (300, 4)), "m": rng.random(300) < 0.5}
    save(arrays)
    expected = getattr(fl, name)(arrays["x"], arrays["y"], mask=arrays["m"], grad=False).loss
    assert evaluate(capsys, name, "x.npy", "y.npy", "--mask", "m.npy")["loss"] == expected


SHARES = np.random.default_rng(3).dirichlet(np.ones(10), 501).astype(np.float32)
LEGAL = np.arange(10) > 1
CASES = [
    (
        "cross_entropy",
        ["z_loss=0.5", "softcap=2", "temperature=1.5"],
        {"z_loss": 0.5, "softcap": 2, "temperature": 1.5},
    ),
    (
        "cross_entropy",
        ["label_smoothing=0.25", "weight=cw.npy"],
        {"label_smoothing": 0.25, "weight": np.arange(1.0, 11)},
    ),
    ("cross_entropy", ["class_mask=legal.npy", "ignore_index=3"], {"class_mask": LEGAL, "ignore_index": 3}),
    ("cross_entropy", ["class_mask=rows.npy"], {"class_mask": np.arange(5010).reshape(501, 10) % 7 < 6}),
    ("softmax_focal_loss", ["gamma=0.5", "weight=cw.npy"], {"gamma": 0.5, "weight": np.arange(1.0, 11)}),
    ("poly_loss", ["epsilon=0.5,-0.25,1"], {"epsilon": (0.5, -0.25, 1.0)}),
    ("multi_margin_loss", ["p=2", "margin=0.5"], {"p": 2, "margin": 0.5}),
    ("policy_gradient_loss", ["advantages=w.npy", "entropy_coef=0.1"], {"advantages": None, "entropy_coef": 0.1}),
]


@pytest.mark.parametrize(("name", "texts", "params"), CASES, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_losses_of_classes_take_all_their_parameters(folder, capsys, name, texts, params):
    rng = np.random.default_rng(1)
    x, y, w = rng.standard_normal((501, 10)), np.arange(501) % 6 + 2, rng.standard_normal(501)
    rows = params["class_mask"] if "rows.npy" in texts[0] else LEGAL
    if rows.ndim == 2:
        rows[np.arange(501), y] = True
    save({"x": x, "y": y, "w": w, "cw": np.arange(1.0, 11), "legal": LEGAL, "rows": rows})
    params = {key: w if value is None else value for key, value in params.items()}
    expected = getattr(fl, name)(x, y, **params, grad=False).loss
    assert evaluate(capsys, name, "x.npy", "y.npy", "--param", *texts, "--batch", 100)["loss"] == expected


@pytest.mark.parametrize("name", ["cross_entropy", "kl_div", "js_div"])
def test_targets_may_hold_a_value_per_class(files, capsys, name):
    save({"shares": SHARES})
    expected = getattr(fl, name)(files["logits"], SHARES, temperature=2, grad=False).loss
    result = evaluate(capsys, name, "logits.npy", "shares.npy", "--param", "temperature=2")
    assert result["loss"] == expected
    assert "accuracy" not in result


@pytest.mark.parametrize("kind", ["array", "labels", "number"])
def test_pos_weight_may_be_a_file(files, capsys, kind):
    weight = {"array": files["y"] + 1, "labels": np.array([1, 2, 0.5], np.float32), "number": 2}[kind]
    save({"pw": weight})
    value = "2" if kind == "number" else "pw.npy"
    result = evaluate(capsys, "bce", "x.npy", "y.npy", "--param", f"pos_weight={value}", "--batch", 50)
    assert result["loss"] == fl.bce_with_logits(files["x"], files["y"], pos_weight=weight, grad=False).loss


@pytest.mark.parametrize("shape", [(501, 3), (3,)])
def test_variances_may_differ_by_element_or_by_column(files, capsys, shape):
    var = np.random.default_rng(5).random(shape).astype(np.float32) + np.float32(0.5)
    save({"var": var})
    result = evaluate(capsys, "gaussian_nll", "x.npy", "y.npy", "--param", "var=var.npy", "full=yes")
    assert result["loss"] == fl.gaussian_nll_loss(files["x"], files["y"], var, full=True, grad=False).loss


@pytest.mark.parametrize("norm", ["mean", "range", "std", "iqr", "2.5"])
def test_the_norm_of_the_whole_file_is_taken_first(files, capsys, monkeypatch, norm):
    monkeypatch.setattr("fastloss.commands._norm._BATCH_BYTES", 500)
    options = ("--mask", "mask.npy", "--param", f"norm={norm}")
    result = evaluate(capsys, "nmae_loss", "x.npy", "y.npy", *options, "--batch", 100)
    given = float(norm) if norm[0].isdigit() else norm
    expected = fl.nmae_loss(files["x"], files["y"], norm=given, mask=files["mask"], grad=False).loss
    assert result["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("short", sorted(short_names()))
def test_short_names_are_names(short):
    assert short_names()[short] in NAMES


def test_the_short_names_are_those_of_the_benchmarks():
    short = pytest.importorskip("benchmarks.short")
    assert short.losses().items() <= short_names().items() | {(name, name) for name in NAMES}


# --- means, weights, accuracy


def test_the_reduction_is_chosen(files, capsys):
    for reduction in ("mean", "sum", "weighted_mean"):
        options = ("--weights", "weights.npy", "--mask", "mask.npy", "--reduction", reduction)
        result = evaluate(capsys, "ce", "logits.npy", "classes.npy", *options)
        keywords = {"sample_weight": files["weights"], "mask": files["mask"], "grad": False, "reduction": reduction}
        expected = fl.cross_entropy(files["logits"], files["classes"], **keywords).loss
        assert result["loss"] == pytest.approx(expected, rel=1e-14)
        assert ("perplexity" in result) == (reduction == "weighted_mean")
    assert result["perplexity"] == math.exp(result["loss"])
    assert result["weight"] == pytest.approx(result["sum"] / result["loss"])


@pytest.mark.parametrize("param", ["label_smoothing=0.1", "z_loss=0.1"])
def test_there_is_no_perplexity_of_what_is_no_likelihood(files, capsys, param):
    assert "perplexity" in evaluate(capsys, "ce", "logits.npy", "classes.npy")
    assert "perplexity" not in evaluate(capsys, "ce", "logits.npy", "classes.npy", "--param", param)
    assert "perplexity" not in evaluate(capsys, "softmax_focal", "logits.npy", "classes.npy")


@pytest.mark.parametrize("classes", [2, 64, 65, 1100])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ties_go_to_the_lowest_class_and_nan_is_never_a_hit(folder, capsys, classes, dtype):
    x = np.zeros((6, classes), dtype)
    x[2, 1] = x[3, 0] = np.nan
    x[4] = -np.inf
    np.save("x.npy", x)
    for target, accuracy in [(0, 3 / 6), (1, 0.0)]:
        np.save("t.npy", np.full(6, target))
        assert evaluate(capsys, "ce", "x.npy", "t.npy")["accuracy"] == accuracy


def test_a_class_that_is_masked_is_no_prediction(folder, capsys):
    x, legal = np.array([[3.0, 2, 1], [np.nan, 2, 1], [3, 2, 1]]), np.array([[0, 1, 1], [0, 1, 1], [0, 0, 0]], bool)
    save({"x": x, "t": np.array([1, 1, 0]), "legal": legal, "first": np.array([False, True, True])})
    options = ("ce", "x.npy", "t.npy", "--param")
    assert evaluate(capsys, *options, "class_mask=legal.npy")["accuracy"] == 2 / 3
    assert evaluate(capsys, *options, "class_mask=first.npy")["accuracy"] == 2 / 3


@pytest.mark.parametrize("shape", [(40_001,), (300, 11, 13), (20, 5, 7, 3)])
@pytest.mark.parametrize("name", ["huber_loss", "cross_entropy"])
def test_neither_batches_nor_shapes_show_in_the_bits(folder, capsys, shape, name):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((*shape, 5) if name == "cross_entropy" else shape).astype(np.float32)
    y = rng.integers(0, 5, shape)
    weight, mask = rng.random(shape[0]), rng.random(shape) < 0.9
    save({"x": x, "y": y, "w": weight, "m": mask})
    options = (name, "x.npy", "y.npy", "--weights", "w.npy", "--mask", "m.npy")
    expected = getattr(fl, name)(x, y, sample_weight=weight, mask=mask, grad=False).loss
    for batch in (1000, 77, 10**9) if shape[0] > 1000 else (1, 3, 19, 10**9):
        assert evaluate(capsys, *options, "--batch", batch)["loss"] == expected
        weighted = evaluate(capsys, *options, "--batch", batch, "--reduction", "weighted_mean")
        assert weighted == evaluate(capsys, *options, "--reduction", "weighted_mean")


def test_a_batch_of_large_rows_holds_few_of_them():
    class Files:
        row_bytes = 3 * 375 * 500 * 4

    task = command._Task("mse_loss", {"input": Files()}, {}, {}, {})
    total = fl.LossSum("mse_loss", (10_000, 3, 375, 500))
    arguments = cli._parser("evaluate").parse_args(["evaluate", "mse", "x.npy", "y.npy"])
    assert total.granularity == 1024
    assert command._batch_rows(arguments, task, total) == 1


# --- where a loss is not finite


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "w"])
def test_the_first_place_that_is_not_finite_is_named(folder, capsys, value, where):
    arrays = {"x": np.zeros((9000, 3), np.float16), "y": np.zeros((9000, 3), np.float16), "w": np.ones((9000, 3))}
    arrays["x"][:, 0] = 300  # whose square is finite in float32 only
    arrays[where][8765, 1] = arrays[where][8999, 2] = value
    arrays["x"][[8765, 8999], [1, 2]] += 1
    save(arrays)
    options = ("mse", "x.npy", "y.npy", "--weights", "w.npy", "--batch", 1000)
    place = f"{value}   at index (8765, 1), where {where}.npy has {value} at index (8765, 1)"
    assert evaluate(capsys, *options)["first"] == place
    assert cli.main(list(map(str, ["evaluate", *options, "--json"]))) == 0
    found = json.loads(capsys.readouterr().out)
    at = [8765, 1]
    told = {"loss": str(value), "index": at, "file": f"{where}.npy", "value": str(value), "at": at}
    assert found["first_nonfinite"] == told
    assert found["loss"] == str(value)


def test_an_infinite_loss_of_finite_numbers_is_told_from_others(folder, capsys):
    save({"x": np.array([1.0, 1e200, 2.0]), "y": np.zeros(3)})
    assert evaluate(capsys, "rmse", "x.npy", "y.npy")["first"] == "inf   at row 1, from finite numbers"


@pytest.mark.parametrize("name", ["cross_entropy", "dice_loss", "kl_div", "td_loss", "gaussian_nll_loss"])
def test_what_is_not_finite_is_found_in_every_kind_of_loss(folder, capsys, name):
    arrays = {"x": np.zeros((50, 2)), "t": np.zeros(50, int), "p": np.full((50, 2), 0.5), "z": np.zeros(50)}
    arrays["x"][40, 1] = np.nan
    save(arrays | {"end": np.zeros(50, bool)})
    target = "t.npy" if name in ("cross_entropy", "td_loss") else "p.npy"
    more = {"td_loss": ["rewards=z.npy", "next_q=p.npy", "terminated=end.npy"], "gaussian_nll_loss": ["var=p.npy"]}
    options = ["--param", *more[name]] if name in more else []
    np.save("t.npy", np.ones(50, int))
    assert "x.npy has nan at index (40, 1)" in evaluate(capsys, name, "x.npy", target, *options)["first"]


# --- kinds of files


def test_an_array_may_be_in_an_archive(files, capsys):
    np.savez("both.npz", x=files["x"], y=files["y"])
    np.savez_compressed("small.npz", x=np.asfortranarray(files["x"]), y=files["y"].astype(">f4"))
    expected = evaluate(capsys, "mse", "x.npy", "y.npy", "--weights", "weights.npy")
    for x, y in [("both.npz::x", "both.npz:y"), ("small.npz::x", "small.npz::y.npy"), ("both.npz::x", "small.npz:y")]:
        assert evaluate(capsys, "mse", x, y, "--weights", "weights.npy", "--batch", 50) == expected
    np.save("odd.npz:name", files["x"])
    os.replace("odd.npz:name.npy", "odd.npz:name")
    assert evaluate(capsys, "mse", "odd.npz:name", "y.npy", "--weights", "weights.npy") == expected


@pytest.mark.parametrize("fortran", [False, True])
def test_an_array_may_come_from_standard_input(files, capsys, monkeypatch, fortran):
    expected = evaluate(capsys, "mse", "x.npy", "y.npy")
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(files["x"]) if fortran else files["x"])
    for arguments in (("-", "y.npy"), ("y.npy", "-")):
        stream.seek(0)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8"))
        assert evaluate(capsys, "mse", *arguments, "--batch", 10) == expected
        sys.stdin.detach().detach()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_pipes_are_read_as_they_fill(files):
    backend = fl.backends()[-1]
    command = f"cat x.npy | {sys.executable} -m fastloss evaluate mse - <(cat y.npy) --batch 7 --backend {backend}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment())
    assert run.stderr == ""
    expected = fl.mse_loss(files["x"], files["y"], grad=False, backend=backend).loss
    assert f"loss        {expected!r}\n" in run.stdout


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(files, capsys, version):
    with open("other.npy", "wb") as file:
        np.lib.format.write_array(file, files["x"], version=version)
    assert evaluate(capsys, "mse", "other.npy", "y.npy") == evaluate(capsys, "mse", "x.npy", "y.npy")


def test_lengths_that_python_2_wrote_are_read(files, capsys):
    with open("x.npy", "rb") as file:
        data = file.read()
    with open("old.npy", "wb") as file:
        file.write(data.replace(b"(501, 3), }  ", b"(501L, 3L), }"))
    assert evaluate(capsys, "mse", "old.npy", "y.npy") == evaluate(capsys, "mse", "x.npy", "y.npy")


@pytest.mark.parametrize("described", ["'<V2'", "'|V2'", "'bfloat16'"])
def test_bfloat16_is_read_as_ml_dtypes_writes_it(files, capsys, described):
    x, y = files["x"].astype(ml_dtypes.bfloat16), files["y"].astype(ml_dtypes.bfloat16)
    save({"x": x, "y": y})
    with open("x.npy", "rb") as file:
        data = file.read()
    assert b"'<V2'" in data
    with open("x.npy", "wb") as file:
        gap = len(described) - 5
        file.write(data.replace(b"'<V2'", described.encode()).replace(b"}" + gap * b" ", b"}", 1))
    assert evaluate(capsys, "mse", "x.npy", "y.npy")["loss"] == fl.mse_loss(x, y, grad=False).loss


def test_bfloat16_without_ml_dtypes_says_what_is_missing(files, capsys, monkeypatch):
    save({"x": files["x"].astype(ml_dtypes.bfloat16)})
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert "x.npy: holds bfloat16, which needs ml_dtypes: python -m pip install" in failure(
        capsys, "mse", "x.npy", "y.npy"
    )


def header(text, version=1, encoding="latin1"):
    body = text.encode(encoding)
    return b"\x93NUMPY" + bytes([version, 0]) + len(body).to_bytes(2 if version == 1 else 4, "little") + body


SHAPES = [
    "(True,)",
    "(501, 3.0)",
    "(-1,)",
    "[501, 3]",
    "501",
    "(" + 65 * "1, " + ")",
    "(0, 2**70)",
    "(2**62, 0)",
    "'501'",
]
SHAPES += [
    f"(0, {2**70})",
    f"({2**62}, 0)",
    f"({2**40}, {2**40})",
    "(" * 300,
    "(501, 3",
    "(501, 3)" + "\0",
    "(501, 3'),",
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_damaged_shape_is_told_in_one_line(files, folder, capsys, shape, version):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n"
    (folder / "bad.npy").write_bytes(header(text, version) + bytes(501 * 3 * 4))
    message = failure(capsys, "mse_loss", "bad.npy", "y.npy")
    assert "error: bad.npy: " in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{'descr': '<f4', 'fortran_order': 1, 'shape': (501, 3)}", "fortran_order 1"),
        ("{'descr': '<f4', 'fortran_order': False}", "shape"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (501, 3), 'x': 1}", "nothing else"),
        ("{'descr': 'no', 'fortran_order': False, 'shape': (501, 3)}", "damaged header"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (501, 3)}", "not numbers"),
        ("{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (501, 3)}", "not numbers"),
        ("{'descr': '<U3', 'fortran_order': False, 'shape': (501, 3)}", "holds values of type <U3, not numbers"),
        ("{'descr': '<V3', 'fortran_order': False, 'shape': (501, 3)}", "not numbers"),
        ("{'descr': '>V2', 'fortran_order': False, 'shape': (501, 3)}", "not numbers"),
        ("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (501, 3)}", "not numbers"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (501, 3)}", "pickled Python objects"),
        ("[1, 2]", "must hold descr"),
        ("", "damaged header"),
        ("-" * 60_000 + "1", "damaged header"),
        ("'\\d'", "damaged header"),
    ],
)
def test_a_foreign_header_is_told_in_one_line(files, folder, capsys, text, says):
    (folder / "bad.npy").write_bytes(header(text) + bytes(501 * 3 * 4))
    assert says in failure(capsys, "mse_loss", "bad.npy", "y.npy")


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (4, 0), (9, 9)])
def test_an_unknown_version_of_the_format_is_named(files, folder, capsys, version):
    data = bytearray((folder / "y.npy").read_bytes())
    data[6:8] = version
    (folder / "bad.npy").write_bytes(data)
    says = f".npy format version {version[0]}.{version[1]}; known are 1.0, 2.0 and 3.0"
    assert says in failure(capsys, "mse_loss", "x.npy", "bad.npy")


SEEDS = []
for number, change in enumerate((np.asarray, np.asfortranarray, lambda a: a.astype(">f8"))):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, change(np.zeros((7, 3), np.float32)), version=(number + 1, 0))
    SEEDS.append(stream.getvalue())
for write in (np.savez, np.savez_compressed):
    stream = io.BytesIO()
    write(stream, x=np.zeros((7, 3)))
    SEEDS.append(stream.getvalue())
WORDS = [
    b"\0",
    b"'",
    b'"',
    b"(",
    b")",
    b"{",
    b"}",
    b",",
    b":",
    b"9",
    b"-",
    b"L",
    b"<V2",
    b"|O",
    b"True",
    b"(7, 3)",
    b"\xff",
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 400), st.sampled_from(WORDS) | st.binary(max_size=4), st.integers(0, 4)), min_size=1
    ),
)
def test_any_damage_gives_an_array_or_an_error_in_one_line(folder, seed, changes):
    data = bytearray(seed)
    for place, new, cut in changes:
        data[place : place + cut] = new
    name = "f.npz::x" if seed.startswith(b"PK") else "f.npy"
    (folder / name.partition("::")[0]).write_bytes(data)
    try:
        file = NpyFile(name)
    except CommandError as error:
        message = str(error)
    else:
        try:
            if file.shape and max(file.shape) < 10_000:
                assert file.rows(0, file.shape[0]).shape == file.shape
            file.finish()
            return
        except CommandError as error:
            message = str(error)
        finally:
            file.close()
    assert message.startswith(name)
    assert len(message.splitlines()) == 1
    assert len(message) < 250


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_damaged_archive_is_told_in_one_line(files, folder, capsys, write):
    write("both.npz", x=files["x"], y=files["y"])
    with zipfile.ZipFile("both.npz") as archive:
        middle = archive.getinfo("x.npy").header_offset + archive.getinfo("x.npy").compress_size // 2
    data = bytearray((folder / "both.npz").read_bytes())
    data[middle] ^= 255
    (folder / "both.npz").write_bytes(data)
    assert "both.npz::x: " in failure(capsys, "mse_loss", "both.npz::x", "y.npy")
    assert "both.npz::z: the archive has no array 'z'; it has x, y" in failure(capsys, "mse", "both.npz::z", "y.npy")
    assert "name one of its arrays: both.npz::NAME, of x, y" in failure(capsys, "mse", "both.npz", "y.npy")


def after_the_first_batch(monkeypatch, change):
    """Change files while they are read."""
    right, calls = _accumulate.LossSum.update, []

    def update(self, *arguments, **keywords):
        right(self, *arguments, **keywords)
        calls.append(1)
        if len(calls) == 2:  # the first is for the clock
            change()

    monkeypatch.setattr(_accumulate.LossSum, "update", update)


def cut():
    os.truncate("x.npy", 2000)


def touch():
    os.utime("x.npy", ns=(1, 1))


@pytest.mark.parametrize("change", [lambda: os.replace("new.npy", "x.npy"), lambda: os.remove("x.npy"), cut, touch])
@pytest.mark.parametrize("batch", [50, 501])
def test_a_file_that_changes_meanwhile_is_an_error(files, capsys, monkeypatch, change, batch):
    monkeypatch.setattr(command, "_batch_rows", lambda *_: batch)
    save({"new": files["x"] + 5})
    after_the_first_batch(monkeypatch, change)
    assert "error: x.npy: changed while it was read" in failure(capsys, "mse_loss", "x.npy", "y.npy")


def test_a_file_is_opened_once(files, capsys, monkeypatch):
    names = []
    right = NpyFile._open
    monkeypatch.setattr(NpyFile, "_open", lambda self, name: names.append(name) or right(self, name))
    evaluate(capsys, "mse_loss", "x.npy", "y.npy", "--batch", 10)
    assert names == ["x.npy", "y.npy"]


def test_files_are_closed(files, capsys):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("needs /proc")
    np.savez("both.npz", x=files["x"])
    evaluate(capsys, "mse_loss", "both.npz::x", "y.npy")
    failure(capsys, "mse_loss", "both.npz::x", "classes.npy")
    failure(capsys, "mse_loss", "x.npy", "gone.npy")
    assert len(os.listdir("/proc/self/fd")) == before


# --- parameters and names


@pytest.mark.parametrize("text", ["False", "false", "no", "0"])
def test_words_are_values(folder, capsys, text):
    save({"x": np.ones(9), "y": np.arange(9), "ones": np.ones(9)})
    result = evaluate(capsys, "poisson_nll", "x.npy", "y.npy", "--param", f"log_input={text}", "full=True")
    expected = fl.poisson_nll_loss(np.ones(9), np.arange(9), log_input=False, full=True, grad=False).loss
    assert result["loss"] == expected
    assert evaluate(capsys, "sigmoid_focal", "x.npy", "ones.npy", "--param", "alpha=None")["count"] == 9


@pytest.mark.parametrize(
    "texts",
    [
        ("mse_loss", "x.npy", "y.npy"),
        ("--param", "delta=0.5", "huber_loss", "x.npy", "y.npy"),
        ("huber_loss", "--param", "delta=0.5", "x.npy", "y.npy"),
        ("asymmetric_huber_loss", "x.npy", "y.npy", "--param", "delta=0.5", "alpha=2"),
        ("asymmetric_huber_loss", "--param", "delta=0.5", "alpha=2", "x.npy", "y.npy"),
        ("asymmetric_huber_loss", "--param", "delta=0.5", "x.npy", "--param", "alpha=2", "y.npy"),
        ("asymmetric_huber_loss", "x.npy", "y.npy", "--param", "delta=0.5", "alpha=2", "--threads", "1"),
        ("asymmetric_huber_loss", "--param=delta=0.5", "alpha=2", "x.npy", "y.npy"),
        ("asymmetric_huber_loss", "--param=delta=0.5", "x.npy", "y.npy", "--param=alpha=2"),
    ],
)
def test_parameters_may_stand_anywhere(files, capsys, texts):
    name = next(text for text in texts if text.endswith("loss"))
    params = {} if name == "mse_loss" else {"delta": 0.5} if name == "huber_loss" else {"delta": 0.5, "alpha": 2}
    expected = getattr(fl, name)(files["x"], files["y"], **params, grad=False).loss
    assert evaluate(capsys, *texts)["loss"] == expected


@pytest.mark.parametrize("texts", [("delta=1", "delta=1"), ("delta=1", "--param", "delta=2")])
def test_a_repeated_parameter_is_an_error(files, capsys, texts):
    assert "--param delta is given twice" in failure(capsys, "huber_loss", "x.npy", "y.npy", "--param", *texts)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("kl_div", "x.npy", "y.npy", "--param", "input_kind=odds"), "input_kind must be one of"),
        (("ce", "logits.npy", "classes.npy", "--param", "weight=mask.npy"), "mask.npy: weight must be"),
        (("ce", "logits.npy", "classes.npy", "--param", "weight=y.npy"), "y.npy: weight must have one value per class"),
        (("ce", "logits.npy", "classes.npy", "--param", "weight=gone.npy"), "gone.npy: No such file"),
        (
            ("ce", "logits.npy", "classes.npy", "--param", "no=1"),
            "it has weight, ignore_index, label_smoothing, z_loss",
        ),
        (
            ("gaussian_nll", "x.npy", "y.npy", "--param", "var=x.npy"),
            r"x.npy: var must be non-negative, got -.* at index",
        ),
        (("gaussian_nll", "x.npy", "y.npy", "--param", "var=0.5"), "error: var must have input's shape"),
        (("rmse", "x.npy", "y.npy", "--reduction", "sum"), "rmse_loss is the root of a mean"),
        (("mse", "x.npy", "y.npy", "--reduction", "none"), "--reduction"),
        (("mse", "-", "-"), "only one array can come from standard input"),
        (("nmae", "x.npy", "y.npy", "--param", "norm=median"), "norm must be a number or one of mean, range, std, iqr"),
        (("dice", "weights.npy", "weights.npy"), r"weights.npy: input must have samples and classes .*\(501,\)"),
        (("ce", "none.npy", "classes.npy"), r"none.npy: input must have rows of at least one class, got \(501, 0\)"),
    ],
)
def test_what_is_wrong_is_told_with_its_file(files, capsys, arguments, says):
    save({"none": np.empty((501, 0))})
    assert re.search(says, failure(capsys, *arguments))


def test_two_passes_over_a_stream_are_refused(files, capsys):
    np.savez("both.npz", y=files["y"])
    message = failure(capsys, "nmae_loss", "x.npy", "both.npz::y")
    assert "both.npz::y: can be read once only" in message
    assert "give a number" in message


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("crossentropy", "cross_entropy"),
        ("CrossEntropyLoss", "cross_entropy"),
        ("BCEWithLogitsLoss", "binary_cross_entropy_with_logits"),
        ("MSELoss", "mse_loss"),
        ("hubber", "huber_loss"),
        ("smoothl1", "smooth_l1_loss"),
        ("poly-loss", "poly_loss"),
    ],
)
def test_the_loss_that_was_meant_is_named(files, capsys, given, meant):
    message = failure(capsys, given, "x.npy", "y.npy")
    assert f"'{given}' is not a loss; did you mean {meant}? (fastloss list shows all)" in message


def test_all_losses_are_listed_in_columns(files, capsys):
    assert cli.main(["evaluate", "no_such_thing", "x.npy", "y.npy"]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "fastloss evaluate: error: 'no_such_thing' is not a loss; choose from"
    assert max(map(len, lines)) <= 80
    assert set(" ".join(lines).split()) == set(NAMES)
    assert len(lines) < len(NAMES)


def test_every_name_that_is_listed_is_taken(files, capsys):
    for name in NAMES:
        cli.main(["evaluate", name, "x.npy", "y.npy"])
        assert "choose from" not in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_help_is_within_80_columns(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    usage, _, text = capsys.readouterr().out.partition("\n\n")
    assert max(map(len, text.partition("positional arguments")[0].splitlines())) <= 80
    if columns == "80":
        assert max(map(len, [*usage.splitlines(), *text.splitlines()])) <= 80


def test_json_holds_what_is_printed(files, capsys):
    options = ["ce", "logits.npy", "classes.npy", "--weights", "weights.npy", "--reduction", "weighted_mean"]
    printed = evaluate(capsys, *options)
    assert cli.main(["evaluate", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {key: found[key] for key in printed} == printed
    assert (found["name"], found["reduction"]) == ("cross_entropy", "weighted_mean")
    assert all(found[f"{key}_per_second"] > 0 for key in ("rows", "elements", "GB"))


def test_a_mean_over_nothing_is_valid_json(folder, capsys):
    save({"x": np.zeros((0, 3)), "t": np.zeros(0, int)})
    assert cli.main(["evaluate", "ce", "x.npy", "t.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["loss"] == "nan"
