"""A GPU against the CPU: every part of a reconstruction, small. Skipped where there is no GPU.

``DIFFRECON_GPU=cpu`` runs these tests with the CPU in place of the GPU, which proves the tests themselves.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import recon
from operators import (
    CT,
    CartesianMRI,
    Grid,
    ParallelBeam,
    PlaneWaveGeometry,
    PlaneWaveUltrasound,
    beamform,
    check_operator,
    conjugate_gradient,
    espirit_maps,
    fftc,
)
from operators.ct.projectors.triton import TritonProjector
from recon.demo import simulate
from recon.engine.samplers import SAMPLERS, resolve_sampler
from recon.engine.volume import BySlice
from recon.priors import GaussianPrior
from recon.priors.network import load_network_prior
from samplers import DDSVolume, Noise, Problem, sample

pytestmark = pytest.mark.cuda
GPU = torch.device(os.environ.get("DIFFRECON_GPU", "cuda"))
SHAPE = (32, 32)


def relative(found: Tensor, truth: Tensor) -> float:
    kind = torch.complex128 if truth.is_complex() else torch.float64
    found, truth = found.detach().cpu().to(kind), truth.detach().cpu().to(kind)
    return float(torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth))


def complex_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def smooth_maps(coils: int) -> Tensor:
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    turn = torch.arange(coils)[:, None, None] * 2 * torch.pi / coils
    near = torch.exp(-((y - turn.sin()) ** 2 + (x - turn.cos()) ** 2) / 1.2)
    maps = torch.polar(near, turn + x * turn.cos())
    return maps / torch.linalg.vector_norm(maps, dim=0)


def masks() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    columns, points = (torch.rand(*shape, generator=generator) < 0.5 for shape in ((1, SHAPE[1]), SHAPE))
    columns[:, 12:20] = points[12:20, 12:20] = True
    return {"columns": columns, "points": points}


def mri(pattern: str, noise_std: float = 0.02) -> Problem:
    operator = CartesianMRI(masks()[pattern], smooth_maps(4))
    prior = GaussianPrior.power_law(SHAPE)
    noise = Noise(3, [0], prior.mean)
    y = operator(prior.draw(noise.normal(prior.space))[0])
    return Problem((y + noise_std * noise.normal(operator.codomain)[0]) * operator.mask, operator, noise_std)


@pytest.mark.parametrize("pattern", ["columns", "points"])
def test_cartesian_mri(pattern: str) -> None:
    here = mri(pattern).operator
    there = here.to(GPU)
    x, y = complex_normal(5, *SHAPE), complex_normal(5, *here.codomain.shape)
    for name in ("__call__", "normal"):
        assert relative(getattr(there, name)(x.to(GPU)), getattr(here, name)(x)) < 1e-5
    assert relative(there.H(y.to(GPU)), here.H(y)) < 1e-5
    check_operator(here, device=str(GPU), trials=2)


def test_espirit() -> None:
    truth = smooth_maps(4) * fftc(complex_normal(*SHAPE)).abs()
    kspace = fftc(truth) + 1e-3 * complex_normal(*truth.shape)
    here, there = espirit_maps(kspace, calib_size=16), espirit_maps(kspace.to(GPU), calib_size=16)
    assert there.device.type == GPU.type
    assert relative(there, here) < 2e-3


def test_conjugate_gradients() -> None:
    problem = mri("points")
    there, rhs = problem.operator.to(GPU), problem.operator.H(problem.y).expand(3, *SHAPE)

    def solve(operator: Any, b: Tensor) -> Any:
        return conjugate_gradient(lambda v: 0.1 * v + operator.normal(v), b, iterations=12, item_ndim=2)

    here, away = solve(problem.operator, rhs), solve(there, rhs.to(GPU))
    assert relative(away.x, here.x) < 1e-4
    assert float((away.residual.cpu() - here.residual).abs().max()) < 1e-4


def test_random_numbers_are_the_same_bits() -> None:
    domain = mri("points").operator.domain
    here, there = (Noise(7, range(5), torch.zeros(1, device=device)) for device in ("cpu", GPU))
    for _ in range(3):
        assert torch.equal(here.normal(domain), there.normal(domain).cpu())


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name: str) -> None:
    """Three steps, so that rounding has not grown; the numbers of a seed are the same."""
    sampler = SAMPLERS[name] if name == "exact" else resolve_sampler(name, 3)
    prior: Any = GaussianPrior.power_law(SHAPE)
    problem = mri("points", 0.1)
    if isinstance(sampler, DDSVolume):
        operator = CartesianMRI(masks()["points"], shape=(2, *SHAPE))
        problem = Problem(complex_normal(2, *SHAPE) * operator.mask, operator, 0.1)
    results = []
    for device in (torch.device("cpu"), GPU):
        there = prior.to(device)
        there = BySlice(there) if isinstance(sampler, DDSVolume) else there
        results.append(sample(sampler, problem.to(device), there, 2, 5))
    assert results[1].samples.device.type == GPU.type
    assert bool(results[1].valid.all())
    assert relative(results[1].samples, results[0].samples) < 2e-3


@pytest.mark.parametrize(("precision", "bar"), [("float32", 1e-4), ("tf32", 1e-2), ("bfloat16", 5e-2)])
def test_the_shipped_network(precision: str, bar: float) -> None:
    x = complex_normal(3, *SHAPE)
    here = load_network_prior().denoise(x, 0.5)
    there = load_network_prior(device=GPU, precision=precision)
    assert relative(there.denoise(x.to(GPU), 0.5), here) < bar
    assert there.error_spectrum(0.5, SHAPE).device.type == GPU.type  # type: ignore[union-attr]


def test_a_step_with_the_shipped_network_does_not_wait() -> None:
    """What torch itself says; `tests/samplers/test_host_waits.py` counts for all samplers without a GPU."""
    if GPU.type != "cuda":
        pytest.skip("torch tells of waiting for CUDA devices only")
    problem, prior = mri("points").to(GPU), load_network_prior(device=GPU, max_batch=2)
    sampler = resolve_sampler("dds", 4)
    seen: list[int] = []

    def after(progress: Any) -> None:
        seen.append(progress.step)
        torch.cuda.set_sync_debug_mode("error" if progress.step < progress.total else "default")

    try:
        sample(sampler, problem, prior, 2, 0, progress=after)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert seen == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::UserWarning")  # few steps do not fit the data, and say so
def test_reconstruct() -> None:
    kspace = simulate(1.0, noise_std=0.05, shape=SHAPE).kspace
    options: dict[str, Any] = {"acceleration": 2, "center_fraction": 0.3, "samples": 2, "steps": 3, "progress": False}
    here, there = (recon.reconstruct(kspace, prior="gaussian", device=str(d), **options) for d in ("cpu", GPU))
    error = np.linalg.norm(there.samples - here.samples) / np.linalg.norm(here.samples)
    assert error < 1e-2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_slices_together(tmp_path: Path) -> None:
    """Threads whose images meet at the network, against slices one by one."""
    np.save(tmp_path / "scan.npy", np.stack([simulate(1.0, noise_std=0.05, shape=SHAPE).kspace] * 3))
    options: dict[str, Any] = {"acceleration": 2, "center_fraction": 0.3, "samples": 2, "steps": 3, "progress": False}
    found = []
    for together in (1, 3):
        folder = tmp_path / str(together)
        recon.reconstruct_many([tmp_path / "scan.npy"], folder, slices_together=together, device=str(GPU), **options)
        found.append(recon.Posterior.load(folder / "scan.h5").samples)
    assert np.linalg.norm(found[1] - found[0]) < 1e-3 * np.linalg.norm(found[0])


def acquisition() -> tuple[PlaneWaveGeometry, Grid]:
    elements = np.stack([(np.arange(5) - 2) * 0.7e-3, np.zeros(5)], 1)
    values: dict[str, Any] = {"element_positions": elements, "angles": [-0.1, 0.2], "sampling_frequency": 20e6}
    values |= {"sample_count": 100, "center_frequency": 5e6, "sound_speed": 1540.0, "initial_times": [3e-6, 2e-6]}
    grid = Grid(np.linspace(-1.9e-3, 2e-3, 6), np.linspace(2e-3, 6e-3, 7))
    return PlaneWaveGeometry(**values, element_width=3e-4), grid


def test_ultrasound() -> None:
    geometry, grid = acquisition()
    here = PlaneWaveUltrasound(geometry, grid, engine="torch")
    there = here.to(GPU)
    x, y = complex_normal(2, *grid.shape), torch.randn(2, *geometry.shape, generator=torch.Generator().manual_seed(2))
    for _ in range(2):  # the second time the plan is already there
        assert relative(there(x.to(GPU)), here(x)) < 1e-4
        assert relative(there.H(y.to(GPU)), here.H(y)) < 1e-4


@pytest.mark.parametrize("method", ["das", "mv", "gcf"])
def test_beamforming(method: str) -> None:
    geometry, grid = acquisition()
    y = torch.randn(geometry.shape, generator=torch.Generator().manual_seed(2))
    here = beamform(y, grid, method, geometry=geometry, engine="torch")
    assert relative(beamform(y.to(GPU), grid, method, geometry=geometry), here) < 1e-3


def test_ct_takes_the_engine_of_the_device() -> None:
    geometry = ParallelBeam(np.arange(12) * np.pi / 12, 49, 1.0)
    here = CT(geometry, SHAPE, 1.0)
    there = here.to(GPU)
    assert isinstance(there.projector, TritonProjector) == (GPU.type == "cuda")
    x, y = torch.rand(3, *SHAPE), torch.rand(3, *geometry.shape)
    assert relative(there(x.to(GPU)), here(x)) < 1e-5
    assert relative(there.H(y.to(GPU)), here.H(y)) < 1e-5
    wide = there.to(torch.float64)
    assert not isinstance(wide.projector, TritonProjector)
    assert relative(wide(x.double().to(GPU)), here.to(torch.float64)(x.double())) < 1e-6
    assert relative(there.to("cpu")(x), here(x)) < 1e-6
