"""The command line: ``python -m fastloss COMMAND``.

To add a command, put a module into ``fastloss/commands`` and its name into ``COMMANDS``. The module
has a docstring, whose first line is the command's help, ``configure(parser)`` and
``run(arguments) -> int``, the exit status; it imports anything heavy inside its functions.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from . import __version__
from .commands import CommandError

COMMANDS = ("demo", "evaluate", "list", "plot", "bench", "info", "check")


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 for success, 1 for a failed check or a closed output, 2 for an error in the
        arguments or files, 130 after Ctrl-C. Usage errors and ``--help`` exit as argparse does.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next(iter(argv), "")
    try:
        arguments = _parser(command).parse_args(argv)
        command = arguments.command
        status = arguments.run(arguments)
        # Flushed here, so that a closed pipe is noticed while it can still be handled.
        sys.stdout.flush()
    except CommandError as error:
        print(f"fastloss {command}: error: {error}", file=sys.stderr)
        if error.below:
            print(error.below, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fastloss {command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone; the interpreter's own flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


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
