"""ISMRMRD acquisition files: `dataset/xml` and `dataset/data`, the lines of Cartesian k-space as the scanner sent them.

Every combination of slice, contrast, phase, repetition and set is an image; y is the readout and x the phase encoding.
The encoding limits give the place of a line, so that the centre of a partial Fourier scan is in the middle of the
matrix. Calibration lines are lines like the others unless the header says that they are a separate scan, which then
gives the coil maps; repeated lines are averaged; navigators, phase corrections and dummy scans are left out. The noise
scan gives the noise covariance. Of 3D data each partition is a slice if the second phase encoding is fully sampled, and
else each position along the readout. The package `ismrmrd` is not needed, see `mrd_lines`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files.mrd_calibration import calibration_of
from recon.modalities.mri.files.mrd_grid import Grid, check_coils, place
from recon.modalities.mri.files.mrd_header import MrdHeader, parse_header, parse_noise_bandwidth
from recon.modalities.mri.files.mrd_lines import image_lines, is_calibration_only, is_noise, read_heads
from recon.modalities.mri.files.mrd_noise import NoiseScan, noise_of, sampling_rates
from recon.modalities.mri.files.mrd_slices import Slices, slices_of

#: Calibration lines of these modes belong to another scan, whose contrast may differ.
_SEPARATE = ("separate", "external")


def sniff(path: Path) -> bool:
    """Tell whether this is an HDF5 file with a group of acquisitions."""
    if not hdf5.is_hdf5(path):
        return False
    with hdf5.open_hdf5(path) as file:
        return bool(_groups(file))


def read(path: Path) -> KspaceScan:
    """Read the headers of an ISMRMRD file.

    Raises
    ------
    InputError
        If the file is damaged, its trajectory is not Cartesian, it has no lines of an image, or its lines contradict
        its header.
    """
    dataset, xml, heads = _content(path)
    where = f"{path}: {dataset}"
    lines, skipped = image_lines(heads)
    if not lines.any():
        raise InputError(f"{where}: there are no lines of an image among the {len(heads)} acquisitions")
    imaging = lines & ~is_calibration_only(heads)
    spaces = np.unique(heads["encoding_space_ref"][imaging if imaging.any() else lines])
    header = parse_header(xml, f"{path}: {dataset.removesuffix('data')}xml", int(spaces[0]))
    if header.trajectory != "cartesian":
        raise InputError(
            f"{path}: the trajectory is {header.trajectory!r}; only Cartesian k-space can be read: grid the data first"
        )
    if len(spaces) > 1:
        raise InputError(
            f"{where}: the lines belong to {len(spaces)} encodings ({', '.join(map(str, spaces))}); write one file each"
        )
    elsewhere = lines & (heads["encoding_space_ref"] != spaces[0])
    if header.calibration in _SEPARATE and imaging.any():
        elsewhere |= lines & is_calibration_only(heads)
    grid = place(path, dataset, heads, np.flatnonzero(lines & ~elsewhere), header)
    slices = _divided(grid, header)
    calibration = None
    if elsewhere.any():
        numbers = np.flatnonzero(elsewhere)
        calibration = calibration_of(grid, slices, header, numbers, xml, f"{path}: {dataset.removesuffix('data')}xml")
        if calibration is None:
            skipped["calibration (separate scan)"] = len(numbers)
    return _scan(grid, slices, header, skipped, calibration)


def read_noise(path: Path) -> NoiseScan:
    """Read the noise acquisitions of an ISMRMRD file, which may hold nothing else.

    Raises
    ------
    InputError
        If the file is damaged, or has no noise acquisitions of which a covariance can be made.
    """
    dataset, xml, heads = _content(path)
    numbers = np.flatnonzero(is_noise(heads))
    if not len(numbers):
        raise InputError(f"{path}: {dataset}: there are no noise acquisitions among the {len(heads)} acquisitions")
    check_coils(heads["active_channels"][numbers], numbers, f"{path}: {dataset}")
    bandwidth = parse_noise_bandwidth(xml, f"{path}: {dataset.removesuffix('data')}xml")
    scan = NoiseScan.read(path, dataset, heads, numbers, bandwidth)
    if scan is None or not scan.is_usable(None):
        raise InputError(
            f"{path}: {dataset}: {0 if scan is None else scan.samples} samples of noise do not give a covariance of "
            f"{heads['active_channels'][numbers[0]]} coils"
        )
    return scan


def _groups(file: h5py.File) -> list[str]:
    """Return the groups with a header and acquisitions; the standard calls it `dataset`."""
    if hdf5.has(file, "dataset/xml"):
        return ["dataset"]
    groups = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    return [name for name in groups if hdf5.has(file, f"{name}/xml") and hdf5.has(file, f"{name}/data")]


def _content(path: Path) -> tuple[str, str, np.ndarray]:
    """Return the name of the acquisitions, the XML header, and the headers of all acquisitions."""
    with hdf5.open_hdf5(path) as file:
        groups = _groups(file)
        if len(groups) > 1:
            raise InputError(f"{path}: contains {len(groups)} scans ({', '.join(groups[:6])}); write one file each")
        dataset = f"{groups[0]}/data"
        xml = hdf5.text(hdf5.dataset(file, f"{groups[0]}/xml"))
        return dataset, xml, read_heads(hdf5.dataset(file, dataset), f"{path}: {dataset}")


def _divided(grid: Grid, header: MrdHeader) -> Slices:
    slices = slices_of(grid, header)
    if slices is None:
        raise InputError(
            f"{grid.path}: both the readout and the second phase encoding are incomplete; such volumes cannot be "
            "separated into slices"
        )
    return slices


def _scan(
    grid: Grid,
    slices: Slices,
    header: MrdHeader,
    skipped: dict[str, int],
    calibration: Callable[[int], np.ndarray | None] | None = None,
) -> KspaceScan:
    positions = slices.positions
    covariance, noise = noise_of(grid, header.noise_bandwidth)
    rates = sampling_rates(grid)
    return KspaceScan(
        path=grid.path,
        format="ismrmrd",
        dataset=grid.dataset,
        slice_shape=(grid.coils, *slices.shape),
        length=len(grid.keys) * len(positions),
        load=lambda i: slices.load(i // len(positions), positions[i % len(positions)]),
        recon_shape=slices.recon_shape,
        voxel_size_mm=slices.voxel_size_mm,
        affine=slices.affine(grid),
        readout_axis=-2 if slices.planes else None,
        readout_oversampling=slices.oversampling,
        image_shape=slices.image_shape if slices.is_oversampled else None,
        acquired=_acquired(header) if slices.planes else None,
        mask=slices.mask,
        names=_names(grid, slices),
        noise_covariance=None if covariance is None else np.repeat(covariance, len(positions), axis=0),
        sampling_rates=None if rates is None else np.repeat(rates, len(positions)),
        load_calibration=calibration,
        attributes={
            "lines": len(grid.numbers),
            "averages": int(grid.counts.max()),
            "noise scan": noise,
            **({} if calibration is None else {"calibration scan": "used for the coil maps"}),
            **{f"left out, {name}": f"{number} acquisition(s)" for name, number in skipped.items()},
        },
    )


def _names(grid: Grid, slices: Slices) -> tuple[str, ...] | None:
    """Name the slices where their numbers do not say it all."""
    images = [grid.name(k) for k in range(len(grid.keys))]
    if len(slices.positions) > 1:
        several = len(images) > 1
        return tuple(
            (f"{image}, " if several else "") + f"{slices.name} {i}" for image in images for i in slices.positions
        )
    return None if images == [f"slice {k}" for k in range(len(images))] else tuple(images)


def _acquired(header: MrdHeader) -> tuple[int, int] | None:
    """Return the encoded columns of a matrix padded with zeros on both sides; partial Fourier is not padding."""
    acquired, columns = header.acquired(), header.encoded_matrix[1]
    if acquired is None or not header.maximum:
        return None
    first, stop = acquired
    return acquired if first > 0 and abs(first - (columns - stop)) <= 1 else None
