"""Out of memory: the same samples in smaller batches, nothing drawn twice, and one line when even one is too many."""

from __future__ import annotations

import copy
import errno
import gc
import os
import subprocess
import sys
import warnings
import weakref
from collections.abc import Container
from pathlib import Path

import pytest
import torch

from operators import OutOfMemoryError, ReconError
from recon.priors import GaussianPrior
from samplers import DDS, DPS, BatchLimit, Denoiser, MomentMatching, Noise, Problem, Sampler, Samples, Uniform, sample
from samplers.memory import is_out_of_memory, typed

STEPS = 6
STRATEGY = DDS(steps=STEPS, gamma="rule", spread=Uniform(0.5), mean_sigma=0.5)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "268435456 bytes. Error code 12 (Cannot allocate memory)"
)
CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1 GiB is free."
MESSAGES: dict[str, tuple[Exception, str]] = {
    "python": (MemoryError(), "MemoryError"),
    "numpy": (MemoryError("Unable to allocate 206. MiB for an array with shape (300, 300, 300)"), "206 MiB"),
    "torch-cpu": (RuntimeError(CPU), "256 MiB"),
    "torch-windows": (
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 900 bytes."),
        "900 bytes",
    ),
    "torch-cuda": (torch.OutOfMemoryError(CUDA), "2.5 GiB"),
    "cuda-driver": (RuntimeError("CUDA error: out of memory"), "CUDA error: out of memory"),
    "cudnn": (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "CUDNN_STATUS_ALLOC_FAILED"),
    "cufft": (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), "CUFFT_ALLOC_FAILED"),
    "cublas": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "CUBLAS"),
    "mps": (RuntimeError("MPS backend out of memory (max allowed: 9 GB). Tried to allocate 3.00 GB on pool."), "3 GiB"),
    "c++": (RuntimeError("std::bad_alloc"), "bad_alloc"),
    "mkl": (RuntimeError("MKL FFT error: Intel oneMKL DFTI ERROR: Inconsistent configuration parameters"), "MKL"),
    "onednn": (RuntimeError("could not create a primitive"), "primitive"),
    "system": (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate"),
}
OTHERS = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("out of memory"),
]
NEVER = 10**9


class Crowded:
    """A denoiser without room for more than ``most`` images at once, in some of its calls, forwards or backwards."""

    space = None

    def __init__(
        self,
        prior: GaussianPrior,
        most: int,
        error: Exception,
        calls: Container[int] = range(NEVER),
        backwards: bool = False,
    ) -> None:
        self.prior, self.most, self.error, self.failing, self.backwards = prior, most, error, calls, backwards
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.calls, self.batches = 0, []

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        fails = len(x) > self.most and self.calls in self.failing
        self.calls += 1
        self.batches.append(len(x))
        if fails and not self.backwards:
            raise self.error
        denoised = self.prior.denoise(x, sigma)
        if fails and denoised.requires_grad:
            denoised.register_hook(self._fail)
        return denoised

    def _fail(self, gradient: torch.Tensor) -> None:
        raise self.error


