"""From CT images or measured projections to a Problem in the scale of the prior."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from operators.arrays import tensor
from operators.ct import projection
from operators.ct.fbp import fbp
from operators.ct.geometry import Beam
from operators.ct.photons import MU_WATER, simulate_counts
from recon.errors import InputError
from recon.modalities.ct import finer
from recon.modalities.ct.data import ScanGeometry
from recon.modalities.ct.options import CT
from recon.modalities.model_error import of_share
from recon.modalities.prepared import Prepared
from samplers import Problem

#: Noise-free data are assumed to be accurate to this fraction of the largest line integral.
NOISE_FREE = 1e-3
#: The object is cut off if the line integrals at an edge are this fraction of the largest ones.
_CUT = 0.05
#: Degrees from which on projections make a whole turn; a detector is centred if its sides differ less than this.
_WHOLE_TURN, _CENTRED = 350.0, 0.9
#: Gray window of reports, in HU.
WINDOW = (-250.0, 350.0)

# The slices of a scan have one geometry and share the operator; its matrix is freed with the last of them.
_operators: weakref.WeakValueDictionary[tuple[Any, ...], projection.CT] = weakref.WeakValueDictionary()


def prepare_image(
    image: np.ndarray | Tensor,
    pixel_size: float,
    options: CT,
    scanner: Mapping[str, float] | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Prepared:
    """Simulate projections of an image in HU and turn them into a Problem.

    Parameters
    ----------
    image : array, shape ``(y, x)``
        Image in Hounsfield units; values below air count as air.
    pixel_size : float
        Pixel size in mm.
    options : CT
        ``views`` must be given.
    scanner : mapping, optional
        ``source_to_iso_mm`` and ``source_to_detector_mm``.
    device : torch.device or str
    seed : int
        Seed of the noise.
    """
    if options.views is None:
        raise InputError("these are images: give the number of projections to simulate (views=32, --views 32)")
    truth = (tensor(image, "image").to(device, torch.float32) / 1000 + 1).clamp(min=0)
    beam = options.beam((truth.shape[0], truth.shape[1]), pixel_size, scanner or {})
    operator = _operator(beam, (truth.shape[0], truth.shape[1]), pixel_size, device)
    sinogram = operator(truth * MU_WATER)
    if options.photons is None:
        noise_std = torch.full_like(sinogram, NOISE_FREE * float(sinogram.max()))
    else:
        _, sinogram, noise_std = simulate_counts(sinogram, options.photons, options.electronic_noise, seed=seed)
    facts = {"photons": options.photons, "simulated": True}
    return _prepared(sinogram, _with_model_error(noise_std, sinogram, options, facts), operator, beam, facts, [])


def prepare_projections(
    sinogram: np.ndarray | Tensor,
    geometry: ScanGeometry,
    options: CT,
    *,
    photons: np.ndarray | None = None,
    image_shape: tuple[int, int] | None = None,
    pixel_size: float | None = None,
    water: float | None = None,
    hounsfield: bool = True,
    device: torch.device | str = "cpu",
) -> Prepared:
    """Turn measured line integrals into a Problem.

    Parameters
    ----------
    sinogram : array, shape ``(angle, detector)``
    geometry : ScanGeometry
    options : CT
        Only ``views_every`` and ``arc`` apply here.
    photons : array, broadcastable to the sinogram, optional
        Photons per element without an object, for the noise level; by default the noise is estimated from the data.
    image_shape : (int, int), optional
        By default square, one pixel per detector element, at most 512.
    pixel_size : float, optional
        Pixel size in mm; by default the image covers the whole field of view. Pixels larger than the spacing of the
        rays are averages of smaller ones, see `recon.modalities.ct.finer`.
    water : float, optional
        Attenuation of water in 1/mm; by default that of 70 keV.
    hounsfield : bool
        Whether results are in HU; if not, they are in 1/mm and `water` is another attenuation, see
        `typical_attenuation`.
    device : torch.device or str
    """
    angles = np.asarray(geometry.angles)
    used = options.measured(angles)
    data = tensor(sinogram, "sinogram").to(device, torch.float32)[torch.from_numpy(used).to(device)]
    notes = []
    if photons is None:
        noise_std = torch.full_like(data, estimate_noise(data))
    else:
        incident = np.broadcast_to(photons, sinogram.shape)[used]
        noise_std = torch.exp(data / 2) / tensor(incident, "photons").to(device, torch.float32).sqrt()
    if water is None:
        notes.append(
            f"the file does not state the attenuation of water: {MU_WATER} per mm was assumed, so HU may be biased"
        )
    measured = replace(geometry, angles=angles[used])
    beam = measured.beam()
    weighted, symmetric = balanced(data, measured)
    shape, size = grid_of(geometry, image_shape, pixel_size)
    parts = finer.parts_of(geometry, shape, size)
    notes += finer.notes_of(geometry, size, parts)
    operator = _operator(beam, (shape[0] * parts, shape[1] * parts), size / parts, device)
    facts: dict[str, Any] = {"simulated": False}
    noise_std = _with_model_error(noise_std, data, options, facts)
    ready = _prepared(
        data, noise_std, operator, beam, facts, notes, water or MU_WATER, hounsfield, (weighted, symmetric.beam())
    )
    return finer.coarsened(replace(ready, doubts=_cut_off(data, weighted)), parts)


def _cut_off(data: Tensor, weighted: Tensor) -> list[str]:
    """Return a doubt if the object is wider than the detector; the near side of a half acquisition may cut it off."""
    # Those of the near side were weighted by zero.
    edges = data[:, [0, -1]].abs().mean(dim=0) if data.shape == weighted.shape else weighted[:, [0, -1]].mean(dim=0) / 2
    fraction = float(edges.max()) / max(
        float(torch.quantile(data.flatten()[:: max(data.numel() >> 20, 1)], 0.99)), 1e-30
    )
    if fraction <= _CUT:
        return []
    return [
        f"the object is wider than the detector: line integrals at its edge are {fraction:.0%} of the largest; what "
        "lies outside of the image is not modelled, and values inside are wrong, near the rim most of all"
    ]


def _with_model_error(noise_std: Tensor, sinogram: Tensor, options: CT, facts: dict[str, Any]) -> Tensor:
    """Return the noise including the user's model error, for each view, and record it."""
    if not options.model_error:
        return noise_std
    views = torch.arange(len(sinogram), device=sinogram.device)[:, None].expand_as(sinogram)
    error = of_share(sinogram[None], 0.0, views, options.model_error)
    facts["model_error"] = options.model_error
    return (noise_std.square() + error.noise_std.square()).sqrt()


