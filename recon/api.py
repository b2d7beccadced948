"""The one call: a measurement in, a posterior out."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from recon.device import resolve_device
from recon.engine.assemble import assemble
from recon.engine.draw import Drawing
from recon.engine.samplers import resolve_sampler
from recon.errors import InputError
from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.options import Scan
from recon.modalities.ct.source import CTSource, is_ct_source
from recon.modalities.mri.source import KspaceSource
from recon.modalities.selection import choose_slices, of_slices, refuse_options
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.options import Acquisition
from recon.modalities.ultrasound.source import USSource, is_us_source, span_of
from recon.posterior import Posterior
from recon.priors.hub import prior_for
from samplers import DDSVolume, Denoiser, Problem, Sampler


def reconstruct(
    source: str | os.PathLike[str] | np.ndarray | Tensor | CTImages | CTProjections | PlaneWaveData | Problem,
    prior: str | Path | Denoiser = "auto",
    sampler: str | Sampler = "dds",
    samples: int = 8,
    seed: int = 0,
    acceleration: float | None = None,
    *,
    mask: str | np.ndarray | Tensor | None = None,
    center_fraction: float | None = None,
    coil_maps: np.ndarray | Tensor | None = None,
    noise_std: float | None = None,
    noise_covariance: np.ndarray | Tensor | None = None,
    steps: int | None = None,
    slices: str | int | Sequence[int] | None = None,
    coils: int | None = None,
    calib_size: int | None = None,
    views: int | None = None,
    geometry: str = "fan",
    arc: float | None = None,
    photons: float | None = None,
    electronic_noise: float = 0.0,
    views_every: int = 1,
    pixel_size: float | None = None,
    reader: str | Mapping[str, Any] | None = None,
    angles: int | None = None,
    elements: int | None = None,
    array: str = "uniform",
    decimation: int | None = None,
    depth: str | tuple[float, float] | None = None,
    width: str | tuple[float, float] | None = None,
    attenuation: float = 0.0,
    model_error: float | None = None,
    time_shift: float = 0.0,
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    progress: bool | None = None,
) -> Posterior:
    """Reconstruct k-space, CT or ultrasound, with uncertainty: samples, mean, std and where they came from.

    Coil maps, scale and noise level come from the measured data; nothing is taken from a fully sampled image, except
    a reference to compare with, where there is one.

    Parameters
    ----------
    source : path, array or Problem
        A raw-data file (fastMRI, BART, npy); centred k-space ``(coil, y, x)``, ``(y, x)`` or ``(slice, coil, y, x)``
        with zeros where not sampled; CT images or projections (`recon.io.open_ct`, or their path); channel data
        of plane waves (`recon.io.open_ultrasound`, or their path); or a prepared `samplers.Problem` in
        the scale of the prior.
    prior : str, path or Denoiser
        See `recon.load_prior`; "auto" is "brain-mri" for k-space, "ct" for CT and "ultrasound" for ultrasound.
    sampler : str or Sampler
        ``"dds"``, ``"exact"`` (Gaussian priors), or a strategy of `samplers`.
    samples : int
        How many images to draw; at least 2 for a std map.
    seed : int
        Sample ``k`` of seed ``s`` is the same image whatever the number of samples or the batch size.
    acceleration : float, optional
        Undersample fully sampled data retrospectively; with ``mask=None`` by random columns.
    mask : str or array, optional
        A pattern of `operators.make_mask` for retrospective undersampling, or a boolean array that says where
        the data were sampled (broadcastable to ``(y, x)``); by default wherever k-space is not zero.
    center_fraction : float, optional
        Fully sampled share of the centre, for retrospective undersampling.
    coil_maps : array, shape ``(coil, y, x)`` or ``(map, coil, y, x)``, optional
        Known coil maps; by default ESPIRiT from the measured centre, two maps where the object does not fit the field
        of view.
    noise_std : float, optional
        Noise level of the k-space samples, ``E|e|^2 = noise_std^2``; by default estimated from outer k-space.
        Ultrasound: electronic noise of the samples in the file; by default estimated from them.
    noise_covariance : array, shape ``(coil, coil)``, optional
        MRI: ``E[e e^H]`` of the coils, from a noise scan.
    steps : int, optional
        Number of steps of the sampler.
    slices : str, int or sequence of int, optional
        ``"10:20"``, ``12`` or a list; all by default. Ultrasound: frames.
    coils : int, optional
        Compress to this many virtual coils.
    calib_size : int, optional
        Largest side of the calibration region (24).
    views, geometry, arc, photons, electronic_noise : int, str, float, float, float, optional
        CT images: simulate so many projections, by a "fan" (on an arc), "fan-flat" or "parallel" rays, over ``arc``
        degrees, with the noise of so many photons a ray, and of a detector in photons.
    views_every : int
        CT projections: use every so many of them, over ``arc`` degrees from the first.
    pixel_size : float, optional
        CT: pixel size in mm, where the file tells none or another one is wanted.
    reader : mapping or str, optional
        CT: options of the reader of a path, such as ``{"series": 3}`` or ``"series=3"``; see `recon.io.open_ct`.
    angles, elements, array, decimation : int, int, str, int, optional
        Ultrasound: how many waves (1: the one straight down) and elements ("uniform", "random" or "centre"), and every
        how many of the demodulated samples; see `recon.modalities.ultrasound.prepare.Acquisition`.
    depth, width : "A:B" or (float, float), optional
        Ultrasound: part of the field of view in mm.
    model_error : float, optional
        Share of the local strength of the signal that the model may miss (MRI, CT, ultrasound); 0 for none. By default
        found from what a first fit leaves (CT: none).
    attenuation, time_shift : float
        Ultrasound: of the tissue in dB/(MHz cm), and microseconds that the samples lie later than the file says.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    batch_size : int, optional
        Samples that are drawn together; all by default.
    precision : "float32", "tf32" or "bfloat16"
        Arithmetic of a network prior alone; bfloat16 is several times faster on GPUs and on CPUs with matrix units.
    progress : bool, optional
        Show a progress bar; by default only on a terminal.

    Returns
    -------
    Posterior
        Arrays ``(sample, y, x)``, or ``(sample, slice, y, x)`` for a source of several slices; in the units of the
        k-space (root-sum-of-squares magnitude), or in HU; of ultrasound complex, in the units of the channel data.

    Raises
    ------
    InputError
        Says what is wrong with the source or an argument, and what to do.
    DivergenceError
        If every sample became non-finite.
    """
    started = time.perf_counter()
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise InputError(f"samples: expected an integer >= 1, came {samples!r}")
    strategy = resolve_sampler(sampler, steps)
    where = resolve_device(device)
    computing = {"samples": samples, "device": str(where), "batch_size": batch_size, "precision": precision}
    if isinstance(source, Problem):
        run = Drawing(prior_for(prior, "mri"), strategy, samples, seed, batch_size, where, precision)
        return assemble(
            run.problem(source, progress), run.describe(computing, None, [0], []), {}, single=True, started=started
        )
    scan = Scan(views, geometry, arc, photons, views_every, seed, electronic_noise, model_error or 0.0)
    waves = Acquisition(
        angles, elements, array, decimation, span_of(depth, "depth"), span_of(width, "width"), attenuation, model_error,
        time_shift, noise_std, seed,
    )  # fmt: skip
    mri: dict[str, Any] = {
        "mask": mask,
        "acceleration": acceleration,
        "center_fraction": center_fraction,
        "coil_maps": coil_maps,
        "noise_std": noise_std,
        "noise_covariance": noise_covariance,
        "model_error": model_error,
        "coils": coils,
        "calib_size": calib_size,
    }
    pieces = _open(source, mri, scan, pixel_size, reader, waves)
    strategy = resolve_sampler(sampler, steps, pieces.modality)
    run = Drawing(prior_for(prior, pieces.modality), strategy, samples, seed, batch_size, where, precision)
    chosen = choose_slices(slices, len(pieces))
    parts = run.parts(pieces, chosen, progress)
    together = isinstance(strategy, DDSVolume)
    # Without a calibration region (one coil, or given maps) ESPIRiT was not used.
    estimated = any(part.prepared is not None and part.prepared.facts.get("calibration") for part in parts)
    citations = ["uecker2014espirit"] if estimated else []
    record = run.describe({**pieces.config, **computing}, pieces.path, chosen, citations)
    single = (pieces.single or len(chosen) == 1) and not together
    axes = {"ultrasound": ("z x", "frame z x")}.get(pieces.modality, ("y x", "slice y x"))
    where_from = {**of_slices(pieces.geometry, chosen), "axes": axes[0] if single else axes[1]}
    return assemble(parts, record, where_from, single=single or together, started=started)


def _open(
    source: Any,
    mri: dict[str, Any],
    scan: Scan,
    pixel_size: float | None,
    reader: str | Mapping[str, Any] | None,
    waves: Acquisition,
) -> CTSource | KspaceSource | USSource:
    """Return the slices of a source, after refusing the options that have no meaning for it."""
    ct = (
        {**dataclasses.asdict(scan), "pixel_size": pixel_size, "reader": reader},
        dataclasses.asdict(Scan(seed=scan.seed, model_error=scan.model_error)),
    )
    shared = Acquisition(seed=scan.seed, noise_std=waves.noise_std, model_error=waves.model_error)
    us = dataclasses.asdict(waves), dataclasses.asdict(shared)
    # What several kinds of sources know is refused by none of them.
    own = {**mri, "model_error": None}
    if is_ct_source(source):
        refuse_options(own, {}, "MRI; this source is CT")
        refuse_options(*us, "ultrasound; this source is CT")
        return CTSource(source, scan, pixel_size, reader)
    if is_us_source(source):
        refuse_options({**own, "noise_std": None}, {}, "MRI; this source is ultrasound")
        refuse_options(*ct, "CT; this source is ultrasound")
        return USSource(source, waves)
    refuse_options(*ct, "CT; this source is not")
    refuse_options(*us, "ultrasound; this source is not")
    return KspaceSource(source, seed=scan.seed, **mri)
