"""CT operators: laws, the adjoint as a vector, and the engines against each other and against plain loops."""

import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from operators import CT, FanBeam, Identity, InputError, ParallelBeam, check_operator, conjugate_gradient, gaussian_draw
from operators.ct.geometry import Beam
from operators.ct.projectors import cache, joseph, matrix, sparse, symmetry, turns
from operators.ct.projectors.triton import emulate_gather

TURN = 2 * math.pi
GEOMETRIES: dict[str, Beam] = {
    "parallel": ParallelBeam(np.arange(12) * math.pi / 12, 25, 1.1),
    "parallel, any angles, offset": ParallelBeam([0.1, 2.9, 0.7, -5.0, 0.1], 14, 1.7, detector_offset=0.6),
    "parallel, shifted centre": ParallelBeam(np.arange(8) * math.pi / 8, 25, 1.0, center_shift=(0.5, -0.25)),
    "one ray": ParallelBeam([0.3], 1, 1.0),
    "fan": FanBeam(np.arange(16) * TURN / 16, 27, 1.9, 40.0, 75.0),
    "fan, wide": FanBeam(np.arange(5) * TURN / 5, 61, 1.9, 18.0, 30.0),
    "curved": FanBeam(np.arange(16) * TURN / 16, 27, 1.9, 40.0, 75.0, curved=True),
    "flying focal spot": FanBeam(
        *(np.arange(6) * TURN / 6, 27, 1.9, 40.0, 75.0, True, 0.4),
        source_angle_offset=[0.02, -0.02] * 3,
        source_radius_offset=[1.0, 0.0, -1.0] * 2,
    ),
}
SHAPES = [(16, 16), (12, 17), (1, 9)]
ENGINES = ["sparse", "onthefly"]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_CACHE", "off")


