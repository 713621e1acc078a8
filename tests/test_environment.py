"""What the environment and the program choose: backend, CPU level, number of threads."""

import contextvars
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


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        *(("FASTLOSS_BACKEND", value, "one of cython, numba, numpy") for value in ("fortran", "NumPy")),
        *(("FASTLOSS_CPU", value, "one of v1, v3, v4, none") for value in ("v2", "V3", "1")),
        *(
            ("FASTLOSS_NUM_THREADS", value, "an integer of at least 1")
            for value in ("0", "-2", "abc", "1.5", "²", "1_0", "4,2", "٣")
        ),
    ],
)
def test_a_variable_that_cannot_be_understood_is_an_error_of_every_call(variable, value, wanted):
    code = """
        import sys, warnings
        import fastloss as fl
        for call in 2 * [lambda: fl.mse_loss([1.0], [0.0]), lambda: fl.mse_loss([1.0], [0.0], backend="numpy")]:
            try:
                call()
            except ValueError as error:
                print(ascii(str(error)))
        fl.show_config()
        print(fl.backends()[-1])
    """
    *errors, last = output(code, PYTHONIOENCODING="utf-8", **{variable: value}).splitlines()
    message = f"{variable} must be {wanted}, got {value!r}"
    assert errors[:4] == 4 * [ascii(message)]
    assert any(message in line for line in errors[4:])  # and show_config() says so instead of raising it
    assert last == "numpy"


