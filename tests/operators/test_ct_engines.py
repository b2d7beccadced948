"""Optional engines against ours: ASTRA where it is installed, Triton where there is a GPU, torch-radon's two APIs."""

import copy
import importlib
import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import CT, FanBeam, InputError, ParallelBeam, check_operator
from operators.ct.geometry import Beam
from operators.ct.projectors import triton
from operators.ct.projectors.onthefly import OnTheFlyProjector
from operators.ct.projectors.sparse import SparseProjector

TURN = 2 * math.pi
PARALLEL = ParallelBeam(np.arange(20) * math.pi / 20 + 0.03, 71, 1.3)
FAN = FanBeam(np.arange(20) * TURN / 20 + 0.03, 75, 2.1, 150.0, 260.0)
CURVED = FanBeam(
    *(np.arange(20) * TURN / 20, 75, 2.1, 150.0, 260.0, True, 0.7),
    source_angle_offset=np.tile([1e-3, -1e-3], 10),
)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_CACHE", "off")


@pytest.fixture
def astra() -> types.ModuleType:
    try:
        return importlib.import_module("astra")
    except ImportError as error:  # also where it misses the libraries of CUDA
        pytest.skip(f"ASTRA is not installed: {error}")


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm((a - b).double()) / torch.linalg.vector_norm(b.double()))


def blobs(ny: int, nx: int, pixel: float) -> Tensor:
    """Two smooth blobs away from the centre and from the corners, different in every direction."""
    y, x = ((n - 1) / 2 - np.arange(n) if k == 0 else np.arange(n) - (n - 1) / 2 for k, n in enumerate((ny, nx)))
    x, y = x * pixel, y[:, None] * pixel
    image = np.exp(-((x - 9) ** 2 + (y - 4) ** 2) / 40) + 0.5 * np.exp(-((x + 6) ** 2 + (y + 11) ** 2) / 60)
    return torch.from_numpy(image.astype(np.float32))


def test_parallel_rays_are_those_of_astra(astra: types.ModuleType) -> None:
    for shape in ((48, 48), (40, 53)):
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        ours, theirs = (CT(PARALLEL, shape, 1.1, engine) for engine in ("sparse", "astra"))
        assert relative(ours(x), theirs(x)) < 1e-4
        y = ours(x)
        assert relative(ours.H(y), theirs.H(y)) < 1e-4
        assert not theirs.exact_adjoint


def test_a_fan_is_that_of_astra(astra: types.ModuleType) -> None:
    """Its weights are others: a smooth image at the right place and the right way round."""
    x = blobs(40, 53, 1.1)
    ours, theirs = (CT(FAN, (40, 53), 1.1, engine)(x) for engine in ("sparse", "astra"))
    assert relative(ours, theirs) < 0.01 < relative(ours.flip(-1), theirs)


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(48, 48), (40, 53), (1, 9)])
@pytest.mark.parametrize("geometry", [PARALLEL, FAN, CURVED], ids=["parallel", "flat", "curved, flying focal spot"])
@pytest.mark.parametrize("engine", ["triton", "sparse", "onthefly"])
def test_engines_on_a_gpu(engine: str, geometry: Beam, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(3, *shape, generator=generator), torch.randn(3, *geometry.shape, generator=generator)
    reference = CT(geometry, shape, 1.1, "onthefly").to(torch.float64)
    operator = CT(geometry, shape, 1.1, engine).to("cuda")
    assert relative(operator(x.cuda()).cpu(), reference(x.double())) < 1e-5
    assert relative(operator.H(y.cuda()).cpu(), reference.H(y.double())) < 1e-5
    check_operator(operator, device="cuda", trials=2)


def test_auto_follows_device_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = CT(PARALLEL, (24, 24), 1.1)
    assert operator.to("cpu")._projector is None  # nothing is built before the device is known
    assert isinstance(operator.projector, SparseProjector)
    assert isinstance(CT(PARALLEL, (24, 24), 1.1, max_bytes=1).projector, OnTheFlyProjector)
    away = copy.copy(operator)
    away._device = torch.device("cuda")
    for present, single, name in ((True, True, "triton"), (True, False, "sparse"), (False, True, "sparse")):
        monkeypatch.setattr(triton, "available", lambda present=present: present)
        away.domain = operator.domain.to(torch.float32 if single else torch.float64)
        assert away._automatic() == name


def test_auto_keeps_its_matrix_in_another_precision() -> None:
    x = torch.rand(2, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide = CT(PARALLEL, (24, 24), 1.1).to(torch.float64)
    assert wide.domain.dtype == torch.float64
    torch.testing.assert_close(wide(x), CT(PARALLEL, (24, 24), 1.1, "sparse").to(torch.float64)(x))
    assert relative(wide.to(torch.float32)(x.float()), wide(x)) < 1e-6


def test_triton_refuses_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "kernels", lambda: None)
    operator = CT(PARALLEL, (24, 24), 1.1, "triton")
    assert operator.to(torch.float32).projector is not None
    with pytest.raises(InputError, match="engine='sparse'"):
        operator.to(torch.float64)


def test_the_fork_of_torch_radon_gets_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and order of the arguments as in conda-forge's carterbox-torch-radon."""
    made: dict[str, dict] = {}

    class Volume2D:
        size = None

        def set_size(self, height: int, width: int) -> None:
            self.size = height, width

    def parallel(det_count, angles, det_spacing=1.0, volume=None):  # type: ignore[no-untyped-def]
        made["ParallelBeam"] = dict(locals())
        return types.SimpleNamespace()

    def fan(det_count, angles, src_dist=None, det_dist=None, det_spacing=None, volume=None):  # type: ignore[no-untyped-def]
        made["FanBeam"] = dict(locals())
        return types.SimpleNamespace()

    fork = types.SimpleNamespace(ParallelBeam=parallel, FanBeam=fan, volumes=types.SimpleNamespace(Volume2D=Volume2D))
    monkeypatch.setitem(sys.modules, "torch_radon", fork)
    for geometry in (PARALLEL, FAN):
        assert not CT(geometry, (48, 48), 0.5, engine="torch_radon").exact_adjoint
    for name, geometry in (("ParallelBeam", PARALLEL), ("FanBeam", FAN)):
        given = made[name]
        assert (given["det_count"], given["volume"].size) == (geometry.det_count, (48, 48))
        assert given["det_spacing"] == pytest.approx(geometry.det_spacing / 0.5)
        torch.testing.assert_close(given["angles"], torch.tensor(geometry.angles, dtype=torch.float32))
    assert (made["FanBeam"]["src_dist"], made["FanBeam"]["det_dist"]) == pytest.approx((300.0, 220.0))
    with pytest.raises(InputError, match="square"):
        CT(PARALLEL, (48, 40), 0.5, engine="torch_radon")
