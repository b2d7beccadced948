"""The posterior: samples of the image given the measurement, and their statistics."""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.errors import InputError, ShapeError

if TYPE_CHECKING:
    from recon.uncertainty.calibration import Calibration


@dataclass(frozen=True, eq=False)
class Posterior:
    """Samples of an image given its measurement: mean, uncertainty, intervals and provenance.

    Samples that the sampler flagged as invalid (`diagnostics["valid"]`) are kept in `samples`, but excluded from
    everything computed here.

    Parameters
    ----------
    samples
        `(n, [slice,] y, x)`, complex64 or float32, in the units of the input.
    geometry
        `voxel_size_mm` (z, y, x), `recon_shape` (y, x), `axes`, ...: plain values that JSON can hold.
    provenance
        Versions, configuration, seed, source, prior, citations: plain values that JSON can hold.
    diagnostics
        Arrays or numbers: `valid` and `residual` (chi^2 = |y - A x|^2 / (m sigma^2)) per sample, `seconds`, ...
    images
        Auxiliary images `([slice,] y, x)`: `zero_filled`, `reference` (magnitude), `mask`; `expectation`, the posterior
        mean where the sampler estimates it better than the average of a few samples.

    Raises
    ------
    ShapeError
        If the axes do not fit together.
    """

    samples: np.ndarray
    geometry: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.ndim not in (3, 4) or samples.shape[0] < 1:
            raise ShapeError(f"Posterior: samples must be (n, [slice,] y, x) with n >= 1, got {samples.shape}")
        if samples.dtype.kind not in "fc":
            raise InputError(f"Posterior: samples must be real or complex floating point, got {samples.dtype}")
        valid = self.diagnostics.get("valid")
        if valid is not None and np.shape(valid) != (len(samples),):
            raise ShapeError(
                f"Posterior: diagnostics['valid'] has the shape {np.shape(valid)} for {len(samples)} samples"
            )
        object.__setattr__(self, "samples", samples)

    @cached_property
    def valid(self) -> np.ndarray:
        """Which samples are valid: bool `(n,)`."""
        valid = self.diagnostics.get("valid")
        return np.ones(len(self.samples), bool) if valid is None else np.asarray(valid, bool)

    @property
    def n_valid(self) -> int:
        """The number of valid samples."""
        return int(self.valid.sum())

    @cached_property
    def mean(self) -> np.ndarray:
        """The posterior mean `([slice,] y, x)`, complex for complex samples.

        The average of the samples, mean_k x_k; or `images["expectation"]` if the sampler provides it: the average over
        the samples' paths of E[x | noisy x, y], which estimates the same mean with less noise (Rao-Blackwell).
        """
        if "expectation" in self.images:
            return np.asarray(self.images["expectation"]).astype(self.samples.dtype)
        wide = np.complex128 if np.iscomplexobj(self.samples) else np.float64
        return self._counted().mean(axis=0, dtype=wide).astype(self.samples.dtype)

    @cached_property
    def std(self) -> np.ndarray:
        """The posterior standard deviation `([slice,] y, x)`, real: sqrt(sum_k |x_k - m|^2 / (n - 1)), m their average.

        For complex samples this is the total complex one (both parts together); `magnitude.std` is the one of the
        magnitudes. With a single sample there is no spread to measure and it is zero.
        """
        samples = self._counted()
        n = len(samples)
        total = np.zeros(samples.shape[1:])
        if n > 1:
            mean = samples.mean(axis=0, dtype=np.complex128 if np.iscomplexobj(samples) else np.float64)
            for sample in samples:
                total += np.abs(sample - mean) ** 2
        return np.sqrt(total / max(n - 1, 1)).astype(samples.real.dtype)

    @cached_property
    def magnitude(self) -> "Posterior":
        """The posterior of the magnitude |x|, which is what is displayed and compared with a reference."""
        if not np.iscomplexobj(self.samples):
            return self
        images = {n: np.abs(image) if n == "expectation" else image for n, image in self.images.items()}
        return replace(self, samples=np.abs(self.samples), images=images)

    def interval(
        self,
        level: float = 0.9,
        method: str = "student",
        calibration: "Calibration | None" = None,
        group: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval that should hold the true image with probability `level`.

        "student" is the exact predictive interval of a Gaussian known from n samples,
        m -+ t_{n-1, (1+level)/2} sqrt(1 + 1/n) s with sample mean m and standard deviation s; "quantile" takes the
        empirical quantiles (1 -+ level)/2 (it needs many samples: n samples cannot go beyond their extremes). Intervals
        of complex samples are those of their magnitudes. Where no sample is negative the interval is not either.
        Both are raw: their coverage is not guaranteed. "conformal" stretches m -+ s by the factor of a calibration (see
        `recon.uncertainty.calibrate`), which guarantees it on average over images like those of the calibration.

        Parameters
        ----------
        level
            Between 0 and 1.
        method
            "student", "quantile" or "conformal".
        calibration
            For "conformal"; it must be for the same level.
        group
            Group, for a calibration by groups.

        Returns
        -------
        lower, upper
            Each `([slice,] y, x)`, real.

        Raises
        ------
        InputError
            If fewer than two samples are valid, an argument is out of range, or the calibration belongs to results
            that were made with other settings.
        """
        if not 0 < level < 1:
            raise InputError(f"Posterior.interval: level must be between 0 and 1, got {level}")
        if (method == "conformal") != (calibration is not None):
            raise InputError("Posterior.interval: method 'conformal' needs a calibration; the other methods take none")
        if calibration is not None:
            if abs(calibration.level - level) > 1e-9:
                raise InputError(f"calibration is for level {calibration.level:g}, but level {level:g} was requested")
            return calibration.apply(self, group)
        if method not in ("student", "quantile"):
            raise InputError(f"Posterior.interval: method must be 'student', 'quantile' or 'conformal', got {method!r}")
        if self.n_valid < 2:
            raise InputError(f"Posterior.interval: expected at least 2 valid samples, got {self.n_valid}")
        if np.iscomplexobj(self.samples):
            return self.magnitude.interval(level, method)
        samples = self._counted()
        if method == "quantile":
            lower, upper = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
            return lower.astype(samples.dtype), upper.astype(samples.dtype)
        from scipy.special import stdtrit

        n = len(samples)
        half = float(stdtrit(n - 1, (1 + level) / 2)) * np.sqrt(1 + 1 / n) * self.std
        lower, upper = self.mean - half, self.mean + half
        if (samples >= 0).all():
            lower = np.maximum(lower, 0)
        return lower.astype(samples.dtype), upper.astype(samples.dtype)

    def _counted(self) -> np.ndarray:
        if not self.n_valid:
            raise InputError("Posterior: all samples are invalid, so there is nothing to summarise")
        return self.samples if self.valid.all() else self.samples[self.valid]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one HDF5 file, atomically; the layout is described in `recon.files.posterior_file`."""
        from recon.files.posterior_file import write_posterior

        write_posterior(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Posterior":
        """Read a file written by `save`; any other file raises an `InputError` that says why."""
        from recon.files.posterior_file import read_posterior

        return cls(**read_posterior(path))

    def report(
        self, path: str | os.PathLike[str], calibration: "Calibration | None" = None, group: str | None = None
    ) -> Any:
        """Render the result as one PNG and one self-contained HTML page (needs the extra `report`)."""
        from recon.report import write_report

        return write_report(self, path, calibration, group)

    def to_nifti(self, path: str | os.PathLike[str]) -> list[Any]:
        """Write mean, std and interval of the magnitude as NIfTI files (extra `nifti`); return their paths."""
        from recon.files.nifti import write_nifti

        return write_nifti(path, self)

    def export(self, name: str, path: str | os.PathLike[str], recording: Any = None) -> None:
        """Write the result in a format of its modality.

        Parameters
        ----------
        name
            Name of the format in the modality.
        path
            A file, or a folder if the format writes several files.
        recording
            The source of the reconstruction, for formats that copy its headers.

        Raises
        ------
        InputError
            If no modality offers such a format.
        """
        from recon.modalities import modalities

        formats = {key: export for known in modalities() for key, export in known.exports.items()}
        if name not in formats:
            raise InputError(f"Posterior.export: expected one of {', '.join(sorted(formats))}, got {name!r}")
        formats[name].write(self, Path(path), recording)

    def to_fastmri(self, path: str | os.PathLike[str]) -> None:
        """Write the magnitude of the mean as a fastMRI submission; the same as ``export("fastmri", path)``."""
        self.export("fastmri", path)
