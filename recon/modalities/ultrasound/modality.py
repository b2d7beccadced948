"""The plane-wave ultrasound modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from operators.ultrasound.plane_wave import PlaneWaveUltrasound
from recon.modalities.base import Condition, Modality, ReportStyle, TrainingImages, rows_of_data, spread
from recon.modalities.ultrasound import describe, estimators, settings, training
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files import readers
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.report import display, rows
from recon.modalities.ultrasound.source import USSource

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

#: Factors by which frequencies, bandwidth and attenuation (first) and the model error (second) may lie outside those of
#: the calibration images.
_TOLERANCE, _ERROR_TOLERANCE = 1.1, 1.5
#: The same for the sound speed: a smaller difference is not noticed in the data either.
_SPEED_TOLERANCE = 1.02


def conditions(posterior: PosteriorSamples) -> dict[str, Condition]:
    """Return plane waves, aperture, field of view, sampling and pulse."""
    measured: Mapping[str, Any] = (posterior.provenance.get("measured") or [{}])[0]
    config: Mapping[str, Any] = posterior.provenance.get("config") or {}
    geometry = posterior.geometry
    size, origin, shape = geometry.get("voxel_size_mm"), geometry.get("origin_mm"), posterior.samples.shape[-2:]
    field = None
    if size is not None and origin is not None:
        field = [[round(origin[k], 2), round(origin[k] + (shape[k - 1] - 1) * size[k], 2)] for k in (1, 2)]
    return {
        "waves": Condition(measured.get("angles_deg")),
        "elements": Condition(measured.get("elements")),
        "array": Condition(config.get("array")),
        "decimation": Condition(config.get("decimation")),
        "depth": Condition(field and field[0]),
        "width": Condition(field and field[1]),
        "attenuation": Condition(config.get("attenuation")),
        "sound_speed": Condition(spread(posterior, "sound_speed"), tolerance=_SPEED_TOLERANCE, optional=True),
        "sampling_frequency_mhz": Condition(spread(posterior, "sampling_frequency_mhz"), tolerance=_TOLERANCE),
        "pulse_frequency_mhz": Condition(spread(posterior, "pulse_frequency_mhz"), tolerance=_TOLERANCE),
        "pulse_bandwidth": Condition(spread(posterior, "pulse_bandwidth"), tolerance=_TOLERANCE),
        "model_error": Condition(spread(posterior, "model_error"), tolerance=_ERROR_TOLERANCE),
    }


MODALITY = Modality(
    name="ultrasound",
    title="ultrasound",
    options=Ultrasound,
    readers=readers.READERS,
    formats=readers.FORMATS,
    recordings=(PlaneWaveData,),
    source=USSource,
    prior="ultrasound",
    operators=(PlaneWaveUltrasound,),
    description=describe,
    samplers=settings.SAMPLERS,
    estimators=estimators.ESTIMATORS,
    axes=("z x", "frame z x"),
    doubts="time zero, sound speed, pulse, attenuation",
    groups=rows_of_data,
    conditions=conditions,
    report=ReportStyle(
        plain=("das", "Delay and sum"),
        values="Images are magnitudes in dB; samples are complex, in the units of the channel data.",
        rows=rows,
        display=display,
    ),
    training=TrainingImages(
        channels=2,
        scale="0.99 quantile of the magnitude of a first fit = 1",
        load=training.load_slices,
        draw=training.draw_images,
        test_image=training.held_out_image,
        unused=("spacing", "native", "max_zoom", "rescale", "pixel", "every", "phase_jumps"),
    ),
    hint=readers.hint,
    auxiliary=describe.auxiliary,
)
