"""Plane-wave ultrasound: the channel data of a complex image of scatterers."""

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
_LEAST_RATE = 3.5  # samples per carrier period that two taps need


class PlaneWaveUltrasound(LinearOperator):
    """Channel data of a complex image, A = D H G W P: carrier P, weights W, delays G, pulse H, recording D.

    ``y[k, e, n] = D sum_j w_kej h(t_n - tau_kej) exp(2 i w0 z_j / c) x_j`` with the delay ``tau_kej = (x_j sin th_k +
    z_j cos th_k + |r_j - r_e|) / c`` and the analytic pulse h. D takes the real part (RF data), or shifts by the
    demodulation frequency (IQ data). The adjoint is exact: it uses the same positions and weights, and both
    ignore echoes outside the record.

    Images are (..., z, x), complex: the *base-band* reflectivity, whose modulus is the envelope; a smooth image is a
    smooth interface. A point scatterer of strength a at a pixel is ``a exp(-2 i w0 z / c)``
    (`from_reflectivity`). A real image on the usual grids (a quarter of a wavelength along z) would be aliased.
    Data are (..., angle, element, sample), real or complex according to the geometry.

    Parameters
    ----------
    data_geometry : PlaneWaveGeometry
        Acquisition of the data.
    grid : Grid
        Pixels of the image.
    pulse : array, optional
        Pulse with t = 0 in its middle, at `oversampling` times the sampling frequency; real or analytic. By default a
        Gaussian of `bandwidth`.
    bandwidth : float
        Relative bandwidth of the Gaussian pulse: full width at half amplitude over the centre frequency.
    interpolation : str
        "linear" (2 taps), "cubic" (4) or "sinc" (8), around the carrier.
    directivity : bool
        Directivity of soft-baffle elements, ``sinc(w sin phi / lambda) cos phi``.
    spreading : str
        Geometric spreading on the way back: "cylindrical" (1/sqrt r), "spherical" (1/r) or "none"; 1 at a distance of
        1 cm.
    transmit_mask : bool
        Attenuate pixels outside the beam of the transmitting aperture; edges are as wide as the Fresnel zone.
    f_number : float
        Elements more than ``z / (2 f_number)`` away laterally do not receive from a pixel; 0 for all elements.
    oversampling : int, optional
        Delays and pulse are computed at this multiple of the sampling frequency; by default, the smallest with 3.5
        samples per period of the centre frequency, so that decimated data may be below Nyquist.
    engine : str
        "torch", "numba" (an optional library, faster on a CPU), or "auto": numba on a CPU if it is installed.

    Raises
    ------
    InputError, ShapeError
        If an option or engine is unknown, or the pulse cannot be used.
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
        # complex128 here; `.to(dtype)` casts it with the operator, and `_like` for inputs of another precision.
        self._transfer = torch.from_numpy(np.fft.fft(np.roll(padded, -self._margin)))
        self._carrier = torch.from_numpy(depth_phase(geometry, grid))
        self._shift = torch.from_numpy(record_phase(geometry)) if geometry.demodulation_frequency else None
        kind = torch.complex64 if geometry.is_complex else torch.float32
        super().__init__(Space(grid.shape, torch.complex64, "z x"), Space(geometry.shape, kind, "angle element sample"))

    def from_reflectivity(self, reflectivity: Tensor) -> Tensor:
        """Convert strengths of point scatterers at the pixels (..., z, x) to the base-band image."""
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
    """Scatter and gather of a plan; the engine is chosen when the device of the data is known."""

    def __init__(self, plan: DelayPlan, name: str) -> None:
        if name != "auto" and name not in ENGINES:
            raise InputError(f"PlaneWaveUltrasound: unknown engine {name!r}; choose one of auto, {', '.join(ENGINES)}")
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
    """Raise InputError unless the arguments are a geometry and a grid."""
    for value, kind in ((geometry, PlaneWaveGeometry), (grid, Grid)):
        if not isinstance(value, kind):
            raise InputError(f"{owner} expected a {kind.__name__}, got {type(value).__name__}")


def depth_phase(geometry: PlaneWaveGeometry, grid: Grid) -> np.ndarray:
    """Return exp(2 i w0 z / c) of every row, which modulates a base-band image with the carrier."""
    return np.exp(4j * math.pi * geometry.center_frequency / geometry.sound_speed * np.asarray(grid.z))


def record_phase(geometry: PlaneWaveGeometry) -> np.ndarray:
    """Return exp(-2 pi i fd t) of every sample, shape (angle, 1, sample), which demodulates analytic data."""
    times = np.arange(geometry.sample_count) / geometry.sampling_frequency
    times = np.asarray(geometry.initial_times)[:, None, None] + times
    return np.exp(-2j * math.pi * geometry.demodulation_frequency * times)


def _like(values: Tensor, like: Tensor) -> Tensor:
    kind = torch.complex128 if like.real.dtype == torch.float64 else torch.complex64
    return values.to(device=like.device, dtype=kind)
