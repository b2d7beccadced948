"""CT against closed forms, and the special cases of its geometries."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import CT, FanBeam, InputError, ParallelBeam, Radon, RadonFanbeam, ShapeError
from operators.ct.geometry import Beam

TURN = 2 * math.pi
# value, centre x and y, half axes, angle; lengths as shares of half the image side
ELLIPSES = [
    (1.0, 0.0, 0.0, 0.69, 0.85, 0.0),
    (-0.5, 0.0, -0.02, 0.6, 0.75, 0.0),
    (0.3, 0.22, 0.0, 0.11, 0.31, -0.3),
    (0.3, -0.22, 0.1, 0.16, 0.41, 0.3),
    (0.4, 0.0, 0.35, 0.21, 0.25, 0.0),
]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_CACHE", "off")


def ellipse_integrals(geometry: Beam, ellipses: list[tuple[float, ...]], scale: float) -> Tensor:
    """Chord of each ray in each ellipse, from the quadratic of the ray in the ellipse's own axes."""
    points, directions = geometry.rays()
    total = torch.zeros(geometry.shape, dtype=torch.float64)
    for value, x, y, a, b, angle in ellipses:
        turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]).double()
        axes = torch.tensor([a, b], dtype=torch.float64) * scale
        p = (points - scale * torch.tensor([x, y], dtype=torch.float64)) @ turn.T / axes
        d = directions @ turn.T / axes
        dd, pd, pp = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1)
        total += value * 2 * (pd**2 - dd * (pp - 1)).clamp_min(0).sqrt() / dd
    return total


def ellipse_image(n: int, pixel: float, ellipses: list[tuple[float, ...]], scale: float, finer: int = 8) -> Tensor:
    """Ellipses averaged over each pixel by finer sampling."""
    index = (torch.arange(n * finer, dtype=torch.float64) + 0.5) / finer - n / 2
    x, y = index * pixel, -index[:, None] * pixel
    image = torch.zeros(n * finer, n * finer, dtype=torch.float64)
    for value, cx, cy, a, b, angle in ellipses:
        u = (x - cx * scale) * math.cos(angle) + (y - cy * scale) * math.sin(angle)
        v = -(x - cx * scale) * math.sin(angle) + (y - cy * scale) * math.cos(angle)
        image += value * ((u / (a * scale)) ** 2 + (v / (b * scale)) ** 2 <= 1)
    return image.reshape(n, finer, n, finer).mean((1, 3))


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


