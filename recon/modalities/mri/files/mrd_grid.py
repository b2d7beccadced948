"""Where the lines of an ISMRMRD file lie in the encoded matrix, and the k-space of one slice from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from recon.errors import InputError
from recon.modalities.mri.files.mrd_header import MrdHeader
from recon.modalities.mri.files.mrd_lines import COUNTERS, is_reverse, read_samples


@dataclass(frozen=True, eq=False)
class Grid:
    """The lines of k-space, each with its image and its place `(readout, phase, phase 2)` in the encoded matrix.

    Attributes
    ----------
    path, dataset, heads
        The file and the headers of all its acquisitions.
    numbers : array of int, shape ``(line,)``
        The acquisitions that are lines of an image.
    keys : array of int, shape ``(image, counter)``
        The counters (slice, contrast, phase, repetition, set) of each image.
    image, column, partition, start : array of int, shape ``(line,)``
        Image, place along both phase encodings, and the row of the first sample of each line.
    matrix : tuple of int
        Encoded rows (readout), columns and partitions.
    rows : (int, int)
        First and last + 1 of the rows that every line covers.
    """

    path: Path
    dataset: str
    heads: np.ndarray
    numbers: np.ndarray
    keys: np.ndarray
    image: np.ndarray
    column: np.ndarray
    partition: np.ndarray
    start: np.ndarray
    matrix: tuple[int, int, int]
    rows: tuple[int, int]

    @property
    def coils(self) -> int:
        """The number of receiver coils."""
        return int(self.heads["active_channels"][self.numbers[0]])

    @cached_property
    def counts(self) -> np.ndarray:
        """How many times each line was acquired, ``(image, partition, column)``."""
        return self.summed(np.ones(len(self.numbers))).astype(np.int64)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Sum one value for each line over averages, ``(image, partition, column)``."""
        shape = (len(self.keys), self.matrix[2], self.matrix[1])
        places = np.ravel_multi_index((self.image, self.partition, self.column), shape)
        return np.bincount(places, values, minlength=int(np.prod(shape))).reshape(shape)

    @property
    def complete(self) -> bool:
        """Whether every line covers the whole readout."""
        return self.rows == (0, self.matrix[0])

    def lines(self, image: int) -> zip[tuple[int, int, np.ndarray]]:
        """Yield column, partition and the samples ``(coil, row)`` of the lines of an image, divided by their number."""
        mine = np.flatnonzero(self.image == image)
        column, partition = self.column[mine], self.partition[mine]
        first, stop = self.rows
        number = self.counts[image, partition, column]
        read = read_samples(self.path, self.dataset, self.heads, self.numbers[mine])
        samples = (
            line[:, first - begin : stop - begin] * np.float32(1 / n)
            for (_, line), begin, n in zip(read, self.start[mine], number, strict=True)
        )
        return zip(column, partition, samples, strict=True)

    def plane(self, image: int, weights: np.ndarray) -> np.ndarray:
        """Return ``(coil, row, column)``, the partitions summed with these weights; zero where nothing was sampled."""
        kspace = np.zeros((self.coils, self.matrix[1], self.rows[1] - self.rows[0]), np.complex64)
        with np.errstate(over="ignore", invalid="ignore"):  # such values are refused when the slice is checked
            for column, partition, samples in self.lines(image):
                kspace[:, column] += samples * weights[partition]
        return kspace.transpose(0, 2, 1)

    def cross_section(self, image: int, weights: np.ndarray) -> np.ndarray:
        """Return ``(coil, column, partition)``, the rows summed with these weights."""
        kspace = np.zeros((self.coils, *self.matrix[1:]), np.complex64)
        with np.errstate(over="ignore", invalid="ignore"):
            for column, partition, samples in self.lines(image):
                kspace[:, column, partition] += samples @ weights
        return kspace

    def name(self, image: int) -> str:
        """Name an image by its slice and by the other counters that differ between the images."""
        differs = (self.keys != self.keys[0]).any(axis=0)
        named = [k for k in range(len(COUNTERS)) if k == 0 or differs[k]]
        return ", ".join(f"{COUNTERS[k]} {self.keys[image, k]}" for k in named)


