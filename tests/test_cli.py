"""The command line, end to end."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import cli
from fastloss.registry import LOSSES

# Other processes run in other folders, and must find the package that is tested here.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fl.__file__).parents[1])}


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Work in a folder of its own, so that files have short names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_module_reports_errors(folder):
    done = python("-m", "fastloss", "evaluate", "mse_loss", "gone.npy", "gone.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fastloss evaluate: error: gone.npy: No such file or directory\n"


def test_module_evaluates(folder):
    np.save("x.npy", np.zeros(9))
    done = python("-m", "fastloss", "evaluate", "mse_loss", "x.npy", "x.npy")
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
    assert out.partition("tested:\n")[2].startswith(f"  {backend}: ")
    others = out.partition("not tested:\n")[2]
    for other in {"cython", "numba", "numpy"} - {backend}:
        assert f"  {other}: " in others


def test_check_says_of_every_cpu_level_whether_it_was_tested(capsys):
    from fastloss.commands import _coverage

    if "cython" not in fl.backends():
        pytest.skip("there are no compiled kernels")
    from fastloss import _cython

    _coverage.report(("cython",), "python -m fastloss check", "left out")
    tested, _, left = capsys.readouterr().out.partition("not tested:\n")
    assert f"cython: CPU level {_cython.level}" in tested
    reasons = dict(re.findall(r"cython, CPU level (\w+): (.+)", left))
    assert reasons.keys() == set(_cython.LEVELS.values()) - {_cython.level}
    for level, reason in reasons.items():
        again = f"FASTLOSS_CPU={level} python -m fastloss check tests it"
        assert re.search(
            f"{again}|this CPU does not have it|its kernels were not built|its kernels do not load", reason
        )


def test_check_warns_where_no_compiled_backend_runs(capsys, monkeypatch):
    from fastloss.commands import _coverage

    _coverage.report(("numpy",), "check", "left out by --backend")
    assert "WARNING" not in capsys.readouterr().out
    monkeypatch.setattr(fl, "backends", lambda: ("numpy",))
    monkeypatch.setattr(_coverage._dispatch, "status", lambda name: f"missing: no {name} here")
    _coverage.report(("numpy",), "check", "left out by --backend")
    out = capsys.readouterr().out
    assert "  cython: missing: no cython here\n  numba: missing: no numba here\n" in out
    assert "WARNING: no compiled backend runs here" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--part", "rows"), "--part needs --exhaustive"),
        (("--share", "0.5"), "--share needs --exhaustive"),
        (("--jobs", "2"), "--jobs needs --exhaustive"),
        (("--state", "x"), "--state needs --exhaustive"),
        (("--write",), "--write needs --exhaustive"),
        *((("--exhaustive", "--share", bad), f"--share: must be a number above 0 and at most 1, got '{bad}'")
          for bad in ("abc", "0", "-1", "2", "nan", "")),
        (("--exhaustive", "--jobs", "no"), "--jobs: must be a positive whole number, got 'no'"),
    ],
)  # fmt: skip
def test_check_bad_options(capsys, options, says):
    assert says in failure(capsys, "check", *options)


@pytest.mark.parametrize("missing", ["mpmath", "numba"])
def test_check_names_the_missing_extra(capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "fastloss.commands._accuracy", raising=False)
    message = failure(capsys, "check", "--exhaustive")
    assert f"needs {missing}" in message.lower()
    assert f"python -m pip install {missing}; the extra [check] has it" in message


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
    package = {"sklearn": "scikit-learn"}.get(missing, missing)
    assert f"python -m pip install {package}; the extra [demo] has it" in failure(capsys, "demo", *options)


def test_demo_bad_arguments(folder, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert "no/curve.png" in failure(capsys, "demo", "--plot", "no/curve.png")
    assert "--seed" in failure(capsys, "demo", "--seed", "-1")
    assert "--epochs" in failure(capsys, "demo", "--epochs", "0")