def draw(
    sampler: Sampler, problem: Problem, denoiser: Denoiser, n: int, **options: object
) -> tuple[Samples, list[str]]:
    """Sample, and return what was warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drawn = sample(sampler, problem, denoiser, n, seed=3, **options)  # type: ignore[arg-type]
    return drawn, [str(warning.message) for warning in told]


def assert_same(found: Samples, expected: Samples) -> None:
    assert torch.equal(found.samples, expected.samples)
    assert torch.equal(found.valid, expected.valid)
    assert torch.equal(found.residual, expected.residual)
    assert found.facts.keys() == expected.facts.keys()
    for name, values in expected.facts.items():
        assert torch.equal(found.facts[name], values), name
    assert (found.expectation is None) == (expected.expectation is None)
    if found.expectation is not None:
        assert torch.equal(found.expectation, expected.expectation)


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_such_error_halves_the_batch(kind: str, problem: Problem, prior: GaussianPrior) -> None:
    straight = sample(STRATEGY, problem, prior, 8, seed=3)
    drawn, told = draw(STRATEGY, problem, Crowded(prior, 4, MESSAGES[kind][0]), 8)
    assert told == ["out of memory with a batch of 8: going on with 4"]
    assert_same(drawn, straight)


@pytest.mark.parametrize("kind", MESSAGES)
def test_one_sample_too_many_is_one_line_that_says_what_to_lower(
    kind: str, problem: Problem, prior: GaussianPrior
) -> None:
    error, why = MESSAGES[kind]
    with (
        pytest.warns(UserWarning, match="batch of 2: going on with 1"),
        pytest.raises(
            OutOfMemoryError, match=r"^out of memory with a batch of 1 .*lower the size of the images"
        ) as caught,
    ):
        sample(STRATEGY, problem, Crowded(prior, 0, error), 2)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ReconError)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: type(error).__name__)
def test_other_errors_stay_what_they_are(error: Exception, problem: Problem, prior: GaussianPrior) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught:
        sample(STRATEGY, problem, Crowded(prior, 0, error), 2)
    assert caught.value is error


@pytest.mark.parametrize("step", [0, STEPS // 2, STEPS - 1], ids=["first", "middle", "last"])
def test_at_any_step(step: int, problem: Problem, prior: GaussianPrior) -> None:
    denoiser = Crowded(prior, 4, RuntimeError(CPU), range(step, NEVER))
    drawn, told = draw(STRATEGY, problem, denoiser, 8)
    assert told == ["out of memory with a batch of 8: going on with 4"]
    assert denoiser.batches == [8] * (step + 1) + [4] * (2 * STEPS)
    assert_same(drawn, sample(STRATEGY, problem, prior, 8, seed=3))


@pytest.mark.parametrize(
    "sampler",
    [
        DPS(steps=5, sigma_max=5.0, sigma_min=0.05),
        DPS(steps=5, sigma_max=5.0, sigma_min=0.05, chunk=3),
        MomentMatching(steps=5, prior_std=0.5, jacobian_below=9.0, iterations=2, jacobian="vjp"),
    ],
    ids=["dps", "dps-in-chunks", "moment-matching"],
)
def test_in_the_gradient(sampler: Sampler, problem: Problem, prior: GaussianPrior) -> None:
    counted = Crowded(prior, 0, MemoryError(), range(0))
    straight = sample(sampler, problem, counted, 4, seed=3, batch_size=2)
    for after in (0, counted.calls // 4):
        denoiser = Crowded(prior, 2, RuntimeError(CPU), range(after, NEVER), backwards=True)
        drawn, told = draw(sampler, problem, denoiser, 4)
        assert told == ["out of memory with a batch of 4: going on with 2"]
        assert_same(drawn, straight)


@pytest.mark.slow
def test_finished_batches_are_not_drawn_again(problem: Problem, prior: GaussianPrior) -> None:
    # The third batch of four fails half-way, once, then that of two at its end.
    fails = 2 * STEPS + STEPS // 2
    denoiser = Crowded(prior, 1, RuntimeError(CPU), {fails, fails + STEPS})
    drawn, told = draw(STRATEGY, problem, denoiser, 12, batch_size=4)
    assert told == [
        "out of memory with a batch of 4: going on with 2",
        "out of memory with a batch of 2: going on with 1",
    ]
    lost = [4] * (STEPS // 2 + 1) + [2] * STEPS
    assert denoiser.batches == [4] * (2 * STEPS) + lost + [1] * (4 * STEPS)
    assert_same(drawn, sample(STRATEGY, problem, prior, 12, seed=3))


def test_odd_batches_are_halved(problem: Problem, prior: GaussianPrior) -> None:
    denoiser = Crowded(prior, 3, MemoryError())
    drawn, told = draw(STRATEGY, problem, denoiser, 7)
    assert told == ["out of memory with a batch of 7: going on with 3"]
    assert denoiser.batches == [7] + [3] * (2 * STEPS) + [1] * STEPS
    assert_same(drawn, sample(STRATEGY, problem, prior, 7, seed=3))


@pytest.mark.slow
def test_each_sample_keeps_its_starting_image_and_its_number(problem: Problem, prior: GaussianPrior) -> None:
    starts = prior.draw(Noise(5, range(4), prior.mean).normal(prior.space))
    options = {"first": 2, "start": starts}
    drawn, told = draw(STRATEGY, problem, Crowded(prior, 1, MemoryError()), 4, **options)
    assert len(told) == 2
    assert_same(drawn, sample(STRATEGY, problem, prior, 4, seed=3, batch_size=1, **options))  # type: ignore[arg-type]


@pytest.mark.slow
def test_what_was_learnt_holds_for_the_rest_of_the_run(problem: Problem, prior: GaussianPrior) -> None:
    limit, denoiser = BatchLimit(), Crowded(prior, 2, MemoryError())
    _, told = draw(STRATEGY, problem, denoiser, 8, limit=limit)
    assert (limit.most, len(told)) == (2, 2)
    denoiser.batches.clear()
    again, told = draw(STRATEGY, problem, denoiser, 8, batch_size=8, limit=limit)
    assert not told
    assert denoiser.batches == [2] * (4 * STEPS)
    assert_same(again, sample(STRATEGY, problem, prior, 8, seed=3))
    smaller, _ = draw(STRATEGY, problem, denoiser, 2, batch_size=1, limit=limit)
    assert denoiser.batches[4 * STEPS :] == [1] * (2 * STEPS)
    assert len(smaller.samples) == 2


def test_what_a_failed_attempt_held_is_free_before_the_next(problem: Problem, prior: GaussianPrior) -> None:
    """Also where the error is kept by somebody: here by the denoiser, which raises it."""
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    class Keeping(Crowded):
        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            if len(x) <= self.most:
                alive.append(sum(reference() is not None for reference in held))
            else:
                held.append(weakref.ref(x))
            return super().denoise(x, sigma)

    gc.disable()
    try:
        draw(STRATEGY, problem, Keeping(prior, 2, RuntimeError(CPU), range(STEPS // 2, NEVER)), 4)
    finally:
        gc.enable()
    assert len(held) == STEPS // 2 + 1
    assert set(alive) == {0}


def test_nothing_is_held_by_the_last_error(problem: Problem, prior: GaussianPrior) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    class Keeping(Crowded):
        def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
            held.append(weakref.ref(x))
            return super().denoise(x, sigma)

    with pytest.raises(OutOfMemoryError) as caught:
        sample(STRATEGY, problem, Keeping(prior, 0, RuntimeError(CPU), range(3, NEVER)), 1)
    assert len(held) == 4
    assert [reference() for reference in held] == [None] * 4
    assert caught.value.__cause__ is not None


def test_the_operator_frees_what_it_keeps_to_save_time(problem: Problem, prior: GaussianPrior) -> None:
    class Frugal(type(problem.operator)):  # type: ignore[misc]
        freed = 0

        def free(self) -> None:
            self.freed += 1
            super().free()

    operator = copy.copy(problem.operator)
    operator.__class__ = Frugal
    draw(STRATEGY, Problem(problem.y, operator, problem.noise_std), Crowded(prior, 2, RuntimeError(CPU)), 8)
    assert operator.freed == 2  # a batch of 8, and of 4


@pytest.mark.parametrize(
    ("number", "told"), [(900, "900 bytes"), (2048, "2 KiB"), (3 * 2**29, "1.5 GiB"), (2**50, "1 PiB")]
)
def test_bytes_are_told_in_the_unit_that_suits_them(number: int, told: str) -> None:
    error = typed(RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {number} bytes."))
    assert f"(asked for {told})" in str(error)
    assert "--batch-size" in str(error)


def test_an_error_that_is_typed_already_keeps_its_words() -> None:
    error = OutOfMemoryError("the network alone needs 3 GiB")
    assert is_out_of_memory(error)
    assert typed(error, batch=1) is error


LIMITED = """
import re, resource, warnings
import torch
from operators import CartesianMRI
from recon.priors import GaussianPrior
from samplers import DDS, Noise, Problem, sample

