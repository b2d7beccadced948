"""The demo: a plausible simulated scan, a reconstruction that beats zero-filling, and files that can be opened."""

import numpy as np
import pytest

from operators import fftc, ifftc
from recon import demo
from recon.errors import InputError
from recon.metrics import psnr
from recon.posterior import Posterior

SMALL = (96, 160)  # 8 % of the columns must be enough for coil maps


@pytest.fixture(scope="module")
def scan():
    return demo.simulate(shape=SMALL)


def test_the_patient_is_small_safe_and_scaled():
    assert demo.PATIENT.stat().st_size < 150_000
    image, voxel_size_mm = demo.load_patient()
    assert image.shape == (192, 160)
    assert voxel_size_mm == [5.0, 1.25, 1.25]
    assert np.quantile(np.abs(image), 0.99) == pytest.approx(1, abs=1e-2)
    assert np.isfinite(image).all()


def test_a_smaller_patient_is_the_same_head():
    image, voxel_size_mm = demo.load_patient(SMALL)
    full, _ = demo.load_patient()
    assert voxel_size_mm == [5.0, 2.5, 1.25]
    rows = np.abs(full).reshape(96, 2, 160).mean(axis=1)
    assert np.corrcoef(np.abs(image).ravel(), rows.ravel())[0, 1] > 0.97
    assert np.abs(image).mean() == pytest.approx(np.abs(full).mean(), rel=0.05)
    with pytest.raises(InputError, match="192, 160"):
        demo.load_patient((96, 161))


def test_sensitivities_are_smooth_distinct_and_normalised():
    maps = demo.loop_sensitivities(SMALL, 8)
    np.testing.assert_allclose(np.linalg.norm(maps, axis=0), 1, rtol=1e-12)
    assert np.abs(np.diff(maps, axis=-1)).max() < 0.08
    assert np.linalg.cond(maps[:, ::8, ::8].reshape(8, -1)) < 100


def test_the_scan_obeys_its_own_model(scan):
    assert scan.kspace.shape == (8, *SMALL)
    assert scan.kspace.dtype == np.complex64
    assert scan.mask.sum() == 40
    assert np.all(scan.kspace[:, :, ~scan.mask[0]] == 0)
    image, _ = demo.load_patient(SMALL)
    maps = demo.loop_sensitivities(SMALL, 8)
    noise = (scan.kspace - np.fft.fftshift(_plain_fft(maps * image), axes=(-2, -1)))[:, :, scan.mask[0]]
    assert np.sqrt(np.mean(np.abs(noise) ** 2)) == pytest.approx(demo.NOISE_STD, rel=0.02)
    np.testing.assert_allclose(scan.reference, np.abs(image), rtol=1e-6)


def _plain_fft(images):
    axes = (-2, -1)
    return np.fft.fft2(np.fft.ifftshift(images, axes=axes), axes=axes, norm="ortho")


def test_simulation_is_reproducible_and_leaves_the_global_generator_alone(scan):
    np.random.seed(7)
    state = np.random.get_state()[1].copy()
    again = demo.simulate(shape=SMALL)
    np.testing.assert_array_equal(again.kspace, scan.kspace)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert not np.array_equal(demo.simulate(shape=SMALL, seed=1).kspace, scan.kspace)


def test_a_full_scan_gives_the_patient_back():
    import torch

    scan = demo.simulate(acceleration=1, noise_std=0.0, shape=SMALL)
    images = ifftc(torch.as_tensor(scan.kspace), (-2, -1))
    np.testing.assert_allclose(images.abs().square().sum(0).sqrt().numpy(), scan.reference, atol=1e-5)
    np.testing.assert_allclose(fftc(images, (-2, -1)).numpy(), scan.kspace, atol=1e-4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    lines = []
    folder = tmp_path_factory.mktemp("demo") / "new"
    files = demo.main(folder, samples=3, prior="gaussian", shape=SMALL, progress=False, echo=lines.append)
    return files, lines


@pytest.mark.slow
def test_demo_writes_files_that_can_be_opened(finished):
    files, _ = finished
    assert [file.name for file in files] == ["demo.h5", "demo.png", "demo.html"]
    posterior = Posterior.load(files[0])
    assert posterior.samples.shape == (3, *SMALL)
    assert posterior.geometry["voxel_size_mm"] == [5.0, 2.5, 1.25]
    assert posterior.provenance["source"]["name"] == "synthetic demo patient"
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_demo_beats_zero_filling_and_says_so(finished, scan):
    files, lines = finished
    posterior = Posterior.load(files[0])
    zero_filled = psnr(posterior.images["zero_filled"], scan.reference)
    mean = psnr(posterior.mean, scan.reference)
    assert mean > zero_filled + 3
    text = "\n".join(lines)
    assert f"zero-filled {zero_filled:.1f} dB   posterior mean {mean:.1f} dB" in text
    assert "90% interval" in text
    assert all(str(file) in text for file in files)


@pytest.mark.slow
def test_demo_without_matplotlib_still_saves_the_result(monkeypatch, tmp_path):
    def missing(*_):
        raise InputError("a report needs matplotlib: pip install diffrecon[report]")

    monkeypatch.setattr("recon.report.write_report", missing)
    lines = []
    files = demo.main(tmp_path, samples=1, prior="gaussian", shape=SMALL, progress=False, echo=lines.append)
    assert [file.name for file in files] == ["demo.h5"]
    assert any("diffrecon[report]" in line for line in lines)


def test_demo_names_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        demo.main(tmp_path / "file" / "folder", shape=SMALL)
