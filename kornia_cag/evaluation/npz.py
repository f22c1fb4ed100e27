"""Reading arrays of an ``.npz`` archive part by part and never by pickle; headers are read before anything else."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from kornia_cag.core.checks import fail
from kornia_cag.core.memory import fits


@dataclass(frozen=True)
class StoredArray:
    """An array of which only the header has been read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool  # Fortran order
    data: Any  # binary file, positioned at the data
    source: str  # the file

    @property
    def nbytes(self) -> int:
        """Size of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} array {self.shape} in {self.source!r}"

    def parts(self, pixels: int) -> Iterator[np.ndarray]:
        """Yield arrays of at most that many elements, but at least one row.

        Raises:
            InputError: if the file ends early.
        """
        if self.by_columns:  # its rows are scattered over the file
            yield self.read()
            return
        count, *rest = self.shape
        step = max(1, pixels // max(1, math.prod(rest)))
        for start in range(0, count, step):
            yield self._next(min(step, count - start))

    def read(self) -> np.ndarray:
        """Read the whole array.

        Raises:
            InputError: if it does not fit into memory, or the file ends early.
        """
        if not fits(self.nbytes):
            fail(f"real {self.name}", "an array that fits into memory", str(self), "Use a smaller one.")
        if not self.by_columns:
            return self._next(self.shape[0])
        flat = self._bytes(self.nbytes)
        return flat.reshape(self.shape, order="F")

    def _next(self, rows: int) -> np.ndarray:
        shape = (rows, *self.shape[1:])
        return self._bytes(math.prod(shape) * self.dtype.itemsize).reshape(shape)

    def _bytes(self, count: int) -> np.ndarray:
        raw = np.frombuffer(bytearray(self.data.read(count)), np.uint8)  # writable
        if len(raw) < count:
            fail(f"real {self.name}", "a whole array", f"a truncated one in {self.source!r}", "Write it again.")
        found: np.ndarray = raw.view(self.dtype)
        return found


@contextmanager
def open_array(archive: zipfile.ZipFile, member: str) -> Iterator[StoredArray | None]:
    """The array in one member of an archive; None if the member is not an array."""
    name = member.removesuffix(".npy")
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
        except ValueError:
            yield None
            return
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
        yield StoredArray(name, tuple(map(int, shape)), dtype, bool(by_columns) and len(shape) > 1, file,
                          str(archive.filename))  # fmt: skip