prior, space = GaussianPrior.power_law((256, 256)), (256, 256)
mask = torch.zeros(1, 256, dtype=torch.bool)
mask[:, ::3] = True
angles = torch.arange(8)[:, None, None] * torch.pi / 4
y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")
maps = torch.exp(-((x - angles.cos()) ** 2) - (y - angles.sin()) ** 2).to(torch.complex64)
operator = CartesianMRI(mask, maps / maps.abs().square().sum(0).sqrt())
noise = Noise(1, [0], prior.mean)
data = operator(prior.draw(noise.normal(prior.space))[0])
problem = Problem(data + 0.05 * noise.normal(operator.codomain)[0] * mask, operator, 0.05)
sampler = DDS(steps=1)
expected = sample(sampler, problem, prior, 2, seed=3, first=30).samples
size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + 200 * 2**20, -1))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    drawn = sample(sampler, problem, prior, 32, seed=3).samples
print(len(told), len(drawn), float((drawn[30:] - expected).abs().max() / expected.abs().max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the limits of Linux")
def test_under_a_real_limit_the_samples_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=500)
    assert not done.stderr
    halved, samples, difference = done.stdout.split()
    assert int(halved) >= 1
    assert int(samples) == 32
    assert float(difference) < 1e-5


FRESH_PAGES = """
import resource
import numpy as np
from samplers.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**20)  # 8 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
keep_freed_memory()
faults()  # the first pages
print(without, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of the GNU C library")
def test_freed_memory_is_used_again() -> None:
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run([sys.executable, "-c", FRESH_PAGES], capture_output=True, text=True, env=environment)
    assert not done.stderr
    without, kept = map(int, done.stdout.split())
    assert without > 20_000
    assert kept < 0.1 * without
