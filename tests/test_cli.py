"""The command line, end to end."""

import functools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import _accumulate, cli
from fastloss.registry import LOSSES

POINTWISE = [loss for loss in LOSSES.values() if loss.pointwise and loss.input == "real"]
ELEMENTWISE = [loss.name for loss in POINTWISE if loss.target in ("real", "unit")]


# Other processes run in other folders, and must find the package that is tested here.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fl.__file__).parents[1])}


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT)


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
    return {name: float(value) for name, value in lines.items()}


def failure(capsys, *arguments):
    """Run a command that must fail; returns the one line that it says."""
    try:
        status = cli.main(list(map(str, arguments)))
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"fastloss {arguments[0]}: error: ")
    return err


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("options", [(), ("--weights", "weights.npy", "--mask", "mask.npy")], ids=["plain", "masked"])
def test_evaluate_elementwise(files, capsys, name, options):
    keywords = {"sample_weight": files["weights"], "mask": files["mask"]} if options else {}
    result = evaluate(capsys, name, "x.npy", "y.npy", *options)
    loss = getattr(fl, name)
    assert result["loss"] == pytest.approx(loss(files["x"], files["y"], **keywords).loss, rel=1e-6)
    assert result["sum"] == pytest.approx(loss(files["x"], files["y"], reduction="sum", **keywords).loss, rel=1e-6)
    assert result["count"] == (3 * files["mask"].sum() if options else files["x"].size)


@pytest.mark.parametrize("backend", ["numpy", fl.backends()[0]])
def test_evaluate_cross_entropy(files, capsys, backend):
    options = ("--weights", "weights.npy", "--mask", "mask.npy", "--backend", backend, "--threads", 2)
    result = evaluate(capsys, "cross_entropy", "logits.npy", "classes.npy", *options)
    expected = fl.cross_entropy(files["logits"], files["classes"], sample_weight=files["weights"], mask=files["mask"])
    kept = files["mask"] & (files["classes"] != -100)
    assert result["loss"] == pytest.approx(expected.loss, rel=1e-6)
    assert result["perplexity"] == math.exp(result["loss"])
    assert result["count"] == kept.sum()
    assert result["accuracy"] == np.mean((files["logits"].argmax(1) == files["classes"])[kept])


def test_evaluate_sequences(folder, capsys):
    rng = np.random.default_rng(1)
    logits, classes, mask = rng.standard_normal((9, 4, 5)), rng.integers(0, 5, (9, 4)), np.arange(9) < 6
    for name, array in [("x", logits), ("t", classes), ("m", mask)]:
        np.save(f"{name}.npy", array)
    result = evaluate(capsys, "cross_entropy", "x.npy", "t.npy", "--mask", "m.npy", "--batch", 2)
    assert result["loss"] == pytest.approx(fl.cross_entropy(logits, classes, mask=mask).loss, rel=1e-12)
    assert result["accuracy"] == np.mean((logits.argmax(-1) == classes)[:6])


@pytest.mark.parametrize("given", [("cross_entropy", "x.npy", "t.npy"), ("huber_loss", "x.npy", "x.npy")])
def test_evaluate_does_not_depend_on_batch(folder, capsys, given):
    rng = np.random.default_rng(2)
    np.save("x.npy", (rng.standard_normal((20001, 7)) * 10.0 ** rng.integers(-6, 6, (20001, 1))).astype(np.float32))
    np.save("t.npy", rng.integers(0, 7, 20001))
    np.save("w.npy", rng.random(20001))
    options = [*given, "--weights", "w.npy"]
    whole = evaluate(capsys, *options)
    for rows in (1, 7, 4096, 10**12):
        assert evaluate(capsys, *options, "--batch", rows) == whole


def test_evaluate_parameters(files, capsys):
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