def test_an_empty_variable_says_nothing():
    empty = {"FASTLOSS_BACKEND": "", "FASTLOSS_CPU": " ", "FASTLOSS_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    assert output(NAME, **empty) == fl.backends()[0]


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
    [
        ("numba", "numba", "Numba is not installed; to get it: python -m pip install numba"),
        ("cython", "fastloss._cython.cpu", "compiled kernels"),
    ],
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
    assert "python -m pip install numba" in text


# What an import of Numba may end with: another NumPy than it wants, another package's fault, no library for LLVM.
BROKEN = [
    "raise ImportError('Numba needs another NumPy')",
    "import missing_llvmlite",
    "raise AttributeError('coverage')",
    "raise OSError('libLLVM: cannot open shared object file')",
    "raise SystemError('initialization failed')",
    "raise ValueError('numpy.dtype size changed')",
    "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=2)",
    "",
]


def broken_numba(folder, text):
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text(text, encoding="utf-8")
    return os.pathsep.join([str(folder), str(PACKAGE.parent)])


@pytest.mark.parametrize("text", BROKEN)
def test_a_numba_that_does_not_load_is_passed_over_and_shown(text, tmp_path):
    code = """
        import contextlib, io, sys, warnings
        import fastloss as fl
        from fastloss import _dispatch

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            print(*(fl.mse_loss([1.0], [0.0]).loss for _ in range(2)))
        print(len(caught), caught[0].category.__name__, caught[0].filename)
        print(*fl.backends())
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            fl.show_config()
        (line,) = (line for line in text.getvalue().splitlines() if line.startswith("numba "))
        print(line)
        print("the best of numpy" in text.getvalue())
        print(_dispatch.missing()["numba"])
        for how in (lambda: fl.mse_loss([1.0], [0.0], backend="numba"), fl.use_backend("numba").__enter__):
            try:
                how()
            except RuntimeError as error:
                print(error)
    """
    variables = {"FASTLOSS_CPU": "none", "PYTHONWARNINGS": "error::DeprecationWarning"}
    root = broken_numba(tmp_path, text)
    values, warned, names, line, best, reason, *errors = output(code, root=root, **variables).splitlines()
    assert values == "1.0 1.0"
    assert warned == "1 RuntimeWarning <string>"
    assert names == "numpy"
    assert line.startswith("numba     missing: it does not load: ")
    assert line == f"numba     missing: {reason}"
    assert best == "True"
    assert errors == 2 * [f"backend 'numba' is not available: {reason}"]
    assert text.partition("'")[2].partition("'")[0] in reason


def test_a_numba_that_must_not_compile_is_passed_over():
    code = "import fastloss as fl; print(fl.mse_loss([1.0], [0.0]).loss, *fl.backends())"
    process = python(code, NUMBA_DISABLE_JIT=1, FASTLOSS_CPU="none")
    assert process.stdout.split() == ["1.0", "numpy"], process.stderr
    assert "NumPy" in process.stderr


def test_the_config_is_right_when_it_is_asked_first(tmp_path):
    code = "import fastloss as fl; fl.show_config(); print(*fl.backends())"
    text = output(code, root=broken_numba(tmp_path, BROKEN[0]), FASTLOSS_CPU="none")
    assert "backend   numpy (the best of numpy)" in text
    assert text.splitlines()[-1] == "numpy"


@pytest.mark.parametrize(
    ("first", "warned"),
    [
        ("", True),
        ("warnings.filterwarnings('ignore', 'fastloss runs on NumPy')", False),
        ("os.environ['FASTLOSS_BACKEND'] = 'numpy'", False),
        ("used = fl.use_backend('numpy'); used.__enter__()", False),
        ("fl.mse_loss([1.0], [0.0], backend='numpy')", True),  # says nothing about calls that name none
        ("fl.show_config()", True),
    ],
)
def test_that_no_compiled_backend_runs_is_said_once_unless_it_is_meant(first, warned, tmp_path):
    code = f"""
import os, sys, warnings
import fastloss as fl
{first}
fl.mse_loss([1.0], [0.0])
fl.cross_entropy([[1.0, 2.0]], [0])
"""
    process = python(code, root=broken_numba(tmp_path, BROKEN[0]), FASTLOSS_CPU="none")
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("RuntimeWarning: fastloss runs on NumPy") == warned
    assert not warned or "Numba needs another NumPy" in process.stderr


def test_a_warning_that_is_an_error_ends_one_call_only(tmp_path):
    code = """
        import fastloss as fl
        for _ in range(2):
            try:
                print(fl.mse_loss([1.0], [0.0]).loss)
            except RuntimeWarning:
                print("warned")
    """
    root = broken_numba(tmp_path, BROKEN[0])
    assert output(code, root=root, FASTLOSS_CPU="none", PYTHONWARNINGS="error").split() == ["warned", "1.0"]


CUT = """
    import importlib.abc, sys
    import fastloss as fl

    class Cut(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == sys.argv[2]:
                sys.meta_path.remove(self)
                raise KeyboardInterrupt

    sys.meta_path.insert(0, Cut())
    if sys.argv[3]:
        try:
            import numba  # a program's own import, that Ctrl-C cuts off
        except KeyboardInterrupt:
            print("cut")
    else:
        try:
            fl.mse_loss([1.0], [0.0], backend=sys.argv[1])
        except KeyboardInterrupt:
            print("cut")
    print(fl.mse_loss([1.0], [0.0], backend=sys.argv[1]).loss, *fl.backends())
"""


@pytest.mark.parametrize(
    ("backend", "module", "own"),
    [
        ("cython", "fastloss._cython._missing", ""),
        ("cython", "fastloss._cython.cpu", ""),
        ("numba", "llvmlite.binding.object_file", ""),
        ("numba", "numba.core.transforms", ""),
        ("numba", "fastloss._numba.soft", ""),
        ("numba", "numba.core.transforms", "own"),
    ],
)
def test_a_load_that_an_interrupt_cuts_off_can_be_done_again(backend, module, own):
    if backend not in BACKENDS:
        pytest.skip(f"this run goes without {backend}")
    found = output(CUT, backend, module, own).split()
    assert found == ["cut", "1.0", *fl.backends()]


def test_a_call_while_a_backend_loads_falls_back_and_leaves_the_load_alone():
    # A signal handler or a finalizer may compute a loss at any time, so also in the middle of the first call's load.
    code = """
        import importlib.abc, sys
        import fastloss as fl

        class Handler(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name == "numba.core.transforms":
                    sys.meta_path.remove(self)
                    print("handled", fl.mse_loss([1.0], [0.0]).loss)

        sys.meta_path.insert(0, Handler())
        print(fl.mse_loss([1.0], [0.0]).loss)
        fl.show_config()
    """
    if "numba" not in BACKENDS:
        pytest.skip("this run goes without Numba")
    process = python(code, FASTLOSS_CPU="none")
    assert process.returncode == 0, process.stderr
    assert process.stdout.split()[:3] == ["handled", "1.0", "1.0"]
    assert "backend   numba (the best of numba, numpy)" in process.stdout
    assert "RuntimeWarning" not in process.stderr


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
    if process.returncode and ("but this CPU only has level" in process.stderr or "were not built" in process.stderr):
        pytest.skip("this CPU or this build has no such level")
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


def levels(folder, *built, cpu=4, best=None, broken=()):
    """A package with kernels of some levels, stand-ins that only tell their level, on a CPU of another one."""
    root = copy_package(folder)
    kernels = root / "fastloss" / "_cython"
    tells = f"def level():\n    return {cpu}\n\n\ndef best():\n    return {best or cpu}\n"
    (kernels / "cpu.py").write_text(tells, encoding="utf-8")
    for level in built:
        text = "from unittest.mock import Mock\nHAS_FMA = True\n__getattr__ = Mock\n__path__ = []\n"
        (kernels / f"kernels_{level}.py").write_text(text, encoding="utf-8")
    for level in broken:
        (kernels / f"kernels_{level}.py").write_text("raise ImportError('undefined symbol')", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("built", "more", "chosen"),
    [
        (["v1", "v3", "v4"], {}, "v4"),
        (["v1", "v3", "v4"], {"best": 3}, "v3"),
        (["v1", "v3"], {}, "v3"),
        (["v1"], {}, "v1"),
        (["v4"], {"best": 3}, "v4"),
        (["v1", "v3", "v4"], {"cpu": 1}, "v1"),
        (["v1"], {"broken": ["v3", "v4"]}, "v1"),
    ],
)
def test_the_best_level_that_was_built_is_used(built, more, chosen, tmp_path):
    code = "import fastloss as fl; from fastloss import _cython; print(_cython.level); fl.show_config()"
    found, *config = output(code, root=levels(tmp_path, *built, **more)).splitlines()
    assert found == chosen
    (line,) = (line for line in config if line.startswith("cython "))
    assert f"CPU level {chosen}" in line
    better = {f"v{more.get('best') or more.get('cpu', 4)}"} - {chosen}
    assert all(f"the kernels of {level}, better here, " in line for level in better)
    assert ("undefined symbol" in line) == ("broken" in more)
    assert ("were not built" in line) == (better != set() and "broken" not in more)


def test_a_level_that_was_not_built_is_an_error_that_lists_those_that_were(tmp_path):
    root = levels(tmp_path, "v1", "v3")
    for backend in (None, "cython"):
        failed = python(CALL.format(backend), root=root, FASTLOSS_CPU="v4")
        message = failed.stderr.strip().splitlines()[-1]
        assert message.startswith("RuntimeError: ")
        assert "backend 'cython' is not available: the kernels of CPU level v4 were not built" in message
        assert "there are those of v1, v3" in message
    failed = python(CALL.format(None), root=levels(tmp_path / "older", "v1", cpu=1), FASTLOSS_CPU="v3")
    assert "FASTLOSS_CPU=v3, but this CPU only has level v1" in failed.stderr
    # Another backend is not concerned.
    assert output(CALL.format("numpy"), root=root, FASTLOSS_CPU="v4") == ""


def test_no_level_switches_the_compiled_kernels_off():
    code = "import fastloss as fl; print(*fl.backends()); fl.show_config()"
    names, *config = output(code, FASTLOSS_CPU="none").splitlines()
    assert names.split() == [name for name in fl.backends() if name != "cython"]
    assert "cython    missing: FASTLOSS_CPU=none switches it off" in config


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
    for nonsense in ("0", "-1", "many", "", "²"):  # of a variable that belongs to others
        assert output(LIMIT, OMP_NUM_THREADS=nonsense) == output(LIMIT)
    assert output(LIMIT, FASTLOSS_NUM_THREADS="9" * 5000) == "256"
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
