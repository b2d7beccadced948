"""Problems with an exactly known posterior, and the distance of a sampler's samples from it.

``benchmarks/posterior_truth.py`` makes the full table, the tests a small one; users can run the same test on their
own sampler.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from operators import CartesianMRI, make_mask
from operators.base import LinearOperator, Space
from operators.elementary import Diagonal, Matrix
from recon.errors import ConfigError
from recon.priors.analytic import GaussianMixturePrior, GaussianPrior
from recon.priors.exact import ExactPosterior, dense, exact_posterior
from samplers.base import Denoiser
from samplers.noise import Noise
from samplers.problem import Problem
from samplers.samples import Samples

OPERATORS = ("fourier", "inpainting", "random")
PRIORS = ("gaussian", "mixture")
#: Exponent of a steep spectrum: nine tenths of the energy of an image lie in less than a fifth of its frequencies.
STD, EXPONENT, CORNER = 0.3, 3.0, 0.04


@dataclass(frozen=True, eq=False)
class TruthProblem:
    """A problem, its prior, and the posterior in closed form."""

    name: str
    problem: Problem
    prior: GaussianPrior | GaussianMixturePrior

    @cached_property
    def truth(self) -> ExactPosterior:
        """The exact posterior."""
        return exact_posterior(self.problem, self.prior)

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Orthonormal bases of the measured and the unmeasured directions, each ``(direction, pixel)``."""
        _, values, directions = torch.linalg.svd(dense(self.problem.operator))
        rank = int((values > 1e-9 * values[0]).sum())
        directions = directions.conj()  # rows that are the vectors themselves: A x = sum of values times <row, x>
        return directions[:rank], directions[rank:]

    def draws(self, n: int, seed: int = 0) -> Tensor:
        """Return ``n`` exact samples."""
        return self.truth.draw(n, seed)


def truth_problem(
    operator: str = "fourier", prior: str = "gaussian", size: int = 24, noise_std: float = 0.02, seed: int = 0
) -> TruthProblem:
    """Build one of the known problems: complex images ``(size, size)`` of standard deviation .3.

    Parameters
    ----------
    operator : "fourier", "inpainting" or "random"
        Fourier columns at acceleration 4, 30 % of the pixels, or a random matrix with a quarter as many rows as pixels.
    prior : "gaussian" or "mixture"
        A power-law spectrum, or four Gaussians of different means and spectra.
    noise_std : float
        Noise level of each datum.
    seed : int
        Seed of the mask or matrix, the true image and the noise.
    """
    if operator not in OPERATORS or prior not in PRIORS:
        raise ConfigError(f"truth_problem: expected one of {OPERATORS} and one of {PRIORS}, got {operator}, {prior}")
    known = _mixture(size) if prior == "mixture" else GaussianPrior.power_law((size, size), STD, EXPONENT, CORNER)
    model = _operator(operator, size, seed)
    space = known.space
    white = Noise(seed, [0], torch.zeros(1)).normal(space)
    source = known.components[0] if isinstance(known, GaussianMixturePrior) else known
    clean = source.draw(white)
    noise = Noise(seed, [1], torch.zeros(1)).normal(model.codomain)
    # No noise where nothing is measured: A A^H is the mask of the measured data.
    measured = model(model.H(torch.ones_like(noise))).abs() > 0 if operator != "random" else torch.tensor(True)
    y = (model(clean) + noise_std * noise * measured)[0]
    return TruthProblem(f"{operator}-{prior}", Problem(y, model, noise_std), known)


