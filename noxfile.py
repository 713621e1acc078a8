"""The long checks, each in an environment of its own: ``python -m pip install -e ".[dev]" && nox --list``.

Each session works on a copy of the sources, so that builds for several Pythons do not meet in one folder.
"""

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = True
ROOT = Path(__file__).parent
MAIN = "3.11"
# The oldest NumPy that has wheels for each Python, and the newest.
MATRIX = [
    ("3.11", "numpy==2.0.*"), ("3.11", "numpy"), ("3.12", "numpy==2.0.*"), ("3.12", "numpy"),
    ("3.13", "numpy==2.1.*"), ("3.13", "numpy"),
]  # fmt: skip


def install(session: nox.Session, *requirements: str) -> None:
    """Install a fresh copy of the sources, compiled kernels required, and enter it."""
    room = Path(session.create_tmp()).resolve() / "source"
    shutil.rmtree(room, ignore_errors=True)
    left_out = shutil.ignore_patterns(
        "build", "*.so", "*.pyd", "*.c", "*.egg-info", "__pycache__", ".[!c]*", "*.nb[ic]"
    )
    shutil.copytree(ROOT, room, ignore=left_out)
    session.chdir(room)
    session.env.update({"FASTLOSS_REQUIRE_EXT": "1", "NUMBA_CACHE_DIR": str(room / "cache"), "PYTHONPATH": ""})
    session.install("-e", ".[test]", *requirements)


@nox.session
@nox.parametrize(("python", "numpy"), MATRIX)
def tests(session: nox.Session, numpy: str) -> None:
    """The suite on every supported Python, with the oldest and the newest NumPy."""
    install(session, numpy)
    session.run("python", "-c", "import sys, numpy, numba; print(sys.version, numpy.__version__, numba.__version__)")
    session.run("pytest", *session.posargs)


@nox.session(python=MAIN)
def slow(session: nox.Session) -> None:
    """The exhaustive tests: hours on one core, and several GB."""
    install(session)
    session.run("pytest", "-m", "slow", "-n", "0", *session.posargs)


@nox.session(python=MAIN)
@nox.parametrize("kind", ["address", "undefined", "bounds", "memcheck"])
def sanitize(session: nox.Session, kind: str) -> None:
    """The suite under a sanitizer or with checked indices, a small program under valgrind."""
    install(session)
    session.run("python", "tools/sanitize.py", kind, *(session.posargs or ["--tests", "tests"]))


@nox.session(python=MAIN)
def fuzz(session: nox.Session) -> None:
    """Ten minutes of coverage-guided fuzzing of the argument layer."""
    install(session, "atheris")
    session.run("python", "tools/fuzz.py", *(session.posargs or ["--seconds", "600"]))


@nox.session(python=MAIN)
def frozen(session: nox.Session) -> None:
    """A program that PyInstaller has packed, without any option: kernels and NumPy run in it."""
    install(session, "pyinstaller")
    folder = Path(session.create_tmp()).resolve()
    session.chdir(folder)
    program = folder / "program.py"
    program.write_text(
        "import fastloss as fl\n"
        "fl.show_config()\n"
        "for name in ('cython', 'numba', 'numpy'):\n"
        "    assert fl.mse_loss([2.0], [1.0], backend=name).loss == 1.0, name\n",
        encoding="utf-8",
    )
    session.run("pyinstaller", "--noconfirm", "--log-level", "ERROR", str(program))
    session.run(str(folder / "dist" / "program" / "program"), external=True)


@nox.session(python=MAIN)
def lint(session: nox.Session) -> None:
    """Style, types, generated code and pages."""
    install(session, "matplotlib", "mypy", "numpydoc", "ruff", "scikit-learn")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("python", "-m", "fastloss._codegen", "--check")
    session.run("python", "-m", "tools.losses_doc", "--check")
