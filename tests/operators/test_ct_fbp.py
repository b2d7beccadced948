"""Filtered backprojection: a disc of known value in every geometry, and a measured tooth."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from operators import CT, FanBeam, InputError, ParallelBeam, ShapeError, fbp
from operators.ct.fbp import FILTERS
from operators.ct.geometry import Beam

TURN = 2 * math.pi
FAN = (250, 2.0, 595.0, 1085.6)
SCANS: dict[str, Beam] = {
    "parallel": ParallelBeam(np.arange(180) * math.pi / 180, 200, 1.4),
    "parallel, full turn, offset": ParallelBeam(np.arange(240) * TURN / 240, 210, 1.4, detector_offset=3.3),
    "parallel, golden angles": ParallelBeam(np.arange(300) * math.pi * (math.sqrt(5) - 1) / 2, 200, 1.4),
    "flat": FanBeam(np.arange(360) * TURN / 360, *FAN),
    "curved": FanBeam(np.arange(360) * TURN / 360, *FAN, curved=True),
    "flat, short": FanBeam(np.arange(230) * TURN / 360 + 0.3, *FAN),
    "curved, short": FanBeam(np.arange(230) * TURN / 360 - 1.0, *FAN, curved=True),
    "curved, more than short": FanBeam(np.arange(290) * TURN / 360 - 1.0, *FAN, curved=True),
    "flying focal spot": FanBeam(
        np.arange(360) * TURN / 360, *FAN, curved=True, source_angle_offset=np.tile([2e-3, -2e-3], 180)
    ),
}


def disc(geometry: Beam, x: float, y: float, radius: float) -> Tensor:
    points, directions = geometry.rays()
    p = points - torch.tensor([x, y], dtype=torch.float64)
    s = p[..., 0] * directions[..., 1] - p[..., 1] * directions[..., 0]
    return 2 * (radius**2 - s**2).clamp_min(0).sqrt()


@pytest.mark.parametrize("name", SCANS)
def test_disc_has_its_value(name: str) -> None:
    geometry = SCANS[name]
    image = fbp(0.02 * disc(geometry, 20.0, -35.0, 55.0).float(), geometry, (100, 110), 2.0)
    row, column = np.indices(image.shape)
    distance = torch.from_numpy(np.hypot((column - 54.5) * 2.0 - 20.0, (49.5 - row) * 2.0 + 35.0))
    inside, outside = image[distance < 45], image[(distance > 65) & (distance < 90)]
    assert float(inside.mean()) == pytest.approx(0.02, rel=2e-3)
    assert float((inside - 0.02).abs().max()) < 0.01 * 0.02
    assert float(outside.mean().abs()) < 0.01 * 0.02


@pytest.mark.parametrize("window", FILTERS)
def test_windows_keep_the_mean_and_lower_the_noise(window: str) -> None:
    geometry = SCANS["parallel"]
    image = fbp(disc(geometry, 0.0, 0.0, 60.0), geometry, (64, 64), 2.0, filter=window)
    assert float(image[20:44, 20:44].mean()) == pytest.approx(1.0, rel=5e-3)
    noise = torch.randn(geometry.shape, generator=torch.Generator().manual_seed(0))
    plain, smooth = (fbp(noise, geometry, (64, 64), 2.0, filter=w) for w in ("ram-lak", window))
    assert float(smooth.std()) <= float(plain.std())
    assert (float(smooth.std()) < 0.95 * float(plain.std())) == (window != "ram-lak")


@pytest.mark.slow
def test_batches_and_the_operator_fit_together() -> None:
    geometry = SCANS["curved"]
    x = torch.zeros(2, 1, 64, 64)
    x[0, :, 20:40, 10:30], x[1, :, 30:50, 25:60] = 1.0, 2.0
    y = CT(geometry, (64, 64), 3.0, engine="onthefly")(x)
    image = fbp(y, geometry, (64, 64), 3.0, "hann")
    assert image.shape == x.shape and image.dtype == torch.float32
    torch.testing.assert_close(image[1, 0], fbp(y[1, 0], geometry, (64, 64), 3.0, "hann"))
    assert float(image[0, 0, 25:35, 15:25].mean()) == pytest.approx(1.0, abs=0.01)
    assert float(image[1, 0, 35:45, 30:55].mean()) == pytest.approx(2.0, abs=0.02)


def test_bad_input_is_named() -> None:
    geometry = SCANS["parallel"]
    y = torch.zeros(geometry.shape)
    with pytest.raises(InputError, match="ram-lak, shepp-logan"):
        fbp(y, geometry, (8, 8), 1.0, filter="sharp")
    with pytest.raises(ShapeError, match="angle=180, detector=200"):
        fbp(y[:-1], geometry, (8, 8), 1.0)
    with pytest.raises(InputError, match="pixel_size"):
        fbp(y, geometry, (8, 8), -1.0)


def test_measured_tooth(realdata: Path) -> None:
    """The rotation axis noted with the data gives a sharp image: a wrong one blurs it and leaves more outside."""
    with h5py.File(realdata / "ct_projections" / "tooth.h5") as file:
        data, white, dark = (np.asarray(file[f"exchange/{k}"])[:, 0] for k in ("data", "data_white", "data_dark"))
        angles = np.deg2rad(np.asarray(file["exchange/theta"]))
    dark = dark.mean(0)
    sinogram = torch.from_numpy(-np.log(((data - dark) / (white.mean(0) - dark)).clip(1e-3))).float()

    def reconstruct(axis: float) -> Tensor:
        geometry = ParallelBeam(angles, 640, 1.0, detector_offset=319.5 - axis)
        return fbp(sinogram, geometry, (320, 320), 2.0, "hann")

    images = {axis: reconstruct(axis) for axis in (287.5, 295.5, 303.5)}
    negative = {axis: float(image.clamp_max(0).square().sum()) for axis, image in images.items()}
    assert min(negative, key=lambda axis: negative[axis]) == 295.5
    image = images[295.5]
    assert bool(torch.isfinite(image).all())
    middle, corner = image[100:220, 100:220].mean(), image[:30, :30].abs().mean()
    assert float(middle) > 20 * float(corner)
