"""The package without its compiled kernels: never built, built without a compiler, or built not at all."""

import os
import shutil
import subprocess
import sys

import pytest
from processes import PACKAGE, copy_package, environment, output, python

import fastloss as fl

REPOSITORY = PACKAGE.parent
# A build needs a checkout; an installed package has none.
needs_checkout = pytest.mark.skipif(not (REPOSITORY / "setup.py").exists(), reason="not in a checkout")
SHOW = """
    import fastloss as fl
    print(*fl.backends())
    fl.show_config()
    print(fl.mse_loss([2.0], [1.0], backend="numpy").loss)
"""
WITHOUT = [name for name in fl.backends() if name != "cython"]


def test_a_package_without_kernels_runs_and_says_why(tmp_path):
    root = copy_package(tmp_path)
    backends, *config, loss = output(SHOW, root=root).splitlines()
    assert backends.split() == WITHOUT
    assert loss == "1.0"
    (why,) = (line for line in config if line.startswith("cython "))
    assert f"missing: there are no compiled kernels in {root / 'fastloss' / '_cython'}" in why
    assert "C compiler" in why
    assert "FASTLOSS_DISABLE_EXT" not in why  # nobody knows
    failed = python("import fastloss as fl; fl.mse_loss([2.0], [1.0], backend='cython')", root=root)
    assert "RuntimeError: backend 'cython' is not available" in failed.stderr


def test_the_reason_of_a_failed_build_is_shown(tmp_path):
    root = copy_package(tmp_path)
    (root / "fastloss" / "_cython" / "build_failed.txt").write_text("CompileError: no cc\n")
    assert "the build failed: CompileError: no cc" in output(SHOW, root=root)


def build(tmp_path, **variables):
    """Run the build on a copy of the sources; returns the process and the folder with the result."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    if not source.exists():  # a second build need not translate the kernels once more
        source.mkdir()
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(REPOSITORY / name, source / name)
        copy_package(source)
    variables = {"FASTLOSS_REQUIRE_EXT": "0", "FASTLOSS_LEVELS": "v1", **variables}  # one level fails as all do
    process = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", str(tmp_path / "lib")],
        cwd=source, env=environment(source, **variables), capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    return process, tmp_path / "lib"


@needs_checkout
def test_a_build_without_extensions(tmp_path):
    process, lib = build(tmp_path, FASTLOSS_DISABLE_EXT="1")
    assert process.returncode == 0, process.stderr
    backends, *_, loss = output(SHOW, root=lib).splitlines()
    assert (backends.split(), loss) == (WITHOUT, "1.0")
    assert (lib / "fastloss" / "py.typed").exists()


@needs_checkout
@pytest.mark.skipif(os.name == "nt", reason="another way to choose a compiler")
def test_a_build_without_a_compiler(tmp_path):
    process, lib = build(tmp_path, CC="false")
    assert process.returncode == 0, process.stderr
    text = output(SHOW, root=lib)
    assert text.splitlines()[0].split() == WITHOUT
    assert "the build failed" in text
    process, _ = build(tmp_path, CC="false", FASTLOSS_REQUIRE_EXT="1")
    assert process.returncode != 0
