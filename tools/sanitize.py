"""Build the Cython kernels with checks and run tests under them.

    python tools/sanitize.py both                                           # two minutes, as in .ci/run
    python tools/sanitize.py address undefined bounds memcheck              # each by itself, short
    python tools/sanitize.py address undefined bounds --tests tests         # the whole suite

``address`` and ``undefined`` are the compiler's sanitizers, ``both`` is the two in one build, ``bounds`` is a Cython
build with its own checks on, with traps on signed overflow and guarded stacks, ``memcheck`` is valgrind. Each works on
a copy of the sources in a temporary folder, with the interpreter that runs this script, which must have the test
dependencies; needed are gcc and, for memcheck, valgrind: what is missing is skipped, with a line that says so. Exit
code 1: something was found. Kernels work on pointers, which ``bounds`` does not see: it checks the code around them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Every kernel, every tail, every dtype, bad values, threads; other files add time more than code.
SHORT = [
    "test_small_calls.py",
    "test_layouts.py",
    "test_bad_input.py",
    "test_dtypes.py",
    "test_specials.py",
    "test_fuzz.py",
]
MEASURED = ("test_interrupt.py", "test_many_calls.py")  # their limits are those of an ordinary build
DEBUG = "-g -O1 -fno-omit-frame-pointer"
FLAGS = {
    "address": f"{DEBUG} -fsanitize=address",
    "undefined": f"{DEBUG} -fsanitize=undefined -fno-sanitize-recover=undefined",
    "both": f"{DEBUG} -fsanitize=address,undefined -fno-sanitize-recover=undefined",
    "bounds": "-g -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-all -ftrapv",
    "memcheck": "-g",
}
# What valgrind runs: interpreters are slow under it, so a small program in place of the tests.
PROGRAM = """
import sys
sys.path.insert(0, "tests")
import numpy as np
import fastloss as fl
from cases import ELEMENTWISE, LOSS_NAMES, build, keep, variants, weights

for name in LOSS_NAMES:
    for dtype in ("float32", "float64", "float16"):
        for n in (1, 7, 33, 130, 5000):
            for case in variants(name, dtype, (n,))[:: 1 if n < 1000 else 4]:
                case("cython")
                case("cython", grad=False, reduction="sum")
                case("cython", reduction="none", sample_weight=weights((n,)), mask=keep((n,)), n_threads=2)
                case("cython", out=np.empty_like(case.args[0]))
                if name in ELEMENTWISE and not case.params:
                    fl.grad_hess(getattr(fl, name), *case.args, backend="cython", mask=keep((n,)))
for width in (1, 2, 31, 32, 33, 64, 100, 1024, 1100, 4096, 5000):
    for dtype in ("float32", "float64"):
        build("cross_entropy", dtype, (67,), width, label_smoothing=0.375)("cython")
        build("cross_entropy", dtype, (3,), width)("cython", reduction="none")
print("done")
"""


def copy_of_sources(folder: Path) -> Path:
    room = folder / "source"
    ignored = shutil.ignore_patterns(".git", "build", "*.so", "*.pyd", "*.c", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, room, ignore=ignored)
    return room


def level(kind: str) -> str:
    """The CPU level that runs here, the only one that is worth building; all of them where that is not known."""
    code = "from fastloss import _cython; print(_cython.level)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return "v3" if kind == "memcheck" and found == "v4" else found  # valgrind's CPU has no AVX-512


def build(room: Path, kind: str) -> dict[str, str]:
    """Build in place; returns the environment for what runs next."""
    environment = os.environ | {
        "FASTLOSS_REQUIRE_EXT": "1",
        "FASTLOSS_LEVELS": level(kind),
        "CFLAGS": FLAGS[kind],
        "LDFLAGS": " ".join(flag for flag in FLAGS[kind].split() if flag.startswith("-fsanitize")),
        "PYTHONPATH": str(room),
        "NUMBA_CACHE_DIR": str(room / "cache"),
    }
    if kind == "bounds":
        environment["FASTLOSS_BOUNDSCHECK"] = "1"
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=room, env=environment, check=True, stdout=subprocess.DEVNULL)
    return environment


def library(name: str) -> str:
    """Where the compiler finds a library; its bare name if it doesn't."""
    command = [os.environ.get("CC", "gcc"), f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def runtime(kind: str) -> str:
    """The sanitizer's library, which must be loaded before the interpreter's own."""
    return library("libubsan.so" if kind == "undefined" else "libasan.so")


def missing(kind: str) -> str | None:
    """What is not installed here, without which a check cannot be made."""
    compiler = os.environ.get("CC", "gcc")
    if shutil.which(compiler) is None:
        return compiler
    if kind == "memcheck":
        return None if shutil.which("valgrind") else "valgrind"
    return None if kind == "bounds" or os.path.isabs(runtime(kind)) else runtime(kind)


def pytest(room: Path, environment: dict[str, str], tests: list[str]) -> bool:
    # What a sanitizer writes before it ends the process must be seen: only Python's output is captured.
    options = [
        "-q",
        "-x",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "--capture=sys",
        *(f"--ignore=tests/{name}" for name in MEASURED),
    ]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    return subprocess.run(command, cwd=room, env=environment, check=False).returncode == 0


def memcheck(room: Path, environment: dict[str, str]) -> bool:
    """Whether valgrind finds nothing in our modules; what it finds elsewhere is not ours to judge."""
    log = room / "memcheck.log"
    command = ["valgrind", "--tool=memcheck", "--leak-check=no", "--error-limit=no", f"--log-file={log}"]
    environment = environment | {"PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "2"}
    done = subprocess.run([*command, sys.executable, "-c", PROGRAM], cwd=room, env=environment, check=False)
    reports = re.split(r"(?m)^==\d+== $", log.read_text(errors="replace"))
    ours = [report for report in reports if re.search(r"(kernels_v\d|/cpu)\.", report) and " at 0x" in report]
    for report in ours[:20]:
        print(report)
    print(f"memcheck: {len(ours)} reports in fastloss's modules, {len(reports)} parts of the log")
    return done.returncode == 0 and not ours


def check(kind: str, tests: list[str] | None) -> str:
    """What came of a check."""
    if (lacking := missing(kind)) is not None:
        return f"SKIPPED: {lacking} is not installed"
    return "nothing found" if passes(kind, tests) else "FAILED"


def passes(kind: str, tests: list[str] | None) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        room = copy_of_sources(Path(folder))
        environment = build(room, kind)
        if kind == "memcheck":
            return memcheck(room, environment)
        if kind != "bounds":
            environment |= {
                # Without the second, the first exception that another package throws in C++ ends the process.
                "LD_PRELOAD": f"{runtime(kind)} {library('libstdc++.so.6')}",
                # The interpreter frees little when it ends; with its own allocator, small overruns would go unseen.
                "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
                "UBSAN_OPTIONS": "print_stacktrace=1",
                "PYTHONMALLOC": "malloc",
            }
        # Numba's kernels are not built by the compiler that checks.
        environment["FASTLOSS_TEST_BACKENDS"] = "cython,numpy"
        return pytest(room, environment, tests or [f"tests/{name}" for name in SHORT])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", choices=FLAGS)
    parser.add_argument("--tests", nargs="+", help="arguments for pytest, in place of a short selection")
    arguments = parser.parse_args()
    found = {kind: check(kind, arguments.tests) for kind in arguments.kinds}
    for kind, outcome in found.items():
        print(f"{kind:10s} {outcome}")
    return 1 if "FAILED" in found.values() else 0


if __name__ == "__main__":
    sys.exit(main())
