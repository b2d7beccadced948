"""What every strategy owes its user, and what each owes its paper."""

import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import samplers
from operators import CartesianMRI, CenteredFFT, Diagonal, InputError, Matrix, Space, ifftc
from recon.priors import GaussianPrior
from samplers import (
    DAPS,
    DDS,
    DPS,
    PULA,
    DDSVolume,
    DiffPIR,
    ExactGaussian,
    KnowsError,
    LocalEnergy,
    MomentMatching,
    Noise,
    PartsAsBatch,
    PiGDM,
    PnPDM,
    Problem,
    REDDiff,
    Run,
    Sampler,
    ScoreALD,
    ScoreMRI,
    Step,
    Support,
    Uniform,
    knowledge,
    sample,
)
from samplers.covariance import CovarianceModel
from samplers.data_terms import gaussian_step, likelihood_score
from samplers.spread import clean_variance, local_spread

RANGE = {"sigma_max": 5.0, "sigma_min": 0.05}
STRATEGIES: dict[str, Sampler] = {
    "dps": DPS(steps=5, **RANGE),
    "dps-chunks": DPS(steps=5, chunk=3, solver="ddim", variables="vp", **RANGE),
    "diffpir": DiffPIR(steps=5, cg_iterations=3, **RANGE),
    "pigdm": PiGDM(steps=5, weight="published", cg_iterations=3, chunk=3, **RANGE),
    "pula": PULA(steps=4, inner=2, cg_iterations=3, **RANGE),
    "daps": DAPS(steps=3, inner=2, langevin_steps=3, **RANGE),
    "daps-exact": DAPS(steps=3, inner=2, likelihood="exact", cg_iterations=3, width="rule", prior_std=0.5, **RANGE),
    "pnp-dm": PnPDM(steps=3, inner=3, cg_iterations=3, **RANGE),
    "pnp-dm-ancestral": PnPDM(steps=3, inner=3, solver="ancestral", cg_iterations=3, **RANGE),
    "score-ald-paper": ScoreALD(steps=4, inner=2, **RANGE),
    "score-ald-code": ScoreALD(steps=4, inner=2, rule="code", **RANGE),
    "score-mri": ScoreMRI(steps=5, **RANGE),
    "score-mri-sirt": ScoreMRI(steps=5, scaling="sirt", **RANGE),
    "score-mri-norm": ScoreMRI(steps=5, scaling="norm", **RANGE),
    "red-diff": REDDiff(steps=5, **RANGE),
}
#: Those that weigh each datum by its noise level.
WEIGHTED = ("diffpir", "pula", "daps", "daps-exact", "pnp-dm", "pnp-dm-ancestral", "score-ald-paper")


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Sampler:
    return STRATEGIES[request.param]


def test_a_batch_is_the_same_as_one_by_one(strategy: Sampler, problem: Problem, prior: GaussianPrior) -> None:
    together = sample(strategy, problem, prior, 8, seed=1)
    alone = sample(strategy, problem, prior, 8, seed=1, batch_size=1)
    assert together.valid.all()
    assert (together.samples - alone.samples).abs().max() < 1e-5 * together.samples.abs().max()
    assert not torch.equal(together.samples[0], together.samples[1])


