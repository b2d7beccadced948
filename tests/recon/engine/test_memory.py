"""Memory of a whole run: the next slices know what fits, and whatever lacks memory ends in one line."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import recon
from operators import CartesianMRI
from recon.cli import main
from recon.engine import memory
from recon.engine.holdout import cross_validate
from recon.errors import OutOfMemoryError
from recon.modalities.mri import prepare
from recon.priors import GaussianPrior
from samplers import DDS, BatchLimit, Problem

ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "1073741824 bytes. Error code 12 (Cannot allocate memory)"
)
OPTIONS = {"sampler": DDS(steps=3), "device": "cpu", "progress": False, "acceleration": 2, "center_fraction": 0.3}


def scan(shape: tuple[int, ...], coils: int = 2) -> np.ndarray:
    """Fully sampled k-space ``(coil, y, x)`` or ``(slice, coil, y, x)`` of a smooth object, with noise."""
    y, x = (
        axis[:, None] if number == 0 else axis for number, axis in enumerate(np.linspace(-1, 1, n) for n in shape[-2:])
    )
    image = np.where(y**2 / 0.6 + x**2 / 0.4 < 1, 1 + 0.5 * np.cos(5 * y) * np.cos(4 * x), 0)
    angles = 2 * np.pi * np.arange(coils) / coils
    coil = np.stack([np.exp(-((x - np.cos(a)) ** 2) - (y - np.sin(a)) ** 2 + 0.5j * np.cos(a) * y) for a in angles])
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coil * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    rng = np.random.default_rng(0)
    full = (*shape[:-2], *kspace.shape)
    return (kspace + 0.01 * (rng.normal(size=full) + 1j * rng.normal(size=full))).astype(np.complex64)


class Crowded:
    """A Gaussian prior without room for more than some images at once."""

    space = None

    def __init__(self, shape: tuple[int, int], most: int) -> None:
        self.prior, self.most = GaussianPrior.power_law(shape), most
        self.sigma_min, self.sigma_max = self.prior.sigma_min, self.prior.sigma_max
        self.batches: list[int] = []

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.batches.append(len(x))
        if len(x) > self.most:
            raise ERROR
        return self.prior.denoise(x, sigma)


def reconstruct(source: Any, prior: Any, **options: Any) -> tuple[recon.Posterior, list[str]]:
    """Reconstruct, and return the warnings about memory."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        posterior = recon.reconstruct(source, prior, **{**OPTIONS, **options})
    return posterior, [text for warning in told if "going on with" in (text := str(warning.message))]


@pytest.fixture
def volume(tmp_path: Path, fastmri_file: Any) -> Path:
    return fastmri_file("volume.h5", kspace=scan((3, 64, 32), coils=1))


@pytest.mark.slow
def test_the_next_slices_begin_with_the_batch_that_fits(volume: Path) -> None:
    crowded = Crowded((32, 32), 2)
    found, told = reconstruct(volume, crowded, samples=8, holdout=False)
    assert told == [
        "out of memory with a batch of 8: going on with 4",
        "out of memory with a batch of 4: going on with 2",
    ]
    assert [count for count in crowded.batches if count > 2] == [8, 4]
    expected, _ = reconstruct(volume, Crowded((32, 32), 8), samples=8, holdout=False, batch_size=2)
    assert found.samples.shape[:2] == (8, 3)
    assert np.array_equal(found.samples, expected.samples)


@pytest.mark.slow
def test_the_companion_run_of_the_held_out_test_is_halved_too() -> None:
    generator, shape = torch.Generator().manual_seed(0), (32, 32)
    prior = GaussianPrior.power_law(shape)
    noise = torch.randn((2, 1, *shape), dtype=torch.complex64, generator=generator)
    mask = torch.zeros((1, shape[1]), dtype=torch.bool)
    mask[:, ::2] = True
    operator = CartesianMRI(mask, shape=shape)
    problem = Problem(operator(prior.draw(noise[:1, 0])[0]) + 0.05 * noise[1, 0] * operator.mask, operator, 0.05)
    expected = cross_validate(problem, DDS(steps=20), Crowded(shape, 2), 0)
    limit, crowded = BatchLimit(), Crowded(shape, 1)
    with pytest.warns(UserWarning, match="batch of 2: going on with 1"):
        found = cross_validate(problem, DDS(steps=20), crowded, 0, limit=limit)
    assert found == expected
    assert found is not None
    assert limit.most == 1
    with pytest.raises(OutOfMemoryError, match="batch of 1"):
        cross_validate(problem, DDS(steps=20), Crowded(shape, 0), 0, limit=limit)


