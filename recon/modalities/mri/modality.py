"""The MRI modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from operators import CartesianMRI
from recon.images import augment
from recon.modalities.base import Export, FewSteps, Modality, ReportStyle, TrainingImages
from recon.modalities.mri import describe, estimators, training
from recon.modalities.mri.conditions import conditions
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files import readers
from recon.modalities.mri.files.dicom_write import lacks_geometry, write_dicom
from recon.modalities.mri.files.fastmri import write_fastmri
from recon.modalities.mri.options import MRI
from recon.modalities.mri.points import points_outside_centre
from recon.modalities.mri.source import KspaceSource

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples


def write_submission(posterior: PosteriorSamples, path: Path, recording: Any = None) -> None:
    """Write the magnitude of the mean as a fastMRI submission, ``reconstruction`` (slice, y, x) float32.

    The image is cropped at its centre to ``geometry["recon_shape"]`` where that is known.
    """
    image = np.abs(posterior.mean)
    write_fastmri(path, image if image.ndim == 3 else image[None], posterior.geometry.get("recon_shape"))


def _citations(diagnostics: Mapping[str, Any]) -> list[str]:
    """Return the citations of a slice; without a calibration region (one coil, or given maps) ESPIRiT was not used."""
    return ["uecker2014espirit"] if diagnostics.get("calibration") else []


MODALITY = Modality(
    name="mri",
    title="MRI",
    options=MRI,
    readers=readers.READERS,
    formats=readers.FORMATS,
    recordings=(KspaceScan, np.ndarray, torch.Tensor),
    source=KspaceSource,
    prior="brain-mri",
    operators=(CartesianMRI,),
    description=describe,
    estimators=estimators.ESTIMATORS,
    qualities={"dds": {"draft": {"steps": 8}}},
    doubts="mask, coil maps, geometry",
    undersampled_by="--acceleration (or --mask)",
    few_steps=FewSteps({2: 0.85, 3: 0.88, 4: 0.88}, 5, "on a measured brain (8 coils, x4, noise .02)"),
    groups=points_outside_centre,
    # Right runs show up to 1.2, planted faults 1.3 and more (docs/uncertainty.md).
    held_out_limit=1.3,
    conditions=conditions,
    report=ReportStyle(
        plain=("zero_filled", "Zero-filled"),
        values="Pixel values are magnitudes in the units of the input.",
        mask="k-space",
    ),
    exports={
        "fastmri": Export(("fastmri",), "submission/{stem}.h5", write_submission),
        "dicom": Export((), "{stem}_dicom", write_dicom, lacks_geometry),
    },
    training=TrainingImages(
        channels=2,
        scale="0.99 quantile of the magnitude = 1",
        load=training.load_slices,
        draw=augment.draw_images,
        test_image=training.evaluation_image,
        unused=("rescale",),
    ),
    citations=_citations,
)
