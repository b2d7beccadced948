"""Cone beam: laws, plain loops, a ball in closed form, the fan in its middle."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import CT, ConeBeam, ConeCT, FanBeam, InputError, ShapeError, check_operator, conjugate_gradient

TURN = 2 * math.pi
BEAM = ConeBeam(np.arange(5) * TURN / 5 + 0.1, (6, 7), (2.5, 2.0), 30.0, 55.0, detector_offset=(0.7, -0.4))
SHAPE, SIZE = (5, 8, 6), (1.3, 0.9)


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b).detach() / torch.linalg.vector_norm(b).detach())


def loops(beam: ConeBeam, volume: Tensor, size: tuple[float, float]) -> Tensor:
    """Joseph's sum with hats over every voxel, as plainly as possible; autograd follows it."""
    (nz, ny, nx), out = volume.shape, []
    sources, directions = (v.reshape(-1, 3).tolist() for v in beam.rays())
    hat = lambda n, place: (1 - (torch.arange(n, dtype=volume.dtype) - place).abs()).clamp_min(0)  # noqa: E731
    for (px, py, pz), (dx, dy, dz) in zip(sources, directions, strict=True):
        total = volume.new_zeros(())
        if abs(dy) >= abs(dx):
            for row in range(ny):
                t = (((ny - 1) / 2 - row) * size[1] - py) / dy
                column, level = (px + t * dx) / size[1] + (nx - 1) / 2, (pz + t * dz) / size[0] + (nz - 1) / 2
                total = total + hat(nz, level) @ volume[:, row] @ hat(nx, column) * size[1] / abs(dy)
        else:
            for column in range(nx):
                t = ((column - (nx - 1) / 2) * size[1] - px) / dx
                row, level = (ny - 1) / 2 - (py + t * dy) / size[1], (pz + t * dz) / size[0] + (nz - 1) / 2
                total = total + hat(nz, level) @ volume[:, :, column] @ hat(ny, row) * size[1] / abs(dx)
        out.append(total)
    return torch.stack(out).reshape(beam.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_laws(dtype: torch.dtype) -> None:
    check_operator(ConeCT(BEAM, SHAPE, SIZE), dtype=dtype, trials=2)


def test_forward_and_whole_adjoint_equal_plain_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(SHAPE, dtype=torch.float64, generator=generator).requires_grad_()
    y = torch.randn(BEAM.shape, dtype=torch.float64, generator=generator)
    expected = loops(BEAM, x, SIZE)
    (expected_adjoint,) = torch.autograd.grad(expected, x, y)
    operator = ConeCT(BEAM, SHAPE, SIZE).to(torch.float64)
    assert relative(operator(x.detach()), expected) < 1e-6
    assert relative(operator.H(y), expected_adjoint) < 1e-6


def test_the_middle_of_a_cone_is_a_fan() -> None:
    angles = np.arange(9) * TURN / 9
    cone = ConeCT(ConeBeam(angles, (1, 31), (1.0, 1.5), 60.0, 100.0, (0.0, 0.4)), (1, 24, 20), 1.1)
    fan = CT(FanBeam(angles, 31, 1.5, 60.0, 100.0, detector_offset=0.4), (24, 20), 1.1, "onthefly")
    x = torch.rand(24, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cone(x[None])[:, 0], fan(x), rtol=1e-5, atol=1e-4)


def test_ball() -> None:
    """A ball off the centre: 2 sqrt(r^2 - distance^2), at the right place and the right way up."""
    n, finer, size = 72, 2, 0.5
    centre, radius = torch.tensor([5.0, 3.0, -4.0], dtype=torch.float64), 9.0
    index = ((torch.arange(n * finer, dtype=torch.float64) + 0.5) / finer - n / 2) * size
    z, y, x = index[:, None, None], -index[:, None], index
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2
    volume = inside.double().reshape(n, finer, n, finer, n, finer).mean((1, 3, 5))
    beam = ConeBeam([0.0, 0.9, 2.2, 4.5], (40, 40), 1.8, 70.0, 120.0)
    got = ConeCT(beam, (n, n, n), size)(volume.float()).double()
    source, direction = beam.rays()
    to_centre = centre - source
    along = (to_centre * direction).sum(-1)
    distance2 = to_centre.square().sum(-1) - along.square()
    assert relative(got, 2 * (radius**2 - distance2).clamp_min(0).sqrt()) < 0.03


def test_a_volume_comes_back() -> None:
    beam = ConeBeam(np.arange(24) * TURN / 24, (14, 18), 1.6, 40.0, 64.0)
    operator = ConeCT(beam, (8, 12, 12), 1.0)
    x = torch.zeros(8, 12, 12)
    x[2:6, 3:9, 4:8] = 1.0
    found = conjugate_gradient(operator.normal, operator.H(operator(x)), iterations=40, item_ndim=3).x
    assert relative(found, x) < 0.02


def test_geometries_are_values() -> None:
    other = ConeBeam(torch.tensor(BEAM.angles, dtype=torch.float64), (6, 7), (2.5, 2.0), 30, 55, (0.7, -0.4))
    assert other == BEAM and hash(other) == hash(BEAM) and BEAM.shape == (5, 6, 7)


BAD = {
    "no angle": lambda: ConeBeam([], (2, 2), 1.0, 10.0, 20.0),
    "one count": lambda: ConeBeam([0.0], (2,), 1.0, 10.0, 20.0),  # type: ignore[arg-type]
    "no rows": lambda: ConeBeam([0.0], (0, 2), 1.0, 10.0, 20.0),
    "spacing": lambda: ConeBeam([0.0], (2, 2), (1.0, 0.0), 10.0, 20.0),
    "offset": lambda: ConeBeam([0.0], (2, 2), 1.0, 10.0, 20.0, (0.0, math.nan)),
    "detector before the centre": lambda: ConeBeam([0.0], (2, 2), 1.0, 20.0, 10.0),
    "steep": lambda: ConeBeam([0.0], (50, 2), 1.0, 10.0, 20.0),
    "voxel": lambda: ConeCT(BEAM, SHAPE, 0.0),
    "two axes": lambda: ConeCT(BEAM, (4, 4), 1.0),  # type: ignore[arg-type]
    "source in the volume": lambda: ConeCT(BEAM, (4, 64, 64), 1.0),
    "too large": lambda: ConeCT(BEAM, SHAPE, SIZE, max_bytes=1000),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    with pytest.raises((InputError, ShapeError)) as caught:
        BAD[name]()
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20
