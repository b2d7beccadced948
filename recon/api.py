"""The one call: a measurement in, a posterior out."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recon.device import resolve_device
from recon.errors import InputError
from recon.pipelines.mri import Sampling, prepare
from recon.posterior import Posterior
from recon.priors.hub import load_prior
from recon.results import Part, assemble, describe_prior, describe_sampler
from recon.sources import choose_slices, open_source
from recon.strategies import resolve_sampler
from samplers import Denoiser, Problem, Sampler, Samples, sample


def reconstruct(
    source: str | os.PathLike[str] | np.ndarray | Tensor | Problem,
    prior: str | Path | Denoiser = "brain-mri",
    sampler: str | Sampler = "dds",
    samples: int = 8,
    seed: int = 0,
    acceleration: float | None = None,
    *,
    mask: str | np.ndarray | Tensor | None = None,
    center_fraction: float | None = None,
    coil_maps: np.ndarray | Tensor | None = None,
    noise_std: float | None = None,
    steps: int | None = None,
    slices: str | int | Sequence[int] | None = None,
    coils: int | None = None,
    calib_size: int | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    progress: bool | None = None,
) -> Posterior:
    """Reconstruct k-space, with uncertainty: samples, mean, std and where they came from.

    Coil maps, scale and noise level come from the measured data; nothing is taken from a fully sampled image, except
    a reference to compare with, where there is one.

    Parameters
    ----------
    source : path, array or Problem
        A raw-data file (fastMRI, BART, npy); centred k-space ``(coil, y, x)``, ``(y, x)`` or ``(slice, coil, y, x)``
        with zeros where not sampled; or a prepared :class:`samplers.Problem` in the scale of the prior.
    prior : str, path or Denoiser
        See :func:`recon.load_prior`.
    sampler : str or Sampler
        ``"dds"``, ``"exact"`` (Gaussian priors), or a strategy of :mod:`samplers`.
    samples : int
        How many images to draw; at least 2 for a std map.
    seed : int
        Sample ``k`` of seed ``s`` is the same image whatever the number of samples or the batch size.
    acceleration : float, optional
        Undersample fully sampled data retrospectively; with ``mask=None`` by random columns.
    mask : str or array, optional
        A pattern of :func:`operators.make_mask` for retrospective undersampling, or a boolean array that says where
        the data were sampled (broadcastable to ``(y, x)``); by default wherever k-space is not zero.
    center_fraction : float, optional
        Fully sampled share of the centre, for retrospective undersampling.
    coil_maps : array, shape ``(coil, y, x)``, optional
        Known coil maps; by default ESPIRiT from the measured centre.
    noise_std : float, optional
        Noise level of the k-space samples, ``E|e|^2 = noise_std^2``; by default estimated from outer k-space.
    steps : int, optional
        Number of steps of the sampler.
    slices : str, int or sequence of int, optional
        ``"10:20"``, ``12`` or a list; all by default.
    coils : int, optional
        Compress to this many virtual coils.
    calib_size : int, optional
        Largest side of the calibration region (24).
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    batch_size : int, optional
        Samples that are drawn together; all by default.
    precision : "float32" or "bfloat16"
        Arithmetic of a network prior alone; bfloat16 is several times faster on GPUs and on CPUs with matrix units.
    progress : bool, optional
        Show a progress bar; by default only on a terminal.

    Returns
    -------
    Posterior
        Arrays ``(sample, y, x)``, or ``(sample, slice, y, x)`` for a source of several slices; in the units of the
        k-space (root-sum-of-squares magnitude).

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
    run = _Run(prior, strategy, samples, seed, batch_size, where, precision)
    config = {
        "samples": samples,
        "acceleration": acceleration,
        "mask": mask if mask is None or isinstance(mask, str) else "array",
        "center_fraction": center_fraction,
        "noise_std": noise_std,
        "coil_maps": "given" if coil_maps is not None else "ESPIRiT",
        "coils": coils,
        "calib_size": calib_size,
        "device": str(where),
        "batch_size": batch_size,
        "precision": precision,
    }
    if isinstance(source, Problem):
        with _bar(progress, strategy, 1, samples, batch_size) as bar:
            parts = [Part(run.draw(source.to(where), 0, bar), source)]
        return assemble(
            parts,
            run.describe({**config, "coil_maps": "in the problem"}, None, [0], []),
            {},
            single=True,
            started=started,
        )
    pieces = open_source(source, None if isinstance(mask, str) else mask)
    chosen = choose_slices(slices, len(pieces))
    sampling = _sampling(mask, acceleration, center_fraction, seed)
    parts = []
    with _bar(progress, strategy, len(chosen), samples, batch_size) as bar:
        for index in chosen:
            piece = pieces[index]
            ready = prepare(
                piece.kspace,
                piece.mask,
                sampling=sampling,
                coil_maps=coil_maps,
                noise_std=noise_std,
                coils=coils,
                calib_size=calib_size,
                device=where,
            )
            parts.append(Part(run.draw(ready.problem, index, bar), ready.problem, ready, piece.reference))
    # Without a calibration region (one coil, or given maps) ESPIRiT was not used.
    estimated = any(part.prepared is not None and part.prepared.facts["calibration"] for part in parts)
    record = run.describe(config, pieces.path, chosen, ["uecker2014espirit"] if estimated else [])
    single = pieces.single or len(chosen) == 1
    geometry = {**pieces.geometry, "axes": "y x" if single else "slice y x"}
    return assemble(parts, record, geometry, single=single, started=started)


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """The settings that all slices of one run share."""

    prior: str | Path | Denoiser
    sampler: Sampler
    samples: int
    seed: int
    batch_size: int | None
    device: torch.device
    precision: str
    loaded: dict[tuple[int, ...], Denoiser] = dataclasses.field(default_factory=dict)

    def denoiser(self, shape: tuple[int, ...]) -> Denoiser:
        """Return the prior for images of this shape; loaded once."""
        if shape not in self.loaded:
            self.loaded[shape] = load_prior(self.prior, shape=shape, device=self.device, precision=self.precision)
        return self.loaded[shape]

    def draw(self, problem: Problem, index: int, bar: tqdm) -> Samples:
        """Draw the samples of one slice; slices have independent random streams."""
        return sample(
            self.sampler,
            problem,
            self.denoiser(tuple(problem.operator.domain.shape)),
            self.samples,
            _slice_seed(self.seed, index),
            batch_size=self.batch_size,
            progress=lambda told: bar.update() and None,
        )

    def describe(
        self, config: dict[str, Any], path: Path | None, slices: list[int], citations: list[str]
    ) -> dict[str, Any]:
        """Return what provenance needs to know."""
        return {
            "config": config,
            "seed": self.seed,
            "source": path,
            "slices": slices,
            "prior": describe_prior(self.prior, next(iter(self.loaded.values()))),
            "sampler": describe_sampler(self.sampler),
            "citations": [*self.sampler.citations, *citations],
        }


