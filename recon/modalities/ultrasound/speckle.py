"""Statistics of speckle in ultrasound images `(z, x)`: distribution, signal-to-noise ratio, and size.

All of them need a true envelope or a complex image; see `recon.modalities.ultrasound.image_metrics`.

Source: Wagner, Smith, Sandrik & Lopez, IEEE Trans. Sonics Ultrason. 30 (1983) 156.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import kolmogorov

from recon.errors import InputError
from recon.modalities.ultrasound.image_arrays import bounding_box, envelope_of, mask_of, spacing_of, with_axes


class Extent(NamedTuple):
    """Speckle size in m: axial and lateral."""

    axial: float
    lateral: float


class SpeckleTest(NamedTuple):
    """Result of the Kolmogorov-Smirnov test against a Rayleigh distribution of the same mean square."""

    statistic: float
    p_value: float
    passes: bool


def speckle_test(image: ArrayLike, region: ArrayLike, *, step: int = 5, level: float = 0.05) -> SpeckleTest:
    """Kolmogorov-Smirnov test of the envelope against the Rayleigh distribution of fully developed speckle.

    Every ``step``-th pixel of the region along both axes of its bounding box is used, because neighbours are
    correlated; the scale is that of the sample, sigma^2 = mean(|image|^2) / 2. Since it is fitted, the p-value is
    larger than for a known scale: the test is conservative. It is the test of the challenge.

    Parameters
    ----------
    image : array_like, ``(z, x)``
        A true envelope or a complex image.
    region : array_like of bool, ``(z, x)``
        Homogeneous tissue.
    step, level
        Parameters of the test; the defaults are those of the challenge.
    """
    envelope = envelope_of(image)
    where = mask_of(region, envelope.shape, "region")
    box = bounding_box(where)
    sample = np.sort(envelope[box][::step, ::step][where[box][::step, ::step]])
    if sample.size < 8:
        raise InputError(f"speckle_test: expected at least 8 independent pixels in the region, got {sample.size}")
    power = np.mean(sample**2)
    if power == 0:
        raise InputError("speckle_test: the image is zero in the region")
    expected = 1 - np.exp(-(sample**2) / power)
    steps = np.arange(sample.size + 1) / sample.size
    statistic = float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))
    p_value = _ks_p_value(statistic, sample.size)
    return SpeckleTest(statistic, p_value, p_value >= level)


def speckle_snr(image: ArrayLike, region: ArrayLike) -> float:
    """Mean over standard deviation of the envelope; sqrt(pi / (4 - pi)) = 1.913 for fully developed speckle."""
    envelope = envelope_of(image)
    values = envelope[mask_of(region, envelope.shape, "region")]
    spread = values.std()
    return float(values.mean() / spread) if spread > 0 else float("inf")


def speckle_size(image: ArrayLike, x: ArrayLike, z: ArrayLike, region: ArrayLike) -> Extent:
    """Size of the speckles: full width at half maximum of the autocovariance of |image|^2, in m.

    For fully developed speckle this is the width of |correlation of the complex image|^2: a Gaussian point spread
    ``exp(-x^2 / 2 s^2)`` of the amplitude gives 2.355 s. It uses the unbiased autocovariance of the region's
    bounding box, along each axis.

    Parameters
    ----------
    image, region
        As for `speckle_test`; only the bounding box of the region counts.
    x, z : array_like
        Axes in m, equally spaced.

    Raises
    ------
    InputError
        If the intensity does not decorrelate within half of the box.
    """
    level, columns, rows = with_axes(image, x, z)
    box = bounding_box(mask_of(region, level.shape, "region"))
    intensity = envelope_of(image)[box] ** 2
    intensity = intensity - intensity.mean()
    spacing = (spacing_of(rows[box[0]], "z"), spacing_of(columns[box[1]], "x"))
    return Extent(*(float(_half_width(intensity, axis) * 2 * spacing[axis]) for axis in (0, 1)))


def _ks_p_value(statistic: float, n: int) -> float:
    """Kolmogorov's limit with Stephens' correction for finite n."""
    root = np.sqrt(n)
    return float(kolmogorov(statistic * (root + 0.12 + 0.11 / root)))


def _half_width(values: NDArray, axis: int) -> float:
    """Lag in pixels at which the autocovariance along one axis has fallen to a half."""
    lines = np.moveaxis(values, axis, -1)
    n = lines.shape[-1]
    products = [np.mean(lines[..., : n - lag] * lines[..., lag:]) for lag in range(max(n // 2, 2))]
    if products[0] <= 0:
        raise InputError("speckle_size: the image is constant in the region")
    shape = np.array(products) / products[0]
    below = np.flatnonzero(shape <= 0.5)
    if not below.size:
        raise InputError("speckle_size: the speckles are not much smaller than the region; choose a larger one")
    k = int(below[0])
    return k - 1 + (shape[k - 1] - 0.5) / (shape[k - 1] - shape[k])
