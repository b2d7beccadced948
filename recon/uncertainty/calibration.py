"""A calibration: how far raw intervals must be stretched, for results made with the same settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError
from recon.uncertainty.calibration_file import read_calibration, write_calibration
from recon.uncertainty.conformal import spread_map, white_level
from recon.uncertainty.fingerprint import fingerprint, require_match

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

#: The group of all images where no groups are given.
ALL = "all"


@dataclass(frozen=True)
class Calibration:
    """How much the raw intervals of one reconstruction setup must be stretched.

    Parameters
    ----------
    level : float
        Nominal coverage of the interval, 1 - alpha.
    method : "crc" or "rcps"
        See `recon.uncertainty.allowed_risk`.
    factors : mapping
        lambda of the interval ``m -+ lambda s`` by group; the group is "all" unless groups were given.
    constants : mapping
        Half-width of an interval of constant width with the same guarantee, in units of `white_level`, for comparison.
    spreads : mapping
        Mean s over pixels with signal of the calibration images, in units of `white_level`, by group; empty in files
        of earlier releases.
    images : mapping
        Number of calibration images by group.
    delta : float
        1 minus the confidence of "rcps".
    smoothing, floor
        Arguments of `recon.uncertainty.spread_map`.
    per : "file" or "slice"
        The unit that counts as one image.
    fingerprint : mapping
        See `recon.uncertainty.fingerprint`.
    sources : tuple of str
        sha256 of the raw data of the calibration images.
    """

    level: float
    method: str
    factors: Mapping[str, float]
    constants: Mapping[str, float]
    images: Mapping[str, int]
    spreads: Mapping[str, float] = field(default_factory=dict)
    delta: float = 0.1
    smoothing: int = 1
    floor: float = 1e-3
    per: str = "file"
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def factor(self, group: str | None = None) -> float:
        """Return lambda of a group; a calibration by groups needs the group's name."""
        return self.factors[self._group(group)]

    def raw_ratio(self, group: str | None = None) -> float:
        """Return the calibrated over the raw width; 1 where the raw interval was right, above 1 over-confident."""
        from scipy.special import stdtrit

        n = int(self.fingerprint["samples"])
        return self.factor(group) / float(stdtrit(n - 1, (1 + self.level) / 2) * np.sqrt(1 + 1 / n))

    def constant_ratio(self, group: str | None = None) -> float | None:
        """Return a constant over the mean calibrated width: below 1 the map does not say where errors are.

        None for a file of an earlier release.
        """
        name = self._group(group)
        if not self.spreads:
            return None
        return self.constants[name] / (self.factors[name] * self.spreads[name])

    def apply(self, posterior: PosteriorSamples, group: str | None = None) -> tuple[NDArray, NDArray]:
        """Return the calibrated interval of the magnitudes, ``(lower, upper)``, each ``([slice,] y, x)``.

        Raises
        ------
        InputError
            If the posterior was not made like the calibration images (names the field), or the group is unknown.
        """
        chosen = self._group(group)
        require_match(self.fingerprint, fingerprint(posterior))
        spread = self.spread(posterior)
        return _interval(posterior, self.factors[chosen] * spread)

    def constant_interval(self, posterior: PosteriorSamples, group: str | None = None) -> tuple[NDArray, NDArray]:
        """Return the interval of constant width with the same guarantee, which a spread map should beat."""
        chosen = self._group(group)
        require_match(self.fingerprint, fingerprint(posterior))
        mean = posterior.magnitude.mean
        return _interval(posterior, np.full(mean.shape, self.constants[chosen] * white_level(mean)))

    def spread(self, posterior: PosteriorSamples) -> NDArray[np.float64]:
        """Return the spread map that lambda multiplies."""
        magnitude = posterior.magnitude
        return spread_map(magnitude.std, white_level(magnitude.mean), self.smoothing, self.floor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, atomically."""
        write_calibration(path, asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a file written by `save`; any other file raises an `InputError` that says why."""
        return cls(**read_calibration(path, [known.name for known in fields(cls)]))

    def _group(self, group: str | None) -> str:
        if group is None and set(self.factors) == {ALL}:
            return ALL
        if group not in self.factors:
            known = ", ".join(sorted(self.factors))
            given = "no group was given" if group is None else f"got {group!r}"
            raise InputError(f"calibration: expected one of the groups {known}; {given}")
        return str(group)


def _interval(posterior: PosteriorSamples, half: NDArray) -> tuple[NDArray, NDArray]:
    magnitude = posterior.magnitude
    lower, upper = magnitude.mean - half, magnitude.mean + half
    if not (magnitude.lowest < 0).any():  # slices without a result are NaN
        lower = np.maximum(lower, 0)
    return lower.astype(np.float32), upper.astype(np.float32)
