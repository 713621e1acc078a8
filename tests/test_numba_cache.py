"""Numba's cache on disk: used, never stale, and done without where nothing can be written."""

import os
import subprocess
import sys
import textwrap

import pytest
from cases import BACKENDS
from processes import copy_package, edit, environment, output

pytestmark = pytest.mark.skipif("numba" not in BACKENDS, reason="this run goes without Numba")

SUM = """
    import numpy as np, fastloss as fl
    loss = fl.mse_loss(np.ones(9, np.float32), np.zeros(9, np.float32), reduction="sum", backend="numba").loss
    from fastloss._numba.elementwise import elementwise_blocks
    from fastloss._numba.elementwise_generated import mse_loss_loss_grad_f32
    both = elementwise_blocks, *mse_loss_loss_grad_f32.dispatchers
    print(loss, *(sum(sum(getattr(k.stats, name).values()) for k in both) for name in ("cache_hits", "cache_misses")))
"""


def run(root, **variables):
    loss, hits, misses = output(SUM, root=root, **variables).split()
    return float(loss), int(hits), int(misses)


def test_the_cache_is_used_and_never_stale(tmp_path):
    root, cache = copy_package(tmp_path), tmp_path / "cache"
    kernels = root / "fastloss" / "_numba"
    assert run(root, NUMBA_CACHE_DIR=cache) == (9.0, 0, 2)
    assert run(root, NUMBA_CACHE_DIR=cache) == (9.0, 2, 0)
    # A function in another file than the kernel that calls it: Numba itself would not notice.
    edit(kernels / "blocks.py", "return a + b\n", "return (a + b) * 2\n")
    assert run(root, NUMBA_CACHE_DIR=cache) == (18.0, 0, 2)
    assert run(root, NUMBA_CACHE_DIR=cache) == (18.0, 2, 0)
    # The way back finds what was compiled first, or compiles again, but is right.
    edit(kernels / "blocks.py", "return (a + b) * 2\n", "return a + b\n")
    assert run(root, NUMBA_CACHE_DIR=cache)[0] == 9.0
    # A formula of another version, in a file of the same size and time, as some installers leave it.
    formula = kernels / "elementwise_generated.py"
    before = formula.stat()
    edit(formula, "loss = (r * r)\n", "loss = (r + r)\n")
    os.utime(formula, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert formula.stat().st_size == before.st_size
    assert run(root, NUMBA_CACHE_DIR=cache) == (18.0, 0, 2)


def test_nothing_can_be_written(tmp_path):
    # Below a regular file nothing can be created, not even by root.
    root, wall = copy_package(tmp_path), tmp_path / "wall"
    wall.write_text("")
    (root / "fastloss" / "_numba" / "__pycache__").write_text("")
    nowhere = {"HOME": wall / "home", "XDG_CACHE_HOME": wall / "cache", "NUMBA_CACHE_DIR": wall / "numba"}
    loss, hits, _ = run(root, PYTHONDONTWRITEBYTECODE=1, **nowhere)
    assert (loss, hits) == (9.0, 0)


def test_two_processes_compile_at_once(tmp_path):
    root, cache = copy_package(tmp_path), tmp_path / "cache"
    command = [sys.executable, "-P", "-c", textwrap.dedent(SUM)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(root, NUMBA_CACHE_DIR=cache))
        for _ in range(2)
    ]
    for process in started:
        assert process.communicate(timeout=120)[0].split()[0] == "9.0"
        assert process.returncode == 0
    assert run(root, NUMBA_CACHE_DIR=cache) == (9.0, 2, 0)


def test_without_a_home(tmp_path):
    root = copy_package(tmp_path)
    code = "import os\nfor name in ('HOME', 'XDG_CACHE_HOME', 'NUMBA_CACHE_DIR'): os.environ.pop(name, None)\n"
    assert output(code + textwrap.dedent(SUM), root=root).split()[0] == "9.0"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_disk_that_is_full(tmp_path):
    code = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
    cache = tmp_path / "cache"
    assert output(code + textwrap.dedent(SUM), NUMBA_CACHE_DIR=cache).split()[0] == "9.0"


@pytest.mark.slow
def test_a_damaged_cache(tmp_path):
    # What a machine that lost its power may leave behind.
    cache = tmp_path / "cache"
    assert output(SUM, NUMBA_CACHE_DIR=cache).split()[0] == "9.0"
    for file in cache.rglob("*.nb[ic]"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert output(SUM, NUMBA_CACHE_DIR=cache).split()[0] == "9.0"


@pytest.mark.slow
def test_an_index_that_names_the_file_of_another_kernel(tmp_path):
    # What two processes that compile for different types at once may leave behind.
    cache = tmp_path / "cache"
    integers = SUM.replace("np.zeros(9, np.float32)", "np.zeros(9, np.int64)")
    for code in (SUM, integers):
        assert output(code, NUMBA_CACHE_DIR=cache).split() == ["9.0", "0", "2"]
    first, second = sorted(cache.rglob("*mse_loss_loss_grad_f32*.nbc"))
    first.write_bytes(second.read_bytes())
    for code, hits in ((SUM, "0"), (SUM, "1"), (integers, "1")):
        assert output(code, NUMBA_CACHE_DIR=cache).split()[:2] == ["9.0", hits]


HALF = """
    import sys
    import ml_dtypes
    import numpy as np
    import fastloss as fl
    for kind in sys.argv[1:]:
        x = np.linspace(-3, 3, 33).astype(getattr(ml_dtypes, kind, kind))
        print(float(fl.mse_loss(x, 0 * x, reduction="sum", backend="numba").grad[0]))
"""


@pytest.mark.slow
def test_kernels_of_half_precision_that_other_processes_compiled(tmp_path):
    pytest.importorskip("ml_dtypes")
    cache = tmp_path / "cache"
    for kinds in (["float16"], ["bfloat16"], ["float16", "bfloat16"]):
        assert output(HALF, *kinds, NUMBA_CACHE_DIR=cache).split() == ["-6.0"] * len(kinds)
