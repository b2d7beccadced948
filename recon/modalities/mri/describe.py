"""Text descriptions of k-space recordings, and warnings about them."""

from __future__ import annotations

import numpy as np
import torch

from operators.mri.autocalibration import calibration_region
from operators.mri.coils import estimate_noise_covariance
from operators.mri.espirit import calibration_size
from operators.mri.masks import PATTERNS
from recon.errors import InputError
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.field_shift import SHIFTED, half_shift
from recon.modalities.mri.options import MRI
from recon.modalities.mri.validate import require_plausible
from recon.modalities.protocols import Findings
from recon.modalities.recording import short

#: ESPIRiT needs a fully sampled centre somewhat larger than its kernel; below this it tends to fail.
_LEAST_CALIBRATION = 12


def summary(scan: KspaceScan) -> str:
    """Describe format and size in a few words."""
    return f"{scan.format}, {len(scan)} slice(s) of {scan.shape[0]} coil(s) x {scan.shape[1]} x {scan.shape[2]}"


def sampling(scan: KspaceScan, options: MRI) -> str:
    """Describe the samples that are used."""
    if options.mask is None and options.acceleration is None:
        return "as measured"
    if options.mask is not None and options.mask not in PATTERNS:
        return f"those of the mask {options.mask}"
    return f"{options.mask or 'random'}, acceleration {options.acceleration or 4.0:g} (retrospective)"


def lines(scan: KspaceScan) -> list[str]:
    """Describe a raw-data file by its headers."""
    coils, y, x = scan.shape
    found = [f"k-space: {coils} coil(s) x {y} x {x} (coil, y, x)"]
    if scan.readout_axis is not None:
        found.append(f"readout: {'y' if scan.readout_axis == -2 else 'x'}, oversampled {scan.readout_oversampling:g} x")
    if scan.recon_shape is not None:
        found.append(f"image: {scan.recon_shape[0]} x {scan.recon_shape[1]} (y, x)")
    if scan.image_shape is not None:
        found.append(f"field of view of the image: the middle {scan.image_shape[0]} x {scan.image_shape[1]} (y, x)")
    if scan.voxel_size_mm is not None:
        found.append("voxel: " + " x ".join(f"{length:.3g}" for length in scan.voxel_size_mm) + " mm (z, y, x)")
    if scan.acquired is not None:
        found.append(f"encoded columns: {scan.acquired[0]} to {scan.acquired[1] - 1}")
    if scan.mask is not None:
        found.append(f"sampling mask: {scan.mask.mean():.1%} of k-space")
    if scan.names is not None:
        found.append("slices: " + short("; ".join(f"{i} = {name}" for i, name in enumerate(scan.names))))
    if scan.noise_covariance is not None:
        power = scan.noise_covariance[0].diagonal().real.mean()
        found.append(f"noise by the noise scan: {np.sqrt(power):.3g}")
    found.append(f"reference image: {'yes' if scan.load_reference else 'no'}")
    found.extend(f"{name}: {short(value)}" for name, value in scan.attributes.items())
    return found


def inspect(scan: KspaceScan) -> Findings:
    """Read every slice of a scan and describe sampling, noise and coils.

    Parameters
    ----------
    scan
        The open file.

    Returns
    -------
    Findings
        Diagnostics, and warnings about suspicious data.

    Raises
    ------
    InputError
        If no slice is usable.
    """
    findings = Findings(warnings=layout_doubts(scan))
    refused: list[str] = []
    for i in range(len(scan)):
        where = f"{scan.label(i)}: " if len(scan) > 1 else ""
        try:
            kspace = scan[i]
        except InputError as error:
            refused.append(str(error))
            continue
        sampled = _sampled(scan, kspace)
        findings.facts.append(where + ", ".join(_describe(kspace, sampled)))
        try:
            findings.warnings.extend(where + line for line in _doubts(kspace, sampled))
        except InputError as error:
            refused.append(f"{scan.path}: {where}{error}")
    if len(refused) == len(scan):
        raise InputError(refused[0])
    findings.warnings.extend(f"left out of a reconstruction: {reason}" for reason in refused)
    return findings


def layout_doubts(scan: KspaceScan) -> list[str]:
    """Return what is ambiguous about the layout of a file."""
    single = scan.format == "fastmri" and scan.shape[0] == 1 and len(scan) > 1
    if not single or scan.voxel_size_mm is not None or scan.load_reference is not None:
        return []
    return [
        f"kspace has three axes and the file no header, so these are taken for {len(scan)} slices of one coil; if they "
        "are the coils of one slice, store kspace as (1, coil, y, x)"
    ]


def _sampled(scan: KspaceScan, kspace: np.ndarray) -> np.ndarray:
    """Return where this slice was sampled, bool `(y, x)`: by the file's mask, or wherever the data are not zero."""
    if scan.mask is not None:
        return np.broadcast_to(scan.mask, kspace.shape[1:]).copy()
    return (kspace != 0).any(axis=0)


def _describe(kspace: np.ndarray, sampled: np.ndarray) -> list[str]:
    fraction = sampled.mean()
    lines = ["fully sampled" if fraction == 1 else f"{fraction:.1%} sampled (acceleration {1 / fraction:.2f})"]
    if fraction < 1:
        columns = sampled.any(axis=0)
        lines.append("whole columns" if (sampled == columns).all() else "points")
        lines.append("fully sampled centre {} x {}".format(*calibration_size(sampled)))
    lines.append(f"noise about {_noise_level(kspace, sampled):.3g}")
    lines.append(f"largest value {np.abs(kspace).max():.3g}")
    return lines


def _doubts(kspace: np.ndarray, sampled: np.ndarray) -> list[str]:
    """Return what is suspicious about a slice; an InputError if a reconstruction refuses it."""
    doubts = []
    dead = np.flatnonzero(~kspace.any(axis=(1, 2)))
    if len(dead):
        doubts.append(f"coil(s) {', '.join(map(str, dead))} contain only zeros")
    size = calibration_size(sampled)
    if len(kspace) > 1 and min(size) < _LEAST_CALIBRATION:
        doubts.append(
            f"only the central {size[0]} x {size[1]} is fully sampled: coil maps cannot be estimated well from less "
            f"than {_LEAST_CALIBRATION} x {_LEAST_CALIBRATION}"
        )
    found = torch.from_numpy(kspace)
    doubts += require_plausible(found)
    if any(half_shift(found, calibration_region(sampled)) or ()):
        doubts.append(SHIFTED)
    return doubts


def _noise_level(kspace: np.ndarray, sampled: np.ndarray) -> float:
    """Return the standard deviation of the complex noise, averaged over the coils, as the pipeline estimates it."""
    covariance = estimate_noise_covariance(torch.from_numpy(kspace), torch.tensor(sampled))
    return float(covariance.diagonal().real.mean().sqrt())
