"""Where a calibration region lies, which kernel suits it, and what its quietest directions say about the noise."""

import numpy as np
import pytest
import torch

from operators import InputError, ShapeError, espirit_maps, fftc, make_mask
from operators.mri.autocalibration import calibration_region, kernel_size, noise_floor, noise_threshold


def _coil_images(coils: int = 6, size: int = 64) -> torch.Tensor:
    """Smooth coils around a disc with texture."""
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    y, x = line[:, None], line
    image = ((y / 0.8) ** 2 + (x / 0.7) ** 2 < 1) * (1 + 0.5 * torch.sin(9 * x) * torch.cos(7 * y))
    angles = 2 * np.pi * torch.arange(coils, dtype=torch.float64)[:, None, None] / coils
    maps = torch.exp(-((y - 1.1 * angles.sin()) ** 2 + (x - 1.1 * angles.cos()) ** 2) / 1.5 + 1j * angles)
    return maps * image


def _noise(*shape: int, level: float, seed: int = 0) -> torch.Tensor:
    return level * torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("lines", "expected"), [(range(28, 37), (28, 37)), (range(27, 36), (27, 36)), (range(32, 36), (32, 36))]
)
def test_the_region_holds_the_centre_and_need_not_be_symmetric(lines: range, expected: tuple[int, int]) -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, ::5] = True
    mask[:, list(lines)] = True
    rows, columns = calibration_region(mask, 24)
    assert (rows.start, rows.stop) == (20, 44)
    # A regular line may lie beside the block.
    assert columns.start <= expected[0] and columns.stop >= expected[1] and bool(mask[:, columns].all())


def test_the_region_of_a_full_mask_is_the_centre_and_of_a_hollow_one_none() -> None:
    rows, columns = calibration_region(torch.ones(40, 30), 24)
    assert (rows, columns) == (slice(8, 32), slice(3, 27))
    hollow = torch.ones(40, 30)
    hollow[20, 15] = 0
    assert calibration_region(hollow) is None
    with pytest.raises(ShapeError, match="expected a mask"):
        calibration_region(torch.ones(3, 4, 5))


def test_the_kernel_is_a_third_of_the_region() -> None:
    assert [kernel_size((n, n))[0] for n in (2, 4, 8, 12, 15, 18, 24)] == [2, 3, 3, 4, 5, 6, 6]


@pytest.mark.parametrize("level", [0.01, 0.1])
@pytest.mark.parametrize("lines", [10, 24])
def test_the_noise_floor_is_near_the_noise_and_not_below_it(level: float, lines: int) -> None:
    kspace = fftc(_coil_images()) + _noise(6, 64, 64, level=level)
    region = kspace[:, 20:44, 32 - lines // 2 : 32 + lines // 2]
    found = noise_floor(region, kernel_size((24, lines)))
    assert 0.9 * level < found < 1.5 * level


@pytest.mark.parametrize("lines", [4, 6, 8, 12, 24])
@pytest.mark.parametrize("level", [0.01, 0.2])
def test_maps_of_the_suited_kernel_and_threshold_explain_the_coils(lines: int, level: float) -> None:
    images = _coil_images()
    kspace = fftc(images) + _noise(6, 64, 64, level=level)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, 32 - lines // 2 : 32 + lines // 2] = True
    region = calibration_region(mask)
    kernel = kernel_size((24, lines))
    threshold = max(noise_threshold(kspace[:, region[0], region[1]], kernel, level), 5e-4)
    maps = espirit_maps(kspace * mask, kernel_size=kernel, threshold=threshold, crop=0.0, region=region)
    left = images - maps * (maps.conj() * images).sum(0)
    share = float(left.abs().square().sum() / images.abs().square().sum()) ** 0.5
    # What noise leaves to be known of maps, and what so few lines do.
    assert share < 0.05 * (level / 0.2) + {4: 0.06, 6: 0.03, 8: 0.01, 12: 0.005, 24: 0.005}[lines]


def test_a_region_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(InputError, match="smaller than the kernel"):
        noise_floor(_noise(2, 4, 4, level=1.0), (5, 3))


def test_default_centres_have_twelve_lines_where_they_leave_a_third_of_the_samples() -> None:
    def lines(columns: int, rate: float, pattern: str = "equispaced") -> int:
        mask = make_mask((32, columns), pattern, rate)
        _, found = calibration_region(np.broadcast_to(mask, (32, columns)), columns)
        return found.stop - found.start

    assert lines(96, 4) >= 12 and lines(180, 8) >= 12 and lines(368, 4) >= round(0.08 * 368)
    assert lines(90, 8) < 12  # eleven lines in all
    points = make_mask((96, 96), "poisson", 4)
    rows, columns = calibration_region(points)
    assert min(rows.stop - rows.start, columns.stop - columns.start) >= 12
