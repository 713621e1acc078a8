"""Hashes of all outputs on a fixed corpus: no thread, repeat, layout, place, backend or CPU level changes a bit.

A change of the kernels that is meant to change bits regenerates them: ``python tests/corpus.py --write``.
"""

import json
import os
from pathlib import Path

import corpus
import numpy as np
import pytest
from cases import DRIVERS, ELEMENTWISE, LOSS_NAMES
from processes import python

FOLDER = str(Path(corpus.__file__).parent)
CHECK = f"import sys; sys.path.insert(0, {FOLDER!r}); import corpus; print(corpus.differences('cython'))"


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(params=LOSS_NAMES, scope="module")
def entries(request):
    """The corpus of one loss."""
    with np.errstate(all="ignore"):
        return list(corpus.entries([request.param]))


def check(found, compiled, what):
    """Compare hashes by key with the stored ones."""
    stored = corpus.expected(compiled)
    wrong = [key for key, value in found.items() if value != stored[key]]
    assert not wrong, (what, wrong)


def test_the_stored_hashes(entries, compiled):
    check({key: corpus.digest(corpus.call(case, compiled, **options)) for key, case, options in entries}, compiled, "")


def test_one_to_eight_threads(entries, compiled):
    if entries[0][1].loss not in DRIVERS:
        pytest.skip("what runs on threads is the same for all elementwise losses")
    for n in range(1, 9):
        found = {k: corpus.digest(corpus.call(case, compiled, n_threads=n, **o)) for k, case, o in entries}
        check(found, compiled, f"{n} threads")


def test_fifty_repeats(entries, compiled):
    if entries[0][1].loss not in DRIVERS:
        pytest.skip("what is repeated is the same for all elementwise losses")
    # On changing numbers of threads, none of which has the same work to do twice in a row.
    stored = corpus.expected(compiled)
    for key, case, options in entries[::2]:
        found = {corpus.digest(corpus.call(case, compiled, n_threads=1 + k % 3, **options)) for k in range(50)}
        assert found == {stored[key]}, key


def moved(array, offset):
    """A copy that starts a number of bytes after a multiple of 64."""
    room = np.zeros(array.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    place = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    place[...] = array
    return place


def changed(case, options, change):
    """A call with every array laid out otherwise."""
    options = {key: change(value) if isinstance(value, np.ndarray) else value for key, value in options.items()}
    return case.each(change), options


def test_any_offset_of_the_buffers(entries, compiled):
    for offset in range(64):  # every call at a third of them, aligned and not
        found = {}
        for key, case, options in entries[offset % 3 :: 3]:
            at, given = changed(case, options, lambda array, by=offset: moved(array, by))
            out = {} if "hess" in options else {"out": moved(np.empty_like(case.args[0]), 63 - offset)}
            found[key] = corpus.digest(corpus.call(at, compiled, **given, **out))
        check(found, compiled, offset)


def reversed_(array):
    return array[::-1].copy()[::-1]


def every_third(array):
    room = np.zeros((3 * len(array), *array.shape[1:]), array.dtype)
    room[::3] = array
    return room[::3]


def test_any_strides(entries, compiled):
    for layout in (reversed_, every_third, np.asfortranarray):
        found = {}
        for key, case, options in entries:
            at, given = changed(case, options, layout)
            found[key] = corpus.digest(corpus.call(at, compiled, **given))
        check(found, compiled, layout.__name__)


def test_any_place_in_an_array(entries, compiled):
    # Results per entry, with other entries in front of them.
    for place in (1, 7, 64, 1021, 4095):
        found = {}
        for key, case, options in entries:
            if not key.endswith("mean"):
                at, given = changed(case, options, lambda array, n=place: np.concatenate([array[1 : n + 1], array]))
                before = len(at.args[0]) - len(case.args[0])
                found[key] = corpus.digest(part[before:] for part in corpus.call(at, compiled, **given))
        assert found
        check(found, compiled, f"{place} entries before")


@pytest.mark.parametrize("level", ["v1", "v3", "v4"])
def test_every_cpu_level_that_runs_here(level):
    # Without fused multiply-add (v1) the last bits are others: that level has hashes of its own.
    if level not in (os.environ.get("FASTLOSS_LEVELS") or level):
        pytest.skip(f"this build was asked to leave out {level}")
    process = python(CHECK, FASTLOSS_CPU=level)
    if "but this CPU only has level" in process.stderr:
        pytest.skip(f"this CPU has no {level}; compiled, not run")
    assert (process.returncode, process.stdout) == (0, "[]\n"), process.stderr


def test_the_inputs_are_those_that_were_hashed(compiled):
    # If this fails, the generator of the corpus has changed, not the kernels.
    assert corpus.inputs() == corpus.expected(compiled)["inputs"]


def test_both_tables_hold_the_same_keys():
    tables = json.loads(corpus.FILE.read_text())
    keys = {key for key, _, _ in corpus.entries()} | {"inputs"}
    assert tables["fma"].keys() == tables["baseline"].keys() == keys
    # Both would be equal if the level without fused multiply-add were not what it says.
    assert tables["fma"] != tables["baseline"]
    assert all(any(name in key for key in keys) for name in ELEMENTWISE)
