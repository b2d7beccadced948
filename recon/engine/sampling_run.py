"""Sampling slices of a source with one prior and one sampler."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recon.engine.counting import Counted
from recon.engine.holdout import cross_validate
from recon.engine.meeting import Alone
from recon.engine.memory import fit, told_out_of_memory
from recon.engine.part import Part
from recon.engine.provenance import describe_prior, describe_sampler
from recon.engine.samplers import FIRST_IMAGE_STEPS, resolve_sampler
from recon.engine.slice_result import SliceResult, reduced
from recon.engine.start import Start
from recon.engine.volume import BySlice, join
from recon.errors import DivergenceError, InputError
from recon.estimators import Estimator, NoPrior
from recon.modalities.base import Modality
from recon.modalities.prepared import Prepared
from recon.modalities.protocols import Source
from recon.priors.hub import GAUSSIAN, load_prior
from recon.priors.precision import resolve_precision
from recon.run_options import AUTO, NO_PRIOR, PRECISIONS
from samplers import BatchLimit, DDSVolume, Denoiser, PartsAsBatch, Problem, Progress, Sampler, sample

#: Called after each step.
Step = Callable[[Progress], None]


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
        Arithmetic of the network; "auto" becomes the one that is best on the device.
    modality : Modality or None
    holdout : bool
        Whether each slice is tested on data withheld from a short companion run.
    keep : int, optional
        How many samples of each slice are kept; all by default. Statistics are those of all.
    compiled : bool
        Whether the network is compiled.
    start : Start, optional
        What samples start from instead of noise.
    compare : mapping
        Reconstructions without a prior that are shown beside the result.
    loaded : dict
        Denoisers by image shape, as they become known.
    limit : BatchLimit
        The batch that fits in memory, as it becomes known.
    meeting : Alone
        Where the images of this slice meet those of other slices; nowhere by default.
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
    keep: int | None = None
    compiled: bool = False
    start: Start | None = None
    compare: Mapping[str, Estimator] = dataclasses.field(default_factory=dict)
    loaded: dict[tuple[int, ...], Denoiser] = dataclasses.field(default_factory=dict)
    limit: BatchLimit = dataclasses.field(default_factory=BatchLimit)
    meeting: Alone = dataclasses.field(default_factory=Alone)

    def __post_init__(self) -> None:
        if not self.sampler.uses_prior:
            object.__setattr__(self, "prior", NO_PRIOR)
            object.__setattr__(self, "holdout", False)
        elif isinstance(self.prior, str) and self.prior == "auto":
            if self.modality is None:
                raise InputError(
                    "prior: 'auto' needs a modality, but the operator of this Problem belongs to none; "
                    "give the name of a prior, or a denoiser"
                )
            object.__setattr__(self, "prior", self.modality.prior)
        if self.precision == AUTO:
            object.__setattr__(self, "precision", self._best_precision())

    @told_out_of_memory()
    def slices(self, source: Source, chosen: Sequence[int], step: Step | None = None) -> SliceResult:
        """Sample one slice of a source, or several that the sampler couples as one volume.

        Parameters
        ----------
        source : Source
        chosen : sequence of int
            One number, or those of a volume.
        step : callable, optional
            Called after each step.

        Raises
        ------
        InputError
            If the data of a slice are unusable.
        DivergenceError
            If every sample became non-finite.
        """
        with self.meeting.preparing():
            started = time.perf_counter()
            prepared = [(source.prepare(index, self.device), source.reference(index)) for index in chosen]
            spent = time.perf_counter() - started
        with self.meeting.sampling():
            started = time.perf_counter() - spent  # without the time that it waited for others
            part = self._sampled(prepared, chosen, step)
        return self._result(part, started)

    def _sampled(
        self, prepared: Sequence[tuple[Prepared, np.ndarray | None]], chosen: Sequence[int], step: Step | None
    ) -> Part:
        """Sample what is prepared: one slice, or several as one volume."""
        if isinstance(self.sampler, DDSVolume):
            ready = join([one for one, _ in prepared])
            known = [reference for _, reference in prepared if reference is not None]
            reference = np.stack(known) if len(known) == len(chosen) else None
        else:
            (ready, reference), *_ = prepared
            ready = self._refined(ready, chosen[0]) if ready.refinable and self.sampler.uses_prior else ready
            if isinstance(self.prior, str) and self.prior == GAUSSIAN and (stand_in := ready.stand_in()) is not None:
                self.loaded[tuple(ready.problem.operator.domain.shape)] = stand_in
        return self._part(ready.problem, chosen[0], step, ready, reference)

    def problem(self, problem: Problem, step: Step | None = None) -> SliceResult:
        """Sample a problem that the user has prepared."""
        started = time.perf_counter()
        return self._result(self._part(problem.to(self.device), 0, step), started)

    def describe(
        self, config: Mapping[str, Any], source: Path | Mapping[str, str] | None, slices: Sequence[int]
    ) -> dict[str, Any]:
        """Return the settings of the run for provenance."""
        return {
            "modality": None if self.modality is None else self.modality.name,
            "config": config,
            "seed": self.seed,
            "source": source,
            "slices": list(slices),
            "sampler": describe_sampler(self.sampler),
            "citations": list(self.sampler.citations),
        }

    def _best_precision(self) -> str:
        """Return the arithmetic of a prior for which none is asked: its own, or the best one on the device."""
        if not isinstance(self.prior, str | Path) or self.prior in (GAUSSIAN, NO_PRIOR):
            own = getattr(self.prior, "precision", None)
            return own if isinstance(own, str) and own in PRECISIONS else "float32"
        return resolve_precision(AUTO, self.device)

    def _result(self, part: Part, started: float) -> SliceResult:
        prior = describe_prior(self.prior, next(iter(self.loaded.values())))
        sampler = describe_sampler(self.sampler)
        return reduced(part, sampler, self.modality, prior, time.perf_counter() - started, self.keep)

    def _refined(self, ready: Prepared, index: int) -> Prepared:
        """Refine a slice with one short path towards the mean as its first image; unchanged if that sample diverges."""
        problem = ready.problem
        sampler = resolve_sampler({"name": "dds", "image_draws": False}, FIRST_IMAGE_STEPS, self.modality)
        try:
            first = sample(sampler, problem, self._prior_of(problem), 1, _slice_seed(self.seed, index))
        except DivergenceError:  # the run itself will diverge again, and report it
            return ready
        return ready.refined(first.samples[0])

    def _part(
        self,
        problem: Problem,
        index: int,
        step: Step | None,
        ready: Prepared | None = None,
        reference: np.ndarray | None = None,
    ) -> Part:
        """Sample one slice; slices have independent random streams."""
        prior = Counted(self._prior_of(problem))
        fit(self.limit, problem, self.batch_size or self.samples)
        begin, begin_sigma = (None, None) if self.start is None else self.start.at(problem, index, prior)
        drawn = sample(
            self.sampler,
            problem,
            prior,
            self.samples,
            _slice_seed(self.seed, index),
            start=begin,
            start_sigma=begin_sigma,
            batch_size=self.batch_size,
            limit=self.limit,
            progress=step,
        )
        if begin_sigma is not None:
            drawn.facts["start_sigma"] = torch.full((len(drawn.valid),), drawn.sigmas[0])
        calls, gradients = (round(count / self.samples) for count in (prior.images, prior.back_propagated))
        steps = len(self.sampler.sigmas(problem, prior)) - 1
        tested = None
        if self.holdout:
            level = None if ready is None else ready.data_std
            seed = _slice_seed(self.seed, index)
            known = self._prior_of(problem)
            tested = cross_validate(problem, self.sampler, known, seed, self.modality, level, self.limit)
        others = {name: estimator.estimate(problem) for name, estimator in self.compare.items()}
        own = self.sampler if isinstance(self.sampler, Estimator) else None
        return Part(drawn, problem, ready, reference, calls, gradients, steps, index, tested, own, others)

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
        if not self.sampler.uses_prior:
            self.loaded[shape] = NoPrior()
        if shape not in self.loaded:
            load = functools.partial(
                load_prior,
                self.prior,
                shape=shape,
                device=self.device,
                precision=self.precision,
                images="real" if real else None,
                compiled=self.compiled,
            )
            known = str(self.prior) if isinstance(self.prior, str | Path) else id(self.prior)
            name = known, str(self.device), self.precision, real
            # An analytic prior is that of its slice and its size, and costs next to nothing.
            self.loaded[shape] = load() if self.prior == GAUSSIAN else self.meeting.prior(name, load)
        return self.loaded[shape]


def _slice_seed(seed: int, index: int) -> int:
    """Return the seed of a slice: the run's seed for the first one, a hash of seed and number for the others."""
    if index == 0:
        return seed
    return int(np.random.SeedSequence(entropy=seed, spawn_key=(0, index)).generate_state(1, np.uint32)[0])
