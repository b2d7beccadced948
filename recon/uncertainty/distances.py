"""Distances between sets of samples, and the spread of samples in measured and unmeasured directions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from operators import LinearOperator, conjugate_gradient
from operators.arrays import tensor
from recon.checks import finite
from recon.errors import InputError, ShapeError

Array = NDArray[np.float64]


class Split(NamedTuple):
    """Standard deviation in the measured and in the unmeasured directions.

    ``row`` and ``null`` are maps ``(...)`` of the deviations projected onto the row space and the null space of A, and
    ``ratio`` is ``|row| / |null|``: 0 for a sampler that projects onto its data, infinite where all is measured. Their
    energies add up to that of the whole standard deviation; pixel by pixel they need not. ``residual`` is the largest
    relative residual of the solver.
    """

    row: Array
    null: Array
    ratio: float
    residual: float


def sliced_wasserstein(first: ArrayLike, second: ArrayLike, *, projections: int = 128, seed: int = 0) -> float:
    """Distance of two sample sets: root mean square over random directions of the 2-Wasserstein distance.

    Complex samples count as pairs of real numbers. It is 0 for equal sets only, and does not reach 0 for finite sets
    from one distribution: compare with the distance of two sets of exact samples. Source: Bonneel, Rabin, Peyre &
    Pfister, "Sliced and Radon Wasserstein barycenters of measures", J. Math. Imaging Vis. 51 (2015), definition 7.

    Parameters
    ----------
    first, second : array_like, ``(n, ...)`` and ``(m, ...)``
    projections : int
        Number of directions, uniform on the unit sphere.
    seed : int
        Seed of the directions.
    """
    if projections < 1:
        raise InputError(f"sliced_wasserstein: expected projections >= 1, got {projections}")
    a, b = _vectors(first, "first"), _vectors(second, "second")
    if a.shape[1] != b.shape[1]:
        raise ShapeError(
            f"sliced_wasserstein: both sets must hold images of one shape and kind: {np.shape(first)[1:]}"
            f" and {np.shape(second)[1:]}"
        )
    directions = np.random.default_rng(seed).normal(size=(a.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    a, b = np.sort(a @ directions, axis=0), np.sort(b @ directions, axis=0)
    # The quantile functions are steps; integrate their squared difference over the common refinement of the steps.
    edges = np.union1d(np.arange(len(a) + 1) / len(a), np.arange(len(b) + 1) / len(b))
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    difference = a[(middle * len(a)).astype(int)] - b[(middle * len(b)).astype(int)]
    return float(np.sqrt(np.mean(width @ np.square(difference))))


def r_hat(*sets: ArrayLike) -> Array:
    """Potential scale reduction of each pixel between the sample sets of two or more samplers; 1 where they agree.

    ``sqrt(((n - 1) / n W + V) / W)`` with the mean W of the variances and the variance V of the means, n samples in
    each set. Values above about 1.1 say that the samplers do not draw from the same distribution (or did not
    converge); n independent samples allow for fluctuations of order 1/n. Where no set varies it is 1 if the means
    agree and infinite if not. Source: Gelman & Rubin, Statist. Sci. 7 (1992), section 2.2.

    Parameters
    ----------
    *sets : array_like, each ``(n, ...)``, n >= 2

    Returns
    -------
    numpy.ndarray, ``(...)``
    """
    arrays = [finite(samples, f"set {index}") for index, samples in enumerate(sets)]
    if len(arrays) < 2 or any(array.shape != arrays[0].shape for array in arrays):
        raise ShapeError(f"r_hat: expected two or more sets of one shape, got {[array.shape for array in arrays]}")
    n = len(arrays[0]) if arrays[0].ndim else 0
    if n < 2:
        raise InputError(f"r_hat: expected at least 2 samples in each set, got {n}")
    within = np.mean([array.var(axis=0, ddof=1) for array in arrays], axis=0)
    between = np.asarray(np.var([array.mean(axis=0) for array in arrays], axis=0, ddof=1))
    constant = np.where(between > 0, np.inf, 1.0)
    return np.sqrt(np.divide((n - 1) / n * within + between, within, out=constant, where=within > 0))


def row_part(images: Tensor, operator: LinearOperator, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """Project images onto the row space of A, the part that the measurement sees: ``A^+ A x``.

    Conjugate gradients on ``A^H A p = A^H A x`` from 0 never leave the range of A^H, so they end at the projection; the
    rest, ``x - p``, is in the null space.

    Parameters
    ----------
    images : Tensor, ``(..., *domain)``
    operator : LinearOperator
    iterations : int
        Largest number of iterations; badly conditioned operators need more.
    tolerance : float
        Relative residual at which to stop.
    """
    return _row_part(images, operator, iterations, tolerance)[0]


def row_null_split(
    samples: ArrayLike | Tensor, operator: LinearOperator, *, iterations: int = 100, tolerance: float = 1e-6
) -> Split:
    """Split the spread of samples into measured and unmeasured directions.

    Coverage over pixels hides a sampler that has no spread at all in the measured directions; this shows it.

    Parameters
    ----------
    samples : array_like or Tensor, ``(n, *domain)``, n >= 2
        In any units; complex where the operator's domain is.
    operator : LinearOperator
        A of the measurement.
    iterations, tolerance
        As for `row_part`.
    """
    drawn = tensor(samples, "samples")
    operator.domain.check(drawn, "samples of row_null_split")
    if drawn.ndim != operator.domain.ndim + 1 or len(drawn) < 2:
        raise ShapeError(f"row_null_split: expected samples (n, *domain) with n >= 2, got {tuple(drawn.shape)}")
    deviations = drawn - drawn.mean(dim=0)
    row, residual = _row_part(deviations, operator, iterations, tolerance)

    def std(parts: Tensor) -> Array:
        squares = parts.abs().double().square().sum(dim=0) / (len(parts) - 1)
        return squares.sqrt().cpu().numpy()

    seen, unseen = std(row), std(deviations - row)
    size = float(np.linalg.norm(unseen))
    ratio = float(np.linalg.norm(seen)) / size if size > 0 else float("inf")
    return Split(seen, unseen, ratio, float(residual.max()))


def _row_part(x: Tensor, operator: LinearOperator, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    return conjugate_gradient(
        operator.normal,
        operator.normal(x),
        iterations=iterations,
        tolerance=tolerance,
        item_ndim=operator.domain.ndim,
    )


def _vectors(samples: ArrayLike, name: str) -> Array:
    """Return samples as real vectors ``(n, k)``."""
    array = finite(samples, name)
    if array.ndim < 1:
        raise ShapeError(f"{name}: expected shape (n, ...), got one number")
    flat = array.reshape(len(array), -1)
    parts = [flat.real, flat.imag] if np.iscomplexobj(flat) else [flat]
    return np.concatenate(parts, axis=1, dtype=np.float64)
