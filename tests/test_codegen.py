"""Generated code is current, notices every change of its sources, and a new formula is all that a new loss needs."""

import ast
import inspect
import subprocess
import sys

import pytest
from cases import BACKENDS
from processes import copy_package, edit, environment, output

from fastloss import _codegen, formulas, primitives
from fastloss.registry import FORMULAS


def check(root, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "fastloss._codegen", *arguments],
        cwd=root, env=environment(root), capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_generated_files_are_current(capsys):
    assert _codegen.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("formulas.py", "hess = 2.0", "hess = 2.5"),
        ("formulas.py", '"""The elementwise losses', '"""All elementwise losses'),  # any change, even of a comment
        ("primitives.py", "LN2_HI_F32 = 0.693359375", "LN2_HI_F32 = 0.69335938"),
        ("_codegen.py", "def main(", "def main (" ),
    ],
)  # fmt: skip
def test_any_change_of_a_source_is_noticed(tmp_path, file, old, new):
    root = copy_package(tmp_path)
    assert check(root, "--check").returncode == 0
    edit(root / "fastloss" / file, old, new)
    stale = check(root, "--check")
    assert stale.returncode == 1
    for name in _codegen.FILES:
        assert name in stale.stdout
    assert check(root).returncode == 0  # writes them
    assert check(root, "--check").returncode == 0


def test_an_edit_of_a_generated_file_is_noticed(tmp_path):
    root = copy_package(tmp_path)
    name = "_numba/elementwise_generated.py"
    edit(root / "fastloss" / name, "f32(0.5)", "f32(0.25)")
    stale = check(root, "--check")
    assert stale.returncode == 1
    assert stale.stdout.split() == ["stale:", name]


def test_every_literal_of_generated_numba_code_has_a_type():
    # A bare 0.5 is a double: a float32 kernel would quietly compute in double.
    tree = ast.parse(_codegen.numba_elementwise() + _codegen.numba_primitives())
    casts = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") in ("f32", "f64")]
    typed = {id(inner) for cast in casts for inner in ast.walk(cast.args[0])}
    literals = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, float)]
    assert len(literals) > 100
    for node in literals:
        assert id(node) in typed, f"line {node.lineno}: {node.value}"


@pytest.mark.parametrize("text", ["x and y", "[x]", "x < y < 1.0", "'text'", "x if y else not x", "x.real"])
def test_what_is_not_in_the_language_of_formulas(text):
    for writer in (_codegen.NumbaWriter("f32"), _codegen.CythonWriter("f64")):
        with pytest.raises(SyntaxError, match="not in the language of formulas"):
            writer.expression(ast.parse(text, mode="eval").body)
        with pytest.raises(SyntaxError, match="not in the language of formulas"):
            list(writer.statements(ast.parse("for i in x: pass").body))
        with pytest.raises(SyntaxError, match="no primitive called sin"):
            writer.expression(ast.parse("sin(x)", mode="eval").body)


def test_formulas_are_documented_as_public_names():
    assert sorted(formulas.__all__) == sorted(FORMULAS)
    for name, function in inspect.getmembers(primitives, inspect.isfunction):
        assert function.__doc__, name


NEW_LOSS = """

@elementwise(family="distance", target="real", params=(positive("NAME", 2.0),), loss_ulp=2.0, grad_ulp=2.0)
def cauchy_loss(x, y, NAME):
    r = (x - y) / NAME
    loss = log1p_unit(r * r)
    grad = 2.0 * r / (1.0 + r * r) / NAME
    hess = 2.0 * (1.0 - r * r) / (1.0 + r * r) / (1.0 + r * r) / NAME / NAME
    return loss, grad, hess
"""
CALL = """
    import numpy as np
    from fastloss import _run
    from fastloss.registry import LOSSES

    facts = LOSSES["cauchy_loss"]
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    result = _run.elementwise(facts, x, 0 * x, facts.parse({}), None, None, "none", None, True, None, None, "numba")
    assert result.loss.dtype == result.grad.dtype == np.float32
    r = x.astype(float) / 2
    assert np.allclose(result.loss, np.log1p(r * r), rtol=1e-6, atol=1e-9)
    assert np.allclose(result.grad, r / (1 + r * r), rtol=1e-6, atol=1e-9)
    print("right")
"""


@pytest.mark.skipif("numba" not in BACKENDS, reason="compiles the new loss with Numba")
@pytest.mark.parametrize("parameter", ["width", "scale"])  # scale is also what the loops multiply by
def test_a_new_loss_is_one_formula(tmp_path, parameter):
    root = copy_package(tmp_path)
    with open(root / "fastloss" / "formulas.py", "a", encoding="utf-8") as file:
        file.write(NEW_LOSS.replace("NAME", parameter))
    written = check(root)
    assert written.returncode == 0, written.stderr
    assert output(CALL, root=root, NUMBA_CACHE_DIR=tmp_path / "cache") == "right"
