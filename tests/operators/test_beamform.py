"""Beamformers: where a point appears and how wide it is, what adapts, and bad input."""

import math

import numpy as np
import pytest
import torch

from operators import Grid, InputError, PlaneWaveGeometry, PlaneWaveUltrasound, ShapeError, beamform
from operators.ultrasound.adaptive import smoothed
from operators.ultrasound.beamform import METHODS

GRID = Grid(np.arange(-1.5e-3, 1.51e-3, 0.05e-3), np.arange(19e-3, 21.01e-3, 0.1e-3))
ROW, COLUMN = 10, 30


def geometry(**options: object) -> PlaneWaveGeometry:
    x = (np.arange(64) - 31.5) * 0.3e-3
    values = {"element_positions": np.stack([x, 0 * x], 1), "angles": [0.0], "sampling_frequency": 20.8e6}
    values |= {"center_frequency": 5.2e6, "sound_speed": 1540.0, "sample_count": 200, "initial_times": 23e-6}
    return PlaneWaveGeometry(**(values | options))  # type: ignore[arg-type]


def point(acquired: PlaneWaveGeometry) -> torch.Tensor:
    image = torch.zeros(GRID.shape, dtype=torch.complex64)
    image[ROW, COLUMN] = 1
    operator = PlaneWaveUltrasound(acquired, GRID, directivity=False, spreading="none", transmit_mask=False)
    return operator(operator.from_reflectivity(image))


def width(image: torch.Tensor) -> float:
    fine = np.linspace(GRID.x[0], GRID.x[-1], 6001)
    row = np.interp(fine, GRID.x, image[ROW].abs().numpy())
    return float((row > row.max() / 2).sum() * (fine[1] - fine[0]))


@pytest.mark.parametrize("method", METHODS)
def test_point_is_where_it_is(method: str) -> None:
    acquired = geometry(angles=[-0.1, 0.0, 0.1])
    image = beamform(point(acquired), GRID, method, geometry=acquired)
    assert divmod(int(image.abs().argmax()), len(GRID.x)) == (ROW, COLUMN)
    phase = -4 * math.pi * acquired.center_frequency / acquired.sound_speed * GRID.z[ROW]
    assert abs(math.remainder(float(image[ROW, COLUMN].angle()) - phase, 2 * math.pi)) < 0.05


def test_width_is_that_of_the_textbook() -> None:
    acquired = geometry()
    # Half amplitude of sinc(x / (F lambda)) is at 0.6034; the receive aperture alone focuses a plane wave.
    expected = 2 * 0.6034 * 1.75 * acquired.wavelength
    assert width(beamform(point(acquired), GRID, geometry=acquired)) == pytest.approx(expected, rel=0.08)
    hann = width(beamform(point(acquired), GRID, geometry=acquired, window="hann"))
    assert hann == pytest.approx(2 * 1.0 * 1.75 * acquired.wavelength, rel=0.08)


def test_adaptive_methods_are_narrower() -> None:
    acquired = geometry()
    data = point(acquired)
    widths = {method: width(beamform(data, GRID, method, geometry=acquired)) for method in METHODS}
    assert widths["cf"] < 0.8 * widths["das"] and widths["dmas"] < 0.9 * widths["das"]
    assert widths["mv"] < 0.5 * widths["das"] and widths["esbmv"] < 0.5 * widths["das"]


def test_rf_iq_and_decimated_iq_give_one_image() -> None:
    rf = beamform(point(geometry()), GRID, geometry=geometry())
    for acquired in (geometry(demodulation_frequency=5e6), geometry(is_complex=True)):
        image = beamform(point(acquired), GRID, geometry=acquired)
        assert float((image - rf).abs().max() / rf.abs().max()) < 0.01
    slow = geometry(demodulation_frequency=5.2e6).select(decimation=3)
    image = beamform(point(slow), GRID, geometry=slow)
    assert float((image - rf).abs().max() / rf.abs().max()) < 0.03


@pytest.mark.parametrize("method", ["das", "mv"])
@pytest.mark.parametrize("rate", [6.95e6, 4.3e6])  # the carrier lies in the second and in the third zone
def test_band_pass_sampled_rf_gives_the_same_image(method: str, rate: float) -> None:
    options = {"sampling_frequency": rate, "sample_count": int(200 * rate / 20.8e6)}
    image = torch.zeros(GRID.shape, dtype=torch.complex64)
    image[ROW, COLUMN] = 1
    found = []
    for acquired in (geometry(**options), geometry(**options, demodulation_frequency=5.2e6)):
        operator = PlaneWaveUltrasound(acquired, GRID, bandwidth=0.2, spreading="none", transmit_mask=False)
        data = operator(operator.from_reflectivity(image))
        found.append(beamform(data, GRID, method, geometry=acquired))
    assert divmod(int(found[0].abs().argmax()), len(GRID.x)) == (ROW, COLUMN)
    assert float((found[0] - found[1]).abs().max() / found[1].abs().max()) < 0.1
    mirrored = geometry(sampling_frequency=5.2e6)
    with pytest.raises(InputError, match="mirror image coincide"):
        beamform(torch.ones(mirrored.shape), GRID, geometry=mirrored)


