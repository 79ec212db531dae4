"""Arrays that grow on the disk, row by row, as .npy files; never pickled."""

from __future__ import annotations

import io
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from pytest_llmprobe.data.safe_writing import sync
from pytest_llmprobe.errors import CasesError


class GrowingArray:
    """A .npy file that rows are appended to; it says how many there are once it is finished.

    Args:
        path: Made if it is not there.
        dtype: Of its numbers.
        columns: Shape of a row; () for a one-dimensional array.
        kept: Rows that a file holds which is gone on with: the others are cut off. None for a new
            one.

    Raises:
        CasesError: It does not hold so many.
    """

    def __init__(
        self,
        path: Path,
        dtype: npt.DTypeLike,
        columns: tuple[int, ...] = (),
        kept: int | None = None,
    ) -> None:
        self._dtype, self._columns, self._rows = np.dtype(dtype), columns, 0
        header = self._header()
        length = len(header) + (kept or 0) * self._dtype.itemsize * prod(columns)
        size = path.stat().st_size if path.exists() else 0
        if kept is not None and size < length:
            raise CasesError(
                f"{path} is damaged: it has {size} bytes, and {length} were written; delete the "
                "folder and begin again"
            )
        self._rows = kept or 0
        self._file = path.open("r+b" if path.exists() else "x+b")
        self._file.write(header)
        self._file.seek(length)
        self._file.truncate()

    def append(self, rows: npt.ArrayLike) -> None:
        """Write rows [n, *columns] at the end."""
        array = np.ascontiguousarray(rows, dtype=self._dtype)
        assert array.shape[1:] == self._columns
        self._file.write(array.tobytes())
        self._rows += len(array)

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        sync(self._file)

    def finish(self) -> None:
        """State the number of rows; then only `close` is left to do."""
        self._file.seek(0)
        self._file.write(self._header())
        self.sync()

    def _header(self) -> bytes:
        """The head of the file; NumPy leaves room in it for any number of rows."""
        buffer = io.BytesIO()
        shape = (self._rows, *self._columns)
        fields = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
