"""Cartesian MRI against its definition; the laws are in test_laws.py."""

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import (
    CartesianMRI,
    CenteredFFT,
    CoilMaps,
    InputError,
    Sampling,
    ShapeError,
    Space,
    conjugate_gradient,
    fftc,
    make_mask,
)
from operators.mri import cartesian as module
from operators.mri import gram


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _mask(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.5


@pytest.mark.parametrize("image", [(6, 8), (7, 8), (5, 7), (1, 9), (4, 6, 8), (3, 4, 5), (2, 6, 7)])
@pytest.mark.parametrize("maps", [0, 1, 2])
def test_is_its_definition(image: tuple[int, ...], maps: int) -> None:
    axes = tuple(range(-len(image), 0))
    mask = _mask(*image)
    if maps == 0:
        operator, x = CartesianMRI(mask, shape=image), _random(2, *image)
        expected = mask * fftc(x, axes)
    else:
        coil_maps, x = _random(maps, 3, *image), _random(2, maps, *image, seed=1)
        operator = CartesianMRI(mask, coil_maps if maps > 1 else coil_maps[0])
        expected = mask * fftc(torch.einsum("bm...,mc...->bc...", x, coil_maps), axes)
        x = x if maps > 1 else x[:, 0]
    assert operator.domain.shape == tuple(x.shape[1:])
    assert operator.codomain.shape == tuple(expected.shape[1:])
    torch.testing.assert_close(operator(x), expected)
    assert torch.equal(operator(x) == 0, (expected == 0) | ~mask.expand(expected.shape))


@pytest.mark.parametrize("image", [(6, 8), (7, 8), (1, 9), (4, 6, 8), (3, 4, 5)])
@pytest.mark.parametrize("maps", [0, 1, 2])
@pytest.mark.parametrize("columns", [False, True])
def test_is_the_composition_of_its_factors(image: tuple[int, ...], maps: int, columns: bool) -> None:
    ndim, mask = len(image), _mask(*(1,) * (len(image) - 1), image[-1]) if columns else _mask(*image)
    if maps == 0:
        space = Space(image, torch.complex128)
        fused = CartesianMRI(mask, shape=image)
        parts = Sampling(mask, space) @ CenteredFFT(space, ndim)
    else:
        coil_maps = _random(*((maps,) if maps > 1 else ()), 3, *image)
        space = Space((3, *image), torch.complex128)
        fused = CartesianMRI(mask, coil_maps, shape=image)
        parts = Sampling(mask, space) @ CenteredFFT(space, ndim) @ CoilMaps(coil_maps, ndim)
    assert parts.domain.shape == fused.domain.shape and parts.codomain.shape == fused.codomain.shape
    assert parts.n_data == fused.n_data
    x, y = _random(2, *fused.domain.shape), _random(2, *space.shape, seed=1)
    for mine, theirs in ((parts(x), fused(x)), (parts.H(y), fused.H(y)), (parts.normal(x), fused.normal(x))):
        assert mine.dtype == torch.complex128
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_factors_refuse_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="Sampling expected a mask that broadcasts"):
        Sampling(_mask(6, 7), (3, 6, 8))
    with pytest.raises(InputError, match="Sampling expected a mask of zeros and ones"):
        Sampling(torch.full((6, 8), 2), (6, 8))
    with pytest.raises(InputError, match="CoilMaps expected complex"):
        CoilMaps(torch.ones(3, 6, 8))
    with pytest.raises(ShapeError, match="CoilMaps expected"):
        CoilMaps(_random(3, 6, 8), ndim=3)
    with pytest.raises(InputError, match="not finite"):
        CoilMaps(_random(3, 6, 8) * float("nan"))


def test_counts_what_was_measured_through_products_and_factors() -> None:
    operator = CartesianMRI(_mask(6, 8), _random(3, 6, 8))
    measured = 3 * int(_mask(6, 8).sum())
    assert (2.0 * operator @ CoilMaps(_random(1, 6, 8)).H).n_data == operator.n_data == measured


