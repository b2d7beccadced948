"""The recordings returned by readers: the header of a file or folder, and slices read and checked on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from recon.errors import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class Recording(ABC):
    """A lazily read sequence of slices; ``recording[i]`` is slice i, checked.

    NaN, infinities, a wrong shape or kind raise an `InputError` that names the file and the slice.

    Parameters
    ----------
    path
        The file or folder.
    format
        Name of the reader.
    length
        The number of slices.
    load
        ``load(i)`` returns slice i as it is stored.
    """

    #: Name of one item.
    item: ClassVar[str] = "slice"

    path: Path
    format: str
    length: int
    load: Callable[[int], np.ndarray] = field(repr=False)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one slice."""

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(self.length))

    def __getitem__(self, index: int) -> np.ndarray:
        """Read and check slice `index`."""
        i = self.position(index)
        return self.check(self.load(i), f"{self.path}: {self.item} {i}")

    @abstractmethod
    def check(self, values: Any, where: str) -> np.ndarray:
        """Return one slice as an array of the right type; subclasses define the expected numbers."""

    def position(self, index: int) -> int:
        """Return an index counted from 0; an IndexError if it is out of range."""
        if not -self.length <= index < self.length:
            raise IndexError(f"{self.path} has {self.length} {self.item}s, so there is no {self.item} {index}")
        return index % self.length


def checked(
    values: Any, shape: tuple[int, ...], where: str, *, complex_numbers: bool, axes: str = "", signal: bool = True
) -> np.ndarray:
    """Return a copy of finite numbers of a given shape as complex64 or float32.

    Parameters
    ----------
    values : array
    shape : tuple of int
    where : str
        For messages: file and slice.
    complex_numbers : bool
    axes : str
        For messages.
    signal : bool
        Whether an array of zeros is also refused.

    Raises
    ------
    InputError, ShapeError
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biufc" or np.iscomplexobj(array) != complex_numbers:
        raise InputError(f"{where}: expected {'complex' if complex_numbers else 'real'} numbers, got {array.dtype}")
    if array.shape != shape:
        raise ShapeError(f"{where}: expected shape {shape}{f' {axes}' if axes else ''}, got {array.shape}")
    # Values beyond single precision become infinite and are refused in the next line.
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.array(array, dtype=np.complex64 if complex_numbers else np.float32, order="C")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise InputError(f"{where}: {bad} of {array.size} values are NaN or infinite; the file is damaged")
    if signal and not array.any():
        raise InputError(f"{where}: every value is zero; leave it out or check how the file was made")
    return array


def short(value: Any, limit: int = 160) -> str:
    """Return a value in one line, for descriptions of headers."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
