"""Slices that are drawn together: from files to one volume, and what cannot be joined."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import recon
from operators import Slices
from recon.cli import main
from recon.engine.volume import BySlice, join
from recon.errors import InputError
from recon.modalities.ct.options import CT
from recon.modalities.ct.prepare import prepare_image
from recon.posterior import Posterior
from recon.priors import GaussianPrior

SIDE, DEPTH = 24, 4


@pytest.fixture
def scan(tmp_path: Path, write_ct: Callable[..., Path]) -> Path:
    """Four equal slices with a square of 200 HU in water."""
    (tmp_path / "scan").mkdir()
    stored = np.full((SIDE, SIDE), 1024, np.uint16)
    stored[8:16, 6:18] += 200
    for k in range(DEPTH):
        write_ct(tmp_path / "scan" / f"{k}.dcm", stored, z=3.0 * k, PixelSpacing=["4.0", "4.0"])
    return tmp_path / "scan"


def test_a_volume_from_the_command_line(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--prior", "gaussian", "--sampler", "dds-volume", "--samples", "3", "--steps", "6", "--no-report"]
    command = ["run", str(scan), "-o", str(tmp_path / "out"), "--views", "20", "--photons", "1e4", *options]
    assert main([*command, "--slices", "1:4"]) == 0
    found = Posterior.load(tmp_path / "out" / "scan.h5")
    assert found.samples.shape == (3, 3, SIDE, SIDE) and found.images["fbp"].shape == (3, SIDE, SIDE)
    assert found.images["reference"].shape == found.mean.shape and found.geometry["axes"] == "slice y x"
    assert found.provenance["sampler"]["name"] == "DDSVolume" and found.provenance["slices"] == [1, 2, 3]
    assert len(sorted((tmp_path / "out" / "scan_dicom" / "mean").iterdir())) == 3


@pytest.mark.slow
def test_neighbours_help(scan: Path) -> None:
    """Four noisy looks at the same thing are better than one: where slices are coupled the error is smaller."""
    settings = {"views": 40, "photons": 1e3, "samples": 4, "steps": 15, "prior": "gaussian", "progress": False}
    errors = {}
    for sampler in ("dds", "dds-volume"):
        found = recon.reconstruct(scan, sampler=sampler, **settings)
        errors[sampler] = float(np.std((found.mean - found.images["reference"])[:, 4:-4, 4:-4]))
    assert errors["dds-volume"] < 0.8 * errors["dds"]


def test_the_problem_of_a_volume_is_that_of_its_slices() -> None:
    rng = np.random.default_rng(0)
    slices = [prepare_image(rng.uniform(-50, 50, (8, 8)), 4.0, CT(views=6, photons=1e4), seed=k) for k in range(3)]
    volume = join(slices)
    assert isinstance(volume.problem.operator, Slices) and volume.problem.y.shape[0] == 3
    assert (volume.problem.scale, volume.problem.offset) == (1000, -1000)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([one.problem.misfit(x[:, k]) for k, one in enumerate(slices)]).mean(0)
    torch.testing.assert_close(volume.problem.misfit(x), expected)
    torch.testing.assert_close(volume.images["fbp"], torch.stack([one.images["fbp"] for one in slices]))


def test_what_cannot_be_joined() -> None:
    one, other = (prepare_image(np.zeros((8, 8)), 4.0, CT(views=n)) for n in (6, 7))
    with pytest.raises(InputError, match="one operator"):
        join([one, other])
    with pytest.raises(InputError, match="one operator"):
        recon.reconstruct(np.ones((2, 1, 8, 8), np.complex64), prior="gaussian", sampler="dds-volume", noise_std=0.1)


def test_a_prior_of_images_for_volumes() -> None:
    prior = GaussianPrior.power_law((8, 8), std=0.4, dtype=torch.float32)
    volume = BySlice(prior)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([prior.denoise(x[:, k], 0.3) for k in range(3)], dim=1)
    torch.testing.assert_close(volume.denoise(x, 0.3), expected)
    assert volume.error_std(0.3) == prior.error_std(0.3) and volume.space is None
    assert (volume.sigma_min, volume.sigma_max) == (prior.sigma_min, prior.sigma_max)
