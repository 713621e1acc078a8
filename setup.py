"""Builds the Cython kernels, one extension module per CPU level; what is not said here is in pyproject.toml.

FASTLOSS_DISABLE_EXT=1 skips them, FASTLOSS_REQUIRE_EXT=1 makes a failure fatal, FASTLOSS_BOUNDSCHECK=1 turns
Cython's own checks on, FASTLOSS_LEVELS=v3 builds for that level only (tools/sanitize.py). Otherwise a machine
without a working C compiler gets a package that runs on Numba or NumPy, and one whose compiler is too old for a
CPU level goes without that level.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError, ExecError

# Where the project can be found. A release puts the public address here (CONTRIBUTING.md).
REPOSITORY = "https://fastloss.invalid/fastloss"


def switch(variable):
    value = os.environ.get(variable, "").strip()
    if value not in ("", "0", "1"):
        raise SystemExit(f"{variable} must be 0 or 1, got {value!r}")
    return value == "1"


REQUIRED = switch("FASTLOSS_REQUIRE_EXT")
CHECKED = switch("FASTLOSS_BOUNDSCHECK")
DISABLED = switch("FASTLOSS_DISABLE_EXT")
FOLDER = Path("fastloss/_cython")
# What the package says where kernels are missing (_cython/_missing.py).
FAILED, LEFT_OUT = "build_failed.txt", "build_disabled.txt"
IS_X86_64 = platform.machine().lower() in ("x86_64", "amd64")

# No option may let the compiler reassociate or drop NaN; contraction is off because the kernels
# spell out their fused multiply-adds, so that all levels and Numba round alike.
UNIX_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
# Python's own flags have -g, which makes the kernels five times as large.
if not any(flag.startswith("-g") for flag in os.environ.get("CFLAGS", "").split()):
    UNIX_FLAGS.append("-g0")
# Flags that a compiler need not know.
# GCC would make string instructions of short loops that fill an array; they take 40 ns to start.
# And it would stop to inline primitives into loops when the file has grown by so much; such loops are not vectorised.
HELPFUL_FLAGS = [
    "-fno-tree-loop-distribute-patterns", "--param=inline-unit-growth=1000", "--param=large-function-growth=1000",
    "--param=max-inline-insns-single=1000",
]  # fmt: skip
MSVC_FLAGS = ["/O2", "/fp:precise"]
# The instructions of each level, for compilers that do not know it by name: they came with GCC 11 and Clang 12.
V3 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"]
LEVELS = {"v1": [[]], "v3": [["-march=x86-64-v3"], V3], "v4": [["-march=x86-64-v4"], V4]}
HELPFUL = {"v4": ["-mprefer-vector-width=512"]}
MSVC_LEVELS = {"v1": [], "v3": ["/arch:AVX2"], "v4": ["/arch:AVX512"]}


def extensions():
    import numpy

    def extension(name):
        return Extension(
            f"fastloss._cython.{name}",
            [str(FOLDER / f"{name}.pyx")],
            include_dirs=[str(FOLDER), numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            depends=[str(p) for p in [*FOLDER.glob("*.pxi"), *FOLDER.glob("*.h")]],
            optional=not REQUIRED,
        )

    levels = (os.environ.get("FASTLOSS_LEVELS", "").strip() or ",".join(LEVELS)).split(",")
    if not set(levels) <= set(LEVELS):
        raise SystemExit(f"FASTLOSS_LEVELS must be some of {','.join(LEVELS)}, got {','.join(levels)!r}")
    return [extension("cpu"), *(extension(f"kernels_{level}") for level in (levels if IS_X86_64 else ["v1"]))]


def level_of(extension):
    """The CPU level of a module of kernels; the one that tells the CPU's level runs on all."""
    return extension.name.rpartition("_")[2] if "kernels" in extension.name else "v1"


