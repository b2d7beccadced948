"""Line integrals in a `.npy` file with a TOML file of their geometry."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.transform import radon

import recon
from operators import CT, FanBeam
from recon import cli
from recon.errors import InputError
from recon.io import open_ct
from recon.modalities.ct.data import CTProjections

SIZE = 64
VIEWS = np.arange(60) * 3.0


def image() -> np.ndarray:
    """An image without symmetry: a disc, a bright square above on the right, a hole below on the left."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    found = 0.02 * (y**2 + x**2 < 0.7)
    found[12:20, 38:46] = 0.04
    found[40:50, 18:26] = 0.0
    return found


def write(folder: Path, sinogram: np.ndarray, top: str = "", **geometry: Any) -> Path:
    np.save(folder / "lines.npy", sinogram)
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in geometry.items()
    ]
    text = "\n".join(['sinogram = "lines.npy"', top, "[geometry]", *lines])
    path = folder / "scan.toml"
    path.write_text(text.replace("'", '"'))
    return path


def parallel(**changes: Any) -> dict[str, Any]:
    return {"kind": "parallel", "first_deg": 0.0, "step_deg": 3.0, "detector_spacing_mm": 1.0, **changes}


def test_projections_of_another_program_show_the_image_upright(tmp_path: Path):
    sinogram = radon(image(), VIEWS, circle=True).T  # its detector runs to the right at 0, too
    path = write(tmp_path, sinogram.astype(np.float32), "photons = 1e7", **parallel(detector_offset_mm=-0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = recon.reconstruct(path, sampler="fbp", samples=1, pixel_size=1.0, progress=False)
    assert found.geometry["units"] == "1/mm"
    # Whichever direction its angles are counted in, one of the two is right, and the other is far off.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        turned = write(
            tmp_path, sinogram.astype(np.float32), "photons = 1e7", **parallel(detector_offset_mm=-0.5, clockwise=True)
        )
        other = recon.reconstruct(turned, sampler="fbp", samples=1, pixel_size=1.0, progress=False)
    errors = [np.abs(each.mean - image()).mean() / image().mean() for each in (found, other)]
    assert min(errors) < 0.2 and max(errors) > 0.25, errors
    assert errors[0] < errors[1]


def test_a_fan_with_photons_and_water_is_in_hounsfield_units(tmp_path: Path):
    beam = FanBeam(np.radians(np.arange(90) * 4.0), 100, 1.5, 300.0, 500.0, False)
    lines = CT(beam, (SIZE, SIZE), 1.0)(torch.from_numpy(image()).float()).numpy()
    stack = np.stack([lines, 0 * lines + lines])
    geometry = {
        **{"kind": "fan-flat", "angles_deg": [4.0 * k for k in range(90)], "detector_spacing_mm": 1.5},
        **{"source_to_iso_mm": 300.0, "source_to_detector_mm": 500.0},
    }
    np.save(tmp_path / "open.npy", np.full((90, 100), 2e5))
    path = write(tmp_path, stack, 'photons = "open.npy"\nwater_per_mm = 0.02', **geometry)
    recording = open_ct(path)
    assert isinstance(recording, CTProjections) and len(recording) == 2 and recording.shape == (90, 100)
    assert recording.photons(1).max() == 2e5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = recon.reconstruct(path, sampler="cgls", samples=1, slices=1, pixel_size=1.0, progress=False)
    assert found.geometry["units"] == "HU"
    rows, columns = ((found.mean.shape[axis] - SIZE) // 2 for axis in (0, 1))
    inner = found.mean[rows : rows + SIZE, columns : columns + SIZE]
    assert abs(inner[30:34, 30:34].mean()) < 60  # water
    assert inner[14:18, 40:44].mean() == pytest.approx(1000, abs=150)
    assert cli.main(["info", str(path)]) == 0 and cli.main(["check", str(path)]) == 0


@pytest.mark.parametrize(
    ("top", "changes", "message"),
    [
        ("photon = 1", {}, "unknown entry photon; known are"),
        ("", {"pitch": 1.0}, "unknown entry geometry.pitch"),
        ("photons = 0", {}, "photons: expected a number > 0"),
        ('photons = "none.npy"', {}, r"photons: expected a NumPy \.npy file"),
        ("", {"kind": "cone"}, "geometry.kind: expected one of parallel"),
        ("", {"kind": "fan-flat"}, "source_to_iso_mm: expected a number > 0, got None"),
        ("", {"detector_spacing_mm": 0.0}, "detector_spacing_mm: expected a number > 0"),
        ("", {"step_deg": "x"}, "step_deg: expected a finite number"),
        ("", {"step_deg": 0.0524}, "are they in radians"),
        ("", {"angles_deg": [1.0, 2.0]}, "expected 60 finite angles"),
        ("", {"clockwise": 1}, "expected true or false"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, top: str, changes: dict[str, Any], message: str):
    path = write(tmp_path, np.ones((60, 64), np.float32), top, **parallel(**changes))
    with pytest.raises(InputError, match=message):
        open_ct(path)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path):
    for array, message in ((np.ones(4), "expected \\(view, detector\\)"), (np.ones((2, 2), complex), "expected real")):
        with pytest.raises(InputError, match=message):
            open_ct(write(tmp_path, array, "", **parallel()))
    (tmp_path / "other.toml").write_text('[run]\nsampler = "dds"\n')
    with pytest.raises(InputError):
        open_ct(tmp_path / "other.toml")
