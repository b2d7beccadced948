"""The flagship as it comes, with denoisers and operators of a third party that tell nothing of their error.

Nothing here but the public protocol; the truth is dense algebra in double precision.
"""

import gc
import math

import pytest
import torch
from torch import Tensor

from operators import Diagonal, LinearOperator, Space
from samplers import MomentMatching, Problem, sample
from samplers.pilot import _KEPT, measured_error

SIDE, DRAWS = 16, 128
PIXELS = SIDE**2


class TheirMixture:
    """Exact posterior mean under a mixture of Gaussians with any covariances; one component is a plain Gaussian."""

    def __init__(self, means: list[Tensor], covariances: list[Tensor], shape: tuple[int, ...], std: float) -> None:
        self.sigma_min, self.sigma_max, self.space = 0.01 * std, 60 * std, Space(shape, torch.float32)
        self.means, self.covariances, self.calls = means, covariances, 0
        self.bases = [torch.linalg.eigh(covariance) for covariance in covariances]

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        flat = x.reshape(len(x), -1).double()
        logits, images = [], []
        for mean, (values, vectors) in zip(self.means, self.bases, strict=True):
            total = values.clamp(min=0) + sigma**2
            z = (flat - mean) @ vectors
            logits.append(-(z.square() / total + total.log()).sum(dim=1) / 2)
            images.append(mean + (z * (1 - sigma**2 / total)) @ vectors.T)
        weights = torch.softmax(torch.stack(logits, dim=1), dim=1)
        clean = (weights[:, :, None] * torch.stack(images, dim=1)).sum(dim=1)
        return clean.reshape(x.shape).to(x.dtype)

    def draw(self, generator: torch.Generator) -> Tensor:
        values, vectors = self.bases[0]
        white = torch.randn(len(values), dtype=torch.float64, generator=generator)
        return self.means[0] + vectors @ (values.clamp(min=0).sqrt() * white)

    def posterior(self, matrix: Tensor, y: Tensor, noise_std: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each pixel."""
        logits, means, variances = [], [], []
        for mean, covariance in zip(self.means, self.covariances, strict=True):
            total = matrix @ covariance @ matrix.T + torch.diag(noise_std.square())
            residual = y - matrix @ mean
            gain = torch.linalg.solve(total, matrix @ covariance).T
            logits.append(-(residual @ torch.linalg.solve(total, residual) + torch.linalg.slogdet(total)[1]) / 2)
            means.append(mean + gain @ residual)
            variances.append((covariance - gain @ matrix @ covariance).diagonal())
        weights = torch.softmax(torch.stack(logits), dim=0)[:, None]
        mean = (weights * torch.stack(means)).sum(dim=0)
        second = (weights * (torch.stack(variances) + torch.stack(means).square())).sum(dim=0)
        return mean, (second - mean.square()).sqrt()


class TheirOperator(LinearOperator):
    def __init__(self, matrix: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__(Space(shape, torch.float32), Space((len(matrix),), torch.float32, axes="datum"))
        self.matrix = matrix.float()

    def _forward(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.ndim - self.domain.ndim], -1) @ self.matrix.T

    def _adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).reshape(*y.shape[:-1], *self.domain.shape)


def _distances(*shape: int) -> Tensor:
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(shape))
    return torch.cdist(points, points)


def _smooth(std: float, length: float, *shape: int) -> Tensor:
    distances = _distances(*shape)
    return std**2 * (torch.exp(-(distances / length).square() / 2) + 1e-6 * torch.eye(len(distances)))


def _power_law(std: float, exponent: float) -> Tensor:
    f = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    spectrum = (f[:, None].square() + f.square() + 0.04**2) ** (-exponent / 2)
    basis = torch.eye(PIXELS, dtype=torch.float64).reshape(-1, SIDE, SIDE)
    rows = torch.fft.ifft2(spectrum / spectrum.mean() * torch.fft.fft2(basis)).real
    return std**2 * rows.reshape(PIXELS, PIXELS)


def _prior(name: str) -> TheirMixture:
    zero = [torch.zeros(PIXELS, dtype=torch.float64)]
    if name == "power law":
        return TheirMixture(zero, [_power_law(0.3, 3.0)], (SIDE, SIDE), 0.3)
    if name == "smooth":
        return TheirMixture(zero, [_smooth(1.0, 2.0, SIDE, SIDE)], (SIDE, SIDE), 1.0)
    kinds = [_power_law(0.05, 2.5), _smooth(0.04, 1.5, SIDE, SIDE), 0.05**2 * torch.exp(-_distances(SIDE, SIDE) / 3)]
    factor = torch.linalg.cholesky(kinds[0])
    rng = torch.Generator().manual_seed(11)
    means = [0.7 * factor @ torch.randn(PIXELS, dtype=torch.float64, generator=rng) for _ in kinds]
    return TheirMixture(means, kinds, (SIDE, SIDE), 0.05)


def _matrix(name: str, pixels: int, share: float = 0.3) -> Tensor:
    rng = torch.Generator().manual_seed(5)
    if name == "inpainting":
        return torch.eye(pixels, dtype=torch.float64)[torch.rand(pixels, generator=rng) < share]
    return torch.randn(int(share * pixels), pixels, dtype=torch.float64, generator=rng) / pixels**0.5


def _problem(prior: TheirMixture, matrix: Tensor, noise_std: Tensor) -> tuple[Problem, Tensor]:
    rng = torch.Generator().manual_seed(17)
    y = matrix @ prior.draw(rng) + noise_std * torch.randn(len(matrix), dtype=torch.float64, generator=rng)
    operator = TheirOperator(matrix, prior.space.shape)
    return Problem(y.float(), operator, noise_std.float()), y


@pytest.mark.parametrize(
    ("name", "noise", "operator"),
    [
        ("power law", 0.02, "random"),
        ("smooth", 0.1, "inpainting"),
        ("mixture", 0.005, "random"),
    ],
)
@pytest.mark.slow
def test_the_default_keeps_the_gate_with_any_prior(name: str, noise: float, operator: str) -> None:
    prior, matrix = _prior(name), _matrix(operator, PIXELS)
    # Half the data are twice as noisy.
    noise_std = torch.where(torch.arange(len(matrix)) % 2 == 0, noise, 2 * noise).double()
    problem, y = _problem(prior, matrix, noise_std)
    mean, std = prior.posterior(matrix, y, noise_std)
    drawn = sample(MomentMatching(), problem, prior, DRAWS, seed=3)
    ratio = float((drawn.std.flatten() / std).median())
    error = float(((drawn.mean.flatten() - mean) / std).square().mean().sqrt())
    assert 0.95 <= ratio <= 1.05, f"std ratio {ratio:.3f}"
    assert error <= 0.15, f"error of the mean {error:.3f} posterior std"


@pytest.mark.parametrize("shape", [(48,), (2, 4, 4), (3, 1, 8)])
@pytest.mark.slow
def test_domains_that_are_no_image(shape: tuple[int, ...]) -> None:
    pixels = math.prod(shape)
    covariance = _smooth(0.5, 1.5, *shape)
    prior = TheirMixture([torch.ones(pixels, dtype=torch.float64)], [covariance], shape, 0.5)
    matrix = _matrix("inpainting", pixels, 0.5)
    noise_std = torch.full((len(matrix),), 0.1, dtype=torch.float64)
    problem, y = _problem(prior, matrix, noise_std)
    mean, std = prior.posterior(matrix, y, noise_std)
    drawn = sample(MomentMatching(), problem, prior, DRAWS, seed=3)
    assert 0.95 <= float((drawn.std.flatten() / std).median()) <= 1.05
    assert float(((drawn.mean.flatten() - mean) / std).square().mean().sqrt()) <= 0.15


class Network:
    """A denoiser with the errors of a network: its Jacobian is not symmetric. Complex images of 8 x 8."""

    sigma_min, sigma_max, space = 0.01, 20.0, Space((8, 8))

    def __init__(self) -> None:
        self.calls = 0

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        total, turned = sigma**2 + 0.09, torch.view_as_real(x.roll(1, -1) / sigma).sin()
        return x * 0.09 / total + 0.3 * sigma * 0.3 / total**0.5 * torch.view_as_complex(turned)


def _mri(noise_std: float = 0.05) -> Problem:
    space = Space((8, 8))
    mask = (torch.arange(8) % 2 == 0).to(torch.complex64).expand(8, 8)
    return Problem(0.3 * torch.ones(8, 8) * mask, Diagonal(mask, space), noise_std)


def test_a_jacobian_that_is_no_covariance_is_not_used() -> None:
    network, problem = Network(), _mri()
    found = measured_error(network, problem, problem.y)
    assert found is not None and found.jacobian_below == 0 and network.calls < 100
    before = network.calls
    drawn = sample(MomentMatching(), problem, network, 8, batch_size=2)
    assert network.calls == before + 4 * 30
    assert float(drawn.facts["negative_curvature"].sum()) == 0 and 0.1 < float(drawn.std.mean()) < 0.5


@pytest.mark.slow
def test_measuring_is_done_once_and_leaves_the_samples_alone() -> None:
    """The same sample whatever the batch and whether the measurement was there; nothing outlives the denoiser."""
    prior, matrix = _prior("power law"), _matrix("inpainting", PIXELS)
    problem, _ = _problem(prior, matrix, torch.full((len(matrix),), 0.02, dtype=torch.float64))
    together = sample(MomentMatching(4), problem, prior, 4, seed=5).samples
    alone = [sample(MomentMatching(4), problem, prior, 1, seed=5, first=k).samples for k in range(4)]
    fresh = sample(MomentMatching(4), problem, _prior("power law"), 4, seed=5, batch_size=3).samples
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together, fresh, rtol=1e-3, atol=1e-4)
    network = Network()
    for _ in range(2):
        measured_error(network, _mri(), _mri().y)
    known = id(network)
    assert known in _KEPT
    del network
    gc.collect()
    assert known not in _KEPT


def test_a_denoiser_that_gives_no_numbers_is_met_with_independent_pixels() -> None:
    class Broken(Network):
        def denoise(self, x: Tensor, sigma: float) -> Tensor:
            return x * float("nan")

    problem = _mri()
    assert measured_error(Broken(), problem, problem.y) is None
