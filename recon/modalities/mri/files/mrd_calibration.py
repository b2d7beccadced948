"""The separate calibration scan of an ISMRMRD file: k-space of each slice, for the coil maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recon.errors import InputError
from recon.modalities.mri.files.mrd_grid import Grid, place
from recon.modalities.mri.files.mrd_header import MrdHeader, parse_header
from recon.modalities.mri.files.mrd_slices import Slices, slices_of

#: Two fields of view are the same if they differ by no more than this fraction.
_SAME = 0.02


def calibration_of(
    grid: Grid, slices: Slices, header: MrdHeader, numbers: np.ndarray, xml: str, where: str
) -> Callable[[int], np.ndarray | None] | None:
    """Return a function from an image of the scan to the k-space of its slice in the calibration scan.

    Parameters
    ----------
    grid : Grid
        The lines of the images.
    slices : Slices
        How these are divided into slices.
    header : MrdHeader
        Their encoding.
    numbers : array of int
        The acquisitions of the calibration scan.
    xml, where : str
        The header of the file, in which the calibration scan may have another encoding.

    Returns
    -------
    callable or None
        ``image -> (coil, y, x)``, whose matrix may differ from that of the images, but not its field of view; None for
        a slice that was not scanned. None if the scan is not one of these slices: 3D, another field of view, other
        coils, damaged.
    """
    spaces = np.unique(grid.heads["encoding_space_ref"][numbers])
    if len(spaces) != 1 or grid.matrix[2] > 1:
        return None
    try:
        own = parse_header(xml, where, int(spaces[0]))
        lines = place(grid.path, grid.dataset, grid.heads, numbers, own)
    except InputError:
        return None
    found = slices_of(lines, own)
    fields = zip(own.encoded_fov_mm[:2], header.encoded_fov_mm[:2], strict=True)
    same = all(abs(one / other - 1) <= _SAME for one, other in fields)
    if found is None or not found.planes or lines.matrix[2] > 1 or lines.coils != grid.coils:
        return None
    if found.oversampling != slices.oversampling or not same:
        return None
    images = {int(key[0]): k for k, key in reversed(list(enumerate(lines.keys)))}

    def load(image: int) -> np.ndarray | None:
        scanned = images.get(int(grid.keys[image, 0]))
        return None if scanned is None else found.load(scanned, 0)

    return load
