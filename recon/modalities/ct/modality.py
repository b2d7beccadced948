"""The CT modality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from operators.ct import projection
from recon.images import augment
from recon.modalities.base import Condition, Export, Modality, ReportStyle, TrainingImages, rows_of_data, spread
from recon.modalities.ct import describe, estimators, settings, training
from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.files import readers
from recon.modalities.ct.files.dicom_write import not_dicom, write_dicom
from recon.modalities.ct.options import CT
from recon.modalities.ct.source import CTSource

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

#: Factors by which pixel size and angular range may lie outside those of the calibration images.
_PIXEL_TOLERANCE, _ARC_TOLERANCE = 1.2, 1.01


def conditions(posterior: PosteriorSamples) -> dict[str, Condition]:
    """Return ray geometry, number and range of the views, pixel size, and whether the views were simulated."""
    measured = posterior.provenance.get("measured") or [{}]
    return {
        "geometry": Condition(measured[0].get("geometry")),
        "views": Condition(spread(posterior, "views")),
        "arc": Condition(spread(posterior, "arc"), tolerance=_ARC_TOLERANCE),
        "pixel_size_mm": Condition(spread(posterior, "pixel_size_mm"), tolerance=_PIXEL_TOLERANCE),
        "simulated": Condition(measured[0].get("simulated")),
    }


def write_derived(posterior: PosteriorSamples, folder: Path, recording: Any) -> None:
    """Write mean and std as derived DICOM series; a folder of an earlier run is replaced."""
    known = posterior.usable  # slices without a result are left out
    maps = {"mean": known.mean, "std": known.std}
    write_dicom(folder, recording, maps, known.provenance["slices"], "posterior mean and standard deviation", True)


MODALITY = Modality(
    name="ct",
    title="CT",
    options=CT,
    readers=readers.READERS,
    formats=readers.FORMATS,
    recordings=(CTImages, CTProjections),
    source=CTSource,
    prior="ct",
    operators=(projection.CT,),
    description=describe,
    samplers=settings.SAMPLERS,
    estimators=estimators.ESTIMATORS,
    doubts="angles, centre of rotation, scanner distances",
    undersampled_by="--views",
    groups=rows_of_data,
    conditions=conditions,
    report=ReportStyle(
        plain=("fbp", "Filtered backprojection"),
        values="Pixel values are in HU, or in the unit of the geometry if the attenuation of water is unknown.",
    ),
    exports={"dicom": Export(("dicom",), "{stem}_dicom", write_derived, not_dicom)},
    training=TrainingImages(
        channels=1,
        scale="attenuation of water = 1: (HU + 1000) / 1000",
        load=training.load_slices,
        draw=augment.draw_real_images,
        test_image=training.real_evaluation_image,
        unused=("phase_jumps",),
    ),
    hint=readers.hint,
)
