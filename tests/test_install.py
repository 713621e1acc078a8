"""The package as builds and packers leave it: without kernels or some of them, in an archive, frozen."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from cases import BACKENDS
from processes import PACKAGE, copy_package, environment, output, python

import fastloss as fl

REPOSITORY = PACKAGE.parent
# A build needs a checkout; an installed package has none.
needs_checkout = pytest.mark.skipif(not (REPOSITORY / "setup.py").exists(), reason="not in a checkout")
needs_unix = pytest.mark.skipif(os.name == "nt", reason="another way to choose a compiler")
SHOW = """
    import fastloss as fl
    print(*fl.backends())
    fl.show_config()
    print(fl.mse_loss([2.0], [1.0], backend="numpy").loss)
"""
WITHOUT = [name for name in fl.backends() if name != "cython"]


def shown(root, **options):
    """What show_config() says of the compiled kernels, of a package that must run without them."""
    backends, *config, loss = output(SHOW, root=root, **options).splitlines()
    assert (backends.split(), loss) == (WITHOUT, "1.0")
    (line,) = (line for line in config if line.startswith("cython "))
    assert "missing: " in line
    return line


# --- why there are no kernels: nothing is said that is not known


def test_a_package_without_kernels_runs_and_says_why(tmp_path):
    root = copy_package(tmp_path)
    why = shown(root)
    assert f"there are no compiled kernels in {root / 'fastloss' / '_cython'}" in why
    assert "C compiler" in why
    assert "FASTLOSS_DISABLE_EXT" not in why
    failed = python("import fastloss as fl; fl.mse_loss([2.0], [1.0], backend='cython')", root=root)
    assert "RuntimeError: backend 'cython' is not available: there are no compiled kernels" in failed.stderr


def test_the_reason_of_a_failed_build_is_shown(tmp_path):
    root = copy_package(tmp_path)
    note = root / "fastloss" / "_cython" / "build_failed.txt"
    note.write_text("CompileError: no cc\n", encoding="utf-8")
    assert "the build failed: CompileError: no cc" in shown(root)
    note.write_text("cpu: no cc\nkernels_v1: no cc\nkernels_v3: x.c: error: é\n", encoding="utf-8")
    assert "the build failed: no cc | x.c: error: é;" in shown(root, PYTHONIOENCODING="utf-8")


@needs_checkout
def test_an_unbuilt_source_tree_says_so(tmp_path):
    root = copy_package(tmp_path)
    shutil.copy2(REPOSITORY / "setup.py", root / "setup.py")
    why = shown(root)
    assert "of this source tree have not been built" in why
    assert "python -m pip install -e ." in why


def test_kernels_of_another_python_say_so(tmp_path):
    root = copy_package(tmp_path)
    (root / "fastloss" / "_cython" / "cpu.cpython-36m-x86_64-linux-gnu.so").write_bytes(b"")
    assert "the compiled kernels are for another Python (cpu.cpython-36m-x86_64-linux-gnu.so)" in shown(root)


def test_kernels_that_are_damaged_say_so(tmp_path):
    root = copy_package(tmp_path)
    (root / "fastloss" / "_cython" / "cpu.py").write_text("raise SystemError('half a file')", encoding="utf-8")
    assert "the compiled kernels do not load: SystemError: half a file" in shown(root)


@pytest.mark.parametrize("name", ["library.zip", "program.pyz"])
def test_a_package_in_an_archive_runs_and_says_so(name, tmp_path):
    # As with zipapp.
    copy_package(tmp_path)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for file in sorted((tmp_path / "fastloss").rglob("*.py")):
            archive.write(file, file.relative_to(tmp_path))
    shutil.rmtree(tmp_path / "fastloss")
    why = shown(tmp_path / name, NUMBA_CACHE_DIR=tmp_path / "cache")
    assert "the package lies in an archive" in why


def test_a_package_without_sources_runs(tmp_path):
    copy_package(tmp_path)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-b", str(tmp_path)], check=True, timeout=240)
    for file in tmp_path.rglob("*.py"):
        file.unlink()
    assert "there are no compiled kernels" in shown(tmp_path)
    if "numba" in BACKENDS:
        code = """
            import fastloss as fl
            print(fl.mse_loss([2.0], [1.0], backend="numba").loss)
            fl.show_config()
        """
        loss, *config = output(code, root=tmp_path).splitlines()
        assert loss == "1.0"
        assert any(line.startswith("numba ") and "not cached: the package has no sources" in line for line in config)


def test_a_frozen_program_says_so(tmp_path):
    root = copy_package(tmp_path)
    code = "import sys; sys.frozen = True; import fastloss as fl; fl.show_config()"
    assert "the compiled kernels are not in this frozen program" in output(code, root=root)
    code = "import sys; sys.frozen = True; sys.modules['numba'] = None; import fastloss as fl; fl.show_config()"
    text = output(code, root=root)
    assert "Numba is not in this frozen program" in text
    assert "pip install" not in text


def test_tools_that_freeze_programs_see_every_backend(tmp_path):
    # They follow import statements, as this module of the standard library does.
    program = tmp_path / "program.py"
    program.write_text("import fastloss\n", encoding="utf-8")
    others = ["numpy", "numba", "llvmlite", "importlib", "inspect", "concurrent", "multiprocessing", "unittest"]
    finder = ModuleFinder([str(PACKAGE.parent), *sys.path], excludes=others)
    finder.run_script(str(program))
    wanted = {"fastloss._cython", "fastloss._numpy", "fastloss._numba", "fastloss.reference"}
    levels = {f"fastloss._cython.{name}" for name in ("cpu", "kernels_v1", "kernels_v3", "kernels_v4")}
    assert wanted <= set(finder.modules)
    assert levels <= set(finder.modules) | set(finder.badmodules)  # those that were not built cannot be found


def test_the_package_opens_no_text_file_in_the_systems_encoding():
    code = """
        import warnings
        warnings.filterwarnings("error", category=EncodingWarning, module="fastloss")
        import fastloss as fl
        from fastloss import cli
        fl.get_num_threads()
        for command in (["info"], ["list"]):
            assert cli.main(command) == 0
    """
    output(code, PYTHONWARNDEFAULTENCODING=1)
    loose = re.compile(r"\b(?:read_text\(\)|write_text\((?!.*encoding)|open\((?!.*(?:encoding|[\"'][rw]b[\"'])))")
    for file in [*PACKAGE.rglob("*.py"), REPOSITORY / "setup.py"]:
        if file.exists():
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if loose.search(line)]
            assert not [line for line in lines if not re.search(r"\b(?:os|archive)\.open\(|def ", line)], file


# --- builds


def sources(folder) -> Path:
    """A copy of what a build needs, with kernels that only tell what they were compiled for."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    source = folder / "source"
    source.mkdir()
    for name in (
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ):
        shutil.copy2(REPOSITORY / name, source / name)
    copy_package(source)
    for level in ("v1", "v3", "v4"):
        (source / "fastloss" / "_cython" / f"kernels_{level}.pyx").write_text(STAND_IN, encoding="utf-8")
    return source


