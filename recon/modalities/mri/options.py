"""Options of MRI reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recon.options import Options, option


@dataclass(frozen=True, eq=False)
class MRI(Options):
    """Undersampling of k-space, and known coils and noise; by default everything is estimated from the data."""

    mask: Any = option(
        None,
        str,
        "retrospective undersampling pattern: random, equispaced, poisson, ...; in Python also a boolean array of "
        "the sampled points",
        "PATTERN",
        arrays=True,
    )
    acceleration: float | None = option(
        None, float, "retrospective acceleration factor R (fully sampled input)", "R", at_least=1
    )
    center_fraction: float | None = option(
        None, float, "fully sampled fraction of the centre of that pattern", "F", at_least=0, at_most=1
    )
    noise_std: float | None = option(
        None, float, "noise of each k-space sample, E|n|^2 = std^2 (default: estimated)", "STD", at_least=0
    )
    model_error: float | None = option(
        None,
        float,
        "relative model error, as a fraction of the local signal (default: from a first fit)",
        "FRACTION",
        at_least=0,
    )
    coils: int | None = option(None, int, "number of virtual coils to compress to (default: keep all)", "N", at_least=1)
    calib_size: int | None = option(
        None, int, "largest side of the calibration region of the coil maps (default: 24)", "N", at_least=1
    )
    coil_maps: Any = option(
        None, None, "known coil maps (coil, y, x) or (map, coil, y, x) (default: ESPIRiT from the centre)", arrays=True
    )
    noise_covariance: Any = option(
        None, None, "E[n n^H] of the coils (coil, coil), from a noise scan (default: estimated)", arrays=True
    )


OPTIONS = MRI