def typical_attenuation(image: Tensor) -> float:
    """Return the typical attenuation of an object in 1/mm, which becomes 1 for the prior if water is unknown.

    Parameters
    ----------
    image : Tensor
        Filtered backprojection in 1/mm. Its pixels above half of its .99 quantile are used.
    """
    high = float(torch.quantile(image.flatten()[:: max(image.numel() >> 20, 1)], 0.99))
    if not high > 0:
        raise InputError("the projections show no attenuation: are they line integrals, after the logarithm?")
    return float(image[image > high / 2].mean())


def grid_of(
    geometry: ScanGeometry, image_shape: tuple[int, int] | None = None, pixel_size: float | None = None
) -> tuple[tuple[int, int], float]:
    """Return shape and pixel size in mm of the image of measured projections, with defaults where not given."""
    radius = field_of_view(geometry)
    count = (
        max(geometry.det_count, int(2 * radius / geometry.det_spacing_mm))
        if is_whole_turn(geometry)
        else geometry.det_count
    )
    shape = image_shape or (min(512, count // 8 * 8 or 8),) * 2
    size = pixel_size or 2 * radius / max(shape)
    if not size > 0:
        raise InputError(
            "the axis of rotation is at the edge of the detector, so no region is covered by all projections"
        )
    return shape, size


def field_of_view(geometry: ScanGeometry) -> float:
    """Return the radius in mm of the disc covered by every projection, or by one of each opposite pair of them."""
    edges = np.abs(geometry.positions_mm[[0, -1]])
    if geometry.source_to_iso_mm is None:
        return float(edges.max() if is_whole_turn(geometry) else edges.min())
    return float(geometry.source_to_iso_mm * np.sin(np.abs(geometry.fan_angles[[0, -1]]).min()))


def is_whole_turn(geometry: ScanGeometry) -> bool:
    """Tell whether parallel projections show every ray from both sides, as those of a half acquisition do."""
    return geometry.source_to_iso_mm is None and _covered(geometry.angles) > _WHOLE_TURN


def balanced(sinogram: Tensor, geometry: ScanGeometry) -> tuple[Tensor, ScanGeometry]:
    """Return the projections of a half acquisition for filtered backprojection; others unchanged.

    Rays near the axis are measured twice, the others once: the weights of opposite rays add up to 2, with a smooth step
    across the overlap that leaves no edge for the ramp filter. The near side is filled with zeros, where the filtered
    projections are not zero. Source: Wang, Med Phys 29:1634, 2002.
    """
    positions = np.asarray(geometry.positions_mm)
    edges = positions[[0, -1]]
    short, long = np.sort(np.abs(edges))
    if not is_whole_turn(geometry) or short > _CENTRED * long:
        return sinogram, geometry
    side, spacing = np.sign(edges[np.argmax(np.abs(edges))]), geometry.det_spacing_mm
    weights = 1 + np.sin(np.pi / 2 * np.clip(side * positions / max(short, 1e-12), -1, 1))
    more = math.ceil((long - short) / spacing)
    padded = torch.nn.functional.pad(
        sinogram * torch.from_numpy(weights).to(sinogram), (more, 0) if side > 0 else (0, more)
    )
    offset = geometry.det_offset_mm - side * more * spacing / 2
    return padded, replace(geometry, det_count=geometry.det_count + more, det_offset_mm=float(offset))


def estimate_noise(sinogram: Tensor) -> float:
    """Return the noise level of line integrals from their second differences along the detector.

    They vanish for smooth projections and have a variance of 6 for white noise; the median is robust to edges.
    """
    second = sinogram[..., 2:] - 2 * sinogram[..., 1:-1] + sinogram[..., :-2]
    if not second.numel():
        raise InputError("noise estimation needs at least 3 detector elements: give the noise level or the photons")
    return float(second.abs().median()) / (0.6745 * math.sqrt(6))


def _operator(beam: Beam, shape: tuple[int, int], pixel_size: float, device: torch.device | str) -> projection.CT:
    """Return the operator of a geometry on a device, reusing one that is alive."""
    key = (beam, shape, pixel_size, str(device))
    found = _operators.get(key)
    if found is None:
        found = cast(projection.CT, projection.CT(beam, shape, pixel_size).to(device))
        _operators[key] = found
    return found


def _covered(radians: Any) -> float:
    """Return the angular coverage of projections in degrees; each projection covers one typical step."""
    angles = np.sort(np.degrees(np.asarray(radians)) % 360)
    steps = np.diff(angles, append=angles[0] + 360)
    return float(360 - steps.max() + np.median(steps)) if len(steps) > 1 else 0.0


def _prepared(
    sinogram: Tensor,
    noise_std: Tensor,
    operator: projection.CT,
    beam: Beam,
    facts: dict[str, Any],
    notes: list[str],
    water: float = MU_WATER,
    hounsfield: bool = True,
    plain: tuple[Tensor, Beam] | None = None,
) -> Prepared:
    shape, size = operator.domain.shape, operator.pixel_size
    image = fbp(*(plain or (sinogram, beam)), (shape[0], shape[1]), size, filter="hann") / water
    facts = {
        **facts,
        "views": beam.shape[0],
        "detectors": beam.shape[1],
        "geometry": type(beam).__name__,
        "arc": round(_covered(beam.angles)),
        "pixel_size_mm": size,
        "noise_std": float(noise_std.median()),
        "water_per_mm": water,
    }
    scale, offset = (1000.0, -1000.0) if hounsfield else (water, 0.0)
    problem = Problem(sinogram / water, operator, noise_std / water, scale, offset)
    return Prepared(problem=problem, images={"fbp": scale * image + offset}, diagnostics=facts, notes=notes)
