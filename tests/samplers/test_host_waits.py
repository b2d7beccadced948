"""No step waits for a GPU: every sampler runs on torch's device without values, where asking for one is noticed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from operators import CartesianMRI
from recon.engine.samplers import PUBLISHED, SAMPLERS
from recon.engine.volume import BySlice
from recon.priors import GaussianPrior, inference
from recon.priors.network import NetworkPrior
from recon.priors.networks.unet import EDMDenoiser, UNet
from samplers import CovarianceModel, DDSVolume, MomentMatching, PartsAsBatch, Problem, Progress, Sampler, sample

SHAPE, SLICES = (32, 32), 2
SMALL = {"channels": [8, 12, 16], "encoder_blocks": [1, 1, 1], "decoder_blocks": [1, 1], "embedding": 16}
CARD = {
    "error_std": {"sigma": [0.01, 1.0, 20.0], "error": [0.008, 0.3, 0.5]},
    "error_spectrum": {"sigma": [0.01, 20.0], "frequency": [0.05, 0.6], "ratio": [[0.9, 0.8], [0.2, 0.1]]},
}
VALUES = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "bincount"}
MADE = (torch.tensor, torch.as_tensor, torch.asarray)
JACOBIAN = MomentMatching(steps=3, jacobian_below=100.0, iterations=2, prior_std=1.0, model_iterations=2)
#: The exact sampler is left out: its one step is the whole run, and copies the prior in double precision with checks.
ALL = {**SAMPLERS, **PUBLISHED, "moment-matching with the Jacobian": JACOBIAN}
del ALL["exact"]


class Waits(TorchDispatchMode):
    """Counts the values that the host asks for, and the copies between host and GPU, which wait as well."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        given = [value for value in args if isinstance(value, torch.Tensor)]
        if name in VALUES and given[0].is_meta:
            self.found.append(name)
            if name == "_local_scalar_dense":
                return True if args[0].dtype == torch.bool else 1.0
        result = func(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_") and isinstance(result, torch.Tensor):
            places = {value.device.type for value in (*given, result)}
            if len(places) > 1:
                self.found.append(f"{name} between {' and '.join(sorted(places))}")
        return result


class Copies(TorchFunctionMode):
    """Counts tensors made of Python values elsewhere than on the CPU: they are copied there, unlike fills."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in MADE and result.is_meta and not isinstance(args[0], torch.Tensor):
            self.found.append(f"{func.__name__}({args[0]})")
        return result


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Copy an object with all of its tensors to torch's device without values."""

    def tensor(value: torch.Tensor, memo: dict) -> torch.Tensor:
        return memo.setdefault(id(value), value.detach().to("meta"))

    monkeypatch.setattr(inference, "arithmetic", lambda precision, device: nullcontext())  # no autocast there
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", tensor)
    monkeypatch.setattr(
        torch.nn.Parameter, "__deepcopy__", lambda p, memo: torch.nn.Parameter(tensor(p, memo), requires_grad=False)
    )
    return copy.deepcopy


def network() -> NetworkPrior:
    with torch.random.fork_rng(devices=[]):
        model = EDMDenoiser(UNet(**SMALL), sigma_data=0.3)
    prior = NetworkPrior(model, 0.003, 20.0, CARD, max_batch=2)
    prior.covariance_model = CovarianceModel(torch.full(SHAPE, 0.5), torch.ones(SHAPE))
    return prior


def problem_of(columns: bool, volume: bool) -> Problem:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand((1, SHAPE[1]) if columns else SHAPE, generator=generator) < 0.5
    if volume:
        operator = CartesianMRI(mask, shape=(SLICES, *SHAPE))
    else:
        operator = CartesianMRI(mask, torch.randn(3, *SHAPE, dtype=torch.complex64, generator=generator) / 2)
    y = torch.randn(operator.codomain.shape, dtype=torch.complex64, generator=generator) * operator.mask
    return Problem(y, operator, 0.05)


def waits_of(sampler: Sampler, problem: Problem, prior: Any, moved: Callable[[Any], Any]) -> list[str]:
    """Run two steps of the loop where no values are, and return what asked for one in the second."""
    # Measured once for a problem, before the steps.
    problem.weighted_data, problem.fourier_gains, problem.information, problem.mean_precision  # noqa: B018
    problem.unweighted.weighted_data, problem.mean_noise_variance  # noqa: B018
    there, denoiser = moved((problem, prior))
    denoiser = BySlice(denoiser) if isinstance(sampler, DDSVolume) else denoiser
    ends: list[int] = []
    with Waits() as waits, Copies(waits.found):

        def after(progress: Progress) -> bool:
            ends.append(len(waits.found))
            return progress.step == 2

        result = sample(sampler, there, denoiser, 3, progress=after)
    assert result.samples.is_meta and result.samples.dtype == torch.complex64
    return waits.found[ends[0] : ends[1]]


@pytest.mark.parametrize("name", ALL)
def test_a_step_does_not_wait(name: str, moved: Callable[[Any], Any]) -> None:
    sampler = ALL[name]
    problem = problem_of(columns=name.startswith("dds"), volume=isinstance(sampler, DDSVolume))
    assert waits_of(sampler, problem, network(), moved) == []


@pytest.mark.slow
def test_an_analytic_prior_does_not_wait(moved: Callable[[Any], Any]) -> None:
    real = GaussianPrior.power_law(SHAPE, dtype=torch.float32)
    for prior in (GaussianPrior.power_law(SHAPE), PartsAsBatch(real)):
        assert waits_of(SAMPLERS["score-ald"], problem_of(True, False), prior, moved) == []


def test_the_count_can_fail() -> None:
    with Waits() as waits, Copies(waits.found):
        x = torch.ones(3, device="meta")
        assert bool((x > 0).all()) and float(x.sum()) == 1.0
        torch.ones(2).to(x)
        torch.zeros_like(x).copy_(torch.ones(3))
        torch.as_tensor(0.5, device="meta")
        x + torch.full((), 0.5, device="meta") + torch.as_tensor(x) + torch.tensor(0.5)
    assert len(waits.found) == 5, waits.found
