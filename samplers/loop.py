"""The sampling loop of the engine: it runs a sampler on a problem and watches its samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from operators.errors import InputError, ShapeError
from samplers.base import Run, Sampler
from samplers.branching import Stretch, stretches
from samplers.denoiser import Denoiser
from samplers.likelihood import Gaussian
from samplers.memory import BatchLimit, is_out_of_memory
from samplers.noise import Noise
from samplers.problem import Problem
from samplers.samples import PathMean, Samples
from samplers.watch import Watch, raise_divergence

#: Distance between the random streams of samples and of the paths that they share.
_APART = 1 << 32


class Progress(NamedTuple):
    """The argument of a progress callback after each step."""

    step: int
    total: int
    sigma: float
    denoised: Tensor | None


@torch.no_grad()
def sample(
    sampler: Sampler,
    problem: Problem,
    denoiser: Denoiser,
    n_samples: int = 1,
    seed: int = 0,
    *,
    first: int = 0,
    start: Tensor | None = None,
    start_sigma: float | None = None,
    batch_size: int | None = None,
    limit: BatchLimit | None = None,
    progress: Callable[[Progress], bool | None] | None = None,
) -> Samples:
    """Draw samples from a problem and a prior with a sampler: the loop of the engine.

    Sample ``k`` of seed ``s`` is the same image whatever ``n_samples``, ``batch_size`` or ``first`` (each sample has
    its own random stream), up to the rounding of batched matrix products. Where the sampler has forks, samples share
    paths at high noise levels (`samplers.branching`). A batch for which memory is too small is drawn again in halves;
    batches that are finished are kept.

    Parameters
    ----------
    sampler : Sampler
    problem : Problem
    denoiser : Denoiser
    n_samples : int
        Number of samples to draw: numbers ``first`` to ``first + n_samples - 1`` of this seed.
    seed : int
    first : int
        Number of the first sample; to continue an earlier run of ``n`` samples give ``first=n``.
    start : Tensor, shape ``domain`` or ``(n_samples, *domain)``, optional
        Clean image(s) from which the reverse process starts (CCDF; Chung et al. 2022): noised to the first sigma.
    start_sigma : float, optional
        With ``start``: this is the first sigma, and of the schedule only the levels below follow.
    batch_size : int, optional
        Number of samples that go through the network at once; all by default.
    limit : BatchLimit, optional
        Gets to know which batch fits in memory; share it between the calls of one run.
    progress : callable, optional
        Called after each step with `Progress`; return True to stop early (the denoised estimate is returned).

    Returns
    -------
    Samples

    Raises
    ------
    DivergenceError
        If every sample became non-finite or grew without bound; with step, sigma and the likely cause.
    OutOfMemoryError
        If memory is too small for one sample at a time.
    """
    if n_samples < 1 or first < 0:
        raise InputError(f"expected n_samples >= 1 and first >= 0, got n_samples={n_samples}, first={first}")
    domain = problem.operator.domain
    if denoiser.space is not None and tuple(denoiser.space.shape) != tuple(domain.shape):
        raise ShapeError(
            f"the prior is for images of shape {tuple(denoiser.space.shape)}, but the operator for {domain.shape}"
        )
    if sampler.needs_gaussian and not isinstance(problem.likelihood, Gaussian):
        raise InputError(
            f"{type(sampler).__name__} needs Gaussian noise, Problem(y, operator, noise_std); got "
            f"{type(problem.likelihood).__name__}"
        )
    if start_sigma is not None and (start is None or not start_sigma > 0):
        raise InputError(f"expected start_sigma > 0 together with start, got start_sigma={start_sigma}")
    sigmas = sampler.sigmas(problem, denoiser)
    if start_sigma is not None:
        sigmas = [min(start_sigma, sigmas[0]), *(sigma for sigma in sigmas if sigma < start_sigma)]
    tree = _Tree(sampler, problem, denoiser, sigmas, seed, BatchLimit() if limit is None else limit, progress)
    numbers = range(first, first + n_samples)
    return tree.samples(numbers, n_samples if batch_size is None else max(1, batch_size), start)


class _Origin(NamedTuple):
    """The clean image that a path begins with, and the step at which the path to it failed."""

    clean: Tensor
    bad_step: Tensor


class _End(NamedTuple):
    """The end of a batch of paths: states, denoised images of the last step, what was watched, and the path mean.

    ``residual`` is the misfit of samples, and None of shared paths.
    """

    x: Tensor
    denoised: Tensor | None
    watch: Watch
    expectation: Tensor | None
    residual: Tensor | None

    def origins(self) -> Iterator[_Origin]:
        """Yield what other paths may begin with."""
        assert self.denoised is not None, "a sampler with forks returns denoised images"
        return itertools.starmap(_Origin, zip(self.denoised, self.watch.bad_step, strict=True))


class _Tree:
    """The paths of one call of `sample`; they share what the forks of the sampler allow."""

    def __init__(
        self,
        sampler: Sampler,
        problem: Problem,
        denoiser: Denoiser,
        sigmas: list[float],
        seed: int,
        limit: BatchLimit,
        progress: Callable[[Progress], bool | None] | None,
    ) -> None:
        self.sampler, self.problem, self.denoiser, self.seed = sampler, problem, denoiser, seed
        self.sigmas, self.limit, self.progress = sigmas, limit, progress
        self.stopped = False  # on a path that others share

    @property
    def total(self) -> int:
        """Number of steps."""
        return len(self.sigmas) - 1

    def samples(self, numbers: range, size: int, start: Tensor | None) -> Samples:
        """Draw the samples of these numbers, ``size`` at a time."""
        begins = self._starts(start, numbers)
        parts = stretches(self.sigmas, () if begins else self.sampler.forks(self.problem, self.denoiser))
        for part, finer in itertools.pairwise(parts):
            paths = sorted({part.path_of(number) for number in numbers})
            origins = [origin for end in self._ends(part, paths, size, begins) for origin in end.origins()]
            origin_of = dict(zip(paths, origins, strict=True))
            begins = {finer.path_of(number): origin_of[part.path_of(number)] for number in numbers}
        return self._joined(self._ends(parts[-1], numbers, size, begins))

    def _starts(self, start: Tensor | None, numbers: range) -> dict[int, _Origin]:
        """Return the starting images of the samples by their numbers; nothing where they start with noise."""
        if start is None:
            return {}
        domain = self.problem.operator.domain
        domain.check(start, "start")
        if start.ndim == domain.ndim:
            start = start.expand(len(numbers), *domain.shape)
        elif start.ndim != domain.ndim + 1 or len(start) < len(numbers):
            raise ShapeError(f"start: expected one image or one for each sample, got shape {tuple(start.shape)}")
        good = torch.tensor(self.total)
        return {number: _Origin(image, good) for number, image in zip(numbers, start, strict=False)}

    def _ends(self, part: Stretch, numbers: Sequence[int], size: int, begins: Mapping[int, _Origin]) -> list[_End]:
        """Follow paths through a part of the schedule, in batches that fit in memory."""
        ends: list[_End] = []
        done = 0
        while done < len(numbers):
            batch = numbers[done : done + self.limit.of(size)]
            try:
                ends.append(self._follow(part, batch, [begins[number] for number in batch if begins]))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self.problem.operator.free()
                self.limit.lower(len(batch), error)
                continue
            done += len(batch)
        return ends

    def _follow(self, part: Stretch, numbers: Sequence[int], begins: Sequence[_Origin]) -> _End:
        """Take a batch of paths through a part of the schedule."""
        sampler, sigmas = self.sampler, self.sigmas
        own = [number + _APART * (part.paths or 0) for number in numbers]
        run = Run(self.problem, self.denoiser, Noise(self.seed, own, self.problem.y))
        x = self._first(part, run, torch.stack([begin.clean for begin in begins]) if begins else None)
        failed = torch.stack([begin.bad_step.to(x.device) for begin in begins]) if begins else None
        watch = Watch(x, self.denoiser.sigma_max, self.total, failed)
        memory, kept = None, PathMean(sampler.mean_level(self.problem))
        denoised = x if self.stopped else None
        for i in range(part.begin, part.begin if self.stopped else part.end):
            x, denoised, found, memory = sampler.step(x, sigmas[i], sigmas[i + 1], run, memory)
            watch.add(i, x, found)
            kept.add(sigmas[i], denoised)
            if self.progress is not None and self.progress(Progress(i + 1, self.total, sigmas[i], denoised)):
                x = x if denoised is None else denoised
                self.stopped = part.paths is not None
                break
        return _End(x, denoised, watch, kept.value, self.problem.misfit(x) if part.paths is None else None)

    def _first(self, part: Stretch, run: Run, clean: Tensor | None) -> Tensor:
        """Return the first states of paths that begin with noise, with a noisy image, or at a fork."""
        sigma = self.sigmas[part.begin]
        if clean is None or not part.begin:
            x = sigma * run.draw()
            return x if clean is None else x + clean.to(x)
        return clean if self.stopped else self.sampler.depart(clean, self.sigmas[part.begin - 1], sigma, run)

    def _joined(self, ends: Sequence[_End]) -> Samples:
        """Return the samples of all batches."""
        bad_step = torch.cat([end.watch.bad_step for end in ends])
        valid = bad_step == self.total
        if not bool(valid.any()):
            raise_divergence(bad_step, self.sigmas)
        kept = [end.expectation for end in ends if end.expectation is not None]
        return Samples(
            samples=torch.cat([end.x for end in ends]),
            valid=valid,
            residual=torch.cat([end.residual for end in ends if end.residual is not None]),
            facts={name: torch.cat([end.watch.facts[name] for end in ends]) for name in ends[0].watch.facts},
            expectation=torch.cat(kept) if len(kept) == len(ends) else None,
            sigmas=list(self.sigmas),
        )