def _slice_seed(seed: int, index: int) -> int:
    """Return the seed of a slice: that of the run for the first one, well mixed for the others."""
    if index == 0:
        return seed
    return int(np.random.SeedSequence(entropy=seed, spawn_key=(0, index)).generate_state(1, np.uint32)[0])


def _sampling(mask: Any, acceleration: float | None, center_fraction: float | None, seed: int) -> Sampling | None:
    """Return the retrospective undersampling, or None to use the data as they are."""
    if acceleration is None and not isinstance(mask, str):
        if center_fraction is not None:
            raise InputError("center_fraction belongs to retrospective undersampling: give acceleration as well")
        return None
    if mask is not None and not isinstance(mask, str):
        raise InputError("mask is an array, so acceleration has no meaning: give a pattern name, or no acceleration")
    return Sampling(mask or "random", 4.0 if acceleration is None else acceleration, center_fraction, seed)


def _bar(progress: bool | None, sampler: Sampler, slices: int, samples: int, batch_size: int | None) -> tqdm:
    """Return a progress bar over all steps; off by default where there is no terminal."""
    batches = math.ceil(samples / batch_size) if batch_size else 1
    steps = getattr(sampler, "steps", 1)
    hidden = None if progress is None else not progress
    return tqdm(total=slices * batches * steps, desc=type(sampler).__name__, unit="step", disable=hidden)
