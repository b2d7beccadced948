"""An out-of-sample test of a slice: some data are withheld from a short companion run, predicted, and compared.

Where the posterior is right, the prediction ``A x_k`` of K samples misses withheld data by their noise and by ``(1 +
1/K)`` times the variance of the predictions. No reference image is needed, so the test works on any scan.

The test is of noise level, operator, data and prior. It says nothing of a sampler that does not draw the companion run,
which is DDS or the exact one. The idea: Sprunck, Pereyra & Liaudat, "Bayesian model selection and misspecification
testing in imaging inverse problems only from noisy and partial measurements", 2025 (arXiv 2510.27663), who withhold by
data fission.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.engine.samplers import resolve_sampler
from recon.errors import DivergenceError
from recon.modalities.base import Modality, single_data
from samplers import DDS, BatchLimit, DDSVolume, Denoiser, ExactGaussian, Gaussian, Problem, Sampler, sample
from samplers.data_terms import WHITE

#: Fraction of the groups of data that is withheld, the least number of them, and of those that remain for each.
FRACTION, FEWEST, REMAIN = 0.06, 2, 3
#: Samples of the companion run, and its steps relative to those of a full run: an eighth of the cost of 8 samples.
SAMPLES, STEPS = 2, 0.47
#: With fewer steps than this the samples of a companion run hardly spread, and say nothing.
LEAST_STEPS = 8
#: The same of DDS that draws the image, whose spread does not depend on the number of steps: with .25 of them chi2 is
#: within .01 of that with .47 (within .08 for phantoms). Its full run shares paths, and is cheaper.
STEPS_DRAWING, LEAST_DRAWING = 0.28, 4
#: Noise of withheld data in the companion run, relative to their own.
_DEAF = 1e4
#: Makes the random numbers of a companion run differ from those of the run.
_STREAM = 7_919


@dataclass(frozen=True)
class HeldOut:
    """How well withheld data were predicted.

    Attributes
    ----------
    chi2 : float
        Squared error of the prediction over its expected value: about 1 where the posterior is right.
    excess : float
        Squared error beyond the noise, over the spread of the predictions: the square of error over spread in the
        directions that were withheld.
    excess_error : float
        Standard error of ``excess`` by the noise of the data.
    spread : float
        Fraction of the expected squared error that is spread of the samples; the rest is noise.
    withheld : float
        Fraction of the data that was withheld.
    """

    chi2: float
    excess: float
    excess_error: float
    spread: float
    withheld: float

    @classmethod
    def of(cls, noise: Tensor, missed: Tensor, spread: Tensor, withheld: float) -> HeldOut:
        """Compare the squared error of each datum withheld with the power of its noise and of its spread."""
        expected, found, wide = (float(values.mean(dtype=torch.float64)) for values in (noise, missed, spread))
        wide = max(wide, 1e-30)
        total = expected + wide
        chance = float((noise + spread).square().mean(dtype=torch.float64)) ** 0.5 / len(noise) ** 0.5
        return cls(found / total, (found - expected) / wide, chance / wide, wide / total, withheld)


def cross_validate(
    problem: Problem,
    sampler: Sampler,
    denoiser: Denoiser,
    seed: int,
    modality: Modality | None = None,
    data_std: Tensor | None = None,
    limit: BatchLimit | None = None,
) -> HeldOut | None:
    """Withhold some data of a slice, and compare them with what a short run of DDS without them predicts.

    Parameters
    ----------
    problem : Problem
    sampler : Sampler
        That of the full run. The companion run uses it if it is DDS or exact, and the default DDS if not.
    denoiser : Denoiser
    seed : int
    modality : Modality, optional
    data_std : Tensor, broadcastable to ``problem.y``, optional
        Standard deviation of the data around those of the true image; ``problem.noise_std`` by default.
    limit : BatchLimit, optional
        The batch that fits in memory.

    Returns
    -------
    HeldOut or None
        None where the test does not apply: too few data, steps or valid samples, coupled slices, or noise that is not
        Gaussian.
    """
    if not isinstance(problem.likelihood, Gaussian) or problem.operator.n_data == 0 or isinstance(sampler, DDSVolume):
        return None
    withheld = choose(single_data(problem) if modality is None else modality.groups(problem), seed)
    if withheld is None:
        return None
    companion = _companion(sampler, problem, modality)
    if companion is None:
        return None
    try:
        return held_out(problem, withheld, companion, denoiser, seed, data_std, limit)
    except DivergenceError:  # so does the run itself, or it is told there
        return None


def _companion(sampler: Sampler, problem: Problem, modality: Modality | None) -> Sampler | None:
    """Return the sampler of the companion run; None if it would have too few steps."""
    if isinstance(sampler, ExactGaussian):
        return sampler
    full = sampler if isinstance(sampler, DDS) else resolve_sampler("dds", None, modality)
    assert isinstance(full, DDS)
    # Complete data are an image in white noise, of which the network sees all; not so with holes in them.
    adapts = full.adapt_to_noise and problem.information.whiteness <= WHITE
    steps = full.steps_for(problem)
    if full.image_draws:
        wanted, least = min(max(round(STEPS_DRAWING * steps), LEAST_DRAWING), steps), LEAST_DRAWING
    else:
        wanted, least = round(STEPS * steps), LEAST_STEPS
    return dataclasses.replace(full, steps=wanted, adapt_to_noise=adapts) if wanted >= least else None


def choose(groups: Tensor, seed: int) -> Tensor | None:
    """Return which data to withhold, by whole groups evenly over their order; None if there are too few groups.

    Parameters
    ----------
    groups : Tensor of int
        Group of each datum, broadcastable to the data; negative for data that are never withheld.
    seed : int
    """
    labels = torch.unique(groups[groups >= 0]).cpu().numpy()
    count = max(FEWEST, round(FRACTION * len(labels)))
    if len(labels) < (1 + REMAIN) * count:
        return None
    # One at random from each of as many equal parts.
    part = len(labels) / count
    picked = ((np.arange(count) + np.random.default_rng([seed, _STREAM]).random(count)) * part).astype(int)
    return torch.isin(groups, torch.as_tensor(labels[picked]).to(groups))


def held_out(
    problem: Problem,
    withheld: Tensor,
    sampler: Sampler,
    denoiser: Denoiser,
    seed: int,
    data_std: Tensor | None = None,
    limit: BatchLimit | None = None,
) -> HeldOut | None:
    """Sample without some of the data (bool, broadcastable to ``problem.y``), and compare them with the prediction.

    None if fewer than two samples are valid: one alone has no spread.
    """
    known = torch.as_tensor(problem.noise_std, device=problem.y.device)
    withheld = withheld.to(problem.y.device)
    without = dataclasses.replace(problem, noise_std=torch.where(withheld, _DEAF * known, known).to(known.dtype))
    drawn = sample(sampler, without, denoiser, SAMPLES, seed + _STREAM, limit=limit)
    images = drawn.samples[drawn.valid]
    if len(images) < 2:
        return None
    whole = withheld.expand(problem.y.shape)
    predicted = torch.stack([problem.operator(image)[whole] for image in images])
    mean, count = predicted.mean(dim=0), len(images)
    spread = (predicted - mean).abs().square().sum(dim=0) / (count - 1) * (1 + 1 / count)
    level = (known if data_std is None else data_std.to(known)).expand(problem.y.shape)[whole]
    missed = (problem.y[whole] - mean).abs().square()
    return HeldOut.of(level.square(), missed, spread, float(whole.float().mean()))
