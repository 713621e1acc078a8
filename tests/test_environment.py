"""What the environment and the program choose: backend, CPU level, number of threads."""

import contextvars
import importlib.metadata
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from cases import BACKENDS
from processes import PACKAGE, copy_package, output, python

import fastloss as fl
from fastloss import _dispatch, _threads

needs_cython = pytest.mark.skipif("cython" not in BACKENDS, reason="this run goes without Cython")
NAME = "from fastloss import _dispatch; print(_dispatch.engine().name)"
CALL = "import fastloss as fl; fl.mse_loss([1.0], [0.0], backend={!r})"


@pytest.mark.parametrize("name", BACKENDS)
def test_the_environment_names_the_backend(name):
    assert output(NAME, FASTLOSS_BACKEND=name) == name


def test_the_best_backend_is_the_default():
    assert output(NAME) == fl.backends()[0]
    assert output(NAME, FASTLOSS_BACKEND="") == fl.backends()[0]


def test_an_unknown_backend_in_the_environment():
    failed = python(CALL.format(None), FASTLOSS_BACKEND="fortran")
    assert failed.returncode == 1
    assert "ValueError: backend must be one of 'cython', 'numba', 'numpy', got 'fortran'" in failed.stderr


def blocked(module):
    """A program's first lines, after which a module cannot be imported."""
    return f"""
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} or name.startswith({module!r} + "."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize(
    ("name", "module", "advice"),
    [("numba", "numba", 'pip install "fastloss[numba]"'), ("cython", "fastloss._cython.cpu", "C compiler")],
)
def test_a_named_backend_that_is_missing_never_falls_back(name, module, advice):
    for how in ("argument", "environment", "context"):
        call = {
            "argument": CALL.format(name),
            "environment": CALL.format(None),
            "context": f"import fastloss as fl; fl.use_backend({name!r}).__enter__()",
        }[how]
        failed = python(blocked(module) + call, **({"FASTLOSS_BACKEND": name} if how == "environment" else {}))
        assert failed.returncode == 1
        message = failed.stderr.strip().splitlines()[-1]
        assert message.startswith(f"RuntimeError: backend {name!r} is not available"), message
        assert advice in message


def test_a_module_that_is_set_to_none_is_missing_too():
    # The other usual way to keep a module out of a process.
    code = """
        import sys
        sys.modules["numba"] = None
        import fastloss as fl
        print(fl.backends())
        fl.mse_loss([1.0], [0.0], backend="numba")
    """
    failed = python(code)
    assert "numba" not in failed.stdout
    assert "RuntimeError: backend 'numba' is not available" in failed.stderr


def test_the_fallback_is_the_next_best():
    rest = [name for name in fl.backends() if name != "numba"]
    code = "import sys; sys.modules['numba'] = None; import fastloss as fl; print(*fl.backends()); fl.show_config()"
    text = output(code)
    assert text.splitlines()[0].split() == rest
    assert 'pip install "fastloss[numba]"' in text


def test_a_numba_without_metadata(monkeypatch):
    # As when its folder was copied.
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(_dispatch, "_loaded", {})
    monkeypatch.setattr(_dispatch, "_has_numba", lambda: True)
    assert _dispatch.status("numba") == "numba (version unknown), not loaded yet"


def test_a_backend_that_cannot_be_imported_is_passed_over(tmp_path):
    # As with a Numba that is too old for NumPy; and no C compiler. Nothing was named, so the next best must do.
    root = copy_package(tmp_path)
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('Numba needs another NumPy')")
    assert output("import fastloss as fl; print(fl.mse_loss([1.0], [0.0]).loss)", root=root) == "1.0"


def test_use_backend_nests():
    def running():
        return _dispatch.engine().name

    outside = running()
    with fl.use_backend("numpy"):
        assert running() == "numpy"
        with fl.use_backend(BACKENDS[0]):
            assert running() == BACKENDS[0]
            assert _dispatch.engine("numpy").name == "numpy"  # what a call names has precedence
        assert running() == "numpy"
        with pytest.raises(ZeroDivisionError), fl.use_backend(BACKENDS[0]):
            raise ZeroDivisionError
        assert running() == "numpy"
    assert running() == outside


def test_use_backend_holds_for_one_thread():
    seen = []

    def look():
        seen.append(_dispatch.in_use())

    with fl.use_backend("numpy"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        contextvars.copy_context().run(look)  # as a task does
    assert seen == [None, "numpy"]


def test_use_backend_wins_over_the_environment():
    code = """
        import fastloss as fl
        from fastloss import _dispatch
        with fl.use_backend("numpy"):
            print(_dispatch.engine().name)
    """
    assert output(code, FASTLOSS_BACKEND=BACKENDS[0]) == "numpy"


# --- CPU levels


LEVELS = sorted(p.name.partition(".")[0].removeprefix("kernels_") for p in (PACKAGE / "_cython").glob("kernels_v*.so"))
RIGHT = """
    import sys
    import numpy as np
    import fastloss as fl
    from fastloss import _cython

    print(_cython.level)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        worst = 0.0
        eps = np.finfo(dtype).eps
        x = (8 * rng.standard_normal((5000, 7))).astype(dtype)
        index, binary = rng.integers(0, 7, 5000), rng.integers(0, 2, x.shape).astype(dtype)
        for call in (
            lambda b: fl.cross_entropy(x, index, backend=b, reduction="none"),
            lambda b: fl.cross_entropy(x.reshape(100, -1), index[:100], backend=b, reduction="none"),
            lambda b: fl.binary_cross_entropy_with_logits(x, binary, backend=b, reduction="none"),
            lambda b: fl.huber_loss(x, binary, backend=b, reduction="none"),
            lambda b: fl.td_loss(x, index, x[:, 0], 0 * x, index == 0, backend=b, reduction="none"),
        ):
            for a, b in zip(call("cython"), call("numpy")):
                wrong = np.abs(a - b) / (eps * np.abs(b) + np.finfo(dtype).smallest_subnormal)
                worst = max(worst, float(wrong.max()))
        print(worst)
