"""The command `bench`, on works of a few elements."""

import re
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import cli

CLONE = Path(__file__).parents[1]
IN_CLONE = pytest.mark.skipif(not (CLONE / "benchmarks").is_dir(), reason="the benchmarks lie in the repository alone")


@pytest.fixture
def tiny(monkeypatch):
    """Works small enough for a test, and fastloss and NumPy as the only contenders."""
    pytest.importorskip("tqdm")
    monkeypatch.chdir(CLONE)
    monkeypatch.syspath_prepend(str(CLONE))
    from benchmarks import headline, short, timing, works

    few = ["numpy", *(f"fastloss-{name}" for name in fl.backends() if name != "numpy")]
    present = headline.present
    monkeypatch.setattr(headline, "present", lambda but=(): present(few, but))
    shapes = {"elementwise": (7,), "rows": (4, 3), "gather": (5, 2)}
    kinds = {facts.name: facts.kind for facts in works.LOSSES.values()}
    made = lambda names: [works.Work(name, "float32", shapes[kinds[name]]) for name in names]  # noqa: E731
    monkeypatch.setattr(short, "table", made)
    monkeypatch.setattr(short, "curve", made)
    monkeypatch.setattr(short, "TABLE_EFFORT", timing.Effort(2, 1e-5))
    monkeypatch.setattr(short, "CURVE_EFFORT", timing.Effort(2, 1e-5))
    threads = fl.get_num_threads()
    yield
    fl.set_num_threads(threads)


def failure(capsys, *arguments):
    """Run a command that must end with status 2; returns the one line on stderr."""
    try:
        status = cli.main(["bench", *arguments])
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    return err


@IN_CLONE
class TestInClone:
    def test_table(self, tiny, capsys):
        assert cli.main(["bench", "--losses", "mse", "cross_entropy", "td"]) == 0
        out, _ = capsys.readouterr()
        rows = [line for line in out.splitlines() if re.match(r"\| (MSE|Cross-entropy|TD)", line)]
        assert len(rows) == 3
        assert all("µs per call" in row for row in rows)
        assert "1 thread for every contender" in out

    def test_a_single_backend(self, tiny, capsys):
        if "numba" not in fl.backends():
            pytest.skip("Numba is not installed")
        assert cli.main(["bench", "--losses", "huber", "--backend", "numba"]) == 0
        out, _ = capsys.readouterr()
        assert "fastloss, Numba" in out
        assert "fastloss, Cython" not in out

    def test_plot(self, tiny, capsys, tmp_path):
        pytest.importorskip("matplotlib")
        path = tmp_path / "speed.png"
        assert cli.main(["bench", "--losses", "bce", "ce", "td", "--plot", str(path)]) == 0
        assert path.read_bytes().startswith(b"\x89PNG")
        assert str(path) in capsys.readouterr().out

    def test_disagreement_is_a_failure(self, tiny, capsys, monkeypatch):
        from benchmarks import plain_numpy

        monkeypatch.setattr(plain_numpy, "mse_loss", lambda x, y: (np.float64(-1), x))
        assert cli.main(["bench", "--losses", "mse"]) == 1
        assert "disagree" in capsys.readouterr().err

    def test_mistakes(self, tiny, capsys):
        assert "'hunger'" in failure(capsys, "--losses", "mse", "hunger")
        assert "--backend" in failure(capsys, "--backend", "fortran")
        assert "--threads" in failure(capsys, "--threads", "0")
        pytest.importorskip("matplotlib")
        assert "no/speed.png" in failure(capsys, "--plot", "no/speed.png")


def test_without_the_repository(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "clone" in failure(capsys)