def test_the_map_does_not_change_when_its_shortcut_is_built() -> None:
    operator = CartesianMRI(_mask(1, 8), _random(6, 6, 8))
    many = _random(40, 6, 8, seed=1)
    before, adjoint = operator.H(operator(many)), operator.to(torch.complex64)
    assert gram.pays(operator.coil_maps, -1, len(many))
    torch.testing.assert_close(operator.normal(many), before)
    moved = operator.to(torch.complex64)  # with the shortcut, and a copy made before without
    narrow = many.to(torch.complex64)
    torch.testing.assert_close(moved.normal(narrow), adjoint.normal(narrow))
    torch.testing.assert_close(operator.H(operator(many)), before, rtol=0, atol=0)


def test_what_is_kept_to_save_time_can_be_freed() -> None:
    lines = CartesianMRI(_mask(1, 8), _random(6, 6, 8))
    many, whole = _random(40, 6, 8, seed=1), 2.0 * lines @ CoilMaps(_random(1, 6, 8)).H
    before = lines.normal(many)
    kept = weakref.ref(lines._lines)
    whole.free()
    assert kept() is None
    torch.testing.assert_close(lines.normal(many), before)
    assert "_lines" not in vars(lines)  # nor are they computed again


@pytest.mark.parametrize("kind", ["columns", "rows", "full", "empty"])
@pytest.mark.parametrize("image", [(6, 8), (7, 9), (4, 6, 8)])
def test_fused_normal_is_the_generic_one(kind: str, image: tuple[int, ...]) -> None:
    ones = torch.ones(image, dtype=torch.bool)
    mask = {
        "columns": _mask(*(1,) * (len(image) - 1), image[-1]),
        "rows": _mask(image[-2], 1),
        "full": ones,
        "empty": ~ones,
    }[kind]
    operator, x = CartesianMRI(mask, _random(3, *image), shape=image), _random(2, *image, seed=1)
    assert len(operator._normal_axes) == {"columns": 1, "rows": 1, "full": 0, "empty": 0}[kind]
    torch.testing.assert_close(operator.normal(x), operator.H(operator(x)))


def test_full_sampling_with_normalised_maps_is_unitary() -> None:
    coil_maps = _random(4, 6, 8)
    coil_maps = coil_maps / torch.linalg.vector_norm(coil_maps, dim=0)
    operator, x = CartesianMRI(torch.ones(1, 1), coil_maps), _random(6, 8, seed=1)
    torch.testing.assert_close(operator.normal(x), x)
    torch.testing.assert_close(operator.H(operator(x)), x)


def test_empty_mask_is_the_zero_operator() -> None:
    operator = CartesianMRI(torch.zeros(6, 8), _random(2, 6, 8))
    assert not operator(_random(6, 8)).any()
    assert not operator.H(_random(2, 6, 8)).any()
    assert not operator.normal(_random(6, 8)).any()


def test_unsampled_data_do_not_count() -> None:
    operator, y = CartesianMRI(_mask(6, 8), _random(2, 6, 8)), _random(2, 6, 8, seed=1)
    torch.testing.assert_close(operator.H(y), operator.H(y * operator.mask))


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, x, y = CartesianMRI(_mask(6, 8), _random(5, 6, 8)), _random(3, 6, 8), _random(3, 5, 6, 8)
    results = []
    for room in (1, 100, 200, 10**6):
        monkeypatch.setattr(module, "_CPU_CHUNK", room)
        results.append((operator(x), operator.H(y), operator.normal(x)))
    for result in results[1:]:
        for first, other in zip(results[0], result, strict=True):
            torch.testing.assert_close(first, other)


