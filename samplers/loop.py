"""The sampling loop of the engine: it runs a sampler on a problem and monitors its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from operators.base import Space
from operators.errors import DivergenceError, InputError, ShapeError
from samplers.base import Run, Sampler
from samplers.denoiser import Denoiser
from samplers.likelihood import Gaussian
from samplers.memory import BatchLimit, is_out_of_memory
from samplers.noise import Noise
from samplers.problem import Problem
from samplers.samples import PathMean, Samples

#: A sample that grows beyond this multiple of the largest noise level counts as diverged.
_GROWTH = 10.0


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
    batch_size: int | None = None,
    limit: BatchLimit | None = None,
    progress: Callable[[Progress], bool | None] | None = None,
) -> Samples:
    """Draw samples from a problem and a prior with a sampler: the loop of the engine.

    Sample ``k`` of seed ``s`` is the same image whatever ``n_samples``, ``batch_size`` or ``first`` (each sample has
    its own random stream), up to the rounding of batched matrix products. A batch for which memory is too small is
    drawn again in halves; batches that are finished are kept.

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
    size = n_samples if batch_size is None else max(1, batch_size)
    limit = BatchLimit() if limit is None else limit
    parts, failures, begin = [], [], first
    while begin < first + n_samples:
        numbers = range(begin, min(begin + limit.of(size), first + n_samples))
        x0 = _starts(start, domain, numbers, first)
        try:
            drawn, failed = _batch(sampler, Run(problem, denoiser, Noise(seed, numbers, problem.y)), x0, progress)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            limit.lower(len(numbers), error)
            continue
        parts.append(drawn)
        failures.append(failed)
        begin = numbers.stop
    result = Samples(
        samples=torch.cat([part.samples for part in parts]),
        valid=torch.cat([part.valid for part in parts]),
        residual=torch.cat([part.residual for part in parts]),
        facts={name: torch.cat([part.facts[name] for part in parts]) for name in parts[0].facts},
    )
    if not bool(result.valid.any()):
        _raise_divergence(torch.cat(failures), sampler.sigmas(problem, denoiser))
    if all(part.expectation is not None for part in parts):
        result.expectation = torch.cat([part.expectation for part in parts if part.expectation is not None])
    return result


def _starts(start: Tensor | None, domain: Space, numbers: range, first: int) -> Tensor | None:
    """Pick the starting images of the samples ``numbers``."""
    if start is None:
        return None
    domain.check(start, "start")
    if start.ndim == domain.ndim:
        return start.expand(len(numbers), *domain.shape)
    if start.ndim != domain.ndim + 1 or len(start) < numbers.stop - first:
        raise ShapeError(f"start: expected one image or one for each sample, got shape {tuple(start.shape)}")
    return start[numbers.start - first : numbers.stop - first]


def _batch(
    sampler: Sampler, run: Run, start: Tensor | None, progress: Callable[[Progress], bool | None] | None
) -> tuple[Samples, Tensor]:
    """Run one batch through the schedule; also return the step at which each sample failed, or the number of steps.

    A sample fails where it is not finite or has grown to more than ``_GROWTH`` times the largest noise of the prior,
    which swamps its images (or times its initial size). Failures stay on the device until the end, so that nothing
    waits for a GPU.
    """
    problem, denoiser = run.problem, run.denoiser
    sigmas = sampler.sigmas(problem, denoiser)
    x = sigmas[0] * run.draw()
    if start is not None:
        x = x + start.to(x)
    total = len(sigmas) - 1
    limit = _GROWTH**2 * _mean_square(x).clamp(min=denoiser.sigma_max**2)
    bad_step = torch.full((len(run.noise),), total, device=x.device)
    facts: dict[str, Tensor] = {}
    memory, kept = None, PathMean(sampler.mean_level(problem))
    for i in range(total):
        x, denoised, found, memory = sampler.step(x, sigmas[i], sigmas[i + 1], run, memory)
        facts = _with_worst(facts, found)
        kept.add(sigmas[i], denoised)
        good = _mean_square(x) <= limit  # false for what is not finite
        bad_step = torch.where(good, bad_step, bad_step.clamp(max=i))
        if progress is not None and progress(Progress(i + 1, total, sigmas[i], denoised)):
            x = x if denoised is None else denoised
            break
    return Samples(x, bad_step == total, problem.misfit(x), facts, kept.value), bad_step


def _mean_square(x: Tensor) -> Tensor:
    """Return the mean of ``|x|^2`` of each sample, shape ``(batch,)``."""
    flat = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return flat.square().flatten(1).sum(dim=1) / max(x[0].numel(), 1)


def _with_worst(before: dict[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the diagnostics of a step, and the largest ``cg_residual`` so far, which shows if a solve got stuck."""
    facts = dict(found)
    if "cg_residual" in facts:
        worst = before.get("cg_residual_worst", facts["cg_residual"])
        facts["cg_residual_worst"] = torch.maximum(worst, facts["cg_residual"])
    return facts


def _raise_divergence(bad_step: Tensor, sigmas: list[float]) -> NoReturn:
    """Return the error message for a run without any valid sample."""
    worst = int(bad_step.max())
    raise DivergenceError(
        f"every sample became non-finite or grew without bound: first at step {int(bad_step.min()) + 1} of "
        f"{len(sigmas) - 1} (last at sigma = {sigmas[worst]:.3g}); likely causes: the network returns NaN at this "
        "sigma, or the data are scaled far from what the prior was trained on, or noise_std is much too small"
    )
