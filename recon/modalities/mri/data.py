"""What every k-space reader returns: a lazily read sequence of slices with their geometry."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import InputError, ShapeError


@dataclass(frozen=True, eq=False)
class KspaceScan:
    """A measured k-space file, read one slice at a time.

    `scan[i]` is the centred k-space of slice i, complex64 `(coil, y, x)`, zero where nothing was sampled; `len(scan)`
    is the number of slices. Each slice is checked when it is read: NaN, infinities, real numbers and slices without any
    signal raise an `InputError` that names the file, the dataset and the slice.

    Parameters
    ----------
    path
        The file.
    format
        "fastmri", "bart" or "npy".
    dataset
        What the k-space is called inside the file; for messages.
    shape
        `(coil, y, x)` of one slice.
    length
        The number of slices.
    load
        `load(i)` returns slice i as it is stored.
    load_reference
        `load_reference(i)` returns the fully sampled magnitude image of slice i, or is None if the file has none.
    recon_shape
        `(y, x)` of the image that the scanner would give out, or None.
    voxel_size_mm
        `(z, y, x)` in mm, or None.
    readout_axis
        -2 (y) or -1 (x): the axis that is always fully sampled; None where unknown.
    readout_oversampling
        Field of view of the readout over that of the image, 1.0 or 2.0 as a rule.
    acquired
        `(first, last + 1)`: the columns that the scanner really encoded; outside are padding zeros. None for all.
    mask
        Boolean sampling mask that broadcasts to `(y, x)`, or None if zeros in the data have to tell.
    attributes
        What else the file says, as plain values.
    """

    path: Path
    format: str
    dataset: str
    shape: tuple[int, int, int]
    length: int
    load: Callable[[int], np.ndarray] = field(repr=False)
    load_reference: Callable[[int], np.ndarray] | None = field(default=None, repr=False)
    recon_shape: tuple[int, int] | None = None
    voxel_size_mm: tuple[float, float, float] | None = None
    readout_axis: int | None = None
    readout_oversampling: float = 1.0
    acquired: tuple[int, int] | None = None
    mask: np.ndarray | None = field(default=None, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(self.length))

    def __getitem__(self, index: int) -> np.ndarray:
        """Read and check slice `index`: complex64 `(coil, y, x)`."""
        i = self._position(index)
        kspace = np.asarray(self.load(i))
        where = f"{self.path}: {self.dataset}, slice {i}"
        if not np.iscomplexobj(kspace):
            raise InputError(f"{where}: k-space must be complex, this is {kspace.dtype}")
        if kspace.shape != self.shape:
            raise ShapeError(f"{where}: expected the shape {self.shape} (coil, y, x), got {kspace.shape}")
        with np.errstate(over="ignore"):  # what complex64 cannot hold becomes infinite and is refused below
            kspace = np.array(kspace, dtype=np.complex64, order="C")  # a copy: files may be mapped, read-only
        if self.mask is not None:
            kspace = np.where(self.mask, kspace, np.complex64(0))
        bad = int(np.count_nonzero(~np.isfinite(kspace)))
        if bad:
            raise InputError(f"{where}: {bad} of {kspace.size} values are NaN or infinite; the file is damaged")
        if not kspace.any():
            raise InputError(f"{where}: every value is zero; leave this slice out or check how the file was made")
        return kspace

    def reference(self, index: int) -> np.ndarray | None:
        """Return the magnitude image of slice `index` that came with the file, float32 `(y, x)`, or None."""
        if self.load_reference is None:
            return None
        i = self._position(index)
        image = np.array(self.load_reference(i), dtype=np.float32, order="C")
        if image.ndim != 2 or not np.isfinite(image).all():
            raise InputError(f"{self.path}: the reference image of slice {i} must be 2D and finite")
        return image

    def _position(self, index: int) -> int:
        if not -self.length <= index < self.length:
            raise IndexError(f"{self.path} has {self.length} slices, there is no slice {index}")
        return index % self.length
