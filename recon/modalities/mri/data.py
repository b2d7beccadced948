"""The k-space recording that every reader returns: a lazily read sequence of slices with their geometry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from recon.errors import InputError
from recon.modalities.recording import Recording, checked

Images = TypeVar("Images", np.ndarray, Tensor)


def middle(images: Images, shape: tuple[int, int] | None) -> Images:
    """Return the middle of images ``(..., y, x)``, at most of this shape; pixel `n // 2` stays in the centre."""
    if shape is None:
        return images
    rows, columns = (slice(n // 2 - k // 2, n // 2 - k // 2 + k) for n, k in _lengths(images.shape[-2:], shape))
    return images[..., rows, columns]


def _lengths(have: Sequence[int], wanted: Sequence[int]) -> list[tuple[int, int]]:
    return [(n, min(n, kept)) for n, kept in zip(have, wanted, strict=True)]


@dataclass(frozen=True, eq=False)
class KspaceScan(Recording):
    """A measured k-space file, read one slice at a time.

    `scan[i]` is the centred k-space of slice i, complex64 `(coil, y, x)`, zero where nothing was sampled; `len(scan)`
    is the number of slices. Each slice is checked when it is read: NaN, infinities, real numbers and slices without any
    signal raise an `InputError` that names the file, the dataset and the slice.

    Parameters
    ----------
    path
        The file.
    format
        "fastmri", "ismrmrd", "matlab", "bart" or "npy".
    dataset
        Name of the k-space inside the file; for messages.
    slice_shape
        `(coil, y, x)` of one slice.
    length
        The number of slices.
    load
        `load(i)` returns slice i as it is stored.
    load_reference
        `load_reference(i)` returns the fully sampled magnitude image of slice i, or is None if the file has none.
    load_calibration
        `load_calibration(i)` returns the k-space `(coil, y, x)` of a separate calibration scan of slice i, whose matrix
        may differ but not its field of view, or None; the field is None if the file has no such scan.
    recon_shape
        `(y, x)`: the matrix size that the scanner would reconstruct, or None.
    voxel_size_mm
        `(z, y, x)` in mm, or None.
    readout_axis
        -2 (y) or -1 (x): the axis that is always fully sampled; None where unknown.
    readout_oversampling
        Field of view of the readout over that of the image, usually 1.0 or 2.0.
    image_shape
        `(y, x)`: the middle of the images that lies in the field of view of the scanner's image, where phase encoding
        is oversampled; None for all of it. Unlike the readout, undersampled k-space cannot be cropped: images are.
    acquired
        `(first, last + 1)`: the columns that the scanner encoded; the others are zero padding. None for all.
    mask
        Boolean sampling mask that broadcasts to `(y, x)`, or None to infer it from zeros in the data.
    names
        A name for each slice, such as "slice 2, contrast 1", or None where its number says it all.
    noise_covariance
        `E[n n^H]` of the coils for each slice, `(slice, coil, coil)`, from a noise scan; None if there is none.
    sampling_rates
        Samples per microsecond of the readout over the number of averages, of each slice `(slice,)`: its noise power is
        proportional to it. None where unknown.
    affine
        From (x, y, slice) of the images to mm in the frame of NIfTI: `(4, 4)`, of each slice `(slice, 4, 4)` where
        they are not evenly spaced or differ in orientation, or None.
    attributes
        Further entries of the file, as plain values.
    """

    dataset: str
    slice_shape: tuple[int, int, int]
    load_reference: Callable[[int], np.ndarray] | None = field(default=None, repr=False)
    load_calibration: Callable[[int], np.ndarray | None] | None = field(default=None, repr=False)
    recon_shape: tuple[int, int] | None = None
    voxel_size_mm: tuple[float, float, float] | None = None
    readout_axis: int | None = None
    readout_oversampling: float = 1.0
    image_shape: tuple[int, int] | None = None
    acquired: tuple[int, int] | None = None
    mask: np.ndarray | None = field(default=None, repr=False)
    names: tuple[str, ...] | None = field(default=None, repr=False)
    noise_covariance: np.ndarray | None = field(default=None, repr=False)
    sampling_rates: np.ndarray | None = field(default=None, repr=False)
    affine: np.ndarray | None = field(default=None, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(coil, y, x)` of one slice."""
        return self.slice_shape

    def __getitem__(self, index: int) -> np.ndarray:
        """Read and check slice `index`."""
        i = self.position(index)
        return self.check(self.load(i), f"{self.path}: {self.label(i)}")

    def label(self, index: int) -> str:
        """Return the number of a slice, and its name if it has one."""
        return f"slice {index}" + (f" ({self.names[index]})" if self.names else "")

    def check(self, values: Any, where: str) -> np.ndarray:
        """Return centred k-space, complex64 `(coil, y, x)`, zero where nothing was sampled."""
        where = where.replace(": ", f": {self.dataset}, ", 1)
        if not np.iscomplexobj(values):
            raise InputError(f"{where}: k-space must be complex, got {np.asarray(values).dtype}")
        kspace = checked(values, self.shape, where, complex_numbers=True, axes="(coil, y, x)", signal=False)
        if self.mask is not None:
            kspace = np.where(self.mask, kspace, np.complex64(0))
        if not kspace.any():
            raise InputError(f"{where}: every value is zero; leave this slice out or check how the file was made")
        return kspace

    def calibration(self, index: int) -> np.ndarray | None:
        """Read the separate calibration scan of slice `index`; None without one."""
        return None if self.load_calibration is None else self.load_calibration(self.position(index))

    def reference(self, index: int) -> np.ndarray | None:
        """Return the magnitude image of slice `index` stored in the file, float32 `(y, x)`, or None."""
        if self.load_reference is None:
            return None
        i = self.position(index)
        image = np.array(self.load_reference(i), dtype=np.float32, order="C")
        if image.ndim != 2 or not np.isfinite(image).all():
            raise InputError(f"{self.path}: the reference image of slice {i} must be 2D and finite")
        return image