def test_a_seed_is_an_image(strategy: Sampler, problem: Problem, prior: GaussianPrior) -> None:
    state = torch.get_rng_state()
    first, again, other = (sample(strategy, problem, prior, 2, seed=seed).samples for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3
    assert torch.equal(state, torch.get_rng_state())
    assert not first.requires_grad


def test_real_images(strategy: Sampler) -> None:
    prior = GaussianPrior.power_law((8, 8), std=0.5, dtype=torch.float32)
    operator = Diagonal((torch.arange(64).reshape(8, 8) % 2).float(), prior.space)
    drawn = sample(strategy, Problem(operator(prior.mean + 0.3), operator, 0.05), prior, 2, seed=0)
    assert drawn.samples.dtype == torch.float32
    assert drawn.valid.all()


def test_start_begins_near_a_given_image(strategy: Sampler, prior: GaussianPrior) -> None:
    """From a small first sigma, and with data that say the same, the result stays where it started."""
    image = prior.draw(Noise(0, [3], prior.mean).normal(prior.space))[0]
    operator = Diagonal(torch.full(prior.space.shape, 1.0), prior.space)
    near = dataclasses.replace(strategy, sigma_max=0.02, sigma_min=0.01)
    if isinstance(near, DPS | REDDiff):
        near = dataclasses.replace(near, **({"zeta": 0.01} if isinstance(near, DPS) else {"learning_rate": 0.001}))
    drawn = sample(near, Problem(operator(image), operator, 0.02), prior, 3, seed=0, start=image)
    assert (drawn.samples - image).abs().square().mean().sqrt() < 0.05


@pytest.mark.parametrize("name", WEIGHTED)
def test_noise_for_each_datum_is_honoured(name: str, prior: GaussianPrior) -> None:
    """Where the noise is small the samples follow the data; where it is huge the data, all wrong, change nothing."""
    space = prior.space
    noise_std = torch.full(space.shape, 0.02)
    noise_std[:, space.shape[1] // 2 :] = 1e3
    operator = Diagonal(torch.ones(space.shape), space)
    longer = {"cg_iterations": 8} if hasattr(STRATEGIES[name], "cg_iterations") else {}
    strategy = dataclasses.replace(STRATEGIES[name], steps=12, **longer)
    data = torch.full(space.shape, 1.0, dtype=torch.complex64)
    wrong = data.clone()
    wrong[:, space.shape[1] // 2 :] += 10
    one, other = (sample(strategy, Problem(y, operator, noise_std), prior, 2, seed=0).samples for y in (data, wrong))
    assert (one - other).abs().max() < 0.02
    assert (one[:, :, : space.shape[1] // 2] - 1).abs().mean() < 0.15


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {"steps": 0}) for kind in (DPS, DiffPIR, PULA, DAPS, PnPDM, ScoreALD, ScoreMRI, REDDiff)),
        (DPS, {"zeta": -1.0}),
        (DPS, {"solver": "heun"}),
        (DPS, {"variables": "vq"}),
        (DPS, {"scaling": "sirt"}),
        (DPS, {"chunk": 0}),
        (DPS, {"spacing": "linear"}),
        (PiGDM, {"weight": "paper"}),
        (PiGDM, {"weight": "published", "solver": "2m"}),
        (PiGDM, {"chunk": 0}),
        (DiffPIR, {"zeta": 1.1}),
        (DiffPIR, {"strength": 0.0}),
        (DiffPIR, {"cg_iterations": 0}),
        (PULA, {"step_size": 2.0}),
        (PULA, {"inner": 0}),
        (PULA, {"cg_iterations": 0}),
        (DAPS, {"inner": 0}),
        (DAPS, {"likelihood": "best"}),
        (DAPS, {"width": "r"}),
        (DAPS, {"prior_std": 0.0}),
        (DAPS, {"langevin_steps": 0}),
        (DAPS, {"step_size": 2.5}),
        (PnPDM, {"inner": 0}),
        (PnPDM, {"solver": "heun"}),
        (PnPDM, {"inner_span": 1.0}),
        (ScoreALD, {"rule": "book"}),
        (ScoreALD, {"step_size": 0.0}),
        (ScoreALD, {"weight": -1.0}),
        (ScoreMRI, {"snr": 0.0}),
        (ScoreMRI, {"scaling": "art"}),
        (ScoreMRI, {"weight": 2.0}),
        (ScoreMRI, {"correctors": -1}),
        (ScoreMRI, {"hybrid_every": 0}),
        (PiGDM, {"prior_std": 0.0}),
        (PiGDM, {"cg_iterations": 0}),
        (MomentMatching, {"steps": 0}),
        (MomentMatching, {"solver": "euler"}),
        (MomentMatching, {"covariance": "own"}),
        (MomentMatching, {"prior_std": 0.0}),
        (MomentMatching, {"jacobian_below": -1.0}),
        (MomentMatching, {"iterations": 0}),
        (MomentMatching, {"model_iterations": 0}),
        (MomentMatching, {"jacobian": "exact"}),
        (ExactGaussian, {"iterations": 0}),
        (ExactGaussian, {"tolerance": -1.0}),
        (DDSVolume, {"gamma": "noise-free"}),
        (DDSVolume, {"spread": LocalEnergy(5)}),
        (DDSVolume, {"tv_weight": -1.0}),
        (DDSVolume, {"edge": 0.0}),
        (Uniform, {"std": 0.0}),
        (Support, {"level": 0.0}),
        (Support, {"level": 0.1, "std": -1.0}),
        (LocalEnergy, {"width": 4}),
        (LocalEnergy, {"width": -1}),
        (REDDiff, {"strength": -1.0}),
        (REDDiff, {"learning_rate": 0.0}),
    ],
)
def test_impossible_settings_are_refused(kind: type, settings: dict) -> None:
    with pytest.raises(InputError, match=f"^{kind.__name__}: expected .*, got "):
        kind(**settings)


def test_a_message_says_what_was_expected_and_what_was_given() -> None:
    with pytest.raises(InputError, match=r"^DPS: expected steps >= 1, got 0$"):
        DPS(steps=0)


@pytest.mark.parametrize("kind", [DDS, DPS, MomentMatching, PULA])
def test_every_annealed_sampler_knows_every_spacing(kind: type, problem: Problem, prior: GaussianPrior) -> None:
    for spacing in ("geometric", "karras", "vp"):
        sigmas = kind(steps=9, spacing=spacing, sigma_max=3.0, sigma_min=0.1).sigmas(problem, prior)
        assert sigmas[-1] == 0 and max(sigmas) < 3.0001 and min(sigmas[:-1]) > 0.0999
        assert sigmas == sorted(sigmas, reverse=True)
        assert spacing == "vp" or len(sigmas) == 10


def _start(problem: Problem, sigma: float, n: int = 2) -> tuple[torch.Tensor, Noise]:
    noise = Noise(3, range(n), problem.y)
    return sigma * noise.normal(problem.operator.domain), noise


def _copy(n: int, problem: Problem) -> Noise:
    """The stream that a strategy sees after the start was drawn from it."""
    noise = Noise(3, range(n), problem.y)
    noise.normal(problem.operator.domain)
    return noise


def test_dps_descends_the_norm_by_its_formula(problem: Problem, prior: GaussianPrior) -> None:
    """For a Gaussian prior the Jacobian of D is the self-adjoint filter C / (C + sigma^2): D itself, mean zero."""
    x, noise = _start(problem, 0.7)
    stepped = DPS(zeta=0.4, solver="ddim").step(x, 0.7, 0.5, Run(problem, prior, noise), None)
    denoised = prior.denoise(x, 0.7)
    residual = problem.y - problem.operator(denoised)
    size = residual.abs().square().sum(dim=(1, 2), keepdim=True).sqrt()
    gradient = -prior.denoise(problem.operator.H(residual), 0.7) / size
    expected = denoised + 0.5 / 0.7 * (x - denoised) - 0.4 * gradient
    assert (stepped.x - expected).abs().max() < 1e-5


def test_dps_in_vp_variables_is_the_rule_of_the_paper(problem: Problem, prior: GaussianPrior) -> None:
    """x_vp <- x'_vp - zeta grad_{x_vp} |y - A D|, with x_vp = x / sqrt(1 + sigma^2)."""
    x, _ = _start(problem, 2.0)
    norm, norm_next = math.sqrt(1 + 2.0**2), math.sqrt(1 + 1.5**2)
    x_vp = (x / norm).requires_grad_()
    with torch.enable_grad():
        residual = problem.y - problem.operator(prior.denoise(norm * x_vp, 2.0))
        sizes = residual.abs().square().sum(dim=(1, 2)).sqrt()
        gradient = torch.autograd.grad(sizes.sum(), x_vp)[0]
    denoised = prior.denoise(x, 2.0)
    moved = (denoised + 1.5 / 2.0 * (x - denoised)) / norm_next - 0.3 * gradient
    stepped = DPS(solver="ddim", variables="vp").step(x, 2.0, 1.5, Run(problem, prior, _copy(2, problem)), None)
    assert (stepped.x - norm_next * moved).abs().max() < 1e-5


def test_pigdm_as_published_is_the_rule_of_the_paper(problem: Problem, prior: GaussianPrior) -> None:
    """x_vp <- DDIM + alpha r^2 grad_{x_vp} log N(y; A D, r^2 A A^H + noise^2); diagonal in k-space."""
    sigma, sigma_next, r2 = 2.0, 1.5, 2.0**2 / (1 + 2.0**2)
    x, noise = _start(problem, sigma)
    norm, norm_next = math.sqrt(1 + sigma**2), math.sqrt(1 + sigma_next**2)
    x_vp = (x / norm).requires_grad_()
    with torch.enable_grad():
        residual = problem.y - problem.operator(prior.denoise(norm * x_vp, sigma))
        # The gradient of a real function of complex x with respect to both parts is twice that of |.|^2 / 2.
        likelihood = -residual.abs().square().sum() / (2 * (r2 + problem.noise_std**2))
        score = torch.autograd.grad(likelihood, x_vp)[0]
    denoised = prior.denoise(x, sigma)
    ddim = (denoised + sigma_next / sigma * (x - denoised)) / norm_next
    strategy = PiGDM(solver="ddim", weight="published", cg_iterations=20)
    stepped = strategy.step(x, sigma, sigma_next, Run(problem, prior, noise), None)
    assert (stepped.x - norm_next * (ddim + r2 / norm * score)).abs().max() < 1e-4


def test_diffpir_follows_its_equations(problem: Problem, prior: GaussianPrior) -> None:
    x, noise = _start(problem, 0.6)
    z = _copy(2, problem).normal(prior.space)
    stepped = DiffPIR(strength=7.0, zeta=0.3, cg_iterations=20).step(x, 0.6, 0.4, Run(problem, prior, noise), None)
    rho = 7.0 * problem.noise_std**2 / 0.6**2
    denoised = prior.denoise(x, 0.6)
    kspace = CenteredFFT(prior.space)(denoised)
    columns = problem.operator.mask.float()
    fitted = ifftc((columns * problem.y + rho * kspace) / (columns + rho))
    eps = (x - fitted) / 0.6
    expected = fitted + 0.4 * (0.7**0.5 * eps + 0.3**0.5 * z)
    assert (stepped.x - expected).abs().max() < 1e-4


def test_pula_takes_the_preconditioned_langevin_step(problem: Problem, prior: GaussianPrior) -> None:
    """In k-space M is diagonal; the noise of the step has variance 2 h M, its drift is h M times the score."""
    sigma, h, n = 0.05, 0.5, 150
    x = _start(problem, sigma, 1)[0].expand(n, -1, -1)
    strategy = PULA(inner=1, step_size=h, cg_iterations=20)
    stepped = strategy.step(x, sigma, 0.01, Run(problem, prior, Noise(5, range(n), problem.y)), None).x
    precision = problem.operator.mask.float() / problem.noise_std**2 + 1 / sigma**2
    score = (prior.denoise(x[:1], sigma) - x[:1]) / sigma**2 + likelihood_score(problem, x[:1])
    transform = CenteredFFT(prior.space)
    moved = transform(stepped - x)
    drift = h * transform(score) / precision
    std = (2 * h / precision).sqrt()
    assert ((moved.mean(0) - drift[0]) / std).abs().square().mean().sqrt() == pytest.approx(n**-0.5, rel=0.15)
    spread = (moved - moved.mean(0)).abs().square().mean(0).sqrt() / std
    for columns in (problem.operator.mask[0], ~problem.operator.mask[0]):
        assert spread[:, columns].mean() == pytest.approx(1.0, abs=0.02)


def test_pula_needs_no_iterations_where_nothing_is_measured(problem: Problem, prior: GaussianPrior) -> None:
    """There M is sigma^2; a noise level for each column makes a system that one iteration is far from solving."""
    sigma, h, n = 0.5, 0.5, 150
    levels = problem.noise_std * torch.linspace(1, 30, problem.y.shape[-1]).expand(problem.y.shape)
    uneven = dataclasses.replace(problem, noise_std=levels)
    x = _start(problem, sigma, 1)[0].expand(n, -1, -1)
    stepped = PULA(inner=1, step_size=h, cg_iterations=1).step(
        x, sigma, 0.1, Run(uneven, prior, Noise(5, range(n), problem.y)), None
    )
    transform, unseen = CenteredFFT(prior.space), ~problem.operator.mask[0]
    moved = transform(stepped.x - x)[..., unseen]
    drift = h * transform(prior.denoise(x[:1], sigma) - x[:1])[..., unseen]
    std = (2 * h) ** 0.5 * sigma
    assert ((moved.mean(0) - drift[0]) / std).abs().square().mean().sqrt() == pytest.approx(n**-0.5, rel=0.15)
    spread = (moved - moved.mean(0)).abs().square().mean(0).sqrt() / std
    assert spread.mean() == pytest.approx(1.0, abs=0.02)


def test_dps_can_take_the_norm_of_the_operator(problem: Problem, prior: GaussianPrior) -> None:
    """Data in other units change nothing."""
    x, noise = _start(problem, 0.7, 2)
    larger = Problem(7 * problem.y, 7.0 * problem.operator, 7 * problem.noise_std)
    strategy, without = DPS(zeta=0.4, solver="ddim", scaling="norm"), DPS(zeta=0.0, solver="ddim")
    one, other = (strategy.step(x, 0.7, 0.5, Run(p, prior, noise), None) for p in (problem, larger))
    torch.testing.assert_close(one.x, other.x, rtol=1e-4, atol=1e-4)
    assert (one.x - without.step(x, 0.7, 0.5, Run(problem, prior, noise), None).x).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_exact_step_draws_from_the_right_gaussian(dtype: torch.dtype) -> None:
    """One pixel measured, one not, real and complex: mean and variance by the formula."""
    space = Space((20000, 2), dtype)
    operator = Diagonal(torch.tensor([2.0, 0.0]), space)
    problem = Problem(torch.tensor([3.0, 0.0], dtype=dtype).expand(space.shape), operator, 0.5)
    anchor = torch.tensor([1.0, -1.0], dtype=dtype).expand(1, *space.shape)
    drawn = gaussian_step(problem, anchor, 0.25, Noise(0, [0], problem.y), 4)[0][0]
    variance = torch.tensor([1 / (4 / 0.25 + 4), 0.25])
    mean = torch.tensor([variance[0] * (2 * 3 / 0.25 + 4 * 1.0), -1.0])
    assert (drawn.mean(0) - mean).abs().max() < 0.015
    assert ((drawn - drawn.mean(0)).abs().square().mean(0) / variance - 1).abs().max() < 0.04


def test_daps_langevin_reaches_the_gaussian_of_its_exact_step() -> None:
    """Without a prior to speak of (D = x) both rules draw from N(x, r^2) times the likelihood."""

    class Flat:
        space, sigma_min, sigma_max = None, 1e-3, 10.0

        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return x

    space = Space((3000, 2), torch.complex64)
    operator = Diagonal(torch.tensor([1.0, 0.5]), space)
    problem = Problem(torch.tensor([1.0 + 0j, 1.0j]).expand(space.shape), operator, 0.3)
    x = torch.zeros(1, *space.shape, dtype=torch.complex64)
    found = []
    for likelihood in ("langevin", "exact"):
        strategy = DAPS(inner=1, likelihood=likelihood, langevin_steps=60, step_size=0.1)
        drawn = strategy.step(x, 0.4, 0.0, Run(problem, Flat(), Noise(1, [0], problem.y)), None).x[0]
        found.append((drawn.mean(0), (drawn - drawn.mean(0)).abs().square().mean(0).sqrt()))
    assert (found[0][0] - found[1][0]).abs().max() < 0.03
    assert (found[0][1] / found[1][1] - 1).abs().max() < 0.06


def test_pnp_dm_first_draws_an_image_then_fits_the_data(problem: Problem, prior: GaussianPrior) -> None:
    x, noise = _start(problem, 0.5)
    stepped = PnPDM(inner=1, cg_iterations=5).step(x, 0.5, 0.3, Run(problem, prior, noise), None)
    clean = prior.denoise(x, 0.5)
    expected, _ = gaussian_step(problem, clean, 0.3**2, _copy(2, problem), 5)
    assert (stepped.x - expected).abs().max() < 1e-5
    assert (stepped.denoised - clean).abs().max() < 1e-6


@pytest.mark.parametrize("rule", ["paper", "code"])
def test_score_ald_takes_the_step_of_its_rule(rule: str, problem: Problem, prior: GaussianPrior) -> None:
    sigma, alpha = 0.4, 5e-6 * (0.4 / 0.0066) ** 2
    x, noise = _start(problem, sigma)
    z = _copy(2, problem).normal(prior.space)
    strategy = ScoreALD(inner=1, rule=rule, step_size=5e-6 / 0.0066**2)
    stepped = strategy.step(x, sigma, 0.3, Run(problem, prior, noise), None).x
    score = (prior.denoise(x, sigma) - x) / sigma**2
    pull = problem.operator.H(problem.operator(x) - problem.y)
    if rule == "paper":
        pull = pull / (problem.noise_std**2 + sigma**2)
    else:
        sizes = [v.abs().square().sum(dim=(1, 2), keepdim=True).sqrt() for v in (score, pull)]
        pull = 5.0 * pull * sizes[0] / sizes[1]
    expected = x + alpha * (score - pull) + (2 * alpha) ** 0.5 * z
    assert (stepped - expected).abs().max() < 1e-3 * expected.abs().max()


def test_score_mri_follows_its_published_equations(problem: Problem, prior: GaussianPrior) -> None:
    strategy = ScoreMRI(steps=8, sigma_max=20.0, sigma_min=0.05)
    drawn = sample(strategy, problem, prior, 1, seed=9)
    noise = Noise(9, [0], prior.mean)
    sigmas = strategy.sigmas(problem, prior)
    x = sigmas[0] * noise.normal(prior.space)
    columns = problem.operator.mask.float()
    transform = CenteredFFT(prior.space)

    def project(x: torch.Tensor) -> torch.Tensor:
        return ifftc(torch.where(columns > 0, problem.y, transform(x)))

    for s, below in itertools.pairwise(sigmas):
        x = x + (s**2 - below**2) * (prior.denoise(x, s) - x) / s**2
        if below == 0:
            x = project(x)
            break
        x = project(x + (s**2 - below**2) ** 0.5 * noise.normal(prior.space))
        g = (prior.denoise(x, below) - x) / below**2
        z = noise.normal(prior.space)
        e = 2 * (0.16 * torch.linalg.vector_norm(z) / torch.linalg.vector_norm(g)) ** 2
        x = project(x + e * g + (2 * e) ** 0.5 * z)
    assert (drawn.samples - x).abs().max() < 1e-4 * x.abs().max()


def test_a_real_denoiser_serves_complex_and_coil_images(prior: GaussianPrior) -> None:
    """A circular complex Gaussian of variance C has two independent real parts of variance C / 2."""
    real = GaussianPrior(prior.mean.real, spectrum=prior.variance / 2)
    split = PartsAsBatch(real)
    x = Noise(0, range(3), prior.mean).normal(prior.space)
    levels = torch.tensor([0.1, 0.5, 2.0])
    assert (split.denoise(x, 0.5) - prior.denoise(x, 0.5)).abs().max() < 1e-5
    assert (split.denoise(x, levels) - prior.denoise(x, levels)).abs().max() < 1e-5
    assert split.sigma_max == pytest.approx(math.sqrt(2) * real.sigma_max)
    coils = torch.stack([x, 2 * x], dim=1)
    together = PartsAsBatch(prior, split_complex=False).denoise(coils, levels)
    assert (together[:, 1] - prior.denoise(2 * x, levels)).abs().max() < 1e-5
    with pytest.raises(InputError, match="complex"):
        split.denoise(x.real, 0.5)


def test_what_a_denoiser_knows_of_its_error_serves_its_parts(prior: GaussianPrior) -> None:
    """Two parts of level sigma / sqrt(2) with an error each make that of the complex image; unknown stays unknown."""
    split = PartsAsBatch(GaussianPrior(prior.mean.real, spectrum=prior.variance / 2))
    for sigma in (0.05, 0.3, 2.0):
        assert split.error_std(sigma) == pytest.approx(prior.error_std(sigma))
        assert clean_variance(sigma, None, split) == pytest.approx(clean_variance(sigma, None, prior))
    assert PartsAsBatch(SimpleNamespace(sigma_min=0.1, sigma_max=5.0)).error_std(0.3) is None


def test_what_a_denoiser_knows_is_asked_for_and_may_be_missing(prior: GaussianPrior) -> None:
    class Partly:
        sigma_min, sigma_max, space, error_spectrum = 0.1, 5.0, None, None

        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            return x

        def error_std(self, sigma: float) -> float:
            return sigma / 2

    class PassedOn:
        def __init__(self, denoiser: object) -> None:
            self.denoiser = denoiser

        def __getattr__(self, name: str) -> object:
            return getattr(self.denoiser, name)

    assert isinstance(prior, KnowsError) and isinstance(PartsAsBatch(prior), KnowsError)
    model = CovarianceModel(torch.ones(8, 8), torch.ones(8, 8))
    assert knowledge.covariance_model(PassedOn(SimpleNamespace(covariance_model=model))) is model
    for denoiser in (Partly(), PassedOn(Partly())):
        assert knowledge.error_std(denoiser, 0.4) == 0.2
        assert knowledge.error_spectrum(denoiser, 0.4, (8, 8)) is None
        assert knowledge.covariance_model(denoiser) is None
    table = knowledge.error_spectrum(PassedOn(prior), 0.4, prior.space.shape)
    assert torch.equal(table, prior.error_spectrum(0.4, prior.space.shape))


def test_score_mri_reconstructs_coil_images_and_their_hybrid(prior: GaussianPrior, mask: torch.Tensor) -> None:
    """Modes (b) to (e) with a real denoiser; measured k-space is met exactly, and the hybrid step is the published."""
    real = PartsAsBatch(GaussianPrior(prior.mean.real, spectrum=prior.variance / 2))
    size = prior.space.shape[0]
    ramp = torch.linspace(0, math.pi / 2, size).expand(size, size)
    maps = torch.stack([ramp.cos(), ramp.sin() * torch.exp(0.5j * ramp)])
    space = Space((2, size, size), torch.complex64, "coil y x")
    single = Diagonal(mask.float(), space) @ CenteredFFT(space, ndim=2)
    y = CartesianMRI(mask, maps)(prior.draw(Noise(1, [0], prior.mean).normal(prior.space)))[0]
    settings = ScoreMRI(steps=6, sigma_max=5.0, sigma_min=0.05, hybrid_every=3)
    drawn = sample(settings, Problem(y, single, 0.01), real, 2, seed=0)
    assert drawn.samples.shape == (2, 2, size, size)
    assert (single(drawn.samples) - y).abs().max() < 1e-5

    # S S^H couples the coils of a pixel: combine, then back to the coils.
    index = torch.arange(size * size)
    coil_by_image = torch.zeros(2, size * size, size * size, dtype=torch.complex64)
    coil_by_image[:, index, index] = maps.flatten(1)
    expand = Matrix(coil_by_image.reshape(-1, size * size), prior.space, space)
    hybrid = single @ expand @ expand.H
    mixed = sample(dataclasses.replace(settings, hybrid=hybrid), Problem(y, single, 0.01), real, 2, seed=0)
    assert (mixed.samples - drawn.samples).abs().max() > 1e-3

    with_maps = sample(settings, Problem(y, CartesianMRI(mask, maps), 0.01), real, 2, seed=0)
    assert with_maps.samples.shape == (2, size, size)
    assert with_maps.valid.all()


class _Counting(DDS):
    """DDS whose estimate of step k is the constant k."""

    def step(self, x, sigma, sigma_next, run, memory):
        number = 0 if memory is None else memory
        return Step(x, torch.full_like(x, number), {}, number + 1)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([1.0, 0.5, 0.25, 0.2, 0.15, 0.1, 0.05], (2 + 3 + 4 + 5) / 4),  # .3 to .1
        ([1.0, 0.5, 0.05, 0.02], 1),  # none in the band: the last one above it
        ([0.05, 0.02], 0),  # none above either: the first one
    ],
)
def test_the_mean_is_taken_around_its_noise_level(problem, prior, monkeypatch, levels, expected):
    sampler = _Counting(mean_sigma=0.15)
    monkeypatch.setattr(_Counting, "sigmas", lambda *_: [*levels, 0.0])
    drawn = sample(sampler, problem, prior, 2)
    assert float((drawn.expectation - expected).abs().max()) < 1e-6
    assert sample(_Counting(), problem, prior, 1).expectation is None