@pytest.mark.parametrize(("n", "limit"), [(256, 0.014), (512, 0.0075)])
@pytest.mark.parametrize("kind", ["parallel", "fan", "curved"])
def test_ellipses(n: int, limit: float, kind: str) -> None:
    pixel = 300.0 / n
    geometry: Beam = ParallelBeam(np.arange(12) * math.pi / 12 + 0.05, n + n // 2 - 1, pixel)
    if kind != "parallel":
        geometry = FanBeam(np.arange(12) * TURN / 12 + 0.05, n + n // 2, pixel * 1.8, 595.0, 1085.6, kind == "curved")
    image = ellipse_image(n, pixel, ELLIPSES, 150.0, 3)
    got = CT(geometry, (n, n), pixel)(image.float())
    assert relative(got.double(), ellipse_integrals(geometry, ELLIPSES, 150.0)) < limit


def test_disc_on_every_side() -> None:
    """A disc off the centre: 2 sqrt(r^2 - s^2), at the right place and the right way up."""
    geometry = ParallelBeam([0.0, math.pi / 2, 0.7], 129, 1.0)
    image = ellipse_image(320, 0.4, [(1.0, 20.0, 8.0, 30.0, 30.0, 0.0)], 1.0)
    got = CT(geometry, (320, 320), 0.4).to(torch.float64)(image)
    for t, row in zip(geometry.angles, got, strict=True):
        s = geometry.coordinates() - (20 * math.cos(t) + 8 * math.sin(t))
        assert relative(row, 2 * (900 - s**2).clamp_min(0).sqrt()) < 0.015
        assert float((row * geometry.coordinates()).sum() / row.sum()) == pytest.approx(
            20 * math.cos(t) + 8 * math.sin(t), abs=0.02
        )


def test_distant_source_is_parallel() -> None:
    angles, distance = np.arange(7) * 0.9, 1e7
    image = ellipse_image(32, 1.0, ELLIPSES, 16.0)
    fan = CT(FanBeam(angles, 41, 2.0, distance, 2 * distance), (32, 32), 1.0)(image.float())
    parallel = CT(ParallelBeam(angles, 41, 1.0), (32, 32), 1.0)(image.float())
    assert relative(fan, parallel) < 1e-4


def test_curved_and_flat_see_the_same_ray() -> None:
    flat, curved = (FanBeam([0.4, 2.0], 61, 1.7, 50.0, 90.0, curved=c) for c in (False, True))
    gamma = curved.fan_angles()
    index = flat.to_index(90.0 * torch.tan(gamma))
    for angle in range(2):
        source, direction = (r[angle] for r in curved.rays())
        on_ray = source + 70.0 * direction
        torch.testing.assert_close(flat.detector_index(angle, *on_ray.T), index)
        torch.testing.assert_close(curved.detector_index(angle, *on_ray.T), torch.arange(61.0, dtype=torch.float64))


@pytest.mark.parametrize("curved", [False, True])
def test_detector_offset_shifts_the_sinogram(curved: bool) -> None:
    image = torch.rand(24, 24, generator=torch.Generator().manual_seed(0))
    arguments = (np.arange(5) * 1.1, 51, 1.5, 60.0, 100.0, curved)
    still, moved = FanBeam(*arguments), FanBeam(*arguments, detector_offset=3.0)
    a, b = CT(still, (24, 24), 1.0)(image), CT(moved, (24, 24), 1.0)(image)
    torch.testing.assert_close(b[:, :-2], a[:, 2:], rtol=1e-5, atol=1e-4)


def test_centre_shift_moves_the_image() -> None:
    image = torch.zeros(24, 24)
    image[8:14, 9:15] = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    angles = np.arange(6) * 0.5
    plain = CT(ParallelBeam(angles, 31, 1.0), (24, 24), 1.0)(image)
    shifted = CT(ParallelBeam(angles, 31, 1.0, center_shift=(2.0, -1.0)), (24, 24), 1.0)(image.roll((2, -1), (0, 1)))
    torch.testing.assert_close(shifted, plain, rtol=1e-5, atol=1e-5)


def test_flying_focal_spot_is_a_turned_source() -> None:
    """The source of projection i is where a scanner turned by the offset has it; the detector stays."""
    angles, offset = np.array([0.3, 1.4]), np.array([0.02, -0.01])
    arguments = (33, 1.9, 40.0, 75.0, True)
    spot = FanBeam(angles, *arguments, source_angle_offset=offset, source_radius_offset=[1.0, -0.5])
    turned = FanBeam(angles + offset, *arguments)
    still = FanBeam(angles, *arguments)
    scale = torch.tensor([41.0, 39.5], dtype=torch.float64)[:, None] / 40.0
    torch.testing.assert_close(spot.rays()[0][:, 0], turned.rays()[0][:, 0] * scale)
    detector = still.rays()[0] + 75.0 * still.rays()[1]
    for angle in range(2):
        index = spot.detector_index(angle, *detector[angle].T)
        torch.testing.assert_close(index, torch.arange(33.0, dtype=torch.float64))
    through = spot.rays()[0] + 50.0 * spot.rays()[1]
    for angle in range(2):
        index = spot.detector_index(angle, *through[angle].T)
        torch.testing.assert_close(index, torch.arange(33.0, dtype=torch.float64))


def test_geometries_are_values() -> None:
    a = ParallelBeam(np.array([0.0, 1.0]), 5, 1)
    b = ParallelBeam(torch.tensor([0.0, 1.0]), 5, 1.0)
    assert a == b and hash(a) == hash(b) and a.shape == (2, 5)
    with pytest.raises(AttributeError):
        a.det_count = 7  # type: ignore[misc]


BAD = {
    "no detectors": lambda: ParallelBeam([0.0], 0, 1.0),
    "half a detector": lambda: ParallelBeam([0.0], 2.5, 1.0),  # type: ignore[arg-type]
    "no angle": lambda: ParallelBeam([], 5, 1.0),
    "NaN angle": lambda: ParallelBeam([0.0, math.nan], 5, 1.0),
    "text": lambda: ParallelBeam(["a"], 5, 1.0),  # type: ignore[list-item]
    "angles of two axes": lambda: ParallelBeam(np.zeros((2, 2)), 5, 1.0),
    "negative spacing": lambda: ParallelBeam([0.0], 5, -1.0),
    "infinite offset": lambda: ParallelBeam([0.0], 5, 1.0, detector_offset=math.inf),
    "three shifts": lambda: ParallelBeam([0.0], 5, 1.0, center_shift=(1.0, 2.0, 3.0)),  # type: ignore[arg-type]
    "no source distance": lambda: FanBeam([0.0], 5, 1.0, 0.0, 10.0),
    "detector before the centre": lambda: FanBeam([0.0], 5, 1.0, 20.0, 10.0),
    "arc too long": lambda: FanBeam([0.0], 500, 1.0, 20.0, 30.0, curved=True),
    "too few offsets": lambda: FanBeam([0.0, 1.0, 2.0], 5, 1.0, 20.0, 30.0, source_angle_offset=[0.1, 0.2]),
    "source in the centre": lambda: FanBeam([0.0], 5, 1.0, 20.0, 30.0, source_radius_offset=-20.0),
    "source in the image": lambda: CT(FanBeam([0.0], 5, 1.0, 20.0, 30.0), (64, 64), 1.0),
    "image of one axis": lambda: CT(ParallelBeam([0.0], 5, 1.0), (64,), 1.0),  # type: ignore[arg-type]
    "empty image": lambda: CT(ParallelBeam([0.0], 5, 1.0), (0, 4), 1.0),
    "pixel size": lambda: CT(ParallelBeam([0.0], 5, 1.0), (4, 4), math.nan),
    "unknown engine": lambda: CT(ParallelBeam([0.0], 5, 1.0), (4, 4), 1.0, engine="fast"),
    "no geometry": lambda: CT("parallel", (4, 4), 1.0),  # type: ignore[arg-type]
    "wrong image": lambda: CT(ParallelBeam([0.0], 5, 1.0), (4, 4), 1.0)(torch.ones(4, 5)),
    "complex image": lambda: CT(ParallelBeam([0.0], 5, 1.0), (4, 4), 1.0)(torch.ones(4, 4) + 0j),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    with pytest.raises(InputError) as caught:
        BAD[name]()
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20


def test_shape_errors_are_shape_errors() -> None:
    with pytest.raises(ShapeError, match=r"y=4, x=4"):
        CT(ParallelBeam([0.0], 5, 1.0), (4, 4), 1.0)(torch.ones(4, 5))


def test_radon_has_the_known_names_and_units() -> None:
    angles = np.arange(90) * math.pi / 90
    radon = Radon(64, angles, det_count=95, clip_to_circle=True)
    x = ellipse_image(64, 1.0, [(1.0, 0.2, 0.1, 0.4, 0.3, 0.5)], 32.0).float()
    y = radon.forward(x)
    assert y.shape == (90, 95)
    z = torch.rand(y.shape, generator=torch.Generator().manual_seed(0))
    assert float((y * z).sum()) == pytest.approx(float((x * radon.backward(z)).sum()), rel=1e-5)
    torch.testing.assert_close(radon.backward(z), radon.backprojection(z))
    for spacing, name in ((1.0, "ramp"), (0.7, "hann"), (1.4, "ram-lak")):
        other = Radon(64, angles, det_count=141, det_spacing=spacing)
        again = other.backprojection(other.filter_sinogram(other.forward(x), name))
        assert float(again[x > 0.99].mean()) == pytest.approx(1.0, abs=0.03)  # windows blur the edge
    with pytest.raises(InputError, match="shepp-logan"):
        radon.filter_sinogram(y, "sharp")
    fan = RadonFanbeam(64, angles, 128.0)
    assert fan.det_spacing == 2.0 and fan.forward(x[None]).shape == (1, 90, 64)
