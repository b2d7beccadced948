"""Samples of an image given its measurement, and their statistics; `recon.posterior` adds files and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from recon.errors import InputError, ShapeError
from recon.posterior_summary import LEVELS, Summary
from recon.run_options import NO_PRIOR
from recon.verdict import Verdict


class IntervalRule(Protocol):
    """What stretches raw intervals so that they hold what they promise, such as a calibration."""

    @property
    def level(self) -> float: ...  # noqa: D102

    def apply(self, posterior: PosteriorSamples, group: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper end of the interval."""


@dataclass(frozen=True, eq=False)
class PosteriorSamples:
    """Samples of an image given its measurement: mean, uncertainty, intervals and provenance.

    Samples that the sampler flagged as invalid (`diagnostics["valid"]`) are kept in `samples`, but excluded from
    everything computed here.

    Parameters and errors are those of `recon.Posterior`, which adds files and reports.
    """

    samples: np.ndarray
    geometry: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    summary: Summary | None = None

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.ndim not in (3, 4) or (samples.shape[0] < 1 and self.summary is None):
            raise ShapeError(f"Posterior: samples must be (n, [slice,] y, x) with n >= 1, got {samples.shape}")
        if samples.dtype.kind not in "fc":
            raise InputError(f"Posterior: samples must be real or complex floating point, got {samples.dtype}")
        valid = self.diagnostics.get("valid")
        least = len(samples)
        shape = (least,) if valid is None else np.asarray(valid).shape
        if shape != (least,) and (self.summary is None or len(shape) != 1 or shape[0] < least):
            raise ShapeError(f"Posterior: diagnostics['valid'] has the shape {shape} for {least} samples")
        object.__setattr__(self, "samples", samples)

    @cached_property
    def valid(self) -> np.ndarray:
        """Which samples are valid: bool `(n,)`."""
        valid = self.diagnostics.get("valid")
        return np.ones(len(self.samples), bool) if valid is None else np.asarray(valid, bool)

    @property
    def n_valid(self) -> int:
        """The number of valid samples, also of those that are not kept."""
        return int(self.valid.sum()) if self.summary is None else self.summary.n

    @property
    def kept(self) -> np.ndarray:
        """The valid samples that are kept, ``(n, [slice,] y, x)``."""
        valid = self.valid[: len(self.samples)]
        return self.samples if valid.all() else self.samples[valid]

    @cached_property
    def slice_valid(self) -> np.ndarray:
        """Which slices of a volume have a result: bool ``(slice,)``; those without are NaN. ``(1,)`` for one image."""
        known = self.diagnostics.get("slice_valid")
        n_slices = self.samples.shape[1] if self.samples.ndim == 4 else 1
        if known is None:
            return np.ones(n_slices, bool)
        found = np.asarray(known, bool)
        if found.shape != (n_slices,):
            raise ShapeError(f"Posterior: diagnostics['slice_valid']: expected {n_slices} values, got {found.shape}")
        return found

    @property
    def is_estimate(self) -> bool:
        """Whether this is an estimate without a prior, whose samples show its noise only (`recon.estimators`)."""
        prior = self.provenance.get("prior")
        return isinstance(prior, Mapping) and prior.get("name") == NO_PRIOR

    @property
    def compared(self) -> dict[str, np.ndarray]:
        """The reconstructions without a learned prior that the run was asked to compare with, by name."""
        config = self.provenance.get("config")
        names = config.get("compare") if isinstance(config, Mapping) else None
        known = names if isinstance(names, list) else []
        return {name: np.asarray(self.images[name]) for name in known if name in self.images}

    @property
    def central_slice(self) -> int | None:
        """The valid slice that is nearest to the middle of a volume; None for a single image.

        An `InputError` if no slice is valid.
        """
        valid = np.flatnonzero(self.slice_valid)
        if not len(valid):
            raise InputError("no slice of the result is valid, so there is nothing to show")
        if self.samples.ndim == 3:
            return None
        return int(valid[np.argmin(np.abs(valid - self.samples.shape[1] // 2))])

    @cached_property
    def usable(self) -> PosteriorSamples:
        """The posterior of the slices that have a result, for statistics over all pixels."""
        keep = self.slice_valid
        if keep.all():
            return self
        n_slices = self.samples.shape[1]
        per_slice = {
            name: value[:, keep]
            for name, value in self.diagnostics.items()
            if isinstance(value, np.ndarray) and value.shape == (len(self.valid), n_slices)
        }
        rest = {name: value for name, value in self.diagnostics.items() if name != "slice_valid"}
        record = dict(self.provenance)
        if len(record.get("slices") or ()) == n_slices:
            record["slices"] = [index for index, kept in zip(record["slices"], keep, strict=True) if kept]
        return replace(self._of_slices(keep), provenance=record, diagnostics={**rest, **per_slice})

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the result can be believed, and why not: "ok", "doubtful" or "failed"; see `recon.verdict`."""
        return Verdict.recorded(self.provenance)

    @property
    def held_out_chi2(self) -> float | None:
        """Squared error of the prediction of withheld data over its expected value: the worst of the slices.

        None without a held-out test; see `recon.engine.holdout`.
        """
        tests = [test for test in self.provenance.get("held_out") or [] if test is not None]
        return max((float(test["chi2"]) for test in tests), default=None)

    @cached_property
    def mean(self) -> np.ndarray:
        """The posterior mean `([slice,] y, x)`, complex for complex samples.

        The average of the samples, mean_k x_k; or `images["expectation"]` where the sampler provides it: the average
        over the samples' paths of E[x | noisy x, y], which estimates the same mean with less noise (Rao-Blackwell).
        """
        if "expectation" in self.images:
            return np.asarray(self.images["expectation"]).astype(self.samples.dtype)
        if self.summary is not None:
            return self.summary.mean
        wide = np.complex128 if np.iscomplexobj(self.samples) else np.float64
        return self._counted().mean(axis=0, dtype=wide).astype(self.samples.dtype)

    @cached_property
    def std(self) -> np.ndarray:
        """The posterior standard deviation `([slice,] y, x)`, real: sqrt(sum_k |x_k - m|^2 / (n - 1)), m their average.

        For complex samples this is the total complex one (both parts together); `magnitude.std` is the one of the
        magnitudes. With a single sample there is no spread to measure and it is zero.
        """
        if self.summary is not None:
            return self.summary.std
        samples = self._counted()
        n = len(samples)
        total = np.zeros(samples.shape[1:])
        if n > 1:
            mean = samples.mean(axis=0, dtype=np.complex128 if np.iscomplexobj(samples) else np.float64)
            for sample in samples:
                total += np.abs(sample - mean) ** 2
        return np.sqrt(total / max(n - 1, 1)).astype(samples.real.dtype)

    @cached_property
    def magnitude(self) -> PosteriorSamples:
        """The posterior of the magnitude |x|, which is what is displayed and compared with a reference."""
        if not np.iscomplexobj(self.samples):
            return self
        images = {n: np.abs(image) if n == "expectation" else image for n, image in self.images.items()}
        summary = None if self.summary is None else self.summary.of_magnitude()
        return replace(self, samples=np.abs(self.samples), images=images, summary=summary)

    def interval(
        self,
        level: float = 0.9,
        method: str = "student",
        calibration: IntervalRule | None = None,
        group: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval that should hold the true image with probability `level`.

        "student" is the exact predictive interval of a Gaussian known from n samples,
        m -+ t_{n-1, (1+level)/2} sqrt(1 + 1/n) s with sample mean m and standard deviation s; "quantile" takes the
        empirical quantiles (1 -+ level)/2 (it needs many samples: n samples say nothing beyond their extremes).
        Intervals of complex samples are those of their magnitudes. Where no sample is negative the interval is not
        either.
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
        if method == "quantile":
            return self._quantile((1 - level) / 2), self._quantile((1 + level) / 2)
        from scipy.special import stdtrit

        n, kind = self.n_valid, self.samples.dtype
        half = float(stdtrit(n - 1, (1 + level) / 2)) * np.sqrt(1 + 1 / n) * self.std
        lower, upper = self.mean - half, self.mean + half
        lower = np.where(self.lowest[..., None, None] >= 0, np.maximum(lower, 0), lower)
        return lower.astype(kind), upper.astype(kind)

    @cached_property
    def lowest(self) -> np.ndarray:
        """The lowest value of real samples in each slice, ``([slice])``."""
        return self._counted().min(axis=(0, -2, -1)) if self.summary is None else self.summary.lowest

    def slice(self, place: int) -> PosteriorSamples:
        """Return one slice of a volume, by its place."""
        return self._of_slices(place)

    def _of_slices(self, chosen: np.ndarray | int) -> PosteriorSamples:
        """Return some slices of a volume, or one; of the diagnostics only which samples are valid."""
        n_slices = self.samples.shape[1]
        images = {
            name: image[chosen] if np.ndim(image) == 3 and len(image) == n_slices else image
            for name, image in self.images.items()
        }
        return replace(
            self,
            samples=self.samples[:, chosen],
            images=images,
            diagnostics={"valid": self.valid},
            summary=None if self.summary is None else self.summary.of_slices(chosen),
        )

    def summarised(self, keep: int) -> PosteriorSamples:
        """Return the posterior with the first ``keep`` samples only; its statistics are still those of all of them.

        Raises
        ------
        InputError
            If no sample is valid.
        """
        if self.summary is not None:
            return replace(self, samples=self.samples[:keep])
        magnitude, complex_values = self.magnitude, np.iscomplexobj(self.samples)
        summary = Summary(
            n=self.n_valid,
            mean=replace(self, images={}).mean,
            std=self.std,
            lowest=magnitude.lowest,
            quantiles=np.stack([magnitude._quantile(level) for level in LEVELS]),
            magnitude_mean=replace(magnitude, images={}).mean if complex_values else None,
            magnitude_std=magnitude.std if complex_values else None,
        )
        diagnostics = {**self.diagnostics, "valid": self.valid}
        return replace(self, samples=self.samples[:keep], diagnostics=diagnostics, summary=summary)

    def _quantile(self, level: float) -> np.ndarray:
        """Return a quantile of real samples."""
        if self.summary is None:
            return np.quantile(self._counted(), level, axis=0).astype(self.samples.dtype)
        found = self.summary.quantile(level)
        if found is None:
            raise InputError(
                f"Posterior.interval: the quantile {level:g} needs all samples, of which {len(self.samples)} are kept; "
                f"quantiles at {', '.join(f'{kept:g}' for kept in LEVELS)} are known"
            )
        return found

    def _counted(self) -> np.ndarray:
        if not self.n_valid:
            raise InputError("Posterior: all samples are invalid, so there is nothing to summarise")
        return self.kept
