"""Measured k-space through the whole engine: two file layouts, six kinds of undersampling, one real scan."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import recon
from operators import ifftc
from recon.cli import main
from recon.metrics import psnr
from recon.modalities.mri.files.readers import open_kspace
from recon.modalities.mri.prepare import prepare
from recon.modalities.mri.sampling import Sampling
from samplers import DDS, Uniform

NOISE = 0.02
CASES = [(pattern, acceleration) for acceleration in (4, 8) for pattern in ("random", "equispaced", "poisson")]
QUICK = DDS(steps=8, gamma="rule", spread=Uniform(0.3), spacing="karras", sigma_max=3.0, sigma_min=0.01)


@pytest.fixture(scope="module")
def brain(realdata: Path) -> np.ndarray:
    return open_kspace(realdata / "mri_kspace" / "brain_8ch_full.cfl")[0]


@pytest.fixture(scope="module")
def reference(brain: np.ndarray) -> np.ndarray:
    return ifftc(torch.from_numpy(brain)).abs().square().sum(dim=0).sqrt().numpy()


@pytest.fixture(scope="module")
def noisy(brain: np.ndarray, reference: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(brain.shape) + 1j * rng.standard_normal(brain.shape)) / np.sqrt(2)
    return (brain + NOISE * np.quantile(reference, 0.99) * noise).astype(np.complex64)


def _fastmri(path: Path, kspace: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace[None]
    return path


def _bart(path: Path, kspace: np.ndarray) -> Path:
    """An independent writer: first axis fastest, coils in dimension 3."""
    coils, ny, nx = kspace.shape
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{ny} {nx} 1 {coils} 1 \n")
    path.write_bytes(kspace.transpose(1, 2, 0).tobytes(order="F"))
    return path


@pytest.mark.parametrize(("pattern", "acceleration"), CASES)
def test_noise_and_scale_come_from_undersampled_data(
    noisy: np.ndarray, reference: np.ndarray, pattern: str, acceleration: int
) -> None:
    prepared = prepare(noisy, sampling=Sampling(pattern, acceleration, 0.08))
    scale = np.quantile(reference, 0.99)
    assert prepared.diagnostics["noise_std"] == pytest.approx(NOISE * scale, rel=0.15)
    assert prepared.diagnostics["scale"] == pytest.approx(scale, rel=0.25)


@pytest.mark.parametrize(("pattern", "acceleration"), CASES)
def test_the_shipped_prior_beats_zero_filling_on_every_pattern(
    noisy: np.ndarray, reference: np.ndarray, pattern: str, acceleration: int
) -> None:
    posterior = recon.reconstruct(
        noisy,
        sampler=QUICK,
        samples=1,
        acceleration=acceleration,
        mask=pattern,
        center_fraction=0.08,
        progress=False,
    )
    gain = psnr(np.abs(posterior.mean), reference) - psnr(np.abs(posterior.images["zero_filled"]), reference)
    # Random columns x8 keep 8 columns outside of the centre: hardly anything can be gained there.
    assert gain > {4: 5.0, 8: 1.0 if pattern == "random" else 3.0}[acceleration]


def test_both_file_layouts_give_the_image_of_the_array(noisy: np.ndarray, tmp_path: Path) -> None:
    options = {"sampler": QUICK, "samples": 1, "steps": 3, "acceleration": 4, "progress": False}
    expected = recon.reconstruct(noisy, **options).samples
    for path in (_fastmri(tmp_path / "brain.h5", noisy), _bart(tmp_path / "brain.cfl", noisy)):
        found = recon.reconstruct(path, **options).samples
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("layout", [_fastmri, _bart])
def test_a_prospective_scan_through_the_command_line(
    realdata: Path, tmp_path: Path, layout: Callable[[Path, np.ndarray], Path]
) -> None:
    kspace = np.load(realdata / "mri_kspace" / "brain_8ch_poisson_r8.npy")
    source = layout(tmp_path / ("scan.h5" if layout is _fastmri else "scan.cfl"), kspace)
    command = ["run", str(source), "-o", str(tmp_path / "out"), "--samples", "2", "--steps", "6", "--no-report"]
    assert main(command) == 0
    posterior = recon.Posterior.load(tmp_path / "out" / "scan.h5")
    assert posterior.samples.shape == (2, 230, 180)
    measured = posterior.provenance["measured"][0]
    assert measured["acceleration"] == pytest.approx(8.06, abs=0.1)
    # The image must explain what was measured, and hold a head of the size that the zero-filled image shows.
    assert 0.4 < np.median(posterior.diagnostics["residual"]) < 3
    head, zero_filled = np.abs(posterior.mean), np.abs(posterior.images["zero_filled"])
    assert np.corrcoef(head.ravel(), zero_filled.ravel())[0, 1] > 0.8