def test_the_local_energy_tells_how_far_each_pixel_may_be_off():
    """Independent pixels of two strengths, denoised by the formula of each: the spread that is found is its error."""
    generator = torch.Generator().manual_seed(0)
    std = torch.ones(1, 96, 96)
    std[..., 48:] = 0.05
    clean, noise = (torch.randn(1, 96, 96, dtype=torch.complex64, generator=generator) for _ in range(2))
    for sigma in (0.02, 0.2):
        clean_image = std * clean
        denoised = std**2 / (std**2 + sigma**2) * (clean_image + sigma * noise)
        error, found = (denoised - clean_image).abs().square(), local_spread(denoised, sigma, 9, floor=0.0)
        for half in (slice(4, 44), slice(52, 92)):
            rms = float(error[..., half].mean().sqrt())
            assert float(found[..., half].square().mean().sqrt()) == pytest.approx(rms, rel=0.06)
    assert local_spread(torch.zeros(1, 8, 8), 0.5, 5).unique().tolist() == pytest.approx([0.05])


def test_every_citation_is_in_the_bibliography() -> None:
    known = (Path(__file__).parents[2] / "docs" / "references.bib").read_text("utf-8")
    classes = [value for value in vars(samplers).values() if isinstance(value, type) and issubclass(value, Sampler)]
    cited = {key for strategy in classes for key in strategy.citations}
    assert len(cited) > 10
    assert [key for key in sorted(cited) if f"{{{key}," not in known] == []
