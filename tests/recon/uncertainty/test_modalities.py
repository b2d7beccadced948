"""Calibrations know every modality: what they hold for, and that the commands run on each."""

from pathlib import Path

import numpy as np
import pytest

from recon import Posterior, modalities
from recon.cli import main
from recon.errors import InputError
from recon.uncertainty import Calibration
from recon.uncertainty.fingerprint import fingerprint, require_match

ULTRASOUND = {
    "modality": "ultrasound",
    "operator": "PlaneWaveUltrasound",
    "config": {"array": "uniform", "decimation": None, "attenuation": 0.0, "precision": "float32"},
    "measured": [
        {
            "angles_deg": [round(float(a), 3) for a in np.linspace(-16, 16, 75)],
            "elements": 128,
            "sampling_frequency_mhz": 20.0,
            "pulse_frequency_mhz": 5.2,
            "pulse_bandwidth": 0.6,
            "noise_std": 0.01,
            "scale": 1.0,
            "model_error": 0.05,
        }
    ],
}
GEOMETRY = {"voxel_size_mm": [1.0, 0.1, 0.1], "origin_mm": [0.0, 10.0, -2.0]}


def result(geometry: dict | None = None, config: dict | None = None, **measured: object) -> Posterior:
    """A result of plane waves, with other values of what its provenance records."""
    record = {
        **ULTRASOUND,
        "config": {**ULTRASOUND["config"], **(config or {})},
        "measured": [{**ULTRASOUND["measured"][0], **measured}],
    }
    return Posterior(np.ones((4, 30, 40), np.complex64), {**GEOMETRY, **(geometry or {})}, record)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"angles_deg": [0.0]}, r"waves is \[0.0\] here but was \[-16.0"),
        ({"elements": 16}, "elements is 16 here but was 128"),
        ({"config": {"array": "random"}}, "array is random here but was uniform"),
        ({"config": {"decimation": 8}}, "decimation is 8 here but was not recorded"),
        ({"geometry": {"origin_mm": [0.0, 12.0, -2.0]}}, "depth is 12 to 14.9 here but was 10 to 12.9"),
        ({"geometry": {"origin_mm": [0.0, 10.0, 0.0]}}, "width is 0 to 3.9 here but was -2 to 1.9"),
        ({"sampling_frequency_mhz": 10.0}, "sampling_frequency_mhz is 10 here but was 20"),
        ({"pulse_frequency_mhz": 7.0}, "pulse_frequency_mhz is 7 here but was 5.2"),
        ({"noise_std": 0.1}, "noise is 0.1 here but was 0.01"),
        ({"model_error": 0.2}, "model_error is 0.2 here but was 0.05"),
    ],
)
def test_a_calibration_belongs_to_its_waves(other: dict, message: str) -> None:
    require_match(fingerprint(result()), fingerprint(result(noise_std=0.012)))
    with pytest.raises(InputError, match=message):
        require_match(fingerprint(result()), fingerprint(result(**other)))


def test_every_modality_names_conditions() -> None:
    for modality in modalities.modalities():
        found = modality.conditions(Posterior(np.ones((2, 8, 8), np.float32)))
        assert len(found) >= 3, modality.name
        assert modality.undersampled_by or modality.name == "ultrasound"


def images(folder: Path, count: int = 10) -> Path:
    """Folders of one CT slice each, named by numbers."""
    y, x = np.mgrid[-1:1:24j, -1:1:24j]
    for k in range(count):
        (folder / f"patient{k}").mkdir(parents=True)
        np.save(folder / f"patient{k}" / "1.npy", 0.5 * (x**2 + y**2 < 0.5 + 0.03 * k) + 0.02 * np.cos(9 * x + k))
    return folder


OPTIONS = ["--prior", "gaussian", "--sampler", "exact", "--samples", "3", "--pixel-size", "4", "--photons", "1e4"]


@pytest.mark.slow
def test_ct_images_are_calibrated_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, target = images(tmp_path / "ct"), tmp_path / "c.json"
    assert main(["calibrate", str(folder), "-o", str(target), *OPTIONS, "--views", "12"]) == 0
    assert main(["evaluate", str(tmp_path / "c-results"), "-o", str(tmp_path / "e"), "--no-pictures"]) == 0
    assert "raw" in capsys.readouterr().out and (tmp_path / "e" / "evaluation.json").is_file()
    calibration = Calibration.load(target)
    assert calibration.fingerprint["views"] == [12, 12]
    other = folder / "patient0"
    assert main(["run", str(other), "-o", str(tmp_path), "--no-report", *OPTIONS, "--views", "24"]) == 0
    with pytest.raises(InputError, match="views is 24 here but was 12"):
        calibration.apply(Posterior.load(tmp_path / "patient0.h5"))


@pytest.mark.slow
def test_one_folder_of_slices_is_one_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(9):
        np.save(tmp_path / f"{k}.npy", 0.5 * (np.hypot(*np.mgrid[-1:1:16j, -1:1:16j]) < 0.5 + 0.03 * k))
    command = ["calibrate", str(tmp_path), "-o", str(tmp_path.parent / "slices.json"), *OPTIONS, "--views", "8"]
    assert main([*command, "--per", "slice"]) == 0
    assert "9 images" in capsys.readouterr().out
    command[2:4] = ["x", "-o"]
    assert main(["calibrate", str(tmp_path), "-o", str(tmp_path.parent / "d.json"), *OPTIONS]) == 2
    assert "give the number of" in capsys.readouterr().err