STAND_IN = """
from unittest.mock import Mock
cdef extern from *:
    '''
    #if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
    #define LEVEL 4
    #elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__BMI2__)
    #define LEVEL 3
    #else
    #define LEVEL 1
    #endif
    '''
    int LEVEL
HAS_FMA = compiled_for = LEVEL
__getattr__ = Mock
"""


def build(source, **variables):
    """Run the build; returns the process and the folder with the result."""
    variables = {"FASTLOSS_REQUIRE_EXT": "0", "FASTLOSS_DISABLE_EXT": "0", "FASTLOSS_LEVELS": "", **variables}
    shutil.rmtree(source / "build", ignore_errors=True)
    lib = source.with_name("lib")
    shutil.rmtree(lib, ignore_errors=True)
    process = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", str(lib)],
        cwd=source, env=environment(source, **variables), capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    return process, lib


@needs_checkout
def test_a_build_without_extensions(tmp_path):
    process, lib = build(sources(tmp_path), FASTLOSS_DISABLE_EXT="1")
    assert process.returncode == 0, process.stderr
    assert "it was installed with FASTLOSS_DISABLE_EXT=1" in shown(lib)
    assert (lib / "fastloss" / "py.typed").exists()


@needs_checkout
@needs_unix
def test_a_build_without_a_compiler(tmp_path):
    source = sources(tmp_path)
    process, lib = build(source, CC="false")
    assert process.returncode == 0, process.stderr
    assert "the build failed: no C compiler that works, with Python's headers: false ended with status 1" in shown(lib)
    process, lib = build(source, CC=f"{tmp_path}/nowhere")
    assert process.returncode == 0, process.stderr
    assert f"{tmp_path}/nowhere: No such file or directory" in shown(lib)
    process, _ = build(source, CC="false", FASTLOSS_REQUIRE_EXT="1")
    assert process.returncode != 0
    assert "no C compiler that works" in process.stderr


