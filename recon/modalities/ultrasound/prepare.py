"""From channel data of plane waves to a Problem in the scale of the prior: a complex base-band image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ultrasound.beamform import beamform
from operators.ultrasound.geometry import Grid, PlaneWaveGeometry
from operators.ultrasound.plane_wave import PlaneWaveUltrasound
from recon.errors import InputError
from recon.modalities.prepared import Prepared
from recon.modalities.ultrasound import pulse as us_signal
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.focus import find_focus
from recon.modalities.ultrasound.grid import Region, record_window, scene_of
from recon.modalities.ultrasound.independent_pixels import row_gain, speckle_prior, unexplained, wiener
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.selection import band, choose, thin_out
from recon.modalities.ultrasound.signals import silent_elements
from recon.priors.analytic import GaussianPrior
from samplers import Problem

#: Relative model error in the first fit, and the factor by which its relative residual becomes the model error:
#: posterior samples leave .9 to 1.7 times that residual (simulated speckle, a muscle in vivo).
FIRST_ERROR, ERROR_RATIO = 0.05, 1.25
#: Least model error, since with few elements the first fit explains anything. With 0.03, the residual of samples of
#: simulated wires was 3.5 times the noise.
LEAST_ERROR = 0.05
#: A warning is given if a fit leaves more than this fraction of the data unexplained.
_POOR_FIT = 0.5
#: Element spacing in wavelengths above which a note warns of grating lobes; whole probes have up to one.
_APART = 1.2


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame(Prepared):
    """A frame, ready to be sampled: its image is the complex base-band reflectivity.

    ``images["das"]`` is delay and sum of the same data, compounded over the waves, in the units of the result.

    Attributes
    ----------
    grid : Grid
        The pixels.
    """

    grid: Grid

    def stand_in(self) -> GaussianPrior:
        """Return what stands in for a trained prior: independent complex Gaussian pixels, as in developed speckle."""
        return speckle_prior(self.problem, self.grid, self.images["das"])


def prepare_frame(
    data: PlaneWaveData,
    index: int = 0,
    options: Ultrasound | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Frame:
    """Turn one frame of channel data into a Problem.

    Real samples become base-band samples, decimated to the band of the pulse. The pulse is a Gaussian with the centre
    frequency and bandwidth of the data's own mean spectrum. The noise of each sample is the electronic noise of the
    file (before the first echo, or the quietest band: ``PlaneWaveData.noise_std``, with weights for a gain that was
    undone) and ``model_error`` times the local strength of the data. Echoes from outside the field of view are
    subtracted, as estimated by a first fit with independent pixels; the residual of that fit counts as noise. The scale
    is the 0.99 quantile of the magnitude of the fit, and delay and sum is scaled to its rms. The sound speed is doubted
    if the echoes are in focus at another one.

    Parameters
    ----------
    data : PlaneWaveData
        The channel data of the file.
    index : int
        Number of the frame.
    options : Ultrasound, optional
        Selection of data and region.
    device : torch.device or str
    seed : int
        Seed of a sparse array.

    Raises
    ------
    InputError
        If a selection is not in the data, or nothing was recorded from the field of view.
    """
    wanted = options or Ultrasound()
    chosen, notes = _alive(choose(wanted, data, seed), index)
    used = thin_out(wanted, chosen)
    center, bandwidth = us_signal.pulse_of(chosen, index)
    scene, region = scene_of(used.geometry, wanted.depth, wanted.width)
    record = record_window(used.geometry, scene, region)
    values = used[index]
    electronic = np.broadcast_to(used.noise_std(index), (1, 1, values.shape[-1]))[..., record]
    strength = us_signal.strength_of(values, used.geometry)[..., record]
    first = FIRST_ERROR if wanted.model_error is None else wanted.model_error
    geometry = _cropped(used.geometry, record)
    pulse = us_signal.pulse_samples(geometry, center, bandwidth, band(wanted, chosen.geometry))
    model: dict[str, Any] = {"pulse": pulse}
    y = torch.from_numpy(values[..., record]).to(device)
    noise = torch.from_numpy(us_signal.noise_of(electronic, strength, first)).to(device)
    if not bool((noise > 0).all() and torch.isfinite(noise).all()):
        raise InputError(f"{data.path}: frame {index}: the noise of some samples is 0 or infinite; give noise_std > 0")
    # The data are scaled to about 1, so that nothing overflows.
    unit = float(y.abs().square().mean().sqrt()) or 1.0
    y, noise = y / unit, noise / unit
    whole = Problem(y, PlaneWaveUltrasound(geometry, scene, **model).to(y.device), noise)
    fit, missed = wiener(whole, scene)
    image = fit[region.rows, region.columns]
    scale = float(torch.quantile(image.abs().flatten().cpu(), 0.99)) or float(image.abs().max())
    if not math.isfinite(scale):
        raise InputError(f"{data.path}: frame {index}: the first fit is not finite; is the attenuation in dB/(MHz cm)?")
    if not scale > 0:
        raise InputError(f"{data.path}: frame {index}: no echo comes from the field of view")
    left, window = _left(whole, fit, region)
    error = wanted.model_error
    if error is None:  # the residual includes the electronic noise
        error = math.sqrt(max((ERROR_RATIO * left) ** 2 - _share(electronic, strength, window), LEAST_ERROR**2))
    noise = torch.from_numpy(us_signal.noise_of(electronic, strength, error)).to(device) / unit
    problem = _restricted(whole, fit, missed, noise, scene, region, window, model)
    single = None
    if wanted.model_error is None:
        single = _predictable(problem, region.grid, torch.from_numpy(electronic[..., window].copy()).to(device) / unit)
    das = beamform(y, region.grid, "das", geometry=geometry) * row_gain(geometry, region.grid).to(y.device)
    das = das * (unit * image.abs().square().mean().sqrt() / das.abs().square().mean().sqrt().clamp(min=1e-30))
    focus = find_focus(data, index, wanted, region.grid, seed)
    facts: dict[str, Any] = {
        "angles_deg": [round(float(angle), 3) for angle in np.degrees(geometry.angles)],
        "elements": geometry.shape[1],
        "samples": problem.y.shape[-1],
        "sampling_frequency_mhz": geometry.sampling_frequency / 1e6,
        "pulse_frequency_mhz": center / 1e6,
        "pulse_bandwidth": bandwidth,
        "sound_speed": geometry.sound_speed,
        "focus_speed": focus and focus.speed,
        "noise_std": float(np.median(electronic)),
        "model_error": error,
        "fit_residual": left,
        "noise_unexplained": 1.0 if single is None else float((single / problem.noise_std).square().mean()),
        "scale": scale * unit,
        "grid": list(region.grid.shape),
    }
    doubts = focus.doubts() if focus else []
    if left > _POOR_FIT:
        doubts.append(
            f"a first fit does not explain {left:.0%} of the data: time zero, sound speed or pulse may be wrong"
        )
    final = Problem(problem.y / scale, problem.operator, problem.noise_std / scale, scale=scale * unit)
    return Frame(
        problem=final,
        images={"das": das},
        diagnostics=facts,
        notes=notes,
        doubts=doubts,
        data_std=None if single is None else single / scale,
        grid=region.grid,
    )


def _predictable(problem: Problem, grid: Grid, electronic: Tensor) -> Tensor:
    """Return the standard deviation of a datum around what the other elements say of it.

    The noise level is that around the echoes of the true image. Errors of the model and echoes from outside are in it,
    and pixels explain part of both, alike at all elements.
    """
    noise = torch.as_tensor(problem.noise_std)
    share = math.sqrt(min(unexplained(problem, grid), 1.0))
    return torch.maximum(share * noise, torch.minimum(electronic.to(noise), noise))


def _alive(data: PlaneWaveData, index: int) -> tuple[PlaneWaveData, list[str]]:
    """Exclude receiving elements without signal, and note possible problems of the others.

    Zeros would count as a measured absence of echoes.
    """
    notes = []
    dead = silent_elements(data[index])
    if len(dead):
        names = ", ".join(map(str, dead[:12])) + (", ..." if len(dead) > 12 else "")
        notes.append(f"element(s) {names} of those selected carry no signal and are excluded")
        data = data.select(elements=np.delete(np.arange(data.shape[1]), dead).tolist())
    x = np.sort(data.geometry.elements[:, 0])
    apart = float(np.median(np.diff(x))) / data.geometry.wavelength if len(x) > 1 else 0.0
    if apart > _APART:
        notes.append(
            f"the elements lie {apart:.2g} wavelengths apart: grating lobes may fill dark regions; a smaller aperture "
            "(--array centre) or more plane waves avoid this"
        )
    return data, notes


def _cropped(geometry: PlaneWaveGeometry, record: slice) -> PlaneWaveGeometry:
    """Return the geometry of a part of the record."""
    return replace(
        geometry,
        initial_times=geometry.initial_times + record.start / geometry.sampling_frequency,
        sample_count=record.stop - record.start,
    )


def _share(electronic: np.ndarray, strength: np.ndarray, window: slice) -> float:
    """Return the mean power of the electronic noise relative to the local strength of the data."""
    ratio = (electronic / np.maximum(strength, 1e-30))[..., window]
    return float(np.mean(np.minimum(ratio, 1.0) ** 2))


def _left(whole: Problem, fit: Tensor, region: Region) -> tuple[float, slice]:
    """Return the fraction of a region's data that the fit does not explain, and the samples with these data."""
    operator: Any = whole.operator
    window = record_window(operator.geometry, region.grid, region)
    left = ((whole.y - operator(fit)) / whole.noise_std)[..., window].norm()
    return float(left / (whole.y / whole.noise_std)[..., window].norm()), window


def _restricted(
    whole: Problem,
    fit: Tensor,
    missed: Tensor,
    noise: Tensor,
    scene: Grid,
    region: Region,
    window: slice,
    options: dict[str, Any],
) -> Problem:
    """Return the problem of the field of view alone.

    Echoes from outside arrive at the same time; as far as the fit explains them, they are subtracted. The unexplained
    ones remain and count as noise.
    """
    operator: Any = whole.operator
    y = whole.y
    if region.grid.shape != scene.shape:
        outside = torch.stack([fit, missed])
        outside[:, region.rows, region.columns] = 0
        known, unknown = operator(outside)
        y = y - known
        strength = us_signal.strength_of(unknown.cpu().numpy(), operator.geometry)
        noise = (noise.square() + torch.from_numpy(strength).to(noise).square()).sqrt()
    restricted = PlaneWaveUltrasound(_cropped(operator.geometry, window), region.grid, **options).to(y.device)
    return Problem(y[..., window].contiguous(), restricted, noise[..., window].contiguous())
