"""Looking a raw-data file over before an hour is spent on it: what `recon check` reports."""

from dataclasses import dataclass, field

import numpy as np

from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.mri.data import KspaceScan
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.signals import silent_elements

# ESPIRiT needs a fully sampled centre of about its kernel and some; below this it tends to fail.
_LEAST_CALIBRATION = 12


@dataclass
class Findings:
    """Facts about a scan, and what may go wrong with it; one line each."""

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def inspect(scan: KspaceScan) -> Findings:
    """Read every slice of a scan and describe sampling, noise and coils.

    Parameters
    ----------
    scan
        The open file.

    Returns
    -------
    Findings
        Facts, and warnings about what is suspicious.

    Raises
    ------
    InputError
        From the reader, for the first slice that cannot be used.
    """
    findings = Findings()
    for i, kspace in enumerate(scan):
        where = f"slice {i}: " if len(scan) > 1 else ""
        sampled = _sampled(scan, kspace)
        findings.facts.append(where + ", ".join(_describe(kspace, sampled)))
        findings.warnings.extend(where + line for line in _doubts(kspace, sampled))
    return findings


def inspect_ct(stack: CTImages | CTProjections) -> Findings:
    """Read every slice of CT images or projections and describe its values; damaged ones are an InputError."""
    findings = Findings()
    for i, values in enumerate(stack):
        low, high = float(values.min()), float(values.max())
        findings.facts.append(f"slice {i}: values {low:.4g} to {high:.4g}")
        if isinstance(stack, CTImages) and stack.units == "HU" and not -1100 <= low <= 500:
            findings.warnings.append(f"slice {i}: the smallest value is {low:.4g}, air has -1000 HU; are these HU?")
        if isinstance(stack, CTProjections) and high > 15:
            findings.warnings.append(
                f"slice {i}: a line integral of {high:.3g} lets no photon pass; was the log taken?"
            )
    return findings


def inspect_ultrasound(data: PlaneWaveData) -> Findings:
    """Read every frame of channel data and describe its signal and noise; damaged ones are an InputError."""
    findings = Findings()
    for i, values in enumerate(data):
        noise = float(data.noise_std(i).max())
        findings.facts.append(f"frame {i}: largest value {np.abs(values).max():.4g}, noise about {noise:.3g}")
        dead = silent_elements(values)
        if len(dead):
            names = ", ".join(map(str, dead[:12])) + (", ..." if len(dead) > 12 else "")
            findings.warnings.append(f"frame {i}: element(s) {names} hold next to nothing; they are left out")
        offset = 0.0 if data.geometry.is_complex else _offset(values)
        if offset > 0.05:
            findings.warnings.append(f"frame {i}: the RF has an offset of {offset:.2g} times its rms")
    return findings


def _offset(values: np.ndarray) -> float:
    """Return the mean of real values over their rms."""
    return float(abs(values.mean(dtype=np.float64)) / np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def _sampled(scan: KspaceScan, kspace: np.ndarray) -> np.ndarray:
    """Return where this slice was sampled, bool `(y, x)`: by the file's mask, or wherever it is not zero."""
    if scan.mask is not None:
        return np.broadcast_to(scan.mask, kspace.shape[1:])
    return (kspace != 0).any(axis=0)


def _describe(kspace: np.ndarray, sampled: np.ndarray) -> list[str]:
    from operators.mri.espirit import calibration_size

    share = sampled.mean()
    lines = ["fully sampled" if share == 1 else f"{share:.1%} sampled (acceleration {1 / share:.2f})"]
    if share < 1:
        columns = sampled.any(axis=0)
        lines.append("whole columns" if (sampled == columns).all() else "points")
        lines.append("fully sampled centre {} x {}".format(*calibration_size(sampled)))
    lines.append(f"noise about {_noise_level(kspace, sampled):.3g}")
    lines.append(f"largest value {np.abs(kspace).max():.3g}")
    return lines


def _doubts(kspace: np.ndarray, sampled: np.ndarray) -> list[str]:
    from operators.mri.espirit import calibration_size

    doubts = []
    dead = np.flatnonzero(~kspace.any(axis=(1, 2)))
    if len(dead):
        doubts.append(f"coil(s) {', '.join(map(str, dead))} hold nothing but zeros")
    size = calibration_size(sampled)
    if len(kspace) > 1 and min(size) < _LEAST_CALIBRATION:
        doubts.append(
            f"only the central {size[0]} x {size[1]} is fully sampled: coil maps cannot be estimated well from less "
            f"than {_LEAST_CALIBRATION} x {_LEAST_CALIBRATION}"
        )
    y, x = np.unravel_index(np.sum(np.abs(kspace) ** 2, axis=0, dtype=np.float64).argmax(), sampled.shape)
    away = (int(y) - sampled.shape[0] // 2, int(x) - sampled.shape[1] // 2)
    if max(abs(away[0]) / sampled.shape[0], abs(away[1]) / sampled.shape[1]) > 0.1:
        doubts.append(f"the largest value is {away} pixels from the centre: is this k-space, and centred (fftshift)?")
    return doubts


def _noise_level(kspace: np.ndarray, sampled: np.ndarray) -> float:
    """Return the standard deviation of the complex noise, averaged over the coils, as the pipeline estimates it."""
    import torch

    from operators.mri.coils import estimate_noise_covariance

    covariance = estimate_noise_covariance(torch.from_numpy(kspace), torch.tensor(sampled))
    return float(covariance.diagonal().real.mean().sqrt())