def compiler(file, refuses, says):
    """A compiler that does not know some flags."""
    text = f'#!/bin/sh\ncase "$*" in {refuses}) printf \'{says}\' >&2; exit 1;; esac\nexec cc "$@"\n'
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)
    return file


BUILT = """
    from importlib import import_module
    import pathlib, sys, fastloss
    for level in ("v1", "v3", "v4"):
        try:
            print(level, import_module("fastloss._cython.kernels_" + level).compiled_for)
        except ModuleNotFoundError:
            print(level, "missing")
    for file in pathlib.Path(fastloss.__file__).parent.rglob("*.so"):
        assert b".debug_info" not in file.read_bytes(), file
"""


@needs_checkout
@needs_unix
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
def test_a_compiler_that_does_not_know_a_level_is_told_its_instructions_or_goes_without(tmp_path):
    source = sources(tmp_path)
    says = "cc1: note: x\\ncc1: error: bad value for -march\\n"
    process, lib = build(source, CC=compiler(tmp_path / "cc10", "*x86-64-v[34]*", says))
    assert process.returncode == 0, process.stderr
    assert output(BUILT, root=lib).splitlines() == ["v1 1", "v3 3", "v4 4"]

    old = compiler(tmp_path / "cc5", "*x86-64-v[34]*|*avx512*|*vector-width*|*--param=inline*", says)
    process, lib = build(source, CC=old)
    assert process.returncode == 0, process.stderr
    assert output(BUILT, root=lib).splitlines() == ["v1 1", "v3 3", "v4 missing"]
    cpu = lib / "fastloss" / "_cython" / "cpu.py"  # a CPU that has all levels
    next(cpu.parent.glob("cpu.*.so")).unlink()
    cpu.write_text("def level():\n    return 4\n\n\nbest = level\n", encoding="utf-8")
    text = output("import fastloss as fl; fl.show_config()", root=lib)
    assert "CPU level v3 with fused multiply-add; the kernels of v4, better here, were not built: " in text
    assert "(cc1: error: bad value for -march); a newer one does: GCC 11 or Clang 12" in text
    process, _ = build(source, CC=old, FASTLOSS_REQUIRE_EXT="1", FASTLOSS_LEVELS="v4")
    assert process.returncode != 0

    # What the compiler says against the code, not the command line.
    level = source / "fastloss" / "_cython" / "kernels_v3.pyx"
    text = level.read_text(encoding="utf-8").replace("    #define LEVEL 3", "    #error impossible here")
    level.write_text(text, encoding="utf-8")
    process, lib = build(source, FASTLOSS_LEVELS="v1,v3")
    assert process.returncode == 0, process.stderr
    assert output(BUILT, root=lib).splitlines() == ["v1 1", "v3 missing", "v4 missing"]
    note = (lib / "fastloss" / "_cython" / "build_failed.txt").read_text(encoding="utf-8")
    assert "error: #error impossible here" in note
    assert "-fPIC" not in note


