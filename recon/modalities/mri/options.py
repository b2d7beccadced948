"""Options of MRI reconstruction."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recon.options import Options, option


def _array_or_file(name: str) -> Callable[[Any], Any]:
    """Return a check that an option is an array or the path of a file, which becomes text."""

    def parse(value: Any) -> Any:
        if isinstance(value, str | os.PathLike):
            return os.fspath(value)
        if not hasattr(value, "shape"):
            from recon.errors import InputError

            raise InputError(f"{name}: expected an array or the path of a file, got {type(value).__name__}")
        return value

    return parse


@dataclass(frozen=True, eq=False)
class MRI(Options):
    """Undersampling of k-space, and known coils and noise; by default everything is estimated from the data."""

    mask: Any = option(
        None,
        str,
        "retrospective undersampling pattern (random, equispaced, poisson, ...), or a file of the sampled points: "
        "(x,), (1, x), (y, 1) or (y, x), by slices with an axis in front; in Python also an array",
        "NAME_OR_FILE",
        parse=_array_or_file("mask"),
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
        None,
        str,
        "known coil maps, (coil, y, x) or (map, coil, y, x), by slices with an axis in front; in Python also an array "
        "(default: ESPIRiT from the centre)",
        "FILE",
        parse=_array_or_file("coil_maps"),
        arrays=True,
    )
    calibration: Any = option(
        None,
        str,
        "k-space of a separate calibration scan with the same coils and field of view, from whose centre the coil maps "
        "are estimated; in Python also an array (coil, y, x)",
        "FILE",
        parse=_array_or_file("calibration"),
        arrays=True,
    )
    noise_scan: Any = option(
        None,
        str,
        "noise samples (coil, ...) of a scan without excitation with the same bandwidth, their covariance "
        "(coil, coil), or an ISMRMRD file with noise acquisitions of any bandwidth; in Python also an array "
        "(default: noise is estimated)",
        "FILE",
        parse=_array_or_file("noise_scan"),
        arrays=True,
    )
    noise_covariance: Any = option(
        None, None, "E[n n^H] of the coils (coil, coil), from a noise scan (default: estimated)", arrays=True
    )


OPTIONS = MRI