def plain_matrix(geometry: Beam, shape: tuple[int, int], pixel: float) -> Tensor:
    """Joseph's weights (ray, pixel): a hat function over every pixel of every ray, as plainly as possible."""
    points, directions = geometry.rays()
    ny, nx = shape
    sy, sx = geometry.image_shift
    weights = np.zeros((math.prod(geometry.shape), ny, nx))
    rows, columns = np.arange(ny)[:, None], np.arange(nx)
    for ray, p, d in zip(weights, points.reshape(-1, 2).tolist(), directions.reshape(-1, 2).tolist(), strict=True):
        column, row = p[0] / pixel + (nx - 1) / 2 + sx, (ny - 1) / 2 + sy - p[1] / pixel
        if abs(d[1]) >= abs(d[0]):
            place = column - (rows - row) * d[0] / d[1]
            ray[:] = np.maximum(1 - np.abs(columns - place), 0) * pixel / abs(d[1])
        else:
            place = row - (columns - column) * d[1] / d[0]
            ray[:] = np.maximum(1 - np.abs(rows - place), 0) * pixel / abs(d[0])
    return torch.from_numpy(weights).flatten(1)


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b).detach() / torch.linalg.vector_norm(b).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_laws(name: str, engine: str, dtype: torch.dtype) -> None:
    for shape in SHAPES[:2]:
        check_operator(CT(GEOMETRIES[name], shape, 0.9, engine), dtype=dtype, trials=2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_forward_and_whole_adjoint_equal_plain_loops(name: str, shape: tuple[int, int]) -> None:
    geometry, generator = GEOMETRIES[name], torch.Generator().manual_seed(1)
    x = torch.rand(shape, dtype=torch.float64, generator=generator)
    y = torch.randn(geometry.shape, dtype=torch.float64, generator=generator)
    plain = plain_matrix(geometry, shape, 0.9)
    expected = (plain @ x.flatten()).reshape(geometry.shape)
    expected_adjoint = (plain.T @ y.flatten()).reshape(shape)
    for engine in ENGINES:
        operator = CT(geometry, shape, 0.9, engine).to(torch.float64)
        assert relative(operator(x), expected) < 1e-6
        assert relative(operator.H(y), expected_adjoint) < 1e-6
    gathered = torch.from_numpy(emulate_gather(joseph.make_lines(geometry, shape, 0.9), y.numpy().reshape(-1), shape))
    assert relative(gathered, expected_adjoint) < 1e-10


def test_batches_on_both_sides_of_the_switch_of_kernels() -> None:
    operator = CT(GEOMETRIES["fan"], (16, 16), 0.9, "sparse")
    x = torch.rand(40, 16, 16, generator=torch.Generator().manual_seed(0))
    single = torch.stack([operator(item) for item in x])
    torch.testing.assert_close(operator(x), single, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.H(single), torch.stack([operator.H(s) for s in single]), rtol=1e-5, atol=1e-4)
    assert operator(x[:0]).shape == (0, 16, 27)


def test_symmetry_is_found_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fan = FanBeam(np.arange(36) * TURN / 36, 27, 1.9, 40.0, 75.0)
    parallel, shifted = (ParallelBeam(np.arange(36) * math.pi / 36, 25, 1.1, center_shift=c) for c in (0.0, 0.5))
    cases = [(fan, (16, 16), 8), (fan, (12, 17), 4), (parallel, (16, 16), 4), (parallel, (12, 17), 4)]
    cases += [(shifted, (16, 16), 1), (ParallelBeam([0.1, 0.5], 25, 1.1), (16, 16), 2)]
    x = torch.rand(3, 17, 17, generator=torch.Generator().manual_seed(0))
    for geometry, shape, count in cases:
        operator = CT(geometry, shape, 0.9, "sparse")
        assert operator.projector.turns == count
        with monkeypatch.context() as patch:
            rays = [v.reshape(-1, 2) for v in joseph.pixel_rays(geometry, shape, 0.9)]
            whole = symmetry.Orbits(*rays, torch.arange(math.prod(shape))[:, None], torch.arange(len(rays[0])))
            patch.setattr(sparse, "find_orbits", lambda *_, found=whole: found)
            plain = CT(geometry, shape, 0.9, "sparse")
        assert plain.projector.turns == 1
        if count > 1:
            assert operator.projector.nbytes < 1.4 * plain.projector.nbytes / count
        image = x[:, : shape[0], : shape[1]]
        assert relative(operator(image), plain(image)) < 1e-6
        assert relative(operator.H(plain(image)), plain.H(plain(image))) < 1e-6


def test_one_image_is_turned_as_many_are() -> None:
    """One image goes by views of it, a batch by its pixels."""
    generator = torch.Generator().manual_seed(0)
    for geometry, shape in (("fan", (16, 16)), ("fan", (12, 17)), ("parallel", (1, 9)), ("parallel", (16, 16))):
        operator = CT(GEOMETRIES[geometry], shape, 0.9, "sparse").to(torch.float64)
        assert operator.projector._kinds is not None
        x = torch.rand(2, *shape, dtype=torch.float64, generator=generator)
        y = torch.rand(2, *GEOMETRIES[geometry].shape, dtype=torch.float64, generator=generator)
        torch.testing.assert_close(operator(x[:1]), operator(x)[:1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(operator.H(y[0]), operator.H(y)[0], rtol=1e-12, atol=1e-12)
    scrambled = torch.tensor([[0], [2], [1], [3]])
    assert turns.recognise(scrambled, (2, 2)) == (4,) and turns.recognise(scrambled, (1, 4)) is None
    assert turns.recognise(torch.tensor([[1], [0], [2], [3]]), (2, 2)) is None


@pytest.mark.parametrize("name", GEOMETRIES)
def test_stored_transpose_is_the_transpose(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "_BAND", 48)  # several bands
    for shape in SHAPES:
        projector = sparse.SparseProjector(GEOMETRIES[name], shape, 0.9)
        rays, pixels = projector._matrix[0].numel() - 1, math.prod(shape)
        stored = scipy.sparse.csr_matrix(tuple(v.numpy() for v in projector._matrix[::-1]), (rays, pixels))
        expected = stored.tocsc()
        for got, name_ in zip(projector._transposed, ("indptr", "indices", "data"), strict=True):
            assert np.array_equal(got.numpy(), getattr(expected, name_))


def test_auto_keeps_to_the_memory_limit() -> None:
    geometry = GEOMETRIES["parallel"]
    assert isinstance(CT(geometry, (16, 16), 1.0).projector, sparse.SparseProjector)
    assert not isinstance(CT(geometry, (16, 16), 1.0, max_bytes=1000).projector, sparse.SparseProjector)
    with pytest.raises(InputError, match="onthefly"):
        sparse.SparseProjector(geometry, (16, 16), 1.0, max_bytes=1000)


def test_cache_returns_the_same_matrix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "matrices"))
    monkeypatch.setattr(cache, "LEAST", 0)
    geometry = GEOMETRIES["fan"]
    built = sparse.SparseProjector(geometry, (16, 16), 0.9)
    (file,) = (tmp_path / "matrices").iterdir()
    assert file.suffix == ".npz"
    with monkeypatch.context() as patch:
        patch.setattr(sparse, "build", lambda *_: pytest.fail("the matrix was built again"))
        read = sparse.SparseProjector(geometry, (16, 16), 0.9)
        with pytest.raises(pytest.fail.Exception):
            sparse.SparseProjector(geometry, (16, 16), 0.8)
    for a, b in zip((*built._matrix, *built._transposed), (*read._matrix, *read._transposed), strict=True):
        assert torch.equal(a, b)
    file.write_bytes(file.read_bytes()[:-200])
    again = sparse.SparseProjector(geometry, (16, 16), 0.9)
    assert torch.equal(again._matrix[2], built._matrix[2])
    arrays = cache.load(file.stem)
    assert arrays is not None
    arrays["columns"][3] = 999
    np.savez(file, **arrays)  # type: ignore[arg-type]
    again = sparse.SparseProjector(geometry, (16, 16), 0.9)
    assert torch.equal(again._matrix[1], built._matrix[1])


def test_a_cache_that_cannot_be_written_is_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(cache, "LEAST", 0)
    x = torch.ones(16, 16)
    operator = sparse.SparseProjector(GEOMETRIES["fan"], (16, 16), 0.9)
    assert bool(operator(x).any())


def test_old_matrices_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "LEAST", 0)
    monkeypatch.setattr(cache, "LIMIT", 3000)
    for key in "abc":
        cache.save(key, {"x": np.zeros(1000, np.uint8)})
    assert cache.load("c") is not None and len(list(tmp_path.iterdir())) == 2


