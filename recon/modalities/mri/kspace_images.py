"""Complex training images from fully sampled k-space: coils combined with the maps that reconstruction would use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon.errors import ConfigError, InputError
from recon.modalities.mri.data import KspaceScan, middle
from recon.modalities.mri.prepare import prepare
from recon.modalities.mri.source import FileSource

#: Least sampled fraction of the acquired grid: partial Fourier passes, undersampling does not.
_COMPLETE = 0.7


def read_kspace(path: Path, every: int, pixel: float) -> tuple[list[np.ndarray], tuple[float, float]]:
    """Return complex images ``(y, x)`` of every ``every``-th slice and their pixel size in mm.

    The coils are prewhitened and combined with ESPIRiT maps, as `recon.modalities.mri.prepare.prepare` does for a
    reconstruction, so that the prior is trained on the same kind of image. Readout oversampling is removed, and images
    are cropped to the matrix size stated in the file.

    Parameters
    ----------
    path : Path
        fastMRI ``.h5`` or BART ``.cfl``.
    every : int
    pixel : float
        Pixel size in mm where the file states none.

    Raises
    ------
    InputError
        If the file cannot be read, or is undersampled.
    """
    source = FileSource(path, None)
    images = []
    for index in range(0, len(source), every):
        try:
            piece = source[index]
            _refuse_undersampled(source.scan, piece.mask, path)
            problem = prepare(piece.kspace, piece.mask).problem
        except ConfigError:
            raise
        except InputError as error:
            where = "" if str(path) in str(error) else f"{path}, slice {index}: "
            raise InputError(f"{where}{error}") from error
        image = problem.operator.H(problem.y).numpy()
        images.append(_centre(middle(image, source.scan.image_shape), source.scan.recon_shape))
    voxel = source.scan.voxel_size_mm
    return images, (pixel, pixel) if voxel is None else (voxel[1], voxel[2])


def _refuse_undersampled(scan: KspaceScan, mask: object, path: Path) -> None:
    sampled = np.broadcast_to(np.asarray(mask), scan.shape[1:])
    first, stop = scan.acquired or (0, scan.shape[2])
    share = float(sampled[:, first:stop].mean())
    if share < _COMPLETE:
        raise InputError(
            f"{path}: only {100 * share:.0f} % of the k-space is sampled; training needs fully sampled acquisitions"
        )


def _centre(image: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    """Cut ``shape`` out of the centre, along the axes that are longer."""
    for axis, wanted in enumerate(shape or ()):
        surplus = max(image.shape[axis] - wanted, 0)
        image = image.take(range(surplus // 2, image.shape[axis] - (surplus - surplus // 2)), axis)
    return image
