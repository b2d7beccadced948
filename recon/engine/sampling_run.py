"""Sampling every slice of a source with one prior and one sampler."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from recon.engine.counting import Counted
from recon.engine.holdout import cross_validate
from recon.engine.memory import fit
from recon.engine.part import Part
from recon.engine.provenance import describe_prior, describe_sampler
from recon.engine.samplers import FIRST_IMAGE_STEPS, resolve_sampler
from recon.engine.volume import BySlice, join
from recon.errors import ConfigError, DivergenceError, InputError
from recon.modalities.base import Modality
from recon.modalities.prepared import Prepared
from recon.modalities.protocols import Source
from recon.priors.hub import GAUSSIAN, load_prior
from samplers import BatchLimit, DDSVolume, Denoiser, PartsAsBatch, Problem, Sampler, sample


@dataclasses.dataclass(frozen=True, eq=False)
class SamplingRun:
    """The settings and denoisers that all slices of one run share.

    Parameters
    ----------
    prior : str, Path or Denoiser
        Any prior that `recon.load_prior` accepts; "auto" is the shipped prior of the modality.
    sampler : Sampler
    samples, seed : int
    batch_size : int or None
    device : torch.device
    precision : str
        Arithmetic of the network.
    modality : Modality or None
    holdout : bool
        Whether each slice is tested on data withheld from a short companion run.
    loaded : dict
        Denoisers by image shape, as they become known.
    limit : BatchLimit
        The batch that fits in memory, as it becomes known.
    """

    prior: str | Path | Denoiser
    sampler: Sampler
    samples: int
    seed: int
    batch_size: int | None
    device: torch.device
    precision: str
    modality: Modality | None
    holdout: bool = True
    loaded: dict[tuple[int, ...], Denoiser] = dataclasses.field(default_factory=dict)
    limit: BatchLimit = dataclasses.field(default_factory=BatchLimit)

    def __post_init__(self) -> None:
        if isinstance(self.prior, str) and self.prior == "auto":
            if self.modality is None:
                raise InputError(
                    "prior: 'auto' needs a modality, but the operator of this Problem belongs to none; "
                    "give the name of a prior, or a denoiser"
                )
            object.__setattr__(self, "prior", self.modality.prior)

    def source(self, source: Source, chosen: Sequence[int], progress: bool | None) -> tuple[list[Part], dict[int, str]]:
        """Sample the chosen slices of a source: one by one, or together where the sampler couples them.

        Returns
        -------
        parts : list of Part
        refused : dict
            The slices that are left out since their data are unusable, and why.

        Raises
        ------
        InputError
            If no slice is usable, or slices that are coupled are not all usable.
        """
        if isinstance(self.sampler, DDSVolume):
            with self._bar(1, progress) as bar:
                return [self._volume(source, chosen, bar)], {}
        parts: list[Part] = []
        refused: dict[int, InputError] = {}
        with self._bar(len(chosen), progress) as bar:
            for index in chosen:
                try:
                    ready, reference = source.prepare(index, self.device), source.reference(index)
                except ConfigError:
                    raise
                except InputError as error:
                    refused[index] = error
                    continue
                parts.append(self._slice(ready, reference, index, bar))
        if not parts:
            raise next(iter(refused.values()))
        return parts, {index: str(error) for index, error in refused.items()}

    def problem(self, problem: Problem, progress: bool | None) -> list[Part]:
        """Sample a problem that the user has prepared."""
        with self._bar(1, progress) as bar:
            return [self._part(problem.to(self.device), 0, bar)]

    def describe(self, config: dict[str, Any], path: Path | None, slices: list[int]) -> dict[str, Any]:
        """Return the prior's name and sampler settings for provenance."""
        return {
            "modality": None if self.modality is None else self.modality.name,
            "config": config,
            "seed": self.seed,
            "source": path,
            "slices": slices,
            "prior": describe_prior(self.prior, next(iter(self.loaded.values()))),
            "sampler": describe_sampler(self.sampler),
            "citations": list(self.sampler.citations),
        }

    def _slice(self, ready: Prepared, reference: np.ndarray | None, index: int, bar: tqdm) -> Part:
        ready = self._refined(ready, index) if ready.refinable else ready
        if isinstance(self.prior, str) and self.prior == GAUSSIAN and (stand_in := ready.stand_in()) is not None:
            self.loaded[tuple(ready.problem.operator.domain.shape)] = stand_in
        return self._part(ready.problem, index, bar, ready, reference)

    def _refined(self, ready: Prepared, index: int) -> Prepared:
        """Refine a slice with one sample of a few steps as its first image; unchanged if that sample diverges."""
        problem = ready.problem
        sampler = resolve_sampler("dds", FIRST_IMAGE_STEPS, self.modality)
        try:
            first = sample(sampler, problem, self._prior_of(problem), 1, _slice_seed(self.seed, index))
        except DivergenceError:  # the run itself will diverge again, and report it
            return ready
        return ready.refined(first.samples[0])

    def _volume(self, source: Source, chosen: Sequence[int], bar: tqdm) -> Part:
        """Sample slices coupled by the sampler as one volume."""
        slices = [(source.prepare(index, self.device), source.reference(index)) for index in chosen]
        volume = join([ready for ready, _ in slices])
        known = [reference for _, reference in slices if reference is not None]
        whole = np.stack(known) if len(known) == len(chosen) else None
        return self._part(volume.problem, chosen[0], bar, volume, whole)

    def _part(
        self,
        problem: Problem,
        index: int,
        bar: tqdm,
        ready: Prepared | None = None,
        reference: np.ndarray | None = None,
    ) -> Part:
        """Sample one slice; slices have independent random streams."""
        prior = Counted(self._prior_of(problem))
        fit(self.limit, problem, self.batch_size or self.samples)
        drawn = sample(
            self.sampler,
            problem,
            prior,
            self.samples,
            _slice_seed(self.seed, index),
            batch_size=self.batch_size,
            limit=self.limit,
            progress=lambda step: bar.update() and None,
        )
        calls, gradients = (round(count / self.samples) for count in (prior.images, prior.back_propagated))
        steps = len(self.sampler.sigmas(problem, prior)) - 1
        tested = None
        if self.holdout:
            level = None if ready is None else ready.data_std
            seed = _slice_seed(self.seed, index)
            known = self._prior_of(problem)
            tested = cross_validate(problem, self.sampler, known, seed, self.modality, level, self.limit)
        return Part(drawn, problem, ready, reference, calls, gradients, steps, index, tested)

    def _prior_of(self, problem: Problem) -> Denoiser:
        """Return the prior for the images of a problem; volumes and multi-part images are denoised plane by plane."""
        space = problem.operator.domain
        real = not space.dtype.is_complex
        if space.ndim > 2 and isinstance(self.sampler, DDSVolume):
            return BySlice(self._denoiser(tuple(space.shape[1:]), real))
        if space.axes.startswith("map "):
            return PartsAsBatch(self._denoiser(tuple(space.shape[1:]), real), split_complex=False)
        return self._denoiser(tuple(space.shape), real)

    def _denoiser(self, shape: tuple[int, ...], real: bool) -> Denoiser:
        """Return the prior for images of this shape, complex or real; loaded once."""
        if shape not in self.loaded:
            self.loaded[shape] = load_prior(
                self.prior,
                shape=shape,
                device=self.device,
                precision=self.precision,
                images="real" if real else None,
            )
        return self.loaded[shape]

    def _bar(self, slices: int, progress: bool | None) -> tqdm:
        """Return a progress bar over all steps; off by default without a terminal."""
        batches = math.ceil(self.samples / self.batch_size) if self.batch_size else 1
        total = slices * batches * getattr(self.sampler, "steps", 1)
        hidden = None if progress is None else not progress
        return tqdm(total=total, desc=type(self.sampler).__name__, unit="step", disable=hidden)


def _slice_seed(seed: int, index: int) -> int:
    """Return the seed of a slice: the run's seed for the first one, a hash of seed and number for the others."""
    if index == 0:
        return seed
    return int(np.random.SeedSequence(entropy=seed, spawn_key=(0, index)).generate_state(1, np.uint32)[0])
