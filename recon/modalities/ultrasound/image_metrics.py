"""Quality of ultrasound images: resolution, contrast, speckle and geometry, as the PICMUS challenge measures them.

Images are `(z, x)`, complex or already an envelope; only |image| counts, and no metric depends on its scale. Lengths
are metres. The axes `x` and `z` are the coordinates of the columns and rows.

The contrast-to-noise ratio and the FWHM repeat the definitions of the challenge, on the image in dB, so that numbers
can be compared with published ones. All of them need a true envelope: the magnitude of a complex (IQ or analytic)
image, never that of a real one, which is aliased on the usual grids of lambda / 4.

Source: Liebgott et al., "Plane-wave imaging challenge in medical ultrasound", IEEE IUS (2016); gCNR: Rodriguez-Molares
et al., IEEE Trans. UFFC 67 (2020) 745; speckle: Wagner et al., IEEE Trans. Sonics Ultrason. 30 (1983) 156.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recon.checks import finite
from recon.errors import InputError, ShapeError
from recon.modalities.ultrasound.image_arrays import Box, Mask, axis_of, decibels, envelope_of, mask_of, with_axes
from recon.modalities.ultrasound.speckle import Extent, SpeckleTest, speckle_size, speckle_snr, speckle_test

if TYPE_CHECKING:
    from operators.ultrasound.geometry import Grid
    from recon.modalities.ultrasound.files.picmus_files import PicmusPhantom

__all__ = [
    "Extent",
    "SpeckleTest",
    "box_region",
    "cnr",
    "contrast",
    "contrast_regions",
    "decibels",
    "fwhm",
    "gcnr",
    "geometric_error",
    "picmus_scores",
    "speckle_size",
    "speckle_snr",
    "speckle_test",
]
HALF_WIDTH = 1.8e-3


def fwhm(
    image: ArrayLike,
    x: ArrayLike,
    z: ArrayLike,
    point: tuple[float, float],
    *,
    half_width: float = HALF_WIDTH,
    drop_db: float = 6.0,
    upsampling: int = 10,
) -> Extent:
    """Width of the image of a point at -6 dB, axially and laterally, in m.

    The brightest pixel of the box of +-``half_width`` around ``point`` is found; the profiles through it, in dB, are
    interpolated linearly, ``upsampling`` points per pixel, and the distance of the first and the last point within
    ``drop_db`` of the maximum is the width. (The challenge's rule: side lobes above -6 dB count.)

    Parameters
    ----------
    image : array_like, ``(z, x)``
    x, z : array_like
        Axes in m, ascending.
    point : (float, float)
        Position of the scatterer, ``(x, z)`` in m.
    half_width, drop_db, upsampling
        Parameters of the metric; the defaults are those of the challenge.

    Raises
    ------
    ShapeError, InputError
        If the axes do not fit the image, or the box lies outside.
    """
    level, columns, rows = with_axes(image, x, z)
    box = _box(columns, rows, point, half_width)
    patch = level[box]
    row, column = np.unravel_index(patch.argmax(), patch.shape)
    axial = _width(rows[box[0]], patch[:, column], drop_db, upsampling)
    return Extent(axial, _width(columns[box[1]], patch[row], drop_db, upsampling))


def geometric_error(
    image: ArrayLike, x: ArrayLike, z: ArrayLike, points: ArrayLike, *, half_width: float = HALF_WIDTH
) -> NDArray[np.float64]:
    """Offset of the brightest spot near each point: ``(point, 2)`` of (dx, dz) in m, image minus truth.

    The maximum in the box of +-``half_width`` is refined by a parabola through its neighbours in dB. A constant dz is
    a wrong time zero; the challenge subtracts 0.2 mm for the lens before the comparison.

    Parameters
    ----------
    image, x, z, half_width
        As for `fwhm`.
    points : array_like, ``(point, 2)``
        Known positions ``(x, z)`` in m.
    """
    level, columns, rows = with_axes(image, x, z)
    known = np.asarray(finite(points, "points"), np.float64)
    if known.ndim != 2 or known.shape[1] != 2:
        raise ShapeError(f"points: expected (point, 2) of (x, z), got {known.shape}")
    errors = np.empty_like(known)
    for k, (at_x, at_z) in enumerate(known):
        box = _box(columns, rows, (at_x, at_z), half_width)
        patch = level[box]
        row, column = (int(i) for i in np.unravel_index(patch.argmax(), patch.shape))
        errors[k] = (
            _vertex(columns[box[1]], patch[row], column) - at_x,
            _vertex(rows[box[0]], patch[:, column], row) - at_z,
        )
    return errors


def contrast_regions(
    x: ArrayLike, z: ArrayLike, centre: tuple[float, float], diameter: float, margin: float
) -> tuple[Mask, Mask]:
    """Pixels inside a cyst and in the ring around it, as defined by the challenge.

    Inside: within ``r - margin`` of the centre; outside: between ``r + margin`` and
    ``1.2 sqrt((r - margin)^2 + (r + margin)^2)``. The margin is the lateral resolution of the phantom file.

    Raises
    ------
    InputError
        If one of them holds fewer than two pixels.
    """
    columns, rows = axis_of(x, "x"), axis_of(z, "z")
    distance = np.hypot(columns[None] - centre[0], rows[:, None] - centre[1])
    inner, outer = diameter / 2 - margin, diameter / 2 + margin
    inside = distance <= inner
    outside = (distance >= outer) & (distance <= 1.2 * np.hypot(inner, outer))
    if min(inside.sum(), outside.sum()) < 2 or inner <= 0:
        raise InputError(
            f"the cyst at x = {centre[0] * 1e3:.4g} mm, z = {centre[1] * 1e3:.4g} mm of {diameter * 1e3:.4g} mm has no "
            f"pixels inside or around it in this image (margin {margin * 1e3:.3g} mm)"
        )
    return inside, outside


def cnr(image: ArrayLike, inside: ArrayLike, outside: ArrayLike) -> float:
    """Contrast-to-noise ratio in dB, on the image in dB.

    ``20 log10(|mean_in - mean_out| / sqrt((var_in + var_out) / 2))`` with sample variances.
    """
    first, second = _regions(decibels(image), inside, outside)
    noise = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    with np.errstate(divide="ignore"):
        return float(20 * np.log10(np.abs(first.mean() - second.mean()) / noise)) if noise > 0 else float("inf")


def gcnr(image: ArrayLike, inside: ArrayLike, outside: ArrayLike, bins: int = 256) -> float:
    """Generalised contrast-to-noise ratio: one minus the overlap of the two histograms; 1 is perfectly separable.

    Histograms of the image in dB with ``bins`` bins over the range of both regions.
    """
    first, second = _regions(decibels(image), inside, outside)
    span = (min(first.min(), second.min()), max(first.max(), second.max()))
    if span[0] == span[1]:
        return 0.0
    counts = [np.histogram(values, bins, span)[0] / values.size for values in (first, second)]
    return float(1 - np.minimum(*counts).sum())


def contrast(image: ArrayLike, inside: ArrayLike, outside: ArrayLike) -> float:
    """Contrast ``20 log10(mean envelope inside / mean envelope outside)`` in dB; negative for a dark cyst."""
    first, second = _regions(envelope_of(image), inside, outside)
    if second.mean() == 0:
        raise InputError("contrast: the image is zero in the outer region")
    with np.errstate(divide="ignore"):
        return float(20 * np.log10(first.mean() / second.mean()))


def box_region(x: ArrayLike, z: ArrayLike, centre: tuple[float, float], half: tuple[float, float]) -> Mask:
    """Pixels with |x - centre_x| < half_x and |z - centre_z| < half_z; all in m."""
    columns, rows = axis_of(x, "x"), axis_of(z, "z")
    return np.asarray((np.abs(rows - centre[1]) < half[1])[:, None] & (np.abs(columns - centre[0]) < half[0])[None])


def picmus_scores(image: ArrayLike, grid: Grid, phantom: PicmusPhantom) -> dict[str, float]:
    """Measure one image of a PICMUS phantom with the challenge's metrics, averaged over points, cysts or regions.

    Returns
    -------
    dict
        ``fwhm_axial_mm``, ``fwhm_lateral_mm``, ``geometric_error_mm`` (root mean square of the distances) for phantoms
        with wires; ``cnr_db``, ``gcnr``, ``contrast_db`` for those with cysts; ``speckle_passes`` (fraction) and
        ``speckle_snr`` for those with regions of speckle.
    """
    scores: dict[str, float] = {}
    if len(phantom.points):
        widths = np.array([fwhm(image, grid.x, grid.z, (x, z)) for x, z in phantom.points])
        scores["fwhm_axial_mm"], scores["fwhm_lateral_mm"] = (float(mean) for mean in widths.mean(axis=0) * 1e3)
        errors = geometric_error(image, grid.x, grid.z, phantom.points)
        scores["geometric_error_mm"] = float(np.sqrt(np.mean(np.sum(errors**2, axis=1))) * 1e3)
    if len(phantom.cysts):
        pairs = [
            contrast_regions(grid.x, grid.z, (x, z), diameter, phantom.lateral_resolution)
            for x, z, diameter in phantom.cysts
        ]
        for name, metric in (("cnr_db", cnr), ("gcnr", gcnr), ("contrast_db", contrast)):
            scores[name] = float(np.mean([metric(image, inside, outside) for inside, outside in pairs]))
    if len(phantom.speckle):
        regions = [box_region(grid.x, grid.z, (x, z), (half_x, half_z)) for x, z, half_x, half_z in phantom.speckle]
        scores["speckle_passes"] = float(np.mean([speckle_test(image, region).passes for region in regions]))
        scores["speckle_snr"] = float(np.mean([speckle_snr(image, region) for region in regions]))
    return scores


def _width(axis: NDArray, profile: NDArray, drop_db: float, upsampling: int) -> float:
    fine = np.linspace(axis[0], axis[-1], upsampling * len(axis))
    values = np.interp(fine, axis, profile)
    above = np.flatnonzero(values >= values.max() - drop_db)
    return float(fine[above[-1]] - fine[above[0]])


def _vertex(axis: NDArray, profile: NDArray, i: int) -> float:
    """Maximum of the parabola through sample i and its neighbours; at the border, the sample itself."""
    if not 0 < i < len(axis) - 1:
        return float(axis[i])
    before, here, after = profile[i - 1 : i + 2]
    curvature = before - 2 * here + after
    shift = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    return float(axis[i] + shift * (axis[i + 1] - axis[i - 1]) / 2)


def _box(columns: NDArray, rows: NDArray, point: tuple[float, float], half_width: float) -> Box:
    found = []
    for axis, at in ((rows, point[1]), (columns, point[0])):
        within = np.flatnonzero(np.abs(axis - at) < half_width)
        if len(within) < 3:
            raise InputError(
                f"the box of +-{half_width * 1e3:.3g} mm around x = {point[0] * 1e3:.4g} mm, z = {point[1] * 1e3:.4g} "
                "mm holds fewer than 3 pixels of the image"
            )
        found.append(slice(int(within[0]), int(within[-1]) + 1))
    return found[0], found[1]


def _regions(values: NDArray, inside: ArrayLike, outside: ArrayLike) -> tuple[NDArray, NDArray]:
    return values[mask_of(inside, values.shape, "inside")], values[mask_of(outside, values.shape, "outside")]