def test_evaluate_alias(files, capsys):
    names = ("bce_with_logits", "binary_cross_entropy_with_logits")
    assert evaluate(capsys, names[0], "x.npy", "y.npy") == evaluate(capsys, names[1], "x.npy", "y.npy")


@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a.astype(a.dtype.newbyteorder())])
def test_evaluate_other_layouts(files, capsys, change):
    expected = evaluate(capsys, "mse_loss", "x.npy", "y.npy")
    np.save("other.npy", change(files["x"]))
    assert evaluate(capsys, "mse_loss", "other.npy", "y.npy") == expected


def test_evaluate_nothing(folder, capsys):
    np.save("x.npy", np.empty((0, 4)))
    np.save("t.npy", np.empty(0, int))
    result = evaluate(capsys, "cross_entropy", "x.npy", "t.npy")
    assert np.isnan([result["loss"], result["perplexity"], result["accuracy"]]).all()
    assert (result["sum"], result["count"]) == (0, 0)
    assert np.isnan(evaluate(capsys, "mse_loss", "x.npy", "x.npy")["loss"])


def test_evaluate_all_masked(files, capsys):
    np.save("mask.npy", np.zeros(501, bool))
    result = evaluate(capsys, "cross_entropy", "logits.npy", "classes.npy", "--mask", "mask.npy")
    assert math.isnan(result["loss"])
    assert result["count"] == 0


def test_evaluate_infinite_loss(folder, capsys):
    np.save("x.npy", np.array([[0.0, -np.inf], [0.0, 1.0]]))
    np.save("t.npy", np.array([1, 1]))
    result = evaluate(capsys, "cross_entropy", "x.npy", "t.npy")
    assert result["loss"] == result["perplexity"] == math.inf


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
def test_evaluate_bad_target_file(files, folder, capsys, make, says):
    make(folder / "bad.npy")
    message = failure(capsys, "evaluate", "mse_loss", "x.npy", "bad.npy")
    assert "error: bad.npy: " in message
    assert re.search(says, message)


def test_evaluate_archive(files, capsys):
    np.savez("both.npz", x=1)
    assert "archive" in failure(capsys, "evaluate", "mse_loss", "x.npy", "both.npz")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no_such_loss", "x.npy", "y.npy"), "'no_such_loss' is not a loss; choose from .*huber_loss"),
        (("td_loss", "x.npy", "y.npy"), "td_loss"),
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
def test_evaluate_bad_arguments(files, capsys, arguments, says):
    assert re.search(says, failure(capsys, "evaluate", *arguments))


def test_evaluate_names_the_row_of_the_file(folder, capsys):
    classes, probabilities = np.zeros(9000, int), np.zeros((9000, 2))
    classes[8765], probabilities[8765, 1] = 2, 1.5
    for name, array in [("t", classes), ("p", probabilities), ("x", np.zeros((9000, 2)))]:
        np.save(f"{name}.npy", array)
    message = failure(capsys, "evaluate", "cross_entropy", "x.npy", "t.npy", "--batch", 1)
    assert "error: t.npy: " in message
    assert "8765" in message
    message = failure(capsys, "evaluate", "bce_with_logits", "x.npy", "p.npy", "--batch", 1)
    assert "error: p.npy: " in message
    assert "8765, 1" in message


def test_evaluate_interrupted(files, capsys, monkeypatch):
    def update(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(_accumulate.LossSum, "update", update)
    assert cli.main(["evaluate", "mse_loss", "x.npy", "y.npy"]) == 130
    assert capsys.readouterr() == ("", "fastloss evaluate: interrupted\n")


@pytest.mark.parametrize("installed", [True, False])
def test_evaluate_progress_bar(files, capsys, monkeypatch, installed):
    if installed:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["evaluate", "mse_loss", "x.npy", "y.npy"]) == 0
    assert ("501" in capsys.readouterr().err) == installed


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
def test_evaluate_memory_is_constant(folder):
    # Zeros that take no space on the disk, but 48 MiB of address space each.
    for name, rows in [("small", 1000), ("large", 12 << 20)]:
        np.lib.format.open_memmap(f"{name}.npy", "w+", np.float32, (rows,))

    def peak(name):
        code = f"from fastloss.cli import main; main(['evaluate', 'mse_loss', *['{name}.npy'] * 2])"
        code += "; print(open('/proc/self/status').read())"
        return int(re.search(r"VmHWM:\s+(\d+) kB", python("-c", code).stdout)[1])

    assert peak("large") - peak("small") < 24 << 10


