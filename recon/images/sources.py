"""What training draws from: a set of files as the configuration names it, and one image of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recon.errors import ConfigError
from recon.images import rules

# Canonical (right, anterior, superior) axis that each plane cuts across.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class SourceConfig:
    """A set of files that training draws from.

    Volumes are NIfTI (``.nii``, ``.nii.gz``). Slices are DICOM (``.dcm``, ``.ima``, or no ending) and NumPy (``.npy``:
    ``(y, x)`` or ``(slice, y, x)``; complex ones are complex MR images; for MRI also ``.npz`` with ``images`` and, if
    they come from several patients, ``names``). k-space, for MRI, is fastMRI (``.h5``) and BART (``.cfl``): fully
    sampled, combined by ESPIRiT maps to complex images when training starts.

    Parameters
    ----------
    pattern : str
        Glob relative to the data folder, of files or of folders of such files.
    weight : float
        Share of the training images that comes from this source (normalised over sources).
    planes : sequence of str
        Planes to cut volumes in: "axial", "coronal", "sagittal". The first gets half of the draws when there are
        several. Files of slices are taken as they are, and belong to the first one.
    spacing : two floats
        Range of the pixel size in mm that images are resampled to.
    native : float
        Share of the images that keep the pixels of their file.
    max_zoom : float
        Never enlarge an image by more than this factor.
    held_out : sequence of str
        Files whose name, or the name of a folder below the data folder that they are in, starts with one of these
        are never trained on; nor are images of such names in a ``.npz`` file.
    hounsfield : two floats
        CT: slope and intercept that turn the values of the files into Hounsfield units.
    pixel : float
        Pixel size in mm of files that hold none (``.npy``, k-space without a header).
    every : int
        Take only every so many-th slice of NumPy and k-space files: a large collection does not fit in memory.
    phase_jumps : float
        MRI: share of the magnitudes whose synthetic phase is not only smooth, but jumps at fat, turns about small
        structures and is random where it is dark, as that of measured images does.
    """

    pattern: str
    weight: float = 1.0
    planes: Sequence[str] = ("axial",)
    spacing: Sequence[float] = (0.8, 1.6)
    native: float = 0.4
    max_zoom: float = 1.0
    held_out: Sequence[str] = ()
    hounsfield: Sequence[float] = (1.0, 0.0)
    pixel: float = 1.0
    every: int = 1
    phase_jumps: float = 0.0


@dataclass(frozen=True)
class Slice:
    """One image ``(y, x)`` in the scale of the prior, its mask of the head or body and pixel size in mm ``(y, x)``.

    Magnitudes are float16, attenuation is float32, complex images are complex64.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float]
    plane: str
    name: str


def check_source(source: SourceConfig) -> None:
    """Raise ConfigError where a setting makes no sense."""
    rules.check(source, rules.SOURCE, "sources: ")
    unknown = set(source.planes) - set(PLANES)
    if unknown or not source.planes:
        raise ConfigError(f"unknown plane {sorted(unknown)[:1]}; expected some of {sorted(PLANES)}")
