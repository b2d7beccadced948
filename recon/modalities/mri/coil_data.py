"""k-space of one slice and what else is given for its coils: maps, noise, a calibration scan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from operators.mri.autocalibration import Region
from recon.errors import InputError
from recon.modalities.mri import field_shift
from recon.modalities.mri.calibration_scan import compressed, on_grid
from recon.modalities.mri.noise import CoilNoise, estimate_noise, given_covariance, given_noise, refuse_noise
from recon.modalities.mri.noise_profile import AirNoise
from recon.modalities.mri.validate import known_maps


@dataclass(frozen=True, eq=False)
class CoilData:
    """Data by coil, which are selected, compressed and shifted together.

    Attributes
    ----------
    kspace : Tensor, shape ``(coil, y, x)``
    maps : Tensor, shape ``([map,] coil, y, x)``, or None
    covariance : Tensor, shape ``(coil, coil)``, or None
        Of the noise, as given by the user.
    in_file : Tensor, shape ``(coil, coil)``, or None
        The same from a noise scan in the file of the data.
    calibration : Tensor, shape ``(coil, y, x)``, or None
        k-space of a separate calibration scan on the grid of the data.
    """

    kspace: Tensor
    maps: Tensor | None
    covariance: Tensor | None
    in_file: Tensor | None
    calibration: Tensor | None

    @classmethod
    def checked(
        cls,
        kspace: Tensor,
        maps: np.ndarray | Tensor | None,
        covariance: np.ndarray | Tensor | None,
        in_file: np.ndarray | Tensor | None,
        calibration: np.ndarray | Tensor | None,
    ) -> CoilData:
        """Check what was given against the data; an InputError or ShapeError says what does not fit."""
        coils = len(kspace)
        return cls(
            kspace,
            None if maps is None else known_maps(maps, kspace),
            None if covariance is None else given_covariance(covariance, coils),
            None if in_file is None else given_covariance(in_file, coils),
            None if calibration is None else on_grid(calibration, kspace),
        )

    def without_dead(self) -> tuple[CoilData, list[str]]:
        """Leave out coils that contain only zeros; also return a note about them."""
        alive = self.kspace.flatten(1).any(dim=1)
        if bool(alive.all()):
            return self, []
        dead = ", ".join(str(int(index)) for index in (~alive).nonzero()[:, 0])
        kept = alive.cpu()
        left = CoilData(
            self.kspace[alive],
            None if self.maps is None else self.maps[..., alive, :, :],
            None if self.covariance is None else self.covariance[kept][:, kept],
            None if self.in_file is None else self.in_file[kept][:, kept],
            None if self.calibration is None else self.calibration[alive],
        )
        return left, [f"coil(s) {dead} contain only zeros and are left out"]

    def sampled(self, mask: Tensor) -> CoilData:
        """Keep the samples of a mask."""
        return replace(self, kspace=self.kspace * mask)

    def compressed(self, coils: int) -> CoilData:
        """Compress data and calibration scan to the same virtual coils; the noise of those has to be estimated."""
        if self.maps is not None or self.covariance is not None:
            raise InputError("coils= compresses the data: omit either coils, or coil_maps and the noise of the coils")
        kspace, calibration = compressed(self.kspace, self.calibration, coils)
        return CoilData(kspace, None, None, None, calibration)

    def shifted(self, shift: tuple[int, int]) -> CoilData:
        """Move the images of data and maps by pixels (y, x)."""
        maps = None if self.maps is None else self.maps.roll(shift, (-2, -1))
        return replace(self, kspace=field_shift.shifted(self.kspace, shift), maps=maps)

    def noise(
        self, mask: Tensor, region: Region | None, level: float | None, unit: float, air: AirNoise | None = None
    ) -> CoilNoise:
        """Return the noise of the coils: given, else from the noise scan of the file, else of the air, or estimated."""
        if level is None and self.covariance is None:
            if self.in_file is None:
                return estimate_noise(self.kspace, mask, region) if air is None else CoilNoise.of_air(air.covariance)
            return CoilNoise.of_scan((self.in_file / unit**2).to(self.kspace))
        noise = given_noise(level, self.covariance, len(self.kspace), unit)
        if noise.level == 0:
            refuse_noise(self.kspace, mask, region, unit)
        return replace(noise, covariance=noise.covariance.to(self.kspace))