def test_module_reports_errors(folder):
    done = python("-m", "fastloss", "evaluate", "mse_loss", "gone.npy", "gone.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastloss evaluate: error: gone.npy: No such file or directory\n"


def test_module_evaluates(files):
    done = python("-m", "fastloss", "evaluate", "mse_loss", "x.npy", "y.npy")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("loss ")


def test_closed_pipe():
    command = [sys.executable, "-m", "fastloss", "info"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 1


def test_version_help_and_no_command(capsys):
    cases = [(["--version"], 0, fl.__version__), (["--help"], 0, "evaluate"), ([], 2, "COMMAND")]
    for arguments, status, says in cases:
        with pytest.raises(SystemExit) as error:
            cli.main(arguments)
        assert error.value.code == status
        assert says in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_command_help(capsys, name):
    with pytest.raises(SystemExit) as error:
        cli.main([name, "--help"])
    assert error.value.code == 0
    assert f"usage: fastloss {name}" in capsys.readouterr().out


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for fact in (fl.__version__, np.__version__, fl.backends()[0], "threads"):
        assert fact in out


@pytest.mark.parametrize("backend", dict.fromkeys(["numpy", fl.backends()[0]]))
def test_check(capsys, backend):
    status = cli.main(["check", "--backend", backend])
    out = capsys.readouterr().out
    assert "FAILED" not in out
    assert status == 0
    for name in LOSSES:
        assert f"float32  {name} " in out


def test_check_notices_errors(capsys, monkeypatch):
    right = fl.l1_loss

    @functools.wraps(right)
    def wrong(*arguments, **keywords):
        result = right(*arguments, **keywords)
        return result if result.grad is None else result._replace(grad=-result.grad)

    monkeypatch.setattr(fl, "l1_loss", wrong)
    assert cli.main(["check", "--backend", fl.backends()[0]]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert [line.split()[2] for line in failed] == ["l1_loss", "l1_loss"]
    assert all("values" in line and "differences" in line for line in failed)


def test_check_unknown_backend(capsys):
    assert "abacus" in failure(capsys, "check", "--backend", "abacus")


def test_demo(folder, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--epochs", "12", "--steps-timing", "5", "--plot", "curve.png"]) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"MLP +test accuracy (\S+)", out)[1]) > 0.95
    assert float(re.search(r"softmax +test accuracy (\S+)", out)[1]) > 0.9
    assert re.search(r"loss alone +\d+\.\d +\d+\.\d", out)
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_demo_is_reproducible(capsys):
    pytest.importorskip("sklearn")
    outputs = []
    for _ in range(2):
        cli.main(["demo", "--epochs", "1", "--seed", "3", "--steps-timing", "1"])
        outputs.append(capsys.readouterr().out.partition("microseconds")[0])
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(("missing", "options"), [("sklearn", ()), ("matplotlib", ("--plot", "curve.png"))])
def test_demo_names_the_missing_extra(folder, capsys, monkeypatch, missing, options):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert 'python -m pip install "fastloss[demo]"' in failure(capsys, "demo", *options)


def test_demo_bad_arguments(folder, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert "no/curve.png" in failure(capsys, "demo", "--plot", "no/curve.png")
    assert "--seed" in failure(capsys, "demo", "--seed", "-1")
    assert "--epochs" in failure(capsys, "demo", "--epochs", "0")