"""


@needs_cython
@pytest.mark.skipif(not LEVELS, reason="built for one level only")
@pytest.mark.parametrize("level", ["v1", "v3", "v4"])
def test_every_cpu_level_that_runs_here_is_right(level):
    process = python(RIGHT, FASTLOSS_CPU=level)
    if process.returncode and "but this CPU only has level" in process.stderr:
        pytest.skip("this CPU has no such level")
    assert process.returncode == 0, process.stderr
    chosen, single, double = process.stdout.split()
    assert chosen == level
    # Without fused multiply-add the polynomials are a little less accurate.
    assert float(single) < (6 if level == "v1" else 4)
    assert float(double) < 40  # the float64 reference is itself rounded


@needs_cython
@pytest.mark.skipif(not LEVELS, reason="built for one level only")
def test_long_vectors_are_chosen_only_where_they_pay():
    from fastloss._cython import cpu

    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    assert cpu.best() in (cpu.level(), 3)
    assert cpu.best() != 4 or not flags or "avx512_vbmi2" in flags
    chosen = output("from fastloss import _cython; print(_cython.level)", FASTLOSS_CPU="")
    assert chosen == f"v{cpu.best()}"


@needs_cython
def test_an_unknown_cpu_level():
    failed = python(CALL.format("cython"), FASTLOSS_CPU="v2")
    assert "backend 'cython' is not available (FASTLOSS_CPU must be one of v1, v3, v4, got 'v2')" in failed.stderr
    assert "cython" not in output("import fastloss as fl; print(fl.backends())", FASTLOSS_CPU="v2")


@needs_cython
def test_all_levels_with_fused_multiply_add_give_the_same_bits():
    code = """
        import hashlib, numpy as np, fastloss as fl
        x = np.random.default_rng(0).standard_normal((999, 70)).astype(np.float32)
        y = np.arange(999) % 70
        parts = [*fl.cross_entropy(x, y), *fl.bce_with_logits(x, (x > 0).astype(np.float32)), *fl.mse_loss(x, 2 * x)]
        print(hashlib.sha256(b"".join(np.asarray(p).tobytes() for p in parts)).hexdigest())
    """
    found = {level: python(code, FASTLOSS_CPU=level, FASTLOSS_BACKEND="cython") for level in ("v3", "v4")}
    digests = {process.stdout for process in found.values() if process.returncode == 0}
    if not digests:
        pytest.skip("this CPU has no fused multiply-add")
    digests.add(python(code, FASTLOSS_BACKEND="numba").stdout if "numba" in BACKENDS else digests.copy().pop())
    assert len(digests) == 1


# --- threads

LIMIT = "import fastloss as fl; print(fl.get_num_threads())"


def test_the_environment_limits_threads():
    assert output(LIMIT, FASTLOSS_NUM_THREADS=3) == "3"
    assert output(LIMIT, OMP_NUM_THREADS=5) == "5"
    assert output(LIMIT, OMP_NUM_THREADS="4,2") == "4"  # one number per nesting level
    assert output(LIMIT, FASTLOSS_NUM_THREADS=3, OMP_NUM_THREADS=5) == "3"
    for nonsense in ("0", "-1", "many", ""):
        assert output(LIMIT, FASTLOSS_NUM_THREADS=nonsense) == output(LIMIT)
    assert "FASTLOSS_NUM_THREADS=3" in output("import fastloss as fl; fl.show_config()", FASTLOSS_NUM_THREADS=3)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity here")
def test_affinity_limits_threads():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + LIMIT
    assert output(code) == "1"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
          "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3.0),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000\n",
          "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "50000\n"}, 2.0),
        ({"proc/self/cgroup": "4:cpu:/a\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_control_groups_quota(files, wanted, tmp_path, monkeypatch):
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(_threads, "Path", lambda path: Path(f"{tmp_path}{path}"))
    for name in ("FASTLOSS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert _threads._cgroup_quota() == wanted
    assert _threads._find_limit()[0] == int(wanted or 8)


def test_set_num_threads():
    before = fl.get_num_threads()
    try:
        for n in (1, np.int64(3)):
            fl.set_num_threads(n)
            assert fl.get_num_threads() == n
            assert type(fl.get_num_threads()) is int
    finally:
        fl.set_num_threads(before)


def test_set_num_threads_wins_over_the_environment():
    code = "import fastloss as fl; fl.set_num_threads(2); print(fl.get_num_threads())"
    assert output(code, FASTLOSS_NUM_THREADS=3) == "2"
