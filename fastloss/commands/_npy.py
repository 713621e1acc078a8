"""Reading .npy files of any size, a few rows at a time."""

from __future__ import annotations

import math
import os
from typing import BinaryIO

import numpy as np

from . import CommandError, one_line

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpyFile:
    """An array in a .npy file, of which only the header is read at first.

    Parameters
    ----------
    path : str
        Name of the file.

    Raises
    ------
    CommandError
        If the file is missing, not a .npy file, truncated, or holds Python objects.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    row_bytes : int
        Size of one row, an entry along the first axis.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self.shape, self._fortran, self.dtype = self._read_header(file)
                self._offset = file.tell()
                stored = os.fstat(file.fileno()).st_size - self._offset
        except OSError as error:
            raise self.error(one_line(error)) from error
        size = math.prod(self.shape) * self.dtype.itemsize
        if stored < size:
            raise self.error(f"truncated: {size} bytes of data expected, {stored} found")
        self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    def _read_header(self, file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
        magic = file.read(len(np.lib.format.MAGIC_PREFIX))
        if magic != np.lib.format.MAGIC_PREFIX:
            archive = magic.startswith(b"PK")
            raise self.error("an .npz archive, not an .npy file" if archive else "not an .npy file")
        file.seek(0)
        try:
            version = np.lib.format.read_magic(file)
            if version not in _HEADER_READERS:
                raise self.error(f"structured arrays (format version {version[0]}.{version[1]}) hold no numbers")
            shape, fortran, dtype = _HEADER_READERS[version](file)
        except (ValueError, TypeError, SyntaxError) as error:
            raise self.error(f"damaged header: {one_line(error)}") from error
        if dtype.hasobject:
            raise self.error("holds pickled Python objects, not numbers")
        if any(n < 0 for n in shape):
            raise self.error(f"damaged header: shape {shape}")
        return shape, fortran, dtype

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Map the rows from `start` to `stop` into memory."""
        # Mapped anew for every batch: once a batch is done, its pages no longer count as ours.
        if not math.prod(self.shape) * self.dtype.itemsize:
            array = np.empty(self.shape, self.dtype)
        else:
            array = np.memmap(self.path, self.dtype, "r", self._offset, self.shape, "F" if self._fortran else "C")
        rows = np.asarray(array[start:stop])
        return rows if rows.dtype.isnative else rows.astype(rows.dtype.newbyteorder("="))

    def error(self, message: str) -> CommandError:
        """Make an error that names the file."""
        return CommandError(f"{self.path}: {message}")
