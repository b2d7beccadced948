"""Options of ultrasound reconstruction: plane waves, elements, samples and field of view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recon.options import Options, option

ARRAYS = ("uniform", "random", "centre")


def span(name: str) -> Callable[[Any], tuple[float, float]]:
    """Return a parser from ``"A:B"`` or a pair to two increasing numbers; it raises InputError for anything else."""

    def parse(given: Any) -> tuple[float, float]:
        from recon.errors import InputError

        parts = given.split(":") if isinstance(given, str) else given
        try:
            low, high = (float(part) for part in parts)
        except (TypeError, ValueError):
            raise InputError(f"{name}: expected A:B in mm, got {given!r}") from None
        if not -float("inf") < low < high < float("inf"):
            raise InputError(f"{name}: expected two increasing numbers in mm, got {given!r}")
        return low, high

    return parse


@dataclass(frozen=True)
class Ultrasound(Options):
    """Selection of the channel data and of the reconstructed region."""

    angles: int | None = option(
        None,
        int,
        "number of plane waves, spread over the angular range; 1: the unsteered one (default: all)",
        "N",
        at_least=1,
    )
    elements: int | None = option(None, int, "number of receiving elements (default: all)", "N", at_least=1)
    array: str = option(
        "uniform",
        str,
        "pattern of the elements: uniform (every n-th), random (sparse array) or centre (smaller aperture)",
        choices=ARRAYS,
    )
    decimation: int | None = option(
        None,
        int,
        "keep every n-th demodulated sample; above the default the model includes the aliasing (default: the "
        "largest that keeps the band of the pulse)",
        "N",
        at_least=1,
    )
    depth: Any = option(None, str, "depths to reconstruct (default: all)", "A:B", unit="mm", parse=span("depth"))
    width: Any = option(
        None,
        str,
        "lateral range to reconstruct, such as --width=-10:10 (default: all)",
        "A:B",
        unit="mm",
        parse=span("width"),
    )
    sound_speed: float | None = option(
        None, float, "sound speed of the tissue (default: that of the file)", "SPEED", unit="m/s", above=0
    )
    attenuation: float = option(0.0, float, "attenuation of the tissue", "DB", unit="dB/(MHz cm)", at_least=0)
    model_error: float | None = option(
        None,
        float,
        "relative model error, as a fraction of the local signal strength (default: 1.25 times the residual of a "
        "first fit, at least 0.05)",
        "FRACTION",
        at_least=0,
    )
    time_shift: float = option(
        0.0, float, "delay of the recorded samples relative to the file's time zero", "US", unit="us"
    )
    noise_std: float | None = option(
        None, float, "electronic noise of the samples in the file (default: estimated)", "STD", at_least=0
    )


OPTIONS = Ultrasound
