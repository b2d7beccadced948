"""Plane-wave ultrasound: the channel data that a complex image of scatterers gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import InputError
from operators.ultrasound.delays import numba_engine, torch_engine
from operators.ultrasound.delays.plan import DelayPlan, make_plan
from operators.ultrasound.geometry import Grid, PlaneWaveGeometry, positive_count
from operators.ultrasound.pulse import as_pulse, fast_length, gaussian_pulse

ENGINES: dict[str, Callable[[DelayPlan], Any]] = {
    "torch": torch_engine.TorchDelays,
    "numba": numba_engine.NumbaDelays,
}
_LEAST_RATE = 3.5  # samples a period of the carrier that two taps need


class PlaneWaveUltrasound(LinearOperator):
    """Channel data of a complex image, A = D H G W P: carrier, weights, delays, pulse, and what is recorded.

    ``y[k, e, n] = D sum_j w_kej h(t_n - tau_kej) exp(2 i w0 z_j / c) x_j`` with the delay ``tau_kej = (x_j sin th_k +
    z_j cos th_k + |r_j - r_e|) / c`` and the analytic pulse h. D takes the real part (RF data), or shifts by the
    demodulation frequency (IQ data). The adjoint is exact: it uses the same positions and weights, and echoes outside
    the record count nothing in both.

    Images are (..., z, x), complex: the *base-band* reflectivity, in which a smooth image is a smooth interface, and
    whose modulus is the envelope. A point scatterer of strength a at a pixel is ``a exp(-2 i w0 z / c)``
    (`from_reflectivity`). A real image on the grids that are in use (a quarter of a wavelength along z) would be
    aliased. Data are (..., angle, element, sample), real or complex as the geometry says.

    Parameters
    ----------
    data_geometry : PlaneWaveGeometry
        The acquisition.
    grid : Grid
        The pixels.
    pulse : array, optional
        The pulse, t = 0 in its middle, at `oversampling` times the sampling frequency; real or analytic. By default
        a Gaussian of `bandwidth`.
    bandwidth : float
        Of the Gaussian pulse: full width at half amplitude over the centre frequency.
    interpolation : str
        "linear" (2 taps), "cubic" (4) or "sinc" (8), about the carrier.
    directivity : bool
        Soft-baffle elements: ``sinc(w sin phi / lambda) cos phi``.
    spreading : str
        "cylindrical" (1/sqrt r), "spherical" (1/r) or "none" on the way back; 1 at a distance of 1 cm.
    transmit_mask : bool
        Weaken what the wave from the aperture of the geometry does not hit; edges are as wide as the Fresnel zone.
    f_number : float
        Elements further than ``z / (2 f_number)`` aside do not hear a pixel; 0 for all.
    oversampling : int, optional
        Delays and pulse are computed at this multiple of the sampling frequency; by default the least that gives 3.5
        samples a period of the centre frequency, so that decimated data may be below Nyquist.
    engine : str
        "torch", "numba" (an optional library, faster on a CPU), or "auto": numba on a CPU where it is installed.

    Raises
    ------
    InputError, ShapeError
        For an unknown option or engine, or a pulse that is not usable.
    """

    def __init__(
        self,
        data_geometry: PlaneWaveGeometry,
        grid: Grid,
        *,
        pulse: np.ndarray | Tensor | None = None,
        bandwidth: float = 0.67,
        interpolation: str = "linear",
        directivity: bool = True,
        spreading: str = "cylindrical",
        transmit_mask: bool = True,
        f_number: float = 0.0,
        oversampling: int | None = None,
        engine: str = "auto",
    ) -> None:
        check_kinds(data_geometry, grid, "PlaneWaveUltrasound")
        geometry = data_geometry
        least = math.ceil(_LEAST_RATE * geometry.center_frequency / geometry.sampling_frequency)
        self._step = least if oversampling is None else positive_count(oversampling, "oversampling")
        rate = geometry.sampling_frequency * self._step
        samples = gaussian_pulse(geometry.center_frequency, bandwidth, rate) if pulse is None else as_pulse(pulse)
        self._margin = len(samples) // 2
        plan = make_plan(
            geometry,
            grid,
            interpolation=interpolation,
            oversampling=self._step,
            margin=self._margin,
            directivity=directivity,
            spreading=spreading,
            attenuation=geometry.attenuation,
            transmit_mask=transmit_mask,
            f_number=f_number,
        )
        self.engine = Engine(plan, engine)
        self.geometry, self.grid = geometry, grid
        padded = np.zeros(fast_length(plan.length), np.complex128)
        padded[: len(samples)] = samples
        # complex128 here; `.to(dtype)` moves it with the operator, and other precisions are cast when they come.
        self._transfer = torch.from_numpy(np.fft.fft(np.roll(padded, -self._margin)))
        self._carrier = torch.from_numpy(depth_phase(geometry, grid))
        self._shift = torch.from_numpy(record_phase(geometry)) if geometry.demodulation_frequency else None
        kind = torch.complex64 if geometry.is_complex else torch.float32
        super().__init__(Space(grid.shape, torch.complex64, "z x"), Space(geometry.shape, kind, "angle element sample"))

    def from_reflectivity(self, reflectivity: Tensor) -> Tensor:
        """Turn strengths of point scatterers at the pixels (..., z, x) into the base-band image."""
        return reflectivity * _like(self._carrier, reflectivity).conj()[:, None]

    def _forward(self, x: Tensor) -> Tensor:
        images = (x * _like(self._carrier, x)[:, None]).reshape(-1, *self.domain.shape)
        rows = self._filter(self.engine.scatter(images), _like(self._transfer, x))
        data = rows[..., self._margin : rows.shape[-1] - self._margin : self._step]
        data = data.reshape(*self.domain.batch_shape(x), *self.codomain.shape)
        if not self.codomain.is_complex:
            return data.real.contiguous()
        return data if self._shift is None else data * _like(self._shift, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        data = y if y.is_complex() else torch.complex(y, torch.zeros_like(y))
        if self._shift is not None:
            data = data * _like(self._shift, data).conj()
        data = data.reshape(-1, *self.codomain.shape)
        rows = data.new_zeros(*data.shape[:-1], self.engine.plan.length)
        rows[..., self._margin : rows.shape[-1] - self._margin : self._step] = data
        images = self.engine.gather(self._filter(rows, _like(self._transfer, data).conj()))
        images = images * _like(self._carrier, data).conj()[:, None]
        return images.reshape(*self.codomain.batch_shape(y), *self.domain.shape)

    @staticmethod
    def _filter(rows: Tensor, transfer: Tensor) -> Tensor:
        return torch.fft.ifft(torch.fft.fft(rows, len(transfer)) * transfer)[..., : rows.shape[-1]]


class Engine:
    """Scatter and gather of a plan by an engine that is chosen when the device of the data is known."""

    def __init__(self, plan: DelayPlan, name: str) -> None:
        if name != "auto" and name not in ENGINES:
            raise InputError(f"the engines of ultrasound are auto, {', '.join(ENGINES)}, not {name!r}")
        self.plan, self.name = plan, name
        self._torch = torch_engine.TorchDelays(plan)
        fast = name == "numba" or (name == "auto" and numba_engine.available())
        self._numba = numba_engine.NumbaDelays(plan) if fast else None

    def scatter(self, image: Tensor) -> Tensor:
        """Spread images (batch, z, x) into rows (batch, angle, element, length)."""
        return self._pick(image).scatter(image)

    def gather(self, data: Tensor) -> Tensor:
        """Sum rows (batch, angle, element, length) into images (batch, z, x)."""
        return self._pick(data).gather(data)

    def _pick(self, values: Tensor) -> Any:
        use_numba = self._numba is not None and (self.name == "numba" or values.device.type == "cpu")
        return self._numba if use_numba else self._torch


def check_kinds(geometry: object, grid: object, owner: str) -> None:
    """Say which values are needed."""
    for value, kind in ((geometry, PlaneWaveGeometry), (grid, Grid)):
        if not isinstance(value, kind):
            raise InputError(f"{owner} expected a {kind.__name__}, got {type(value).__name__}")


def depth_phase(geometry: PlaneWaveGeometry, grid: Grid) -> np.ndarray:
    """exp(2 i w0 z / c) of every row: what turns a base-band image into the carrier's."""
    return np.exp(4j * math.pi * geometry.center_frequency / geometry.sound_speed * np.asarray(grid.z))


def record_phase(geometry: PlaneWaveGeometry) -> np.ndarray:
    """exp(-2 pi i fd t) of every sample, shape (angle, 1, sample): what demodulates analytic data."""
    times = np.arange(geometry.sample_count) / geometry.sampling_frequency
    times = np.asarray(geometry.initial_times)[:, None, None] + times
    return np.exp(-2j * math.pi * geometry.demodulation_frequency * times)


def _like(values: Tensor, like: Tensor) -> Tensor:
    kind = torch.complex128 if like.real.dtype == torch.float64 else torch.complex64
    return values.to(device=like.device, dtype=kind)
