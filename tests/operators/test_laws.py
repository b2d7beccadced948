"""Every operator obeys the laws, in both precisions; one line adds an operator."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import (
    CT,
    CartesianMRI,
    CenteredFFT,
    CoilMaps,
    Diagonal,
    FanBeam,
    Identity,
    LinearOperator,
    Matrix,
    ParallelBeam,
    Sampling,
    Slices,
    Space,
    check_operator,
)

DTYPES = [torch.float32, torch.float64]


def _maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(7))


def _mask(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(8)) < 0.5


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "identity": lambda: Identity((4, 3)),
    "real identity": lambda: Identity(Space((5,), torch.float64)),
    "diagonal": lambda: Diagonal(_maps(4, 3)),
    "broadcast diagonal": lambda: Diagonal(_maps(3).real, Space((4, 3), torch.complex128)),
    "matrix": lambda: Matrix(_maps(6, 4)),
    "real to complex matrix": lambda: Matrix(_maps(6, 4), domain=Space((2, 2), torch.float64)),
    "complex to real matrix": lambda: Matrix(_maps(6, 4), codomain=Space((6,), torch.float64)),
    "fft 1d": lambda: CenteredFFT((7,)),
    "fft 2d": lambda: CenteredFFT((7, 8)),
    "fft 3d": lambda: CenteredFFT((3, 4, 5)),
    "fft of the last axis": lambda: CenteredFFT((3, 6), ndim=1),
    "composed": lambda: CenteredFFT((4, 3)) @ Diagonal(_maps(4, 3)),
    "sum": lambda: CenteredFFT((4, 3)) + 2 * Diagonal(_maps(4, 3)) - Identity((4, 3)),
    "scaled": lambda: (0.5 - 2j) * CenteredFFT((4, 3)),
    "adjoint": lambda: CartesianMRI(_mask(6, 7), _maps(3, 6, 7)).H,
    "mri single coil": lambda: CartesianMRI(_mask(6, 8)),
    "mri single coil columns": lambda: CartesianMRI(_mask(1, 8), shape=(6, 8)),
    "mri": lambda: CartesianMRI(_mask(6, 8), _maps(3, 6, 8)),
    "mri odd": lambda: CartesianMRI(_mask(7, 5), _maps(3, 7, 5)),
    "mri odd and even": lambda: CartesianMRI(_mask(7, 6), _maps(3, 7, 6)),
    "mri columns": lambda: CartesianMRI(_mask(1, 8), _maps(3, 6, 8)),
    "mri rows": lambda: CartesianMRI(_mask(6, 1), _maps(3, 6, 8)),
    "mri odd columns": lambda: CartesianMRI(_mask(1, 9), _maps(3, 6, 9)),
    "mri full": lambda: CartesianMRI(torch.ones(1, 1), _maps(3, 6, 8)),
    "slices of mri": lambda: Slices(CartesianMRI(_mask(6, 8), _maps(3, 6, 8)), 4),
    "slices of ct": lambda: Slices(CT(ParallelBeam([0.1, 1.2, 2.0], 9, 1.0), (6, 7), 1.0), 3),
    "mri empty": lambda: CartesianMRI(torch.zeros(1, 1), _maps(3, 6, 8)),
    "mri one row": lambda: CartesianMRI(_mask(1, 9), _maps(2, 1, 9)),
    "mri one column": lambda: CartesianMRI(_mask(9, 1), _maps(2, 9, 1)),
    "mri two maps": lambda: CartesianMRI(_mask(6, 8), _maps(2, 3, 6, 8)),
    "mri two maps columns": lambda: CartesianMRI(_mask(1, 7), _maps(2, 3, 6, 7)),
    "mri 3d": lambda: CartesianMRI(_mask(4, 6, 5), _maps(3, 4, 6, 5)),
    "mri 3d even": lambda: CartesianMRI(_mask(4, 6, 8), _maps(2, 4, 6, 8)),
    "mri 3d columns": lambda: CartesianMRI(_mask(4, 1, 6), _maps(3, 4, 6, 6)),
    "mri 3d two maps": lambda: CartesianMRI(_mask(1, 6, 5), _maps(2, 3, 4, 6, 5)),
    "mri 3d single coil": lambda: CartesianMRI(_mask(6, 8), shape=(4, 6, 8)),
    "coil maps": lambda: CoilMaps(_maps(3, 6, 8)),
    "coil maps, two sets": lambda: CoilMaps(_maps(2, 3, 6, 7)),
    "coil maps 3d": lambda: CoilMaps(_maps(3, 4, 6, 5), ndim=3),
    "coil maps 3d, two sets": lambda: CoilMaps(_maps(2, 3, 4, 6, 5), ndim=3),
    "sampling": lambda: Sampling(_mask(6, 8), (3, 6, 8)),
    "sampling of columns": lambda: Sampling(_mask(1, 8), Space((6, 8), torch.complex128)),
    "ct parallel": lambda: CT(ParallelBeam([0.0, 0.4, 1.9], 9, 1.2), (6, 7), 1.0),
    "ct fan": lambda: CT(FanBeam([0.0, 1.0, 4.0], 9, 2.0, 30.0, 55.0), (6, 7), 1.0, engine="onthefly"),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("name", OPERATORS)
def test_laws(name: str, dtype: torch.dtype) -> None:
    check_operator(OPERATORS[name](), dtype=dtype)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    fixed=st.lists(st.booleans(), min_size=3, max_size=3),
    coils=st.integers(1, 3),
    maps=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_mri_laws_hold_for_any_shape(lengths: list[int], fixed: list[bool], coils: int, maps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask_shape = [1 if constant else n for n, constant in zip(lengths, fixed, strict=False)]
    mask = torch.rand(mask_shape, generator=generator) < 0.5
    shape = ((maps,) if maps > 1 else ()) + (coils, *lengths)
    coil_maps = torch.randn(shape, dtype=torch.complex128, generator=generator)
    check_operator(CartesianMRI(mask, coil_maps), trials=2, seed=seed)


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_fft_laws_hold_for_any_shape(lengths: list[int], seed: int) -> None:
    check_operator(CenteredFFT(tuple(lengths)), dtype=torch.float64, trials=2, seed=seed)
