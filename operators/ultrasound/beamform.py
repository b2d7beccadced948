"""Beamformers for plane-wave channel data: delay-and-sum, and the adaptive ones it is compared with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.arrays import tensor
from operators.base import Space
from operators.errors import InputError
from operators.ultrasound import adaptive
from operators.ultrasound.delays.plan import DelayPlan, choose, make_plan
from operators.ultrasound.delays.torch_engine import pairs_of, sampled
from operators.ultrasound.geometry import Grid, PlaneWaveGeometry
from operators.ultrasound.plane_wave import Engine, check_kinds, depth_phase, record_phase
from operators.ultrasound.pulse import analytic

METHODS = ("das", "cf", "gcf", "dmas", "mv", "esbmv")
_BYTES = 1 << 26  # delayed samples held at once
_LEAST_RATE = 3.5  # samples per carrier period that two taps need


def beamform(
    data: Any,
    grid: Grid,
    method: str = "das",
    *,
    geometry: PlaneWaveGeometry | None = None,
    f_number: float = 1.75,
    window: str = "boxcar",
    interpolation: str = "linear",
    engine: str = "auto",
    low_frequencies: int = 4,
    subarray: float = 0.5,
    loading: float = 0.01,
    axial: float = 1.5,
    threshold: float = 0.5,
) -> Tensor:
    """Form a complex base-band image from channel data; waves are compounded coherently (the mean over angles).

    With the delayed and weighted samples s_e of a pixel, M of them active (``2 f_number |x - x_e| <= z``):

    - "das": ``sum_e s_e``
    - "cf": DAS times ``|sum s|^2 / (M sum |s|^2)`` (Mallart and Fink 1994)
    - "gcf": DAS times the energy fraction of low spatial frequencies (Li and Li 2003)
    - "dmas": ``((sum q)^2 - sum q^2) / 2`` with ``q = s / sqrt|s|`` on analytic samples, equivalent to a band-pass
      around twice the carrier for real samples (Matrone et al. 2015; Shen and Hsieh 2019)
    - "mv": ``M w^H s`` with ``w = R^-1 1 / (1^H R^-1 1)``, R smoothed over subarrays and depth (Synnevag et al. 2009)
    - "esbmv": w of "mv" projected onto the dominant eigenvectors of R (Asl and Mahloojifar 2010)

    Parameters
    ----------
    data : Tensor (..., angle, element, sample), or object with `data` and `geometry`
        Real RF or complex samples, according to the geometry.
    grid : Grid
        Pixels of the image.
    method : str
        Beamforming method, one of the above.
    geometry : PlaneWaveGeometry, optional
        Acquisition; required if `data` does not hold it.
    f_number : float
        Depth over the width of the active aperture; 0 for all elements at every depth.
    window : str
        Receive apodisation over the active aperture: "boxcar", "hann", "hamming" or "blackman" (not for mv, esbmv).
    interpolation : str
        "linear", "cubic" or "sinc", around the carrier.
    engine : str
        As in `PlaneWaveUltrasound`; used for "das" only.
    low_frequencies : int
        For "gcf", M0: spatial frequencies up to this number of periods over the aperture count as low.
    subarray, loading, axial : float
        For "mv" and "esbmv": length of a subarray relative to M, diagonal loading relative to the mean eigenvalue, and
        length over which R is averaged along z, in wavelengths.
    threshold : float
        For "esbmv": eigenvalues above this fraction of the largest are kept.

    Returns
    -------
    Tensor, shape (..., z, x)
        Complex base-band image; its modulus is the envelope.

    Raises
    ------
    InputError, ShapeError
        If a method or option is unknown, the data do not fit the geometry, or values are not finite.
    """
    choose(method, METHODS, "method")
    if geometry is None:
        data, geometry = _unpack(data)
    check_kinds(geometry, grid, "beamform")
    _check(data, geometry)
    _check_options(low_frequencies, subarray, loading, axial, threshold)
    batch = tuple(data.shape[:-3])
    order = np.argsort(geometry.elements[:, 0], kind="stable")
    rows, step = _prepare(data.reshape(-1, *geometry.shape), geometry)
    rows = rows[:, :, torch.as_tensor(order, device=rows.device)]
    sorted_geometry = geometry.select(elements=order.tolist())
    adaptive_window = "boxcar" if method in ("mv", "esbmv") else window
    how: dict[str, Any] = {"interpolation": interpolation, "oversampling": step, "length": rows.shape[-1]}
    plan = make_plan(sorted_geometry, grid, **how, f_number=f_number, window=adaptive_window)
    if method == "das":
        image = Engine(plan, engine).gather(rows) / len(geometry.angles)
    else:
        # Rows above and below a pixel have different apertures; the covariance needs all elements there.
        whole = make_plan(sorted_geometry, grid, **how) if method in ("mv", "esbmv") and f_number else plan
        options = adaptive.Options(method, low_frequencies, subarray, loading, threshold, _half(grid, geometry, axial))
        image = torch.stack([_image(plan, whole, item, options) for item in rows])
    carrier = torch.as_tensor(depth_phase(geometry, grid), dtype=image.dtype, device=image.device)
    return (image * carrier.conj()[:, None]).reshape(*batch, *grid.shape)


def _image(plan: DelayPlan, whole: DelayPlan, rows: Tensor, options: adaptive.Options) -> Tensor:
    """Beamform one frame (angle, element, sample), averaged over waves, in blocks of image rows."""
    waves, elements = plan.rows
    nz, nx = len(plan.z), len(plan.x)
    block = max(_BYTES // (elements * nx * rows.element_size()), 1)
    image = rows.new_zeros(nz, nx)
    for wave in range(waves):
        for first in range(0, nz, block):
            last = min(first + block, nz)
            low, high = max(first - options.half, 0), min(last + options.half, nz)
            delayed, active = _delayed(plan, rows, wave, slice(low, high))
            if whole is not plan:
                delayed, _ = _delayed(whole, rows, wave, slice(low, high))
            values = adaptive.combine(delayed, active, slice(first - low, last - low), options)
            image[first:last] += values
    return image / waves


def _delayed(plan: DelayPlan, rows: Tensor, wave: int, z_rows: slice) -> tuple[Tensor, Tensor]:
    """Return the delayed samples of a wave and which of them are active, both (element, z, x)."""
    nz, nx = z_rows.stop - z_rows.start, len(plan.x)
    flat = rows.flatten(0, 1)[None]
    parts, counts = [], []
    for pairs in pairs_of(plan, rows[wave], z_rows, (wave,)):
        parts.append(sampled(plan, flat, pairs)[0] * pairs.weight.conj())
        counts.append(pairs.weight != 0)
    return torch.cat(parts).reshape(-1, nz, nx), torch.cat(counts).reshape(-1, nz, nx)


def _prepare(data: Tensor, geometry: PlaneWaveGeometry) -> tuple[Tensor, int]:
    """Return analytic rows (batch, angle, element, sample), and their oversampling relative to the data."""
    rows = data if data.is_complex() else _analytic(data, geometry)
    if geometry.demodulation_frequency:
        rows = rows * torch.as_tensor(record_phase(geometry), dtype=rows.dtype, device=rows.device).conj()
    step = math.ceil(_LEAST_RATE * geometry.center_frequency / geometry.sampling_frequency)
    if step == 1:
        return rows, 1
    count = rows.shape[-1]
    turn = 2 * math.pi * geometry.center_frequency / geometry.sampling_frequency
    index = np.arange(count * step) / step
    base = rows * torch.as_tensor(np.exp(-1j * turn * index[::step]), dtype=rows.dtype, device=rows.device)
    spectrum = torch.fft.fftshift(torch.fft.fft(base), -1)
    left = count * step // 2 - count // 2
    spectrum = torch.nn.functional.pad(spectrum, (left, count * step - count - left))
    fine = torch.fft.ifft(torch.fft.ifftshift(spectrum, -1)) * step
    fine = fine * torch.as_tensor(np.exp(1j * turn * index), dtype=rows.dtype, device=rows.device)
    return fine[..., : (count - 1) * step + 1], step


def _analytic(data: Tensor, geometry: PlaneWaveGeometry) -> Tensor:
    """Keep the half of the spectrum of RF data that contains the carrier: band-pass sampling may have mirrored it."""
    signal = analytic(data)
    return signal.conj() if geometry.spectral_zone() % 2 else signal


def _unpack(data: Any) -> tuple[Any, PlaneWaveGeometry]:
    if isinstance(getattr(data, "geometry", None), PlaneWaveGeometry):
        values = getattr(data, "data", None)
        if values is None:
            raise InputError("beamform expected one frame: pass torch.from_numpy(data[0]) with geometry=data.geometry")
        return tensor(values, "beamform"), data.geometry
    raise InputError("beamform needs geometry=PlaneWaveGeometry(...), or data with a geometry")


def _check(data: Any, geometry: PlaneWaveGeometry) -> None:
    kind = torch.complex64 if geometry.is_complex else torch.float32
    Space(geometry.shape, kind, "angle element sample").check(data, "beamform(data)")
    if not bool(torch.isfinite(data).all()):
        raise InputError("beamform(data) got values that are not finite; repair or exclude those channels")


def _check_options(low: int, subarray: float, loading: float, axial: float, threshold: float) -> None:
    rules = (
        ("low_frequencies >= 0", low >= 0),
        ("0 < subarray <= 1", 0 < subarray <= 1),
        ("loading > 0", 0 < loading < math.inf),
        ("axial >= 0 wavelengths", 0 <= axial < math.inf),
        ("0 <= threshold < 1", 0 <= threshold < 1),
    )
    for rule, good in rules:
        if not good:
            raise InputError(f"beamform needs {rule}")


def _half(grid: Grid, geometry: PlaneWaveGeometry, axial: float) -> int:
    """Return the number of image rows on either side over which R is averaged."""
    step = grid.spacing[0]
    return round(axial * geometry.wavelength / 2 / step) if step else 0