def inverse_row(length: int, position: int) -> np.ndarray:
    """Return the weights of the centred orthonormal inverse DFT for one position."""
    frequency = np.arange(length) - length // 2
    wave = np.exp(2j * np.pi * frequency * (position - length // 2) / length) / np.sqrt(length)
    return wave.astype(np.complex64)


def place(path: Path, dataset: str, heads: np.ndarray, numbers: np.ndarray, header: MrdHeader) -> Grid:
    """Return the place of each line; the centre of k-space comes from the encoding limits.

    Raises
    ------
    InputError
        If a line lies outside of the matrix or its limits, or the number of coils changes.
    """
    where = f"{path}: {dataset}"
    lines = heads[numbers]
    check_coils(lines["active_channels"], numbers, where)
    rows, columns, partitions = header.encoded_matrix
    steps = lines["idx"]["kspace_encode_step_2"]
    if not steps.any() and not header.maximum_2:
        partitions = 1  # some writers give the number of slices of 2D data here
    column = _positions(lines, "kspace_encode_step_1", columns, header.center, header.maximum, numbers, where)
    partition = _positions(lines, "kspace_encode_step_2", partitions, header.center_2, header.maximum_2, numbers, where)
    start, kept = _starts(lines, rows, numbers, where)
    covered = int(start.max()), int((start + kept).min())
    if covered[0] >= covered[1]:
        raise InputError(f"{where}: the lines have no part of the readout in common")
    keys, image = np.unique(
        np.stack([lines["idx"][name].astype(np.int64) for name in COUNTERS], axis=1), axis=0, return_inverse=True
    )
    matrix = (rows, columns, partitions)
    return Grid(path, dataset, heads, numbers, keys, image.reshape(-1), column, partition, start, matrix, covered)


def check_coils(coils: np.ndarray, numbers: np.ndarray, where: str) -> None:
    """Raise an `InputError` unless all acquisitions have the same coils."""
    differs = np.flatnonzero(coils != coils[0])
    if len(differs):
        raise InputError(
            f"{where}: acquisition {numbers[differs[0]]} has {coils[differs[0]]} coil(s), acquisition {numbers[0]} has "
            f"{coils[0]}; expected the same coils in all lines"
        )
    if not coils[0]:
        raise InputError(f"{where}: the lines have no coils; there are no data")


def _positions(
    lines: np.ndarray,
    name: str,
    length: int,
    center: int | None,
    maximum: int | None,
    numbers: np.ndarray,
    where: str,
) -> np.ndarray:
    """Return the index of each line along one phase encoding: the centre of k-space goes to `length // 2`."""
    steps = lines["idx"][name].astype(np.int64)
    if center is None or not maximum:  # limits that nobody filled in are 0 to 0
        center = length // 2
    else:
        beyond = np.flatnonzero(steps > maximum)
        if len(beyond):
            raise InputError(
                f"{where}: acquisition {numbers[beyond[0]]} has {name} {steps[beyond[0]]}, beyond the limit {maximum} "
                "of the header"
            )
    positions = steps - center + length // 2
    outside = np.flatnonzero((positions < 0) | (positions >= length))
    if len(outside):
        raise InputError(
            f"{where}: acquisition {numbers[outside[0]]} has {name} {steps[outside[0]]}, outside of the {length} "
            f"encoded lines around the centre {center}"
        )
    return positions


def _starts(lines: np.ndarray, rows: int, numbers: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of the first sample and the number of samples of each line.

    The echo (`center_sample`) goes to `rows // 2`. Readouts of the whole matrix are kept as they are if their echo is
    near to that, since a small shift is only a phase of the image.
    """
    before, after = lines["discard_pre"].astype(np.int64), lines["discard_post"].astype(np.int64)
    kept = lines["number_of_samples"].astype(np.int64) - before - after
    wrong = np.flatnonzero((kept < 1) | (kept > rows))
    if len(wrong):
        raise InputError(
            f"{where}: acquisition {numbers[wrong[0]]} has {kept[wrong[0]]} samples, expected 1 to {rows}, the encoded "
            "matrix size along the readout"
        )
    echo = lines["center_sample"].astype(np.int64) - before
    echo = np.where(is_reverse(lines), kept - 1 - echo, echo)
    start = rows // 2 - echo
    unset = lines["center_sample"] == 0
    start = np.where((kept == rows) & (unset | (np.abs(start) <= max(rows // 16, 1))), 0, start)
    outside = np.flatnonzero((start < 0) | (start + kept > rows))
    if len(outside):
        k = outside[0]
        raise InputError(
            f"{where}: acquisition {numbers[k]} has its echo at sample {lines['center_sample'][k]} of "
            f"{lines['number_of_samples'][k]}, which puts it outside of the {rows} encoded samples of the readout"
        )
    return start, kept
