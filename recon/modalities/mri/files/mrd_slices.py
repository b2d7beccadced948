"""The slices of an ISMRMRD file: planes of readout and phase, or cross sections of the readout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recon.affines import stacked
from recon.modalities.mri.files.mrd_geometry import affine_of, directions
from recon.modalities.mri.files.mrd_grid import Grid, inverse_row
from recon.modalities.mri.files.mrd_header import MrdHeader


@dataclass(frozen=True, eq=False)
class Slices:
    """How each image of a file is divided into slices.

    Attributes
    ----------
    positions : range
        The slices of one image, along the direction that was transformed: 0 for 2D data.
    name : str
        What these positions are.
    load : callable
        ``load(image, position)`` returns k-space `(coil, y, x)`.
    masks : array of bool, shape ``(image, y, x)``
        Where each image was sampled; y or x may be 1.
    shape, recon_shape : (int, int)
        `(y, x)` of the data and of the image that the scanner would reconstruct.
    voxel_size_mm : (float, float, float)
        `(z, y, x)`.
    oversampling : float
        Oversampling of the readout along y that is left in the data.
    image_shape : (int, int)
        `(y, x)` of the middle of an image that lies in the reconstructed field of view.
    axes : (int, int, int)
        Which of readout, phase and slice direction are y, x and the normal of a slice.
    middle : int
        The position in the centre of the field of view.
    """

    positions: range
    name: str
    load: Callable[[int, int], np.ndarray]
    masks: np.ndarray
    shape: tuple[int, int]
    recon_shape: tuple[int, int]
    voxel_size_mm: tuple[float, float, float]
    oversampling: float
    image_shape: tuple[int, int]
    axes: tuple[int, int, int]
    middle: int

    @property
    def planes(self) -> bool:
        """Whether the readout is an axis of the slices, y."""
        return self.axes[0] == 0

    @property
    def is_oversampled(self) -> bool:
        """Whether a phase encoding covers more than the reconstructed field of view."""
        return self.image_shape != (round(self.shape[0] / self.oversampling), self.shape[1])

    @property
    def mask(self) -> np.ndarray | None:
        """The mask that all images share, or None."""
        return self.masks[0] if (self.masks == self.masks[0]).all() else None

    def affine(self, grid: Grid) -> np.ndarray | None:
        """Return the affine of the slices, of each where they have none together; None without it in the headers."""
        heads = [grid.heads[grid.numbers[np.argmax(grid.image == k)]] for k in range(len(grid.keys))]
        dz, dy, dx = self.voxel_size_mm
        each = []
        for head in heads:
            found = directions(head)
            if found is None:
                return None
            row, column, normal = (found[k] for k in self.axes)
            for position in self.positions:
                centre = head["position"] + (position - self.middle) * dz * normal
                each.append(affine_of(centre, row * dy, column * dx, normal * dz, self.image_shape))
        affine, even = stacked(np.stack(each))
        return affine if even else np.stack(each)


def slices_of(grid: Grid, header: MrdHeader) -> Slices | None:
    """Divide the images of a file into slices, or return None where neither direction is fully sampled."""
    sampled = grid.counts > 0
    if not (sampled.any(axis=1, keepdims=True) & ~sampled).any():
        return _planes(grid, header, np.asarray(sampled.any(axis=1)))
    return _cross_sections(grid, header, sampled) if grid.complete else None


def _planes(grid: Grid, header: MrdHeader, columns: np.ndarray) -> Slices:
    """Return the planes of readout (y) and phase encoding (x), one for each partition of the reconstructed space."""
    rows, _, partitions = grid.matrix
    volume = partitions > 1
    kept = header.kept(2, partitions) if volume else 1
    first = partitions // 2 - kept // 2
    z, y, x = header.voxel_size_mm
    oversampling = max(header.readout_oversampling, 1.0)
    height = rows if grid.complete else round(rows / oversampling)
    crop, inside = (None, np.ones(1, bool)) if grid.complete else _cropping(grid.rows, rows, height)

    def load(image: int, position: int) -> np.ndarray:
        kspace = grid.plane(image, inverse_row(partitions, position))
        return kspace if crop is None else np.matmul(crop, kspace)

    return Slices(
        positions=range(first, first + kept),
        name="partition",
        load=load,
        masks=inside[None, :, None] & columns[:, None],
        shape=(height, grid.matrix[1]),
        recon_shape=(header.recon_matrix[0], header.recon_matrix[1]),
        voxel_size_mm=(header.encoded_fov_mm[2] / partitions if volume else z, y, x),
        oversampling=oversampling if grid.complete else 1.0,
        image_shape=(round(rows / oversampling), header.kept(1, grid.matrix[1])),
        axes=(0, 1, 2),
        middle=partitions // 2,
    )


def _cross_sections(grid: Grid, header: MrdHeader, sampled: np.ndarray) -> Slices:
    """Return the planes of both phase encodings, one for each position of the readout in the reconstructed space."""
    rows = grid.matrix[0]
    kept = header.kept(0, rows)
    first = rows // 2 - kept // 2
    size = [fov / n for fov, n in zip(header.encoded_fov_mm, grid.matrix, strict=True)]
    return Slices(
        positions=range(first, first + kept),
        name="readout",
        load=lambda image, position: grid.cross_section(image, inverse_row(rows, position)),
        masks=sampled.transpose(0, 2, 1),
        shape=(grid.matrix[1], grid.matrix[2]),
        recon_shape=(header.recon_matrix[1], header.recon_matrix[2]),
        voxel_size_mm=(size[0], size[1], size[2]),
        oversampling=1.0,
        image_shape=(header.kept(1, grid.matrix[1]), header.kept(2, grid.matrix[2])),
        axes=(1, 2, 0),
        middle=rows // 2,
    )


def _cropping(covered: tuple[int, int], rows: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix that crops the oversampling of an asymmetric echo, and the rows of the result it determines.

    The echo is filled with zeros, transformed, cropped and transformed back. Measured on a phantom with half an echo
    missing: errors at the cut are below the noise.
    """
    frequency = np.arange(*covered) - rows // 2
    pixel = np.arange(height) - height // 2
    inverse = np.exp(2j * np.pi * np.outer(pixel, frequency) / rows) / np.sqrt(rows)
    forward = np.exp(-2j * np.pi * np.outer(pixel, pixel) / height) / np.sqrt(height)
    wanted = pixel * (rows / height)
    inside = (wanted >= frequency[0]) & (wanted <= frequency[-1])
    return (inside[:, None] * (forward @ inverse)).astype(np.complex64), inside
