"""Builds the Cython kernels, one extension module per CPU level; everything else is in pyproject.toml.

FASTLOSS_DISABLE_EXT=1 skips them, FASTLOSS_REQUIRE_EXT=1 makes a failure fatal, FASTLOSS_BOUNDSCHECK=1 turns
Cython's own checks on, FASTLOSS_LEVELS=v3 builds for that level only (tools/sanitize.py). Otherwise a machine
without a working C compiler gets a package that runs on Numba or NumPy.
"""

import os
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

REQUIRED = os.environ.get("FASTLOSS_REQUIRE_EXT", "0") not in ("", "0")
CHECKED = os.environ.get("FASTLOSS_BOUNDSCHECK", "0") not in ("", "0")
DISABLED = os.environ.get("FASTLOSS_DISABLE_EXT", "0") not in ("", "0")
FOLDER = Path("fastloss/_cython")
IS_X86_64 = platform.machine().lower() in ("x86_64", "amd64")

# No option may let the compiler reassociate or drop NaN; contraction is off because the kernels
# spell out their fused multiply-adds, so that all levels and Numba round alike.
UNIX_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
# GCC would make string instructions of short loops that fill an array; they take 40 ns to start.
# And it would stop to inline primitives into loops when the file has grown by so much; such loops are not vectorised.
GCC_FLAGS = [
    "-fno-tree-loop-distribute-patterns", "--param=inline-unit-growth=1000", "--param=large-function-growth=1000",
    "--param=max-inline-insns-single=1000",
]  # fmt: skip
MSVC_FLAGS = ["/O2", "/fp:precise"]
LEVELS = {
    "v1": ([], []),
    "v3": (["-march=x86-64-v3"], ["/arch:AVX2"]),
    "v4": (["-march=x86-64-v4", "-mprefer-vector-width=512"], ["/arch:AVX512"]),
}


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

    levels = (os.environ.get("FASTLOSS_LEVELS") or ",".join(LEVELS)).split(",") if IS_X86_64 else ["v1"]
    return [extension("cpu"), *(extension(f"kernels_{level}") for level in levels)]


class BuildKernels(build_ext):
    """Adds the flags of compiler and CPU level; a failed build is fatal only where extensions are required."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        from Cython.Build import cythonize

        self.note = Path("." if self.inplace else self.build_lib, FOLDER, "build_failed.txt")
        self.note.unlink(missing_ok=True)
        msvc = self.compiler.compiler_type == "msvc"
        for ext in self.extensions:
            ext.extra_compile_args = list(MSVC_FLAGS if msvc else UNIX_FLAGS + GCC_FLAGS)
            if ext.name.endswith("cpu"):
                continue
            level = ext.name.rpartition("_")[2]
            ext.extra_compile_args += LEVELS[level][msvc]
        directives = {
            "language_level": 3, "boundscheck": CHECKED, "wraparound": False, "cdivision": True,
            "initializedcheck": CHECKED,
        }  # fmt: skip
        built = {e.name: e for e in cythonize(self.extensions, compiler_directives=directives, force=self.force)}
        for ext in self.extensions:
            ext.sources = built[ext.name].sources
        super().build_extensions()

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as error:
            # The reason is kept for show_config(); an optional extension may fail without failing the build.
            self.note.parent.mkdir(parents=True, exist_ok=True)
            self.note.write_text(f"{type(error).__name__}: {error}"[:200] + "\n")
            raise


setup(ext_modules=[] if DISABLED else extensions(), cmdclass={"build_ext": BuildKernels})
