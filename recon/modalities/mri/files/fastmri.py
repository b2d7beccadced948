"""fastMRI files: multi-coil and single-coil `.h5`, and the submission file of the challenge.

Layout: `kspace` complex64 (slice, [coil,] readout, phase); `ismrmrd_header` XML; `reconstruction_rss` (multi-coil) or
`reconstruction_esc` (single-coil) float32 (slice, y, x), absent in test files; `mask` (phase,) in test files.
Here y is the readout and x the phase encoding. Source: Zbontar et al., fastMRI (arXiv:1811.08839).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError, ShapeError
from recon.files import hdf5
from recon.files.hdf5_write import write_hdf5
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files.arrays import check_complex, check_lengths, sampling_mask
from recon.modalities.mri.files.mrd_header import MrdHeader, parse_header

_REFERENCES = ("reconstruction_rss", "reconstruction_esc")
#: Attributes that are kept; others, such as `patient_id`, may identify the patient.
_KEPT = ("acquisition", "max", "norm", "acceleration", "num_low_frequency")


def sniff(path: Path) -> bool:
    """Tell whether this is an HDF5 file with a `kspace`."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return hdf5.has(file, "kspace")


def read(path: Path) -> KspaceScan:
    """Read the headers of a fastMRI file.

    Padding columns that the scanner never encoded are excluded from `acquired` and from the file's mask.

    Raises
    ------
    InputError
        If the file is damaged, unsafe, or its parts contradict each other.
    """
    with hdf5.open_hdf5(path) as file:
        kspace = hdf5.dataset(file, "kspace")
        where = f"{path}: kspace"
        check_complex(kspace.dtype, where)
        if kspace.ndim not in (3, 4):
            raise ShapeError(f"{where}: expected (slice, [coil,] readout, phase), got shape {kspace.shape}")
        single = kspace.ndim == 3
        length, coils, y, x = (kspace.shape[0], 1, *kspace.shape[1:]) if single else kspace.shape
        check_lengths((length, coils, y, x), "slice coil readout phase", where)
        header = _header(file, (y, x), path)
        acquired = _acquired(header, x, path)
        recon_shape, reference = _reference(file, length, path)
        attributes = {**hdf5.attributes(file, _KEPT), "single_coil": single}
        mask = _mask(file, (y, x), acquired, path)
    oversampling = 2.0 if recon_shape is not None and y == 2 * recon_shape[0] else 1.0
    if header is not None:
        oversampling = header.readout_oversampling
        recon_shape = (header.recon_matrix[0], header.recon_matrix[1])
    return KspaceScan(
        path=path,
        format="fastmri",
        dataset="kspace",
        slice_shape=(coils, y, x),
        length=length,
        load=lambda i: _slice(path, "kspace", i).reshape(coils, y, x),
        load_reference=None if reference is None else lambda i: _slice(path, reference, i),
        recon_shape=recon_shape,
        voxel_size_mm=None if header is None else header.voxel_size_mm,
        readout_axis=-2,
        readout_oversampling=oversampling,
        acquired=acquired,
        mask=mask,
        attributes=attributes,
    )


def write_fastmri(path: str | os.PathLike[str], reconstruction: np.ndarray, crop: Sequence[int] | None = None) -> None:
    """Write a fastMRI submission: the dataset `reconstruction` (slice, y, x) float32.

    Parameters
    ----------
    path
        The file to write, atomically; the challenge expects the name of the input file.
    reconstruction
        Magnitude images `(slice, y, x)`.
    crop
        `(y, x)` of the image to cut out of the centre, as the challenge scores it; None keeps all.

    Raises
    ------
    ShapeError
        If the array is not 3D.
    """
    images = np.asarray(reconstruction)
    if images.ndim != 3 or np.iscomplexobj(images):
        raise ShapeError(f"write_fastmri: expected real magnitudes (slice, y, x), got {images.dtype} {images.shape}")
    if crop is not None:
        rows, columns = (_centre(n, int(m)) for n, m in zip(images.shape[1:], crop, strict=True))
        images = images[:, rows, columns]
    with write_hdf5(path) as file:
        file.create_dataset("reconstruction", data=images.astype(np.float32))


def _centre(length: int, wanted: int) -> slice:
    first = max((length - wanted) // 2, 0)
    return slice(first, first + min(wanted, length))


def _slice(path: Path, name: str, index: int) -> np.ndarray:
    with hdf5.open_hdf5(path) as file:
        return hdf5.dataset(file, name)[index]


def _header(file: h5py.File, shape: tuple[int, int], path: Path) -> MrdHeader | None:
    if not hdf5.has(file, "ismrmrd_header"):
        return None
    where = f"{path}: ismrmrd_header"
    header = parse_header(hdf5.text(hdf5.dataset(file, "ismrmrd_header")), where)
    if header.encoded_matrix[:2] != shape:
        raise InputError(
            f"{where}: encodes {header.encoded_matrix[:2]} (readout, phase), but kspace is {shape}; "
            "header and data do not belong together"
        )
    return header


def _acquired(header: MrdHeader | None, columns: int, path: Path) -> tuple[int, int] | None:
    acquired = header.acquired() if header is not None else None
    if acquired is not None and not 0 <= acquired[0] < acquired[1] <= columns:
        raise InputError(
            f"{path}: ismrmrd_header: the limits of kspace_encoding_step_1 put the encoded columns at "
            f"{acquired[0]}..{acquired[1]}, outside of the {columns} columns of kspace"
        )
    return acquired


def _mask(file: h5py.File, shape: tuple[int, int], acquired: tuple[int, int] | None, path: Path) -> np.ndarray | None:
    if not hdf5.has(file, "mask"):
        return None
    mask = sampling_mask(hdf5.dataset(file, "mask")[()], shape, f"{path}: mask")
    if acquired is not None and mask.shape[1] == shape[1]:
        columns = np.arange(shape[1])
        mask = mask & (columns >= acquired[0]) & (columns < acquired[1])
    return mask


def _reference(file: h5py.File, length: int, path: Path) -> tuple[tuple[int, int] | None, str | None]:
    """Return (y, x) and the name of the reference images, if any."""
    for name in _REFERENCES:
        if hdf5.has(file, name):
            images = hdf5.dataset(file, name)
            if images.ndim != 3 or images.shape[0] != length or images.dtype.kind != "f":
                raise InputError(
                    f"{path}: {name}: expected {length} real images (slice, y, x), got {images.dtype} {images.shape}"
                )
            return (images.shape[1], images.shape[2]), name
    return None, None