def test_takes_arrays_of_any_memory_layout() -> None:
    coil_maps = np.asfortranarray(_random(3, 6, 8).numpy())
    mask = np.asfortranarray(_mask(6, 8).numpy())
    operator = CartesianMRI(mask, torch.from_numpy(coil_maps).mT.contiguous().mT)
    x = _random(8, 6).mT
    expected = CartesianMRI(_mask(6, 8), _random(3, 6, 8))(x.contiguous())
    torch.testing.assert_close(operator(x), expected)
    torch.testing.assert_close(operator.normal(x.conj().conj()), operator.normal(x.contiguous()))
    torch.testing.assert_close(operator(x.conj()), operator(x.conj().resolve_conj()))


def test_precision_follows_maps_and_input() -> None:
    operator = CartesianMRI(_mask(6, 8), _random(2, 6, 8, dtype=torch.complex64))
    assert operator.domain.dtype is torch.complex64
    assert operator(_random(6, 8, dtype=torch.complex64)).dtype is torch.complex64
    assert operator(_random(6, 8)).dtype is torch.complex128
    assert operator.to(torch.float64)(_random(6, 8)).dtype is torch.complex128


def test_sense_reconstruction_recovers_the_image() -> None:
    coil_maps = _random(6, 16, 16)
    coil_maps = coil_maps / torch.linalg.vector_norm(coil_maps, dim=0)
    operator = CartesianMRI(make_mask((16, 16), "equispaced", 2, 0.0), coil_maps)
    image = _random(16, 16, seed=1)
    x = conjugate_gradient(operator.H @ operator, operator.H(operator(image)), iterations=60).x
    torch.testing.assert_close(x, image, rtol=1e-6, atol=1e-6)


def test_shape_decides_between_maps_and_depth() -> None:
    maps = _random(2, 4, 6, 8)
    assert CartesianMRI(_mask(6, 8), maps).domain.axes == "map y x"
    assert CartesianMRI(_mask(1, 6, 8), maps).domain.axes == "z y x"
    assert CartesianMRI(_mask(6, 8), maps, shape=(4, 6, 8)).domain.axes == "z y x"
    assert CartesianMRI(_mask(8), maps, shape=(6, 8)).domain.axes == "map y x"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": torch.full((6, 8), 0.5)}, "zeros and ones"),
        ({"mask": torch.full((6, 8), float("nan"))}, "zeros and ones"),
        ({"mask": torch.tensor(True)}, "broadcasts"),
        ({"mask": torch.ones(0, 8)}, "broadcasts"),
        ({"mask": torch.ones(1, 8)}, "give shape="),
        ({"mask": torch.ones(6, 8), "shape": (6, 9)}, "broadcasts to"),
        ({"mask": torch.ones(6, 8), "shape": (8,)}, "2 or 3 axes"),
        ({"mask": torch.ones(6, 8), "coil_maps": torch.ones(3, 6, 8)}, "complex coil_maps"),
        ({"mask": torch.ones(6, 8), "coil_maps": torch.ones(6, 8) + 0j}, "coil, y, x"),
        ({"mask": torch.ones(6, 8), "coil_maps": torch.ones(0, 6, 8) + 0j}, "coil, y, x"),
        ({"mask": torch.ones(6, 8), "coil_maps": torch.ones(3, 6, 9) + 0j}, "broadcasts to"),
        ({"mask": torch.ones(6, 8), "coil_maps": torch.ones(3, 6, 8) + 0j, "shape": (6, 9)}, "coil_maps"),
        ({"mask": torch.ones(6, 8), "coil_maps": torch.full((3, 6, 8), float("inf")) + 0j}, "not finite"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises((InputError, ShapeError), match=message):
        CartesianMRI(**arguments)


def test_data_of_another_coil_number_are_refused() -> None:
    operator = CartesianMRI(_mask(6, 8), _random(3, 6, 8))
    with pytest.raises(ShapeError, match="coil=3, y=6, x=8"):
        operator.H(_random(4, 6, 8))
    with pytest.raises(ShapeError, match="y=6, x=8"):
        operator(_random(8, 6))


def test_zero_maps_give_zero() -> None:
    operator = CartesianMRI(_mask(6, 8), torch.zeros(3, 6, 8, dtype=torch.complex64))
    assert not operator(_random(6, 8)).any()
