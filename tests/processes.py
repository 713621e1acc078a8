"""Runs code in other processes, for what depends on the environment, on imports or on a copy of the package."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import fastloss as fl

PACKAGE = Path(fl.__file__).parent
_OWN = ("FASTLOSS_BACKEND", "FASTLOSS_CPU", "FASTLOSS_NUM_THREADS", "OMP_NUM_THREADS")


def environment(root=PACKAGE.parent, **variables):
    """This process's environment without what steers the package, and with a folder to import it from."""
    inherited = {key: value for key, value in os.environ.items() if key not in _OWN}
    return inherited | {"PYTHONPATH": str(root)} | {key: str(value) for key, value in variables.items()}


def python(code, *arguments, root=PACKAGE.parent, timeout=240, cwd=None, **variables):
    """Run a program text; returns the finished process. -P: the working directory is not searched for modules."""
    return subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=cwd,
        env=environment(root, **variables),
    )


def output(code, *arguments, **options):
    """Run a program text that must succeed; returns what it prints."""
    process = python(code, *arguments, **options)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def copy_package(folder) -> Path:
    """Copy the package's sources to a folder, without caches and kernels; returns the folder to import it from."""
    ignored = ("__pycache__", "*.nbi", "*.nbc", "*.so", "*.pyd", "build_*.txt")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns(*ignored))
    return folder


def edit(file, old, new):
    """Change a source file; what is replaced must be there."""
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")
