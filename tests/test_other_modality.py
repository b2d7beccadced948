"""A modality that another distribution offers by an entry point works everywhere, with nothing changed here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import recon
from recon import cli, modalities
from recon.errors import InputError
from recon.uncertainty import Calibration

TOY = Path(__file__).parent / "toy"
SIZE = (24, 32)


@pytest.fixture(autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a distribution with one entry point on the path, as pip would."""
    info = tmp_path_factory.mktemp("site") / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[diffrecon.modalities]\ndeconvolution = deconvolution:MODALITY\n")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.syspath_prepend(str(TOY))
    yield
    sys.modules.pop("deconvolution", None)


def write(path: Path, seed: int = 0, slices: int = 1) -> Path:
    """Smooth positive images, drawn from nothing that the prior knows."""
    y, x = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    rng = np.random.default_rng(seed)
    images = [np.exp(-(((x - a) / 0.5) ** 2) - ((y - b) / 0.4) ** 2) for a, b in rng.uniform(-0.3, 0.3, (slices, 2))]
    np.savez(path, images=np.asarray(images, np.float32))
    return path


def run(*arguments: str | Path) -> int:
    return cli.main([str(one) for one in arguments])


def test_it_is_found_by_the_registry() -> None:
    assert modalities.names()[-1] == "deconvolution"
    assert recon.Deconvolution(blur=2.0).blur == 2.0  # type: ignore[attr-defined]


def test_reconstruction_from_python(tmp_path: Path) -> None:
    file = write(tmp_path / "one.blur.npz")
    posterior = recon.reconstruct(file, sampler="exact", samples=4, blur=1.0)
    assert posterior.provenance["modality"] == "deconvolution" and posterior.provenance["config"]["blur"] == 1.0
    truth = posterior.images["reference"]
    assert np.abs(posterior.mean - truth).mean() < np.abs(posterior.images["blurred"] - truth).mean()
    again = recon.reconstruct(recon.open(file), sampler="exact", samples=4, options=recon.Deconvolution(1.0))
    np.testing.assert_array_equal(posterior.samples, again.samples)
    with pytest.raises(InputError, match=r"deconvolution has no option 'acceleration'; .* an option of MRI"):
        recon.reconstruct(file, acceleration=4)


@pytest.mark.slow
def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path / "one.blur.npz", slices=2), tmp_path / "out"
    assert run("info", file) == 0 and "image: 24 x 32" in capsys.readouterr().out
    assert run("check", file) == 0 and "usable" in capsys.readouterr().out
    options = ("--sampler", "exact", "--samples", "3", "--blur", "1")
    assert run("run", file, "-o", out, "--dry-run", *options) == 0
    assert "blur of 1 pixels" in capsys.readouterr().out
    assert run("run", file, "-o", out, "--no-report", *options) == 0
    assert np.load(out / "one.blur.npy").shape == (2, *SIZE)
    assert run("report", out / "one.blur.h5") == 0
    assert "Pixel values are those of the file." in (out / "one.blur.html").read_text()


def test_an_export_that_it_does_not_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "one.blur.npz")
    assert run("run", file, "-o", tmp_path / "out", "--dicom") == 2
    assert capsys.readouterr().err.endswith("one.blur.npz: results of deconvolution cannot be written as dicom\n")


def test_settings_file(tmp_path: Path) -> None:
    file, config = write(tmp_path / "one.blur.npz"), tmp_path / "run.toml"
    config.write_text('sampler = "exact"\nsamples = 2\n[deconvolution]\nblur = 0.7\n[mri]\nacceleration = 4\n')
    assert run("run", file, "-o", tmp_path, "--config", config, "--no-report") == 0
    assert recon.Posterior.load(tmp_path / "one.blur.h5").provenance["config"]["blur"] == 0.7
    config.write_text("[deconvolution]\nblurr = 0.7\n")
    assert run("run", file, "-o", tmp_path / "b", "--config", config) == 2


@pytest.mark.slow
def test_calibration_and_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for k in range(10):
        write(folder / f"{k}.blur.npz", seed=k)
    options = ("--sampler", "exact", "--samples", "4")
    assert run("calibrate", folder, "-o", tmp_path / "c.json", *options, "--blur", "1") == 0
    assert run("evaluate", tmp_path / "c-results", "-o", tmp_path / "e", "--calibration", tmp_path / "c.json") == 0
    assert "coverage" in capsys.readouterr().out
    other = recon.reconstruct(folder / "0.blur.npz", sampler="exact", samples=4, blur=2.0)
    with pytest.raises(InputError, match="blur is 2 here but was 1"):
        Calibration.load(tmp_path / "c.json").apply(other)


@pytest.mark.slow
def test_training(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / f"{k}.blur.npz", seed=k, slices=4)
    (tmp_path / "train.toml").write_text(
        f"""
data = "{tmp_path}"
output = "{tmp_path / "trained"}"
modality = "deconvolution"
steps = 2
warmup = 1
decay = 0
threads = 1
precision = "float32"
previews = 0
patches = [[16, 2, 1.0]]
[network]
channels = [8, 8]
encoder_blocks = [1, 1]
decoder_blocks = [1]
embedding = 8
[[sources]]
pattern = "*.blur.npz"
held_out = ["2"]
"""
    )
    assert run("train", "--config", tmp_path / "train.toml") == 0
    assert (tmp_path / "trained").is_dir()
