"""Compare images with a reference: PSNR, SSIM, NMSE, coverage of intervals, spread versus error.

Images are never rescaled before they are compared: a wrong scale is an error. Complex images are compared by magnitude,
real ones as they are. The data range of PSNR and SSIM is the maximum of the reference (the
rule of the fastMRI challenge), minus its minimum if that is negative; numbers can therefore be compared between
methods, but not between differently scaled references.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.checks import finite, real, same_shape, support_of
from recon.errors import InputError, ShapeError

SSIM_WINDOW = 7
#: Multiple of the noise that a pixel with signal exceeds: 1 % of the air does where magnitudes have two thirds of it.
_ABOVE_NOISE = 5.0


def psnr(image: ArrayLike, reference: ArrayLike, support: ArrayLike | None = None) -> float:
    """Peak signal-to-noise ratio in dB, on magnitudes of complex images.

    ``20 log10(data range / rmse)``; infinite for a perfect image.

    Parameters
    ----------
    image, reference : array_like, ``(..., y, x)``
        Real or complex, in the same units. For a volume, error and maximum are those of the whole volume.
    support : array_like of bool, optional
        Compare only where true (broadcast to the image). The data range is that of the whole reference.

    Raises
    ------
    ShapeError, InputError
        If shapes differ, values are not finite, the reference is zero, or the support is empty.
    """
    magnitude, truth, where = _pair(image, reference, support)
    error = np.mean(np.square(magnitude - truth)[where])
    return float("inf") if error == 0 else float(20 * np.log10(data_range(truth)) - 10 * np.log10(error))


def nmse(image: ArrayLike, reference: ArrayLike, support: ArrayLike | None = None) -> float:
    """Normalised squared error ``|image - reference|^2 / |reference|^2`` of magnitudes, summed over the support."""
    magnitude, truth, where = _pair(image, reference, support)
    energy = np.sum(np.square(truth)[where])
    if energy == 0:
        raise InputError("nmse: the reference is zero on the whole support; pass a support that contains signal")
    return float(np.sum(np.square(magnitude - truth)[where]) / energy)


def ssim(image: ArrayLike, reference: ArrayLike, support: ArrayLike | None = None) -> float:
    """Mean structural similarity (of magnitudes for complex images), slice by slice over the last two axes.

    A uniform window of 7 x 7 pixels, sample covariances, K1 = 0.01, K2 = 0.03, and the data range of the whole
    reference, so a stack of slices gives the fastMRI value. Windows that extend beyond the image are not used.

    Parameters
    ----------
    image, reference, support
        As for `psnr`; the support selects window centres.

    Raises
    ------
    ShapeError, InputError
        As for `psnr`, and if a slice is smaller than the window.

    Source: Wang, Bovik, Sheikh & Simoncelli, IEEE Trans. Image Process. 13 (2004), equation 13.
    """
    magnitude, truth, where = _pair(image, reference, support)
    if truth.ndim < 2 or min(truth.shape[-2:]) < SSIM_WINDOW:
        raise ShapeError(f"ssim: expected slices of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got {truth.shape}")
    inner = (..., slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)), slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)))
    if not where[inner].any():
        raise InputError("ssim: the support contains no window centre; pass a larger support")
    return float(np.mean(_ssim_map(magnitude, truth, data_range(truth))[inner][where[inner]]))


def coverage(lower: ArrayLike, upper: ArrayLike, reference: ArrayLike, support: ArrayLike | None = None) -> float:
    """Fraction of pixels whose reference magnitude lies in ``[lower, upper]``; ideally 0.9 for a 90 % interval.

    ``lower`` and ``upper`` are real, as `recon.Posterior.interval` returns them. Outside the object
    intervals are easily right, so pass a ``support`` if the fraction should be that of tissue.
    """
    low, high = real(lower, "lower"), real(upper, "upper")
    same_shape(low, high, "lower", "upper")
    _, truth, where = _pair(low, reference, support, names=("lower", "reference"))
    if np.any(low > high):
        raise InputError("coverage: lower is above upper in some pixels; were the two swapped?")
    return float(np.mean(((low <= truth) & (truth <= high))[where]))


def foreground(reference: ArrayLike, fraction: float = 0.05) -> NDArray[np.bool_]:
    """Return the pixels with signal: brighter than a fraction of the .99 quantile, and than 5 times the noise.

    Real images with negative values are measured from their lowest level. Reports, evaluations, calibrations and
    benchmarks use this support for coverage and spread; it only excludes air.
    """
    image = finite(reference, "reference")
    lowest = lowest_level(image)
    least = max(fraction * brightness(image), _ABOVE_NOISE * noise_level(image))
    found = np.asarray(as_shown(image) - lowest > least)
    # An image of noise alone, or of fine texture, has pixels with signal, too.
    return found if found.any() else np.asarray(as_shown(image) - lowest > fraction * brightness(image))


def noise_level(image: ArrayLike) -> float:
    """Return the standard deviation of white noise in a real image or a magnitude, from the image alone.

    In each of 4 x 4 parts of the image: the median of ``|a - b - c + d| / 2`` over blocks of 2 x 2 pixels (the diagonal
    details of the Haar wavelets), over .6745. The quietest part with noise counts, so that texture is not taken for it;
    in air, where magnitudes vary less, that is two thirds of the noise of the tissue. 0 without noise in any part.

    Source: Donoho & Johnstone, Biometrika 81 (1994), section 4.
    """
    shown = as_shown(finite(image, "image"))
    rows, columns = (n - n % 2 for n in shown.shape[-2:])
    even, odd = shown[..., 0:rows:2, :columns], shown[..., 1:rows:2, :columns]
    detail = np.abs(even[..., 0::2] - even[..., 1::2] - odd[..., 0::2] + odd[..., 1::2]) / 2
    parts = [part for half in np.array_split(detail, 4, axis=-2) for part in np.array_split(half, 4, axis=-1)]
    levels = [float(np.median(part)) / 0.6745 for part in parts if part.size]
    return min((level for level in levels if level > 0), default=0.0)


def as_shown(image: NDArray) -> NDArray:
    """Return the values that are compared: the magnitude of a complex image, or a real image as it is."""
    return np.abs(image) if np.iscomplexobj(image) else image


def lowest_level(image: ArrayLike) -> float:
    """Return the level of air: 0, or the .005 quantile of a real image if that is negative."""
    return min(0.0, float(np.quantile(as_shown(np.asarray(image)), 0.005)))


def brightness(image: ArrayLike) -> float:
    """Return the .99 quantile of an image above its lowest level; it needs no reference."""
    return float(np.quantile(as_shown(np.asarray(image)), 0.99)) - lowest_level(image)


def data_range(reference: NDArray) -> float:
    """Return the maximum of a real reference, minus its minimum if that is negative."""
    return float(reference.max() - min(reference.min(), 0.0))


def spread_skill(
    mean: ArrayLike,
    std: ArrayLike,
    reference: ArrayLike,
    support: ArrayLike | None = None,
    *,
    n_samples: int | None = None,
    reference_std: float = 0.0,
) -> float:
    """Ratio of the predicted spread to the actual error; 1 is calibrated, below 1 is over-confident.

    ``sqrt(mean((1 + 1/n) std^2) / (mean(|mean - reference|^2) - reference_std^2))``. The mean of n samples has
    an error variance of one n-th of the posterior variance more than the exact posterior mean: if ``n_samples`` is
    given, the numerator accounts for it.

    Parameters
    ----------
    mean, reference : array_like
        Both complex (then ``std`` is the total complex standard deviation) or both real.
    std : array_like
        Posterior standard deviation, real, not negative.
    support : array_like of bool, optional
        Average only where true.
    n_samples : int, optional
        Number of samples behind ``mean`` and ``std``.
    reference_std : float
        Standard deviation of the noise of the reference itself, whose square is subtracted from the squared error. The
        result is infinite if the noise of the reference explains the whole error.
    """
    complex_mean, complex_reference = np.iscomplexobj(mean), np.iscomplexobj(reference)
    if complex_mean != complex_reference:
        raise InputError(
            "spread_skill: mean and reference must both be complex or both be real; "
            "compare posterior.magnitude with a magnitude reference"
        )
    centre, truth = finite(mean, "mean"), finite(reference, "reference")
    spread = real(std, "std")
    same_shape(centre, truth, "mean", "reference")
    same_shape(spread, truth, "std", "reference")
    if np.any(spread < 0):
        raise InputError("spread_skill: std is negative in some pixels")
    if n_samples is not None and n_samples < 2:
        raise InputError(f"spread_skill: expected n_samples >= 2, got {n_samples}")
    where = support_of(support, truth.shape)
    error = np.mean(np.square(np.abs(centre - truth))[where]) - reference_std**2
    variance = np.mean(np.square(spread)[where]) * (1 + (1 / n_samples if n_samples else 0))
    return float(np.sqrt(variance / error)) if error > 0 else float("inf")


def _ssim_map(image: NDArray, truth: NDArray, peak: float) -> NDArray:
    """Return the structural similarity around each pixel, slice by slice."""
    from skimage.metrics import structural_similarity

    shape = truth.shape
    pairs = zip(image.reshape(-1, *shape[-2:]), truth.reshape(-1, *shape[-2:]), strict=True)
    maps = [structural_similarity(y, x, win_size=SSIM_WINDOW, data_range=peak, full=True)[1] for x, y in pairs]
    return np.reshape(maps, shape)


def _pair(
    image: ArrayLike, reference: ArrayLike, support: ArrayLike | None, names: tuple[str, str] = ("image", "reference")
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    given, known = finite(image, names[0]), finite(reference, names[1])
    if np.iscomplexobj(given) or np.iscomplexobj(known):
        given, known = np.abs(given), np.abs(known)
    magnitude, truth = given.astype(np.float64), known.astype(np.float64)
    same_shape(magnitude, truth, *names)
    if not truth.any():
        raise InputError(f"the {names[1]} is zero everywhere, so it has no data range; pass an image with signal")
    return magnitude, truth, support_of(support, truth.shape)
