"""Decide what a report shows: which images, in which windows and units, with which captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon import modalities
from recon.errors import InputError
from recon.figure import Panel, Row
from recon.metrics import as_shown, lowest_level
from recon.modalities.base import ReportStyle

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

ERROR_SCALE = 5
MAX_STRIP = 8
RAW_STD = "Posterior std (raw)"
INVALID = "not reconstructed"
TIMES = "\N{MULTIPLICATION SIGN}"


def build_rows(
    posterior: PosteriorSamples,
    merit: Mapping[str, float],
    interval: tuple[NDArray, NDArray] | None = None,
    level: float = 0.9,
) -> list[Row]:
    """Lay the posterior out as rows of panels: maps, samples and, for a volume, an overview of slices.

    ``merit`` holds the values of `recon.report.figures_of_merit` for the captions; ``interval`` is a calibrated
    interval of that ``level``, or None.
    """
    samples = np.asarray(posterior.samples)
    if samples.ndim not in (3, 4) or 0 in samples.shape[1:]:
        raise InputError(f"a report needs samples (n, [slice,] y, x) of images, got shape {samples.shape}")
    style = style_of(posterior)
    if style.rows is not None:
        return style.rows(posterior)
    central = posterior.central_slice

    def plane(image: NDArray) -> NDArray:
        return as_shown(image[central] if central is not None and image.ndim == 3 else image)

    window, factor, units = window_and_units(posterior, plane(posterior.mean))
    slice_label = "" if central is None else f"Slice {slice_numbers(posterior)[central]}, in the middle of the volume"
    maps = _maps(posterior, merit, plane, window, factor, units)
    if interval is not None:
        width = plane(interval[1] - interval[0]) * factor
        top = float(np.quantile(width, 0.995)) or 1.0
        place = next(i for i, panel in enumerate(maps) if panel.title == RAW_STD) + 1
        maps.insert(place, Panel(f"{level:.0%} width (calibrated)", width, (0.0, top), cmap="viridis", bar=units))
    rows = [Row(maps, slice_label)]
    shown = [plane(sample) * factor for sample in posterior.kept[:MAX_STRIP]]
    what = "Estimates from simulated data" if posterior.is_estimate else "Samples from the posterior"
    label = f"{what} ({len(shown)} of {posterior.n_valid})"
    if len(shown) > 1:
        rows.append(Row([Panel("", image, window) for image in shown], label, columns=len(rows[0].panels)))
    if central is not None:
        rows += _overview(posterior, window, factor, units, columns=len(rows[0].panels))
    return rows


def plain_reconstruction(posterior: PosteriorSamples) -> tuple[str, NDArray | None]:
    """Return the title and the image of the reconstruction without a prior, or None."""
    name, title = style_of(posterior).plain or ("", "")
    return (title, np.asarray(posterior.images[name])) if name in posterior.images else ("", None)


def style_of(posterior: PosteriorSamples) -> ReportStyle:
    """Return how results of this modality are shown."""
    modality = modalities.of_result(posterior)
    return ReportStyle() if modality is None else modality.report


def window_and_units(posterior: PosteriorSamples, mean: NDArray) -> tuple[tuple[float, float], float, str]:
    """Return gray window, factor and units that bring images to readable numbers; ``mean`` sets the window."""
    low, high = _window(posterior, mean)
    factor, units = _units(high - low, str(posterior.geometry.get("units", "a.u.")))
    return (low * factor, high * factor), factor, units


def _window(posterior: PosteriorSamples, mean: NDArray) -> tuple[float, float]:
    """Return the common gray window of all images: that of the geometry, or from the air to nearly the maximum."""
    given = posterior.geometry.get("window")
    if given is not None:
        return float(given[0]), float(given[1])
    low = lowest_level(mean)
    return low, max(float(np.quantile(mean, 0.995)), low) or 1.0


def _maps(
    posterior: PosteriorSamples,
    merit: Mapping[str, float],
    plane: Callable[[NDArray], NDArray],
    window: tuple[float, float],
    factor: float,
    units: str,
) -> list[Panel]:
    mean, std = plane(posterior.mean), plane(posterior.std)
    panels = []
    width = f"window {_number(window[0])} to {_number(window[1])} {units}"
    truth = posterior.images.get("reference")
    if truth is not None:
        panels.append(Panel("Reference", plane(np.asarray(truth)) * factor, window, width))
    title, plain = plain_reconstruction(posterior)
    if plain is not None:
        panels.append(Panel(title, plane(plain) * factor, window, _quality(merit, "plain_")))
    for name, image in posterior.compared.items():
        panels.append(Panel(name, plane(image) * factor, window, _quality(merit, f"{name}_")))
    caption = _quality(merit, "") or width
    name = "Estimate" if posterior.is_estimate else "Posterior mean" if posterior.n_valid > 1 else "One sample"
    panels.append(Panel(name, mean * factor, window, caption))
    if truth is not None:
        reference = plane(np.asarray(truth))
        error = np.abs(centre_crop(mean, reference.shape) - reference) * factor
        scale = (0.0, (window[1] - window[0]) / ERROR_SCALE)
        panels.append(Panel(f"|Error| of the mean, {TIMES}{ERROR_SCALE}", error, scale, cmap="inferno", bar=units))
    if posterior.n_valid > 1:
        top = float(np.quantile(std, 0.995)) * factor or 1.0
        panels.append(Panel(RAW_STD, std * factor, (0.0, top), cmap="viridis", bar=units))
    mask = posterior.images.get("mask")
    if mask is not None:
        panels.append(_mask_panel(np.asarray(mask), mean.shape, style_of(posterior).mask))
    return panels


def _overview(
    posterior: PosteriorSamples, window: tuple[float, float], factor: float, units: str, columns: int
) -> list[Row]:
    mean, std = as_shown(posterior.mean) * factor, np.asarray(posterior.std) * factor
    chosen = np.unique(np.linspace(0, len(mean) - 1, min(MAX_STRIP, len(mean))).round().astype(int))
    numbers = slice_numbers(posterior)
    valid = posterior.slice_valid
    blank = ["" if flag else INVALID for flag in valid]
    means = [Panel(f"slice {numbers[i]}", mean[i], window, blank=blank[i]) for i in chosen]
    rows = [Row(means, f"Mean, {len(chosen)} of {len(mean)} slices, one window", columns)]
    if posterior.n_valid > 1:
        top = float(np.quantile(std[valid], 0.995)) or 1.0
        label = f"Std (raw) of the same slices, 0 to {_number(top)} {units}"
        stds = [Panel("", std[i], (0.0, top), cmap="viridis", blank=blank[i]) for i in chosen]
        rows.append(Row(stds, label, columns))
    return rows


def slice_numbers(posterior: PosteriorSamples) -> Sequence[int]:
    """Return the numbers of the slices in their source."""
    count = posterior.samples.shape[1] if posterior.samples.ndim == 4 else 1
    known = posterior.provenance.get("slices")
    return known if isinstance(known, list) and len(known) == count else range(count)


def _mask_panel(mask: NDArray, shape: tuple[int, ...], of: str) -> Panel:
    pattern = np.atleast_2d(mask.astype(bool))
    pattern = pattern[(0,) * (pattern.ndim - 2)]
    rate = pattern.mean()
    if pattern.shape[0] == 1:
        pattern = np.repeat(pattern, shape[0], axis=0)
    caption = f"{rate:.1%} of {of}, R = {1 / rate:.1f}" if rate else "empty"
    return Panel("Sampling mask", pattern.astype(float), (0.0, 1.0), caption, smooth=False)


def _quality(merit: Mapping[str, float], prefix: str) -> str:
    if prefix + "psnr" not in merit:
        return ""
    return f"PSNR {merit[prefix + 'psnr']:.1f} dB   SSIM {merit[prefix + 'ssim']:.3f}"


def _units(white: float, units: str) -> tuple[float, str]:
    """Return factor and label that bring a window to readable numbers: 3.1e-6 a.u. becomes 3.1 (x 10^-6 a.u.)."""
    if 0.1 <= white < 10_000:
        return 1.0, units
    exponent = 3 * int(np.floor(np.log10(white) / 3))
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return 10.0**-exponent, f"{TIMES}10{raised} {units}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def centre_crop(image: NDArray, shape: Sequence[int]) -> NDArray:
    """Centre-crop the last two axes to those of ``shape`` where they are longer (scanner images are often cropped)."""
    for axis in (-2, -1):
        excess = image.shape[axis] - shape[axis]
        if excess > 0:
            image = np.take(image, np.arange(shape[axis]) + excess // 2, axis=axis)
    return image
