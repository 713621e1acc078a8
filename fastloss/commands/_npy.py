"""Reading arrays of any size, a few rows at a time: .npy files, members of .npz archives, standard input."""

from __future__ import annotations

import ast
import contextlib
import io
import math
import os
import re
import stat
import struct
import sys
import warnings
import zipfile
from typing import BinaryIO

import numpy as np

from . import CommandError, one_line

_MAGIC = b"\x93NUMPY"
_VERSIONS = {(1, 0): ("<H", "latin1"), (2, 0): ("<I", "latin1"), (3, 0): ("<I", "utf-8")}
_LONGEST_HEADER = 1 << 16
_BFLOAT16 = ("<V2", "|V2", "bfloat16")  # the first is what ml_dtypes writes: two bytes of no type that NumPy knows
_MEMBER = re.compile(r"(.*?\.npz)::?(.+)", re.DOTALL)


class NpyFile:
    """An array in a file, of which only the header is read at first; the file stays open.

    Parameters
    ----------
    name : str
        Name of an .npy file, ``archive.npz::member``, or ``-`` for standard input.

    Raises
    ------
    CommandError
        If the file is missing, is not what it should be, is truncated, or holds no numbers.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    row_bytes : int
        Size of one row, an entry along the first axis.
    once : bool
        Whether rows can be read but once, one after the other: from pipes and archives.
    """

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == "-" else name
        self._path: str | None = None if name == "-" else name  # whose file may change meanwhile
        self._whole: np.ndarray | None = None
        self._next = 0
        self._opened = contextlib.ExitStack()
        try:
            self._file = self._open(name)
            self.shape, fortran, self.dtype = self._read_header()
            self._room = np.empty(0, self.dtype)
            # With rows of one number both orders are the same.
            self._by_columns = fortran and math.prod(self.shape[1:]) > 1
            self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
            if not self.once:
                self._offset = self._file.tell()
                expected, stored = math.prod(self.shape) * self.dtype.itemsize, self._state[0] - self._offset
                if stored < expected:
                    raise self._truncated(expected, stored)
        except Exception as error:  # a foreign file may be wrong in any way
            self.close()
            raise self._told(error) from error

    def _open(self, name: str) -> BinaryIO:
        """Open what is named, and note what the file is like now."""
        self.once = True
        if name == "-":
            return sys.stdin.buffer
        member = None if os.path.exists(name) else _MEMBER.fullmatch(name)
        if member:
            self._path = member[1]
        assert self._path is not None
        file = io.FileIO(self._path)
        self._opened.enter_context(file)
        found = os.fstat(file.fileno())
        self._state = _state(found)
        if member:
            return self._member(self._opened.enter_context(zipfile.ZipFile(file)), member[2])
        if stat.S_ISREG(found.st_mode):
            self.once = False
            return file
        self._path = None  # a pipe changes with every byte
        return io.BufferedReader(file)

    def _member(self, archive: zipfile.ZipFile, key: str) -> BinaryIO:
        names = archive.namelist()
        for name in (f"{key}.npy", key):
            if name in names:
                return self._opened.enter_context(archive.open(name))  # type: ignore[return-value]
        raise self.error(f"the archive has no array {key!r}; it has {_listed(archive)}")

    def _read_header(self) -> tuple[tuple[int, ...], bool, np.dtype]:
        magic = self._file.read(len(_MAGIC))
        if magic.startswith(b"PK"):
            raise self.error(f"an .npz archive; name one of its arrays: {self._archive_hint()}")
        if magic != _MAGIC:
            raise self.error("not an .npy file")
        version = tuple(self._exactly(2))
        if version not in _VERSIONS:
            raise self.error(f".npy format version {'.'.join(map(str, version))}; known are 1.0, 2.0 and 3.0")
        kind, encoding = _VERSIONS[version]  # type: ignore[index]
        (length,) = struct.unpack(kind, self._exactly(struct.calcsize(kind)))
        if length > _LONGEST_HEADER:
            raise self.error(f"damaged header: it claims to be {length} bytes long")
        header = self._exactly(length)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the parser, about what it finds
                return self._understood(header.decode(encoding))
        except Exception as error:  # a damaged header may raise anything
            raise self._told(error, "damaged header: ") from error

    def _exactly(self, length: int) -> bytes:
        found = self._file.read(length)
        if len(found) != length:
            raise self.error("damaged header: the file ends in it")
        return found

    def _understood(self, text: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        # Python 2 wrote some lengths as 10L.
        header = ast.literal_eval(re.sub(r"\b(\d+)L\b", r"\1", text.strip("\0 \n")))
        if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
            raise ValueError("it must hold descr, fortran_order and shape, and nothing else")
        shape, fortran, described = header["shape"], header["fortran_order"], header["descr"]
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 64:
            raise ValueError(f"shape {shape!r:.80}")
        if type(fortran) is not bool:
            raise ValueError(f"fortran_order {fortran!r:.80}")
        dtype = self._bfloat16() if described in _BFLOAT16 else np.lib.format.descr_to_dtype(described)
        if dtype.hasobject:
            raise self.error("holds pickled Python objects, not numbers")
        if dtype.kind not in "biufc" and described not in _BFLOAT16:
            raise self.error(f"holds values of type {dtype!s:.80}, not numbers")
        if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 1 << 63:
            raise ValueError(f"shape {shape!r:.80}")
        return shape, fortran, dtype

    def _bfloat16(self) -> np.dtype:
        try:
            import ml_dtypes
        except ImportError as error:
            raise self.error("holds bfloat16, which needs ml_dtypes: python -m pip install ml_dtypes") from error
        return np.dtype(ml_dtypes.bfloat16)

    def _archive_hint(self) -> str:
        if self.once:
            return "such as archive.npz::x, by its file's name"
        return f"{self.name}::NAME, of {_listed(zipfile.ZipFile(self._file))}"

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Read the rows from `start` to `stop`, into memory that the next call uses again."""
        try:
            rows = self._rows(start, stop)
        except Exception as error:  # of the file system, of a damaged archive, of memory
            raise self._told(error) from error
        return rows if rows.dtype.isnative else rows.astype(rows.dtype.newbyteorder("="))

    def _rows(self, start: int, stop: int) -> np.ndarray:
        if self._by_columns:
            return self._columns(start, stop)
        if not self.once:
            self._file.seek(self._offset + start * self.row_bytes)
        elif start != self._next:
            raise self.error("can be read once only, from the first row to the last")
        self._next = stop
        return self._read((stop - start, *self.shape[1:]))

    def _columns(self, start: int, stop: int) -> np.ndarray:
        """Rows of an array whose first axis varies fastest (Fortran order)."""
        total, others = self.shape[0], self.shape[:0:-1]
        if self._whole is None and (self.once or (start, stop) == (0, total)):
            if not self.once:
                self._file.seek(self._offset)
            whole = self._read((*others, total)).T
            if not self.once:
                return whole
            self._whole = whole  # every row is spread over the whole stream
        if self._whole is not None:
            return self._whole[start:stop]
        rows = np.empty((math.prod(others), stop - start), self.dtype)
        for k in range(len(rows)):
            self._file.seek(self._offset + (k * total + start) * self.dtype.itemsize)
            self._fill(rows[k])
        return rows.reshape(*others, stop - start).T

    def _read(self, shape: tuple[int, ...]) -> np.ndarray:
        size = math.prod(shape)
        if self._room.size < size:
            self._room = np.empty(size, self.dtype)
        array = self._room[:size]
        self._fill(array)
        return array.reshape(shape)

    def _fill(self, array: np.ndarray) -> None:
        """Read what comes next into a flat array."""
        view, done = array.view(np.uint8).data, 0
        while done < len(view):
            count = self._file.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                if self.once:
                    raise self._truncated(len(view), done)
                raise self.error("became shorter while it was read")
            done += count

    def finish(self) -> None:
        """Check, once all rows are read, that the file is still the same and that an archive's checksum is right."""
        try:
            if isinstance(self._file, zipfile.ZipExtFile):
                self._file.read(1)  # behind the last byte it is compared
        except Exception as error:
            raise self._told(error) from error
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise an error if another file has the name now, or the file has another size or time of change."""
        if self._path is None:
            return
        try:
            now = _state(os.stat(self._path))
        except OSError as error:
            raise self.error(f"changed while it was read: {one_line(error)}") from error
        if now != self._state:
            raise self.error("changed while it was read")

    def _truncated(self, expected: int, found: int) -> CommandError:
        return self.error(f"truncated: {expected} bytes of data expected, {found} found")

    def close(self) -> None:
        """Close the file, but not the standard input."""
        self._opened.close()

    def _told(self, error: Exception, before: str = "") -> CommandError:
        return error if isinstance(error, CommandError) else self.error(before + _short(one_line(error)))

    def error(self, message: str) -> CommandError:
        """Make an error that names the file."""
        return CommandError(f"{self.name}: {' '.join(message.split())}")


def names_array(text: str) -> bool:
    """Whether a text is the name of an array's file, as `NpyFile` takes it."""
    return text == "-" or text.endswith((".npy", ".npz")) or _MEMBER.fullmatch(text) is not None


def _state(found: os.stat_result) -> tuple[int, ...]:
    """What tells a file from another, and from itself with other content."""
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


def _listed(archive: zipfile.ZipFile) -> str:
    return _short(", ".join(name.removesuffix(".npy") for name in archive.namelist())) or "none"


def _short(text: str) -> str:
    """What a damaged file says may be long."""
    return text if len(text) <= 160 else text[:157] + "..."
