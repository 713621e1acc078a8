"""The command line: ``python -m fastloss COMMAND``.

To add a command, put a module into ``fastloss/commands`` and its name into ``COMMANDS``. The module
has a docstring, whose first line is the command's help, ``configure(parser)`` and
``run(arguments) -> int``, the exit status; it imports anything heavy inside its functions.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import IO, Any, NoReturn

from . import __version__, _environment
from .commands import CommandError, one_line, printable

COMMANDS = ("demo", "evaluate", "list", "plot", "bench", "info", "check")


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        # Help that can't be written is an error like any other; argparse would swallow it.
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 for success, 1 for a failed check or an output whose reader has gone, 2 for an error in the
        arguments or files or an output that can't be written, 130 after Ctrl-C. Usage errors and ``--help`` exit as
        argparse does.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next(iter(argv), "")
    if sys.stderr is None:
        # Closed: errors go nowhere. Left as None they would go to the standard output.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        _check_output()
        try:
            arguments = _parser(command).parse_args(argv)
            command = arguments.command
            if command != "info":  # which shows what is wrong
                _check_environment()
            return arguments.run(arguments)
        finally:
            # Written here, also after --help, so that a failure is noticed while it can still be handled.
            sys.stdout.flush()
    except CommandError as error:
        _say(command, f"error: {error}", error.below)
        return 2
    except KeyboardInterrupt:
        _say(command, "interrupted")
        return 130
    except BrokenPipeError:
        _give_up(sys.stdout)
        return 1
    except OSError as error:
        _say(command, f"error: {error.filename or 'output'}: {one_line(error)}")
        _give_up(sys.stdout)
        return 2
    finally:
        _flush_errors()


def _check_output() -> None:
    if sys.stdout is None or sys.stdout.closed:
        raise CommandError("the standard output is closed")
    # What the output's encoding can't express, in a file's name say, is written as an escape.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _check_environment() -> None:
    try:
        _environment.check()
    except ValueError as error:
        raise CommandError(one_line(error)) from error


def _say(command: str, message: str, below: str = "") -> None:
    with contextlib.suppress(OSError):
        print(" ".join(filter(None, ["fastloss", command])) + ": " + printable(message), file=sys.stderr)
        if below:
            print(below, file=sys.stderr)


def _flush_errors() -> None:
    try:
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: IO[str]) -> None:
    """Send what is left of an output nowhere: the interpreter's own flush at exit must not fail again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parser(command: str) -> argparse.ArgumentParser:
    parser = _Parser(prog="fastloss", description="Losses and gradients in one pass, on the CPU.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastloss {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the command asked for is imported; all of them are where the help or an error lists them.
    for name in [command] if command in COMMANDS else COMMANDS:
        module = import_module(f".commands.{name}", __package__)
        summary = (module.__doc__ or "").partition("\n")[0]
        subparser = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(subparser)
        subparser.set_defaults(run=module.run)
    return parser
