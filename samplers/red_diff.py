"""RED-diff: a variational fit of one image, regularised by the denoising error at random noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from samplers.base import AnnealedSampler, Run, Step
from samplers.data_terms import likelihood_score
from samplers.validation import require


class _Adam(NamedTuple):
    """The fitted image, the moments of its gradient, and the number of updates; complex images as separate parts.

    The moments of each pixel are its own, so no sample depends on another.
    """

    image: Tensor
    first: Tensor
    second: Tensor
    updates: int


@dataclass(frozen=True)
class REDDiff(AnnealedSampler):
    """Regularisation by denoising diffusion: stochastic gradient steps on one image ``mu``.

    At each level, with fresh noise ``eps`` in ``x = mu + sigma eps`` (algorithm 1; the weight ``lambda sigma`` of the
    published regulariser times ``eps_hat - eps = (mu - D) / sigma``)::

        g  = A^H (A mu - y) + strength (mu - D(x, sigma))
        mu = Adam(mu, g)

    ``mu`` starts at ``D`` of the first state, so that ``start=`` has an effect.

    Heuristic, and a point estimate: it seeks a mode. Its samples differ by the noise of the optimiser, not by the
    posterior: std ratio .9 - 1.2, but .1 in measured directions, on the known problems of
    ``benchmarks/posterior_truth.py``; on real images its spread is a quarter of its error.
    Ignores the noise level, as published, unless ``weighted``. One evaluation per step, no back-propagation.

    Parameters
    ----------
    steps, spacing, sigma_max, sigma_min
        See `samplers.base.AnnealedSampler`; the paper takes 1000 steps.
    strength : float
        ``lambda``, .25 in the paper.
    learning_rate : float
        Learning rate of Adam, in image units; .1 in the paper, with betas (.9, .99).
    weighted : bool
        Use ``A^H W (A mu - y)``, ``W = 1 / noise_std^2``, instead of the published data term; ``strength`` is then in
        the same units, about ``1 / prior_std^2``.

    References
    ----------
    Mardani, Song, Kautz & Vahdat, "A variational perspective on solving inverse problems with diffusion models",
    ICLR 2024.
    """

    citations: ClassVar[tuple[str, ...]] = ("mardani2024reddiff",)

    steps: int = 1000
    strength: float = 0.25
    learning_rate: float = 0.1
    weighted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, self.strength >= 0, "strength >= 0", self.strength)
        require(self, self.learning_rate > 0, "learning_rate > 0", self.learning_rate)

    def step(self, x: Tensor, sigma: float, sigma_next: float, run: Run, memory: Any) -> Step:
        """Denoise, take one Adam step, add noise for the next."""
        denoised = run.denoiser.denoise(x, sigma)
        if memory is None:
            still = torch.zeros_like(_parts(denoised))
            memory = _Adam(denoised, still, still, 0)
        data = run.problem if self.weighted else run.problem.unweighted
        gradient = self.strength * (memory.image - denoised) - likelihood_score(data, memory.image)
        memory = _update(memory, gradient, self.learning_rate)
        x = memory.image
        if sigma_next > 0:
            x = x + sigma_next * run.draw()
        return Step(x, memory.image, {}, memory)


def _update(state: _Adam, gradient: Tensor, learning_rate: float) -> _Adam:
    """Take one step of Adam (Kingma & Ba 2015), betas .9 and .99."""
    parts, count = _parts(gradient), state.updates + 1
    first = 0.9 * state.first + 0.1 * parts
    second = 0.99 * state.second + 0.01 * parts.square()
    step = first / (1 - 0.9**count) / ((second / (1 - 0.99**count)).sqrt() + 1e-8)
    move = torch.view_as_complex(step) if gradient.is_complex() else step
    return _Adam(state.image - learning_rate * move, first, second, count)


def _parts(x: Tensor) -> Tensor:
    """Return real and imaginary parts as an axis, for Adam."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
