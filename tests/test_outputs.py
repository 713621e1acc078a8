"""Outputs that are closed, full, or can't express a name; files that are written completely or not at all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import environment, python

import fastloss as fl
from fastloss import cli
from fastloss.commands import CommandError, _files

LINUX = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
WORK = {
    "demo": "--epochs 1 --steps-timing 1",
    "evaluate": "mse_loss x.npy x.npy",
    "list": "",
    "plot": "mse_loss",
    "bench": "",
    "info": "",
    "check": "--backend numpy",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones(3))
    return tmp_path


def shell(command, **variables):
    """Run a line of the shell, in which $F is the command line."""
    variables = {"PYTHONUNBUFFERED": ""} | variables | {"F": f"{sys.executable} -P -m fastloss"}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, check=False, timeout=240, env=environment(**variables)
    )


def test_every_command_is_tried():
    assert WORK.keys() == set(cli.COMMANDS)


@LINUX
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_closed_output_is_one_line(folder, name):
    done = shell(f"$F {name} {WORK[name]} >&-")
    assert done.stderr.decode() == f"fastloss {name}: error: the standard output is closed\n"
    assert (done.returncode, done.stdout) == (2, b"")


@LINUX
@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "bench"])  # which needs the clone
def test_a_full_output_is_one_line(folder, name):
    for module in {"demo": ["sklearn"], "plot": ["matplotlib"]}.get(name, []):
        pytest.importorskip(module)
    done = shell(f"$F {name} {WORK[name]} > /dev/full")
    assert done.stderr.decode() == f"fastloss {name}: error: output: No space left on device\n"
    assert done.returncode == 2


@LINUX
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("asked", ["--help", "--version", "plot --help", "list"])
def test_help_that_cannot_be_written_is_one_line(asked, unbuffered):
    done = shell(f"$F {asked} > /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.stderr.decode().endswith("error: output: No space left on device\n")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


@LINUX
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("mistake", ["plot no_such_loss", "plot", "evaluate mse_loss gone.npy gone.npy"])
def test_errors_that_cannot_be_written_leave_the_status(folder, where, mistake):
    done = shell(f"$F {mistake} {where}")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@LINUX
def test_results_do_not_need_the_error_output(folder):
    done = shell("$F evaluate mse_loss x.npy x.npy 2>&-")
    assert done.returncode == 0
    assert done.stdout.startswith(b"loss ")


@LINUX
@pytest.mark.parametrize("command", ["list", "--help", "check --backend numpy"])
def test_a_reader_that_has_gone_is_told_nothing(command):
    done = shell(f"$F {command} | true; exit ${{PIPESTATUS[0]}}")
    assert done.stderr == b""
    assert done.returncode in (0, 1)  # 0 where all was written before


@LINUX
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii", "ascii:strict", "latin-1", "utf-16"])
def test_a_name_that_the_output_cannot_express_is_escaped(folder, encoding):
    pytest.importorskip("matplotlib")
    done = shell("$F plot mse_loss -o $'\\xff\\u20ac\\n.png'", PYTHONIOENCODING=encoding, LC_ALL="C.UTF-8")
    text = done.stdout.decode(encoding.partition(":")[0])
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.count("\n") == 1
    assert text.startswith("picture: \\udcff")
    assert (folder / os.fsdecode(b"\xff\xe2\x82\xac\n.png")).read_bytes().startswith(b"\x89PNG")


@LINUX
@pytest.mark.parametrize("mistake", ["evaluate mse_loss", "plot mse_loss -o", "list"])
def test_an_error_is_one_line_whatever_a_name_holds(folder, mistake):
    done = shell(f"$F {mistake} $'gone/\\xff\\n\\e[31m' x.npy", PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert done.stderr.isascii()
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("variable", ["FASTLOSS_BACKEND", "FASTLOSS_CPU", "FASTLOSS_NUM_THREADS"])
def test_info_reports_what_every_other_command_refuses(folder, variable):
    done = python("from fastloss import cli; raise SystemExit(cli.main(['info']))", **{variable: "foo"})
    assert (done.returncode, done.stderr) == (0, "")
    for fact in (fl.__version__, np.__version__, "platform", "packages", variable, "foo"):
        assert fact in done.stdout
    for name in (name for name in cli.COMMANDS if name != "info"):
        code = f"from fastloss import cli; raise SystemExit(cli.main({[name, *WORK[name].split()]}))"
        done = python(code, cwd=folder, **{variable: "foo"})
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"fastloss {name}: error: {variable} must be")
        assert done.stderr.count("\n") == 1


# --- files


def test_a_file_is_written_completely_or_not_at_all(folder):
    Path("old").write_bytes(b"before")
    code = """
        import resource
        from fastloss.commands import CommandError, _files
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        for name in ("old", "new"):
            try:
                _files.write_file(name, bytes(1000))
            except CommandError as error:
                print(error)
    """
    done = python(code, cwd=folder)
    assert done.stdout == "old: File too large\nnew: File too large\n"
    assert Path("old").read_bytes() == b"before"
    assert {path.name for path in folder.iterdir()} == {"old", "x.npy"}


def test_a_file_keeps_its_permissions_and_a_link_stays_one(folder):
    Path("file").write_bytes(b"before")
    Path("file").chmod(0o640)
    Path("link").symlink_to("file")
    _files.write_file("link", b"after")
    assert Path("link").is_symlink()
    assert Path("file").read_bytes() == b"after"
    assert Path("file").stat().st_mode & 0o777 == 0o640
    mask = os.umask(0o027)
    try:
        _files.write_file("new", b"")
    finally:
        os.umask(mask)
    assert Path("new").stat().st_mode & 0o777 == 0o640


@LINUX
def test_a_device_is_written_to_and_not_replaced():
    _files.check_destination("/dev/full")
    with pytest.raises(CommandError, match="/dev/full: No space left on device"):
        _files.write_file("/dev/full", b"1")
    _files.write_file("/dev/null", b"1")
    assert Path("/dev/full").is_char_device()
    assert Path("/dev/null").is_char_device()


BAD = {".": "a folder", "x.npy/a.png": "no folder", "gone/a.png": "there is no folder gone", "": "must not be empty"}
BAD |= {"a.txt": "'txt' is no format of pictures; there are .*pdf, .*png, .*svg", "a\0.png": "null byte"}


@pytest.mark.parametrize("destination", BAD)
@pytest.mark.parametrize("command", ["plot mse_loss -o", "demo --plot", "bench --plot"])
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(folder, capsys, monkeypatch, command, destination):
    pytest.importorskip("matplotlib")
    from fastloss.commands import bench, demo, plot

    def work(*arguments):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(demo._Digits, "load", work)
    monkeypatch.setattr(plot, "_figure", work)
    # Of the benchmarks, which lie in the clone, nothing is called before the check.
    Path("benchmarks").mkdir()
    Path("benchmarks", "short.py").touch()
    known = type("short", (), {"losses": staticmethod(lambda: {"bce": "bce", "ce": "ce"})})
    monkeypatch.setattr(bench, "_module", lambda name: known)
    assert cli.main([*command.split(), destination]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(BAD[destination], err)


@LINUX
def test_a_full_device_as_a_picture_is_one_line(folder, capsys):
    pytest.importorskip("matplotlib")
    assert cli.main(["plot", "mse_loss", "-o", "/dev/full"]) == 2
    assert capsys.readouterr() == ("", "fastloss plot: error: /dev/full: No space left on device\n")


@pytest.mark.parametrize("name", ["loss.pdf", "loss.svg", "loss"])
def test_the_demo_draws_in_the_format_that_is_asked_for(folder, capsys, name):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert cli.main(["demo", "--epochs", "1", "--steps-timing", "1", "--plot", name]) == 0
    assert capsys.readouterr().out.endswith(f"loss curves: {name}\n")
    start = {".pdf": b"%PDF", ".svg": b"<?xml"}.get(Path(name).suffix, b"\x89PNG")
    assert Path(name).read_bytes().startswith(start)