def essential(text):
    """What matters of a compiler's words: its errors, without the lines of source that it quotes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|not found|cannot|undefined)\b", line, re.IGNORECASE)]
    return " | ".join((errors or lines[-3:])[:3])[:500]


class Refused(ExecError, OSError):
    """A compiler that cannot be run or that failed: new setuptools expects the one exception, older the other."""


class BuildKernels(build_ext):
    """Adds the flags of compiler and CPU level; a failed build is fatal only where extensions are required."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        from Cython.Build import cythonize

        folder = Path("." if self.inplace else self.build_lib, FOLDER)
        for note in (FAILED, LEFT_OUT):
            (folder / note).unlink(missing_ok=True)
        self.failed = {}  # why, by module
        try:
            if self.compiler.compiler_type == "msvc":
                for ext in self.extensions:
                    ext.extra_compile_args = MSVC_FLAGS + MSVC_LEVELS[level_of(ext)]
            else:
                self.choose_unix_flags()
            directives = {
                "language_level": 3, "boundscheck": CHECKED, "wraparound": False, "cdivision": True,
                "initializedcheck": CHECKED,
            }  # fmt: skip
            built = {e.name: e for e in cythonize(self.extensions, compiler_directives=directives, force=self.force)}
            for ext in self.extensions:
                ext.sources = built[ext.name].sources
            super().build_extensions()
        finally:
            if self.failed:
                folder.mkdir(parents=True, exist_ok=True)
                lines = [f"{module}: {reason}\n" for module, reason in self.failed.items()]
                (folder / FAILED).write_text("".join(lines), encoding="utf-8")

    def choose_unix_flags(self):
        """Give every extension flags that the compiler knows; those for which there are none are left out."""
        if sys.platform != "darwin":  # setuptools' own way sets the system's version there
            self.compiler.call = self.compiler.spawn = self.run_compiler  # its name in new and in older setuptools
        refused = self.refused(UNIX_FLAGS, "#include <Python.h>\n")
        for ext in list(self.extensions):
            if refused:
                self.leave_out(ext, f"no C compiler that works, with Python's headers: {refused}")
                continue
            candidates = LEVELS[level_of(ext)]
            flags = next((flags for flags in candidates if not self.refused(flags)), None)
            if flags is None:
                words = self.refused(candidates[-1])
                self.leave_out(ext, f"the compiler does not know it ({words}); a newer one does: GCC 11 or Clang 12")
                continue
            helpful = HELPFUL_FLAGS + HELPFUL.get(level_of(ext), [])
            if self.refused(flags + helpful):
                helpful = [flag for flag in helpful if not self.refused([*flags, flag])]
            ext.extra_compile_args = UNIX_FLAGS + helpful + flags

    def leave_out(self, ext, reason):
        self.failed[ext.name.rpartition(".")[2]] = reason
        if REQUIRED:
            raise CompileError(f"{ext.name}: {reason}")
        self.warn(f"{ext.name} is left out: {reason}")
        self.extensions.remove(ext)

    def refused(self, flags, text="int nothing;\n"):
        """What the compiler says against flags, or nothing."""
        self.quiet = True
        try:
            with tempfile.TemporaryDirectory() as room:
                file = Path(room, "probe.c")
                file.write_text(text, encoding="utf-8")
                self.compiler.compile([str(file)], output_dir=room, extra_postargs=[*flags])
        except CompileError as error:
            return str(error)
        finally:
            self.quiet = False
        return ""

    def run_compiler(self, command, **options):
        """As setuptools does it, but an error has the compiler's own words instead of the command line."""
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False, **options)
        except OSError as error:
            raise Refused(f"{command[0]}: {error.strerror}") from error
        if not self.quiet:
            sys.stderr.write(done.stderr)
        if done.returncode:
            raise Refused(essential(done.stderr) or f"{command[0]} ended with status {done.returncode}")

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as error:
            # The reason is kept for show_config(); an optional extension may fail without failing the build.
            self.failed[ext.name.rpartition(".")[2]] = essential(str(error)) or type(error).__name__
            raise


class BuildPython(build_py):
    """Leaves a note where the kernels are left out on purpose."""

    def run(self):
        super().run()
        if DISABLED:
            folder = Path("." if self.editable_mode else self.build_lib, FOLDER)
            (folder / FAILED).unlink(missing_ok=True)
            (folder / LEFT_OUT).write_text("FASTLOSS_DISABLE_EXT=1\n", encoding="utf-8")


def readme():
    """README.md as it is shown elsewhere: links to other files of the repository have its address."""
    version = re.search(r'__version__ = "(.+)"', Path("fastloss/_version.py").read_text(encoding="utf-8"))[1]

    def absolute(link):
        kind = "raw" if link[1] else "blob"  # pictures, pages
        return f"{link[1]}[{link[2]}]({REPOSITORY}/{kind}/v{version}/{link[3]})"

    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"(!?)\[([^\[\]]*)\]\((?!\w+:|#)([^()\s]+)\)", absolute, text)


setup(
    ext_modules=[] if DISABLED else extensions(),
    cmdclass={"build_ext": BuildKernels, "build_py": BuildPython},
    long_description=readme(),
    long_description_content_type="text/markdown",
    project_urls={
        "Homepage": REPOSITORY,
        "Documentation": f"{REPOSITORY}/blob/main/README.md",
        "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
    },
)
