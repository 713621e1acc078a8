"""The files that commands write: looked at before the work, then written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator

from . import CommandError, one_line


def check_destination(path: str) -> None:
    """Raise an error if a file can't be written: found out before the work, not after it."""
    if not path:
        raise CommandError("the name of a file to write must not be empty")
    if not os.path.basename(path) or os.path.isdir(path):
        raise CommandError(f"{path}: a folder, not a file")
    with _named(path):
        folder = os.path.dirname(os.path.realpath(path))
        if not os.path.isdir(folder):
            raise CommandError(f"{path}: there is no folder {os.path.dirname(path) or folder}")
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)  # says what is wrong with a name
            if not os.access(path, os.W_OK):
                raise CommandError(f"{path}: must not be written to")
    if not _special(path):
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise CommandError(f"{path}: its folder takes no new file: {one_line(error)}") from error


def write_file(path: str, content: bytes) -> None:
    """Write a file; on an error what was there stays as it was.

    Where the path is a link, its target is written. A device or a pipe has nothing to keep: it takes the content.
    """
    with _named(path):
        if _special(path):
            with open(path, "wb") as file:
                file.write(content)
            return
        target = os.path.realpath(path)
        number, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".fastloss-")
        try:
            with open(number, "wb") as file:
                file.write(content)
            os.chmod(temporary, _mode(target))
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def _mode(path: str) -> int:
    """Return the permissions of a file, or those that a new one gets."""
    if os.path.exists(path):
        return stat.S_IMODE(os.stat(path).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _special(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Say of which file an error tells."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise CommandError(f"{path}: {one_line(error)}") from error