@needs_checkout
@pytest.mark.parametrize("variable", ["FASTLOSS_DISABLE_EXT", "FASTLOSS_REQUIRE_EXT", "FASTLOSS_LEVELS"])
def test_a_variable_of_the_build_that_cannot_be_understood_is_an_error(variable, tmp_path):
    process, _ = build(sources(tmp_path), **{variable: "false"})
    assert process.returncode != 0
    assert variable in process.stderr.splitlines()[-1]
    assert "'false'" in process.stderr.splitlines()[-1]


# --- what is published

PACK = """
    import sys
    from setuptools import build_meta
    folder = sys.argv[1]  # the builds change it
    for kind in ("sdist", "wheel", "editable"):
        getattr(build_meta, "build_" + kind)(folder + "/" + kind)
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The repository's copy, and the folder with what tools build of it."""
    if not (REPOSITORY / "setup.py").exists():
        pytest.skip("not in a checkout")
    folder = tmp_path_factory.mktemp("packed")
    source = sources(folder)
    for kind in ("sdist", "wheel", "editable"):
        (folder / "dist" / kind).mkdir(parents=True)
    output(PACK, folder / "dist", root=source, cwd=source, FASTLOSS_DISABLE_EXT="1")
    return source, folder / "dist"


def contents(folder):
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_no_sources_of_kernels_and_the_source_distribution_has(packed):
    _, dist = packed
    names = contents(dist / "wheel")
    (file,) = (dist / "sdist").glob("*.tar.gz")
    with tarfile.open(file) as archive:
        given = {name.partition("/")[2] for name in archive.getnames()}
    for ending in (".pyx", ".pxi", ".h"):
        assert not [name for name in names if name.endswith(ending)]
        needed = {f"fastloss/_cython/{path.name}" for path in (PACKAGE / "_cython").glob(f"*{ending}")}
        assert needed
        assert needed <= given
    assert not [name for name in [*names, *given] if name.endswith((".c", ".so", ".pyc"))]
    assert {"fastloss/py.typed", "fastloss/accuracy.json", "fastloss/_numba/_jit.py"} <= set(names)


def test_links_of_the_published_readme_are_absolute_and_lead_to_files(packed):
    source, dist = packed
    (text,) = (data for name, data in contents(dist / "wheel").items() if name.endswith("/METADATA"))
    metadata = message_from_bytes(text)
    assert metadata["Description-Content-Type"] == "text/markdown"
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert {"Homepage", "Issues", "Documentation", "Changelog"} == set(urls)
    home = urls["Homepage"]
    assert all(url.startswith(home) for url in urls.values())
    links = re.findall(r"\]\(([^)\s]+)\)", text.decode())
    own = [link for link in links if link.startswith(home)]
    assert all(link.startswith(("https:", "#")) for link in links)
    for link in own:
        kind, version, path = link.removeprefix(f"{home}/").split("/", 2)
        assert version == f"v{fl.__version__}"
        assert (REPOSITORY / path).is_file(), link
        assert (kind == "raw") == path.endswith(".svg")
    # As many as README.md has: none was missed, and the placeholder stands in one place only.
    readme = (source / "README.md").read_text(encoding="utf-8")
    assert len(own) == len(re.findall(r"\]\((?!\w+:|#)[^)\s]+\)", readme)) > 3
    assert home not in readme
    assert (source / "setup.py").read_text(encoding="utf-8").count(home) == 1


def test_an_editable_install_is_a_path_that_type_checkers_follow(packed):
    source, dist = packed
    names = contents(dist / "editable")
    (path,) = (data for name, data in names.items() if name.endswith(".pth"))
    assert Path(path.decode().strip()).resolve() == source.resolve()
    assert not [name for name in names if name.endswith(".py")]
