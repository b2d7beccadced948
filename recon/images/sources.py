"""Training sources: a set of files in the configuration, and one image from them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import ConfigError
from recon.valid_values import POSITIVE, SHARE, TEXTS, Rule, check, number, whole

# Canonical (right, anterior, superior) axis that each plane cuts across.
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class SourceConfig:
    """A set of training files.

    Volumes are NIfTI (``.nii``, ``.nii.gz``). Slices are DICOM (``.dcm``, ``.ima``, or no ending) or NumPy, real or
    complex: ``.npy`` ``(y, x)`` or ``(slice, y, x)``, or ``.npz`` with ``images`` and, if they come from several
    patients, ``names``. Raw data (``.h5``, ``.cfl``) are reconstructed when training starts. Which of these are
    supported depends on the modality.

    Parameters
    ----------
    pattern : str
        Glob pattern relative to the data folder, for files or for folders of files.
    weight : float
        Fraction of the training images that come from this source (normalised over sources).
    planes : sequence of str
        Planes to cut volumes in: "axial", "coronal", "sagittal". If there are several, the first gets half of
        the draws. Files of slices are not cut; they belong to the first plane.
    spacing : two floats
        Range of the pixel size in mm that images are resampled to.
    native : float
        Fraction of images that keep the pixel size of their file.
    max_zoom : float
        Never enlarge an image by more than this factor.
    held_out : sequence of str
        Files are never trained on if their name, or that of a folder below the data folder that contains them, starts
        with one of these; nor are images with such names in an ``.npz`` file.
    rescale : two floats
        Slope and intercept that convert the values of files without a unit to the unit of the modality.
    pixel : float
        Pixel size in mm of files that do not contain one (``.npy``, raw data without a header).
    every : int
        Keep every N-th slice of NumPy and raw-data files, for collections that do not fit in memory.
    phase_jumps : float
        Fraction of magnitudes whose synthetic phase is not only smooth, but jumps at fat, rotates around small
        structures and is random in dark regions, like that of measured images.
    """

    pattern: str
    weight: float = 1.0
    planes: Sequence[str] = ("axial",)
    spacing: Sequence[float] = (0.8, 1.6)
    native: float = 0.4
    max_zoom: float = 1.0
    held_out: Sequence[str] = ()
    rescale: Sequence[float] = (1.0, 0.0)
    pixel: float = 1.0
    every: int = 1
    phase_jumps: float = 0.0


@dataclass(frozen=True)
class Slice:
    """One image ``(y, x)`` in the scale of the prior, a mask of the head or body, and its pixel size in mm ``(y, x)``.

    Magnitudes are float16, attenuation is float32, complex images are complex64.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float]
    plane: str
    name: str


def _two(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(number(-math.inf)[0](v) for v in value)


def _rising(value: Any) -> bool:
    return _two(value) and 0 < value[0] <= value[1]


#: Rules for the fields of ``SourceConfig``.
SOURCE: dict[str, Rule] = {
    "pattern": (
        lambda v: isinstance(v, str) and not Path(v).is_absolute(),
        "a pattern relative to the data folder",
    ),
    "planes": TEXTS,
    "held_out": TEXTS,
    "spacing": (_rising, "two increasing numbers in mm"),
    "rescale": (_two, "two numbers"),
    "weight": POSITIVE,
    "native": SHARE,
    "phase_jumps": SHARE,
    "max_zoom": number(1),
    "pixel": POSITIVE,
    "every": whole(1),
}


def check_source(source: SourceConfig, unused: Collection[str] = ()) -> None:
    """Raise ConfigError if a setting is invalid, or is set although it is ``unused`` for these images."""
    check(source, SOURCE, "sources: ")
    unknown = set(source.planes) - set(PLANES)
    if unknown or not source.planes:
        raise ConfigError(f"unknown plane {sorted(unknown)[:1]}; choose from {sorted(PLANES)}")
    for field in fields(source):
        if field.name in unused and getattr(source, field.name) != field.default:
            raise ConfigError(f"sources: {field.name} has no meaning for training images of this modality; remove it")
