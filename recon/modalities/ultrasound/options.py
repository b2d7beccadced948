"""Options of ultrasound reconstruction: waves, elements, samples and field of view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from recon.options import Options, option

if TYPE_CHECKING:
    from operators.ultrasound.geometry import PlaneWaveGeometry
    from recon.modalities.ultrasound.data import PlaneWaveData

ARRAYS = ("uniform", "random", "centre")


def span(name: str) -> Callable[[Any], tuple[float, float]]:
    """Return what turns ``"A:B"``, or a pair, into two rising numbers; an InputError for anything else."""

    def parse(given: Any) -> tuple[float, float]:
        from recon.errors import InputError

        parts = given.split(":") if isinstance(given, str) else given
        try:
            low, high = (float(part) for part in parts)
        except (TypeError, ValueError):
            raise InputError(f"{name}: expected A:B in mm, got {given!r}") from None
        if not -float("inf") < low < high < float("inf"):
            raise InputError(f"{name}: expected two rising numbers in mm, got {given!r}")
        return low, high

    return parse


@dataclass(frozen=True)
class Ultrasound(Options):
    """Which of the channel data are used, and for which part of the image."""

    angles: int | None = option(
        None,
        int,
        "number of plane waves, spread over the range; 1: the one steered straight down (default: all)",
        "N",
        at_least=1,
    )
    elements: int | None = option(None, int, "number of receiving elements (default: all)", "N", at_least=1)
    array: str = option(
        "uniform",
        str,
        "which elements: uniform (every n-th), random (sparse array) or centre (smaller aperture)",
        choices=ARRAYS,
    )
    decimation: int | None = option(
        None,
        int,
        "keep every n-th demodulated sample; beyond the default the model sees the aliasing (default: the most that "
        "keeps the band of the pulse)",
        "N",
        at_least=1,
    )
    depth: Any = option(None, str, "depths to reconstruct (default: all)", "A:B", unit="mm", parse=span("depth"))
    width: Any = option(
        None,
        str,
        "lateral range to reconstruct, as --width=-10:10 (default: all)",
        "A:B",
        unit="mm",
        parse=span("width"),
    )
    attenuation: float = option(0.0, float, "attenuation of the tissue", "DB", unit="dB/(MHz cm)", at_least=0)
    model_error: float | None = option(
        None,
        float,
        "relative model error, as a fraction of the local signal strength (default: 1.25 times what a first fit "
        "leaves, at least 0.05)",
        "FRACTION",
        at_least=0,
    )
    time_shift: float = option(
        0.0, float, "delay of the recorded samples relative to the file's time zero", "US", unit="us"
    )
    noise_std: float | None = option(
        None, float, "electronic noise of the samples in the file (default: estimated)", "STD", at_least=0
    )

    def choose(self, data: PlaneWaveData, seed: int = 0) -> PlaneWaveData:
        """Return the waves and elements that are used, at the corrected time; ``seed`` is that of a sparse array."""
        data = data.undersample(self.angles, self.elements, array=self.array, seed=seed)
        if self.noise_std is not None:
            level = self.noise_std
            data = replace(data, load_noise=lambda i: level)
        if self.attenuation:
            data = replace(data, geometry=replace(data.geometry, attenuation=self.attenuation))
        return data.shifted(self.time_shift * 1e-6) if self.time_shift else data

    def band(self, geometry: PlaneWaveGeometry) -> float | None:
        """Return the width in Hz of the band that demodulation keeps of real samples; None for complex ones.

        Samples below the Nyquist rate of the pulse are aliased, not filtered: the band stays that of the pulse.
        """
        from recon.modalities.ultrasound.pulse import decimation_of

        if geometry.is_complex:
            return None
        most = decimation_of(geometry)
        return geometry.sampling_frequency / min(self.decimation or most, most)

    def thin_out(self, data: PlaneWaveData) -> PlaneWaveData:
        """Return the complex samples that are used: real ones are demodulated, with the band of the pulse."""
        from recon.errors import InputError
        from recon.modalities.ultrasound.pulse import decimation_of

        band = self.band(data.geometry)
        if band is None:
            return data.select(decimation=self.decimation or 1)
        if self.decimation == 1:
            raise InputError("decimation: real samples become half as many complex ones; expected 2 or more, got 1")
        return data.to_iq(bandwidth=band).select(decimation=self.decimation or decimation_of(data.geometry))


OPTIONS = Ultrasound
