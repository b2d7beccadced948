"""Ultrasound recordings: channel data of plane waves, read frame by frame, and selections of them.

Every format is converted to the convention of `operators.ultrasound.geometry`: SI units, x along the probe, z into
the body; data `(angle, element, sample)`; time zero is when the wave front of each angle passes the origin of the
coordinates; complex data are `analytic(t) exp(-2 pi i f t)` with that same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from recon.errors import InputError, ShapeError
from recon.modalities.recording import Recording, checked
from recon.modalities.ultrasound import patterns as us_patterns
from recon.modalities.ultrasound import signals as us_signal

if TYPE_CHECKING:
    from operators.ultrasound.geometry import PlaneWaveGeometry

Indices = Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class PlaneWaveData(Recording):
    """Channel data of plane waves; `data[i]` is frame i, float32 or complex64 `(angle, element, sample)`.

    Each frame is checked when it is read: NaN, infinities, a wrong shape or kind, and frames without any signal raise
    an `InputError` that names the file and the frame. Selection, demodulation and similar methods return new objects;
    frames are read on demand.

    Parameters
    ----------
    path
        The file.
    format
        "picmus", "uff", "zea", "rf-frames" or "must".
    length
        The number of frames.
    load
        `load(i)` returns frame i in the convention of this module.
    geometry
        `operators.PlaneWaveGeometry`: angles, elements, frequencies, sound speed, time of the first sample.
    noise_weights
        `(sample,)`: standard deviation of the noise of each sample relative to the others; None if it is the same.
    frame_rate
        Frame rate in Hz, if known.
    load_noise
        `load_noise(i)` estimates the noise of frame i where the data themselves no longer show it, as after a low-pass
        filter.
    attributes
        What else the file says; never who the patient is.
    """

    item: ClassVar[str] = "frame"

    geometry: PlaneWaveGeometry
    noise_weights: np.ndarray | None = field(default=None, repr=False)
    frame_rate: float | None = None
    load_noise: Callable[[int], float] | None = field(default=None, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(angle, element, sample)` of one frame."""
        return self.geometry.shape

    def check(self, values: Any, where: str) -> np.ndarray:
        """Return channel data `(angle, element, sample)`, float32 or complex64."""
        kind, axes = self.geometry.is_complex, "(angle, element, sample)"
        if np.iscomplexobj(values) != kind:
            names = ("complex (IQ)", "real (RF)")
            raise InputError(f"{where}: expected {names[not kind]} samples, got {np.asarray(values).dtype}")
        return checked(values, self.shape, where, complex_numbers=kind, axes=axes)

    def select(
        self,
        angles: Indices | None = None,
        elements: Indices | None = None,
        frames: Indices | None = None,
        decimation: int = 1,
    ) -> PlaneWaveData:
        """Keep some angles, receiving elements, frames, and every `decimation`-th sample.

        The transmitted waves stay those of the whole probe. Decimated samples hold all information only where the
        bandwidth is less than the new sampling frequency: that is `to_iq(bandwidth=...)` first.

        Raises
        ------
        InputError
            For an index that does not exist, or an empty selection.
        """
        try:
            geometry = self.geometry.select(_listed(angles), _listed(elements), decimation)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        chosen = self._frames(frames)
        waves = slice(None) if angles is None else np.atleast_1d(angles)
        receivers = slice(None) if elements is None else np.atleast_1d(elements)

        def load(i: int) -> np.ndarray:
            return self[chosen[i]][waves][:, receivers][:, :, ::decimation]

        weights = None if self.noise_weights is None else self.noise_weights[::decimation]
        return replace(
            self,
            length=len(chosen),
            load=load,
            geometry=geometry,
            noise_weights=weights,
            load_noise=lambda i: self._noise_level(chosen[i]),
        )

    def undersample(
        self,
        angles: int | None = None,
        elements: int | None = None,
        *,
        array: str = "uniform",
        decimation: int = 1,
        seed: int = 0,
    ) -> PlaneWaveData:
        """Keep some of the angles and elements, by a pattern, like an acquisition with fewer of them.

        Parameters
        ----------
        angles
            Number of plane waves, spread over the range (1: the one closest to 0); all by default.
        elements
            Number of receiving elements; all by default.
        array
            Pattern: "uniform" (every n-th), "random" (a sparse array: one at random from each group of neighbours) or
            "centre" (a smaller aperture).
        decimation
            Keep every n-th sample.
        seed
            Seed of the sparse array.
        """
        where = f"{self.path}: "
        waves = None if angles is None else us_patterns.angle_pattern(self.geometry.angles, angles, where)
        receivers = (
            None if elements is None else us_patterns.element_pattern(self.shape[1], elements, array, seed, where)
        )
        return self.select(waves, receivers, decimation=decimation)

    def to_iq(self, frequency: float | None = None, bandwidth: float | None = None) -> PlaneWaveData:
        """Turn RF into base-band (IQ) samples, `analytic(t) exp(-2 pi i f t)`; |IQ| is the envelope.

        Without a bandwidth nothing is lost: `Re(IQ exp(2 pi i f t))` is the RF again. White noise of std s becomes
        complex noise of total std `s sqrt(2)`, or `2 s sqrt(bandwidth / fs)` in the band; it is estimated from the RF.

        Parameters
        ----------
        frequency
            Demodulation frequency in Hz; the centre frequency by default.
        bandwidth
            Two-sided bandwidth in Hz: frequencies farther than half of it from `frequency` are filtered out. Then every
            n-th sample is enough if `bandwidth <= sampling_frequency / n`.

        Raises
        ------
        InputError
            If the data are already complex.
        """
        shift = self.geometry.center_frequency if frequency is None else frequency
        try:
            geometry = us_signal.iq_geometry(self.geometry, shift, bandwidth)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        growth = 2 * np.sqrt(min(0.5, (bandwidth or np.inf) / self.geometry.sampling_frequency))
        return replace(
            self,
            load=lambda i: us_signal.demodulate(self[i], self.geometry, shift, bandwidth),
            geometry=geometry,
            load_noise=lambda i: float(growth * self._noise_level(i)),
        )

    def without_gain(self, gain: ArrayLike, *, noise: str = "before") -> PlaneWaveData:
        """Undo a time-gain compensation.

        Parameters
        ----------
        gain : array_like, `(sample,)`
            Amplitude factor that each sample was multiplied by (not dB).
        noise
            Where the noise enters: "before" the amplifier, so that it is the same in all samples after undoing; or
            "after" it (quantisation), so that sample n has noise of std 1 / gain[n] then: `noise_weights` says so.

        Raises
        ------
        InputError, ShapeError
            If the gain does not fit the samples or is not positive.
        """
        factor = np.asarray(gain, np.float64)
        if factor.shape != (self.shape[2],):
            raise ShapeError(f"{self.path}: expected a gain for each of {self.shape[2]} samples, got {factor.shape}")
        if not (np.isfinite(factor).all() and (factor > 0).all()):
            raise InputError(f"{self.path}: the gain must be positive numbers (amplitudes, not dB)")
        if noise not in ("before", "after"):
            raise InputError(f"{self.path}: noise must be 'before' or 'after' the gain, got {noise!r}")
        old = np.ones(len(factor)) if self.noise_weights is None else self.noise_weights
        weights = old / factor if noise == "after" else self.noise_weights
        # The level is estimated where the noise is white: before undoing if it enters after the gain, else after.
        level = self._noise_level if noise == "after" else self.load_noise
        divisor = factor.astype(np.float32)
        return replace(self, load=lambda i: self[i] / divisor, noise_weights=weights, load_noise=level)

    def shifted(self, seconds: float) -> PlaneWaveData:
        """Correct the time zero: all samples lie `seconds` later than the file says (`us_signal.time_zero`).

        The phase of base-band samples rotates accordingly, because their carrier runs in the same time.
        """
        geometry = replace(self.geometry, initial_times=self.geometry.initial_times + float(seconds))
        turn = np.exp(-2j * np.pi * self.geometry.demodulation_frequency * seconds)
        if not self.geometry.demodulation_frequency:
            return replace(self, geometry=geometry)
        return replace(self, geometry=geometry, load=lambda i: self[i] * np.complex64(turn))

    def noise_std(self, index: int = 0) -> np.ndarray:
        """Estimate the noise of a frame: std of each datum, float32, broadcastable to `(angle, element, sample)`.

        From the samples before any echo can arrive, else from the quietest band of the spectrum
        (`us_signal.noise_level`); for complex data the total complex std.
        """
        level = self._noise_level(index % self.length)
        weights = np.ones(1) if self.noise_weights is None else self.noise_weights
        return np.asarray(level * weights, np.float32)[None, None]

    def _noise_level(self, index: int) -> float:
        if self.load_noise is not None:
            return self.load_noise(index)
        return us_signal.noise_level(self[index], self.geometry)

    def _frames(self, frames: Indices | None) -> list[int]:
        if frames is None:
            return list(range(self.length))
        chosen = [int(i) for i in frames]
        if any(i != given for i, given in zip(chosen, frames, strict=True)):
            raise InputError(
                f"{self.path}: expected frames as whole numbers from 0 to {self.length - 1}, got {list(frames)}"
            )
        bad = [i for i in chosen if not -self.length <= i < self.length]
        if bad or not chosen:
            problem = f"there is no frame {bad[0]}" if bad else "the selection is empty"
            raise InputError(f"{self.path}: {problem}; frames run from 0 to {self.length - 1}")
        return [i % self.length for i in chosen]


def _listed(indices: Indices | None) -> Sequence[int] | None:
    return indices.tolist() if isinstance(indices, np.ndarray) else indices