def _operator(name: str, size: int, seed: int) -> LinearOperator:
    rng = torch.Generator().manual_seed(seed)
    if name == "fourier":
        mask = torch.as_tensor(make_mask((size, size), "random", 4, 0.16, seed=seed))
        return CartesianMRI(mask, shape=(size, size))
    if name == "inpainting":
        return Diagonal((torch.rand(size, size, generator=rng) < 0.3).to(torch.complex64))
    n = size * size
    matrix = torch.randn(n // 4, n, dtype=torch.complex64, generator=rng) / n**0.5
    return Matrix(matrix, Space((size, size)), Space((n // 4,), axes="datum"))


def _mixture(size: int) -> GaussianMixturePrior:
    """Return four kinds of image, each with a separate mean and a separate spectrum of its variations."""
    kinds = []
    for k, exponent in enumerate((2.4, 2.8, 3.2, 3.6)):
        base = GaussianPrior.power_law((size, size), std=0.2, exponent=3.0)
        mean = base.draw(Noise(100 + k, [0], torch.zeros(1)).normal(base.space))[0]
        spread = GaussianPrior.power_law((size, size), std=0.22, exponent=exponent, corner=CORNER)
        kinds.append(GaussianPrior(mean, spectrum=spread.variance))
    return GaussianMixturePrior(kinds)


class Counted:
    """A denoiser that counts its calls and the back-propagations through it."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.sigma_min, self.sigma_max, self.space = denoiser.sigma_min, denoiser.sigma_max, denoiser.space
        self.calls = self.vjps = 0

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise and count."""
        self.calls += 1
        output = self.denoiser.denoise(x, sigma)
        if output.requires_grad:
            output.register_hook(self._count)
        return output

    def _count(self, gradient: Tensor) -> None:
        self.vjps += 1


class Flawed:
    """A denoiser with an error like that of a network: a fixed smooth function, its Jacobian not symmetric.

    With the preconditioning of Karras et al. (2022) a network predicts a target of unit variance; ``level`` is the rms
    error of that prediction. The error of the denoised image is ``level sigma s / sqrt(sigma^2 + s^2)``, ``s`` the
    standard deviation of the images. Its Jacobian has an antisymmetric part as large as its symmetric one.
    """

    def __init__(self, denoiser: Denoiser, level: float, data_std: float = 0.3) -> None:
        self.denoiser, self.level, self.data_std = denoiser, level, data_std
        self.sigma_min, self.sigma_max, self.space = denoiser.sigma_min, denoiser.sigma_max, denoiser.space

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Denoise, with the error."""
        size = self.level * sigma * self.data_std / (sigma**2 + self.data_std**2) ** 0.5
        return self.denoiser.denoise(x, sigma) + size * self._error(x / (sigma**2 + self.data_std**2) ** 0.5)

    def _error(self, x: Tensor) -> Tensor:
        """Two random 5 x 5 convolutions with a saturation between them, brought to unit rms."""
        rng = torch.Generator().manual_seed(11)
        for _ in range(2):
            kernel = torch.zeros(x.shape[-2:], dtype=x.dtype)
            kernel[:5, :5] = torch.randn(5, 5, dtype=x.dtype, generator=rng) / 5
            x = torch.fft.ifft2(torch.fft.fft2(kernel) * torch.fft.fft2(x))
            x = x / (1 + x.abs())
        return x / x.abs().square().mean(dim=(-2, -1), keepdim=True).sqrt()


def truth_scores(drawn: Samples | Tensor, case: TruthProblem, reference: Tensor | None = None) -> dict[str, float]:
    """Return how far samples are from the exact posterior.

    Parameters
    ----------
    drawn : Samples or Tensor ``(n, y, x)``
    case : TruthProblem
    reference : Tensor ``(m, y, x)``, optional
        Exact samples to compare with; 2048 by default.

    Returns
    -------
    dict
        ``zerr``: rms of (mean - true mean) / true std; ``ratio``, ``ratio_5``, ``ratio_95``: std over true std, median
        and quantiles over pixels; ``cov90``: fraction of exact samples in the central 90 % of the samples; ``row``,
        ``null``: median std ratio along measured and unmeasured directions; ``sw``: sliced Wasserstein-1 distance in
        units of the true std.
    """
    samples = (drawn.samples[drawn.valid] if isinstance(drawn, Samples) else drawn).to(torch.complex128)
    reference = case.draws(2048, seed=1) if reference is None else reference
    truth = case.truth
    std = (samples - samples.mean(dim=0)).abs().square().sum(dim=0).div(len(samples) - 1).sqrt()
    ratio = (std / truth.std).double()
    error = (samples.mean(dim=0) - truth.mean).abs() / truth.std
    row, null = (_ratio(samples, reference, basis) for basis in case.rows)
    return {
        "zerr": float(error.square().mean().sqrt()),
        "ratio": float(ratio.median()),
        "ratio_5": float(ratio.quantile(0.05)),
        "ratio_95": float(ratio.quantile(0.95)),
        "cov90": _coverage(samples, reference),
        "row": row,
        "null": null,
        "sw": _sliced_wasserstein(samples / truth.std, reference / truth.std),
    }


def _ratio(samples: Tensor, reference: Tensor, basis: Tensor) -> float:
    """Return the median ratio of standard deviations along the directions of a basis."""

    def spread(images: Tensor) -> Tensor:
        along = (images - images.mean(dim=0)).flatten(1).to(basis.dtype) @ basis.mH
        return along.abs().square().mean(dim=0).sqrt()

    return float((spread(samples) / spread(reference)).median())


def _coverage(samples: Tensor, reference: Tensor) -> float:
    """Return the fraction of real and imaginary parts of exact samples in the central 90 % of the samples."""
    hits = []
    for part, truth in ((samples.real, reference.real), (samples.imag, reference.imag)):
        lower, upper = torch.quantile(part, torch.tensor([0.05, 0.95], dtype=part.dtype), dim=0)
        hits.append(((truth >= lower) & (truth <= upper)).double().mean())
    return float(sum(hits) / 2)


def _sliced_wasserstein(samples: Tensor, reference: Tensor, directions: int = 256) -> float:
    """Return the mean Wasserstein-1 distance of the real parts of random projections."""
    size = samples[0].numel()
    rng = torch.Generator().manual_seed(5)
    along = torch.randn(directions, size, dtype=samples.dtype, generator=rng)
    along = along / along.abs().square().sum(dim=1, keepdim=True).sqrt()
    levels = (torch.arange(512, dtype=samples.real.dtype) + 0.5) / 512
    first, second = ((images.flatten(1) @ along.mH).real.quantile(levels, dim=0) for images in (samples, reference))
    return float((first - second).abs().mean())


def prior_draws(prior: GaussianPrior | GaussianMixturePrior, n: int, seed: int = 7) -> Tensor:
    """Return ``n`` samples of a known prior, cycling through the components of a mixture."""
    kinds = prior.components if isinstance(prior, GaussianMixturePrior) else [prior]
    white = Noise(seed, range(n), kinds[0].mean).normal(kinds[0].space)
    return torch.stack([kinds[k % len(kinds)].draw(white[k]) for k in range(n)])
