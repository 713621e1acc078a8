"""Numba's cache on disk: used, never stale, and done without where nothing can be written."""

import pytest
from cases import BACKENDS
from processes import copy_package, edit, output

pytestmark = pytest.mark.skipif("numba" not in BACKENDS, reason="this run goes without Numba")

SUM = """
    import numpy as np, fastloss as fl
    loss = fl.mse_loss(np.ones(9, np.float32), np.zeros(9, np.float32), reduction="sum", backend="numba").loss
    from fastloss._numba import elementwise_generated
    stats = elementwise_generated.mse_loss_f32.stats
    print(loss, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def run(root, **variables):
    loss, hits, misses = output(SUM, root=root, **variables).split()
    return float(loss), int(hits), int(misses)


def test_the_cache_is_used_and_never_stale(tmp_path):
    root, cache = copy_package(tmp_path), tmp_path / "cache"
    kernels = root / "fastloss" / "_numba"
    assert run(root, NUMBA_CACHE_DIR=cache) == (9.0, 0, 1)
    assert run(root, NUMBA_CACHE_DIR=cache) == (9.0, 1, 0)
    # A function in another file than the kernel that calls it: Numba itself would not notice.
    edit(kernels / "blocks.py", "return lanes[0]\n", "return 2.0 * lanes[0]\n")
    assert run(root, NUMBA_CACHE_DIR=cache) == (18.0, 0, 1)
    assert run(root, NUMBA_CACHE_DIR=cache) == (18.0, 1, 0)
    # The way back finds what was compiled first, or compiles again, but is right.
    edit(kernels / "blocks.py", "return 2.0 * lanes[0]\n", "return lanes[0]\n")
    assert run(root, NUMBA_CACHE_DIR=cache)[0] == 9.0


def test_nothing_can_be_written(tmp_path):
    # Below a regular file nothing can be created, not even by root.
    root, wall = copy_package(tmp_path), tmp_path / "wall"
    wall.write_text("")
    (root / "fastloss" / "_numba" / "__pycache__").write_text("")
    nowhere = {"HOME": wall / "home", "XDG_CACHE_HOME": wall / "cache", "NUMBA_CACHE_DIR": wall / "numba"}
    loss, hits, _ = run(root, PYTHONDONTWRITEBYTECODE=1, **nowhere)
    assert (loss, hits) == (9.0, 0)
