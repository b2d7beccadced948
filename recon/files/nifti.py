"""Writing results as NIfTI (needs the extra `nifti`)."""

import os
from pathlib import Path

import numpy as np

from recon.errors import ReconError
from recon.files.atomic import atomic_path
from recon.posterior_samples import PosteriorSamples


def write_nifti(path: str | os.PathLike[str], posterior: PosteriorSamples) -> list[Path]:
    """Write mean, std and the 90 % interval of the magnitude as float32 NIfTI files.

    `brain.nii.gz` becomes `brain_mean.nii.gz`, `brain_std.nii.gz`, `brain_lower.nii.gz`, `brain_upper.nii.gz` (the last
    two only if there are two or more samples). The first NIfTI axis is x, then y, then slice; the affine is that of the
    source (`geometry["affine"]`) if there is one, and otherwise holds the voxel size.

    Returns
    -------
    list of pathlib.Path
        The files, in the order above.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ReconError("writing NIfTI needs nibabel: pip install 'diffrecon[nifti]'") from error
    name = Path(path).name
    suffix = next((end for end in (".nii.gz", ".nii") if name.endswith(end)), "")
    stem, suffix = name.removesuffix(suffix), suffix or ".nii.gz"
    magnitude = posterior.magnitude
    maps = {"mean": magnitude.mean, "std": magnitude.std}
    if posterior.n_valid > 1:
        maps["lower"], maps["upper"] = posterior.interval()
    written = []
    for kind, image in maps.items():
        volume = np.atleast_3d(image.T).astype(np.float32)
        target = Path(path).with_name(f"{stem}_{kind}{suffix}")
        with atomic_path(target) as temporary:
            nibabel.save(nibabel.Nifti1Image(volume, _affine(posterior.geometry)), temporary)
        written.append(target)
    return written


def _affine(geometry: dict) -> np.ndarray:
    if geometry.get("affine") is not None:
        return np.asarray(geometry["affine"], float)
    z, y, x = geometry.get("voxel_size_mm") or (1.0, 1.0, 1.0)
    return np.diag([x, y, z, 1.0])
