"""The table of accuracy, and the harness that fills it: `check --exhaustive` in its short form."""

import itertools
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from cases import ELEMENTWISE
from processes import python

from fastloss import cli
from fastloss.commands import _accuracy, _exhaustive, _ulp
from fastloss.registry import LOSSES

SHORT = ["check", "--exhaustive", "--share", "0.0003", "--jobs", "1"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.skipif(not _ulp.LONG, reason="long double has no spare digits"),
]


@pytest.mark.parametrize("row", _exhaustive.budgets())
def test_the_table_holds_every_budget_and_a_measurement_within(row):
    # A new loss, or a new budget, is measured by: python -m fastloss check --exhaustive --part losses --write
    entry = _accuracy.table()[row]
    assert entry["date"]
    assert entry["version"]
    for kind, budget in _exhaustive.budgets()[row].items():
        assert entry[kind]["budget"] == budget
        assert entry[kind].get("measured", 0.0) <= budget


def test_the_table_has_no_other_rows():
    assert _accuracy.table().keys() == _exhaustive.budgets().keys()


def test_the_readme_shows_the_table():
    tool = Path(__file__).parent.parent / "tools" / "accuracy_table.py"
    process = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def test_losses_and_sums_in_short(both_compiled, capsys):
    # The part that is missing has tests of its own.
    parts = [f"--part={part}" for part in _exhaustive.WORK if part != "primitives"]
    assert cli.main([*SHORT, *parts]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert "rows within their budgets" in out
    assert "\ntested:\n  cython: CPU level" in out
    assert "not tested:\n  numpy: not measured\n" in out


PARAMETERS = [name for name, facts in LOSSES.items() if facts.params and name != "td_loss"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_bounds_hold_wherever_parameters_are_allowed(both_compiled, name, dtype):
    # Parameters of all sizes, near the ends of what is allowed, and ones that are no float32.
    if name in ELEMENTWISE:
        tasks = [_exhaustive.Task("losses", name, dtype, number, 1) for number in range(6)]
    else:
        numbers = itertools.product((1, 3), (3, 20, 65, 1100))
        tasks = [_exhaustive.Task("rows", name, dtype, number, width) for number, width in numbers]
    found, budgets = {}, _exhaustive.budgets()
    for task in tasks:
        _exhaustive.merge(found, _exhaustive.run(task, 0.002))
    errors = [(row, kind, *error) for row, kinds in found.items() for kind, error in kinds.items()]
    assert errors
    assert [e for e in errors if not e[2] <= budgets[e[0]].get(e[1], 0.0)] == []


def test_parameters_are_drawn_to_the_ends_of_what_is_allowed():
    rng, focal = np.random.default_rng(0), LOSSES["sigmoid_focal_loss"]
    drawn = [_exhaustive._params(focal, True, rng) for _ in range(400)]
    gamma = [given["gamma"] for given in drawn]
    assert {0.0, 1.0, 1000.0} <= set(gamma)
    assert np.histogram(gamma, [0, 0.01, 0.5, 2, 10, 100, 1001])[0].min() > 5
    assert None in [given["alpha"] for given in drawn]
    assert any(value != float(np.float32(value)) for value in gamma)


@pytest.mark.parametrize("level", ["v1", "v4"])
def test_other_cpu_levels_in_short(both_compiled, level):
    parts = ["--part", "binary", "--part", "losses", "--part", "rows"]
    process = python(f"from fastloss import cli; print(cli.main({SHORT + parts}))", FASTLOSS_CPU=level)
    if "but this CPU only has level" in process.stderr:
        pytest.skip(f"this CPU has no {level}; compiled, not run")
    assert process.stdout.endswith("\n0\n"), process.stdout + process.stderr


def test_a_broken_budget_is_noticed(both_compiled, capsys, monkeypatch):
    tight = _exhaustive.PRIMITIVES["exp_neg"]._replace(ulp=0.3)
    monkeypatch.setattr(_exhaustive, "PRIMITIVES", {"exp_neg": tight})
    monkeypatch.setattr(_exhaustive, "_bounds", _exhaustive.budgets)
    assert cli.main([*SHORT, "--part", "primitives"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert [line.split()[0] for line in failed] == ["exp_neg", "exp_neg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "numba"], "--backend"),
        (["--state", "/nowhere/state"], "/nowhere/state"),
    ],
)
def test_errors(both_compiled, capsys, options, message):
    assert cli.main([*SHORT, *options]) == 2
    assert message in capsys.readouterr().err


FOREIGN = {
    "text": b"my notes\n",
    "binary": bytes(range(256)),
    "another JSON": b'{"kernels": 1}\n',
    "a list": b"[1, 2]\n",
    "one long line": b" " + b"1" * 100_000,
    "blank": b"\n\n",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_no_state_is_left_as_it_is(both_compiled, capsys, tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(FOREIGN[kind])
    assert cli.main([*SHORT, "--state", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        f"fastloss check: error: {path}: not a file that --state has written, so it stays as it is\n",
    )
    assert path.read_bytes() == FOREIGN[kind]


@pytest.mark.parametrize(("options", "message"), [
    (["--state", "/dev/null"], "/dev/null: --state needs a file that can be read again"),
    (["--state", "."], ".: a folder"),
    (["--state", ""], "a folder"),
    (["--write"], "gone"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_before_the_work(both_compiled, capsys, monkeypatch, tmp_path, options, message):
    monkeypatch.setattr(_accuracy, "FILE", tmp_path / "gone" / "accuracy.json")
    monkeypatch.setattr(_exhaustive, "run", None)
    assert cli.main([*SHORT, *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_a_disk_that_fills_is_one_line(both_compiled, tmp_path):
    code = f"""
        import resource
        from fastloss import cli
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        raise SystemExit(cli.main({[*SHORT, "--part", "sums", "--state", str(tmp_path / "state")]}))
    """
    done = python(code)
    assert (done.returncode, done.stderr) == (2, f"fastloss check: error: {tmp_path / 'state'}: File too large\n")


def test_an_interrupted_run_goes_on(capsys, monkeypatch, tmp_path):
    command = [*SHORT, "--part", "rows", "--state", str(tmp_path / "state")]
    done, run = [], _exhaustive.run

    def interrupted(task, share):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task)
        return run(task, share)

    monkeypatch.setattr(_exhaustive, "run", interrupted)
    assert cli.main(command) == 130
    with open(tmp_path / "state", "a") as file:
        file.write('{"task": "cut off')
    monkeypatch.setattr(_exhaustive, "run", lambda task, share: done.append(task) or run(task, share))
    assert cli.main(command) == 0, capsys.readouterr().out
    assert sorted(map(str, done)) == sorted(map(str, _exhaustive.plan(0.0003, ("rows",))))
    # Another share is other work.
    assert not _accuracy.State(tmp_path / "state", 0.5).__enter__().done


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_formulas_of_arrays_are_those_of_numbers(name):
    rng, facts = np.random.default_rng(0), LOSSES[name]
    params = _exhaustive._params(facts, True, rng)
    arrays = _exhaustive._inside(facts, _exhaustive._points(facts, "float64", rng, 0, 0.0))
    x, y, *third = (array[:: -(-array.size // 150)] for array in arrays)
    wide = [array.astype(np.longdouble) for array in (x, y, *third)]
    found = _ulp.formula_of_arrays(name)(*wide, *map(np.longdouble, facts.parse(params)))
    sizes = _ulp.term_sizes(name, x, y, facts.parse(params), *third)
    wanted = _ulp.exact(name, x, y, facts.parse(params), *third)
    # The exponential of a large product is not better than this.
    for actual, right, size in zip(found[:2], wanted[:2], sizes[:2], strict=True):
        actual = np.broadcast_to(actual, x.shape)
        same = (actual == right) | (np.isnan(actual) & np.isnan(right))
        assert np.all(same | (np.abs(actual - right) <= 2.0**-50 * np.maximum(np.abs(right), size)))


def test_errors_settled_by_mpmath_are_those_of_the_reference():
    x = np.random.default_rng(0).uniform(0.1, 100, 200).astype(np.float32)
    rough = np.exp(-x)
    with mpmath.workprec(100):
        settled = [_exhaustive._settled(r, mpmath.exp(-mpmath.mpf(float(v)))) for r, v in zip(rough, x, strict=True)]
    np.testing.assert_allclose(settled, _ulp.errors(rough, np.exp(-x.astype(np.float64))), atol=1e-5)


@pytest.mark.parametrize("kind", ["normal", "subnormal", "special"])
def test_kinds_of_results(kind):
    values = np.array([1.0, -3e38, 2.0**-126, 2.0**-127, -1e-60, 0.0, np.inf, np.nan, 1e39])
    wanted = {"normal": [0, 1, 2], "subnormal": [3, 4], "special": [5, 6, 7, 8]}
    assert np.flatnonzero(_ulp.kinds(values, np.dtype(np.float32))[kind]).tolist() == wanted[kind]


def test_random_inputs_do_not_replace_what_was_found_over_all(tmp_path, monkeypatch):
    monkeypatch.setattr(_accuracy, "FILE", tmp_path / "accuracy.json")
    every, other = "binary_cross_entropy_with_logits loss float32", "mse_loss loss float32"
    _accuracy.write({every: {"normal": (1.75, "there")}, other: {"normal": (1.5, "there")}}, 1.0, {"binary", "losses"})
    _accuracy.write({every: {"normal": (1.25, "here")}, other: {"normal": (1.25, "here")}}, 1.0, {"losses"})
    table = _accuracy.table()
    assert (table[every]["inputs"], table[every]["normal"]["measured"]) == ("all", 1.75)
    assert (table[other]["inputs"], table[other]["normal"]["measured"]) == ("random and climbed", 1.25)