@pytest.mark.parametrize("error", [ERROR, MemoryError()], ids=["torch", "python"])
@pytest.mark.slow
def test_preparation_without_memory_ends_in_one_line(
    error: Exception, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crowded(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(prepare, "calibration_region", crowded)
    out = tmp_path / "out"
    options = ("--prior", "gaussian", "--samples", "2", "--steps", "2", "--device", "cpu")
    assert main(["run", str(volume), "-o", str(out), *options]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("recon: error: ")]
    assert len(lines) == 1
    assert "slices 0, 1, 2: out of memory (" in lines[0]
    assert "lower the size of the images" in lines[0]
    assert not list(tmp_path.glob("out/**/*.h5"))


def test_other_errors_pass_as_they_are() -> None:
    error = RuntimeError("the size of tensor a must match the size of tensor b")
    with pytest.raises(RuntimeError) as caught, memory.told_out_of_memory():
        raise error
    assert caught.value is error
    typed = OutOfMemoryError("too small")
    with pytest.raises(OutOfMemoryError) as caught, memory.told_out_of_memory():
        raise typed
    assert caught.value is typed


@pytest.mark.slow
def test_a_batch_far_beyond_the_available_memory_does_not_begin(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = 32 * 32 * 8 * (memory.IMAGES + memory.DATA)
    monkeypatch.setattr(memory, "available_memory", lambda device: 3.5 * each / memory.FRACTION)
    crowded = Crowded((32, 32), 3)
    _, told = reconstruct(volume, crowded, samples=8, holdout=False)
    assert len(told) == 1
    assert told[0].startswith("8 samples together take about ")
    assert told[0].endswith("GiB available: going on with a batch of 3")
    assert max(crowded.batches) == 3
    for known in (None, 9 * each / memory.FRACTION):
        monkeypatch.setattr(memory, "available_memory", lambda device, known=known: known)
        crowded = Crowded((32, 32), 8)
        assert not reconstruct(volume, crowded, samples=8, slices=0, holdout=False)[1]
        assert max(crowded.batches) == 8


LIMITED = """
import re, resource, sys, warnings
import h5py, tqdm, scipy.ndimage, scipy.linalg, torch
import recon.api, recon.commands, recon.priors.hub, recon.modalities.mri.source
from recon.cli import main
size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]) * 2**20, -1))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the limits of Linux")
@pytest.mark.parametrize(
    ("mebibytes", "sampler"), [(320, "dds"), (220, "dds"), (260, "dps"), (60, "dds")], ids=lambda value: str(value)
)
def test_under_a_real_limit_a_run_ends_well_or_in_one_line(mebibytes: int, sampler: str, tmp_path: Path) -> None:
    path, out = tmp_path / "scan.npy", tmp_path / "out"
    np.save(path, scan((256, 256), coils=8))
    options = ("--prior", "gaussian", "--samples", "16", "--steps", "2", "--acceleration", "4", "--device", "cpu")
    arguments = ("run", str(path), "-o", str(out), *options, "--sampler", sampler, "--no-holdout", "--no-report")
    command = [sys.executable, "-c", LIMITED, str(mebibytes), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    lines = done.stderr.splitlines()
    errors = [line for line in lines if not line.startswith("recon: warning: ")]
    if done.returncode == 0:
        assert not errors
        assert any("going on with" in line for line in lines)
        with h5py.File(out / "scan.h5") as file:
            assert file["samples"].shape == (16, 256, 256)
    else:
        assert done.returncode == 1
        assert len(errors) == 1
        assert errors[0].startswith(f"recon: error: {path}: slice 0: out of memory")
        assert "lower the size of the images" in errors[0]
        assert not list(out.glob("*.h5"))