class _Unmatched(Identity):
    exact_adjoint = False

    def _adjoint(self, y: Tensor) -> Tensor:
        return 0.9 * y

    def _normal(self, x: Tensor) -> Tensor:
        return 0.9 * x


def test_solvers_refuse_an_inexact_adjoint() -> None:
    operator = _Unmatched((4, 4))
    check_operator(operator)
    b = torch.ones(4, 4, dtype=torch.complex64)
    for solve in (operator, operator.H @ operator, operator + Identity((4, 4)), 2.0 * operator):
        with pytest.raises(InputError, match="exact adjoint"):
            conjugate_gradient(solve, b)
    with pytest.raises(InputError, match="exact adjoint"):
        gaussian_draw(operator, b, 1.0, 1.0, data_noise=b, prior_noise=b)


def test_torch_radon_gets_pixels_and_is_marked_inexact(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, tuple] = {}

    def record(name: str):
        def make(*arguments: object, **named: object) -> types.SimpleNamespace:
            made[name] = (arguments, named)
            return types.SimpleNamespace(forward=lambda x: x, backward=lambda y: y)

        return make

    upstream = types.SimpleNamespace(Radon=record("Radon"), RadonFanbeam=record("RadonFanbeam"))
    monkeypatch.setitem(sys.modules, "torch_radon", upstream)
    fan = FanBeam([0.0, 1.0], 9, 3.0, 40.0, 100.0)
    operator = CT(fan, (8, 8), 2.0, engine="torch_radon")
    assert not operator.exact_adjoint and not (operator.H @ operator).exact_adjoint
    arguments, named = made["RadonFanbeam"]
    assert (arguments[0], arguments[2], arguments[3]) == (8, 20.0, 30.0)
    assert named == {"det_count": 9, "det_spacing": 1.5}
    with pytest.raises(InputError, match="GPU"):
        operator(torch.ones(8, 8))
    with pytest.raises(InputError, match="without shifts"):
        CT(ParallelBeam([0.0], 9, 1.0, detector_offset=1.0), (8, 8), 1.0, engine="torch_radon")


@pytest.mark.parametrize(("engine", "library"), [("torch_radon", "torch_radon"), ("astra", "astra")])
def test_missing_libraries_are_named(engine: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=library):
        CT(GEOMETRIES["parallel"], (16, 16), 1.0, engine=engine)