def test_das_is_the_adjoint_without_pulse_and_weights() -> None:
    acquired = geometry(angles=[0.0, 0.1], is_complex=True)
    data = torch.randn(2, *acquired.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    plain = {"directivity": False, "spreading": "none", "transmit_mask": False, "pulse": np.ones(1) + 0j}
    operator = PlaneWaveUltrasound(acquired, GRID, f_number=1.75, **plain)  # type: ignore[arg-type]
    torch.testing.assert_close(beamform(data, GRID, geometry=acquired), operator.H(data) / 2)


def test_sums_along_diagonals_are_sums_of_blocks() -> None:
    s = torch.randn(3, 9, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    parts = s.unfold(-1, 4, 1)
    expected = torch.einsum("xpa,xpb->xab", parts, parts.conj())
    torch.testing.assert_close(smoothed(s[:, :, None] * s[:, None].conj(), 4), expected)


@pytest.fixture(scope="module")
def element_by_element() -> tuple[Grid, torch.Tensor, torch.Tensor]:
    """A small grid across and beside the probe, noise, and the delayed samples (z, x, element) of each element."""
    acquired = geometry()
    grid = Grid(np.array([-9.9, -9.4, -8.0, -2.1, 0.3, 9.45]) * 1e-3, 20e-3 + 0.05e-3 * np.arange(6))
    data = torch.randn(acquired.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ones = [acquired.select(elements=[e]) for e in range(64)]
    samples = torch.stack([beamform(data[:, [e]], grid, geometry=ones[e], f_number=0) for e in range(64)], -1)
    return grid, data, samples


@pytest.mark.parametrize("f_number", [0.0, 1.75], ids=["all elements", "f-number"])
@pytest.mark.parametrize("method", ["mv", "esbmv"])
def test_minimum_variance_against_the_formula(
    method: str, f_number: float, element_by_element: tuple[Grid, torch.Tensor, torch.Tensor]
) -> None:
    """Pixel by pixel, in the middle, where the end of the probe cuts the aperture, and beside the probe."""
    (grid, data, samples), acquired, half = element_by_element, geometry(), 2
    axial = 2 * half * grid.spacing[0] / acquired.wavelength
    image = beamform(data, grid, method, geometry=acquired, f_number=f_number, axial=axial)
    for i, j in np.ndindex(grid.shape):
        distance = np.abs(acquired.elements[:, 0] - grid.x[j])
        used = torch.from_numpy(np.flatnonzero(2 * f_number * distance <= grid.z[i]))
        length = len(used) // 2
        near = samples[max(i - half, 0) : i + half + 1, j][:, used].unfold(-1, length, 1)
        R = torch.einsum("zpa,zpb->ab", near, near.conj())
        R = R + 0.01 * R.diagonal().real.mean() * torch.eye(length)
        w = torch.linalg.solve(R, torch.ones(length, dtype=R.dtype))
        w = w / w.sum()
        if method == "esbmv":
            values, vectors = torch.linalg.eigh(R)
            vectors = vectors[:, values >= 0.5 * values[-1]]
            w = vectors @ (vectors.mH @ w)
        expected = len(used) * w.conj() @ samples[i, j, used].unfold(0, length, 1).mean(0)
        torch.testing.assert_close(image[i, j], expected, rtol=1e-6, atol=1e-9)


def test_order_of_elements_and_batches_do_not_matter() -> None:
    acquired = geometry()
    data = torch.stack([point(acquired), 2 * point(acquired)])
    turned = acquired.select(elements=list(range(63, -1, -1)))
    for method in ("das", "gcf", "mv"):
        image = beamform(data, GRID, method, geometry=acquired)
        assert image.shape == (2, *GRID.shape)
        torch.testing.assert_close(beamform(data.flip(-2), GRID, method, geometry=turned), image, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_silence_gives_zeros(method: str) -> None:
    image = beamform(torch.zeros(geometry().shape), GRID, method, geometry=geometry())
    assert bool((image == 0).all())


def test_bad_input_is_one_clear_line() -> None:
    acquired = geometry()
    data = torch.zeros(acquired.shape)
    with pytest.raises(InputError, match="unknown method"):
        beamform(data, GRID, "music", geometry=acquired)
    with pytest.raises(InputError, match="geometry"):
        beamform(data, GRID)
    with pytest.raises(ShapeError, match="element=64"):
        beamform(data[:, :3], GRID, geometry=acquired)
    with pytest.raises(ShapeError, match=r"\(\.\.\., angle=1"):
        beamform(data[0, 0], GRID, geometry=acquired)
    with pytest.raises(InputError, match="not finite"):
        beamform(data * math.nan, GRID, geometry=acquired)
    with pytest.raises(InputError, match="loading"):
        beamform(data, GRID, "mv", geometry=acquired, loading=0)
    with pytest.raises(InputError, match="window"):
        beamform(data, GRID, geometry=acquired, window="square")
