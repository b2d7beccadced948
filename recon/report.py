"""Write a posterior as one picture (PNG) and one self-contained page (HTML) for people to look at.

`write_report` needs matplotlib, the ``report`` extra; the rest of the package does not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recon import metrics
from recon.errors import InputError
from recon.report_figure import Panel, Row, draw
from recon.report_page import page
from recon.storage import atomic_path

if TYPE_CHECKING:
    from recon.posterior import Posterior

LEVEL = 0.9
ERROR_SCALE = 5
MAX_STRIP = 8
TIMES = "\N{MULTIPLICATION SIGN}"
RAW = "The std map is raw: the spread of the samples, not calibrated against outcomes."


def write_report(posterior: Posterior, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``<path>.png`` and ``<path>.html`` and return both paths.

    The picture shows the zero-filled image, the magnitude of the complex posterior mean, the standard deviation, the
    sampling mask, some samples and, where the posterior carries a reference, the reference and the error. Gray images
    share the window 0 .. 99.5 % quantile of the mean. A volume is shown by its central slice and an overview.

    Parameters
    ----------
    posterior : recon.Posterior
        Samples ``(n, [slice,] y, x)``.
    path : path-like
        Where to write; a suffix ``.png``, ``.html`` or ``.h5`` is dropped, a folder gets ``report.png`` and
        ``report.html``. Missing folders are made. Files are replaced whole or not at all.

    Raises
    ------
    InputError
        When matplotlib is missing, the samples are not images, or the files cannot be written.
    """
    stem = _stem(path)
    rows = build_rows(posterior)
    count = max(len(row.panels) for row in rows[:1])
    figure = draw(
        rows,
        title=_title(posterior),
        subtitle=_subtitle(posterior),
        footer=_footer(posterior),
        width=13.0 if count > 4 else 11.0,
        aspect=_pixel_aspect(posterior),
    )
    png, html = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".html")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(png) as temporary:
            figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())
        merit = figures_of_merit(posterior)
        text = page(posterior, _title(posterior), png.read_bytes(), merit, LEVEL)
        with atomic_path(html) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"the report cannot be written to {stem.parent}: {error.strerror or error}") from error
    return png, html


def figures_of_merit(posterior: Posterior) -> dict[str, float]:
    """PSNR, SSIM and NMSE of the mean (and of the zero-filled image), and coverage of the 90 % interval.

    Empty without a reference. Keys are ``psnr``, ``ssim``, ``nmse``, the same with ``zero_filled_`` in front, and
    ``coverage`` (over `recon.metrics.foreground` of the reference; absent with fewer than two samples).
    """
    reference = posterior.images.get("reference")
    if reference is None:
        return {}
    truth = np.abs(np.asarray(reference))
    values: dict[str, float] = {}
    zero_filled = posterior.images.get("zero_filled")
    for prefix, image in (("", posterior.mean), ("zero_filled_", zero_filled)):
        if image is None:
            continue
        cropped = _crop(np.asarray(image), truth.shape)
        values[prefix + "psnr"] = metrics.psnr(cropped, truth)
        values[prefix + "ssim"] = metrics.ssim(cropped, truth)
        values[prefix + "nmse"] = metrics.nmse(cropped, truth)
    if posterior.n_valid > 1:
        lower, upper = (_crop(bound, truth.shape) for bound in posterior.interval(LEVEL))
        values["coverage"] = metrics.coverage(lower, upper, truth, metrics.foreground(truth))
    return values


def build_rows(posterior: Posterior) -> list[Row]:
    """Lay the posterior out as rows of panels: maps, samples and, for a volume, an overview of slices."""
    samples = np.asarray(posterior.samples)
    if samples.ndim not in (3, 4) or 0 in samples.shape:
        raise InputError(f"a report needs samples (n, [slice,] y, x) of images, these are {samples.shape}")
    central = samples.shape[1] // 2 if samples.ndim == 4 else None

    def plane(image: NDArray) -> NDArray:
        return np.abs(image[central] if central is not None and image.ndim == 3 else image)

    mean = plane(posterior.mean)
    white = float(np.quantile(mean, 0.995)) or 1.0
    factor, units = _units(white, str(posterior.geometry.get("units", "a.u.")))
    window = (0.0, white * factor)
    rows = [Row(_maps(posterior, plane, window, factor, units))]
    shown = [plane(sample) * factor for sample in samples[posterior.valid][:MAX_STRIP]]
    label = f"Samples from the posterior ({len(shown)} of {posterior.n_valid})"
    if len(shown) > 1:
        rows.append(Row([Panel("", image, window) for image in shown], label, columns=len(rows[0].panels)))
    if central is not None:
        rows += _overview(posterior, window, factor, units)
    return rows


def _maps(posterior: Posterior, plane: Any, window: tuple[float, float], factor: float, units: str) -> list[Panel]:
    merit = figures_of_merit(posterior)
    mean, std = plane(posterior.mean), plane(posterior.std)
    panels = []
    truth = posterior.images.get("reference")
    if truth is not None:
        caption = f"window 0 to {_number(window[1])} {units}"
        panels.append(Panel("Reference", plane(np.asarray(truth)) * factor, window, caption))
    zero_filled = posterior.images.get("zero_filled")
    if zero_filled is not None:
        image = plane(np.asarray(zero_filled)) * factor
        panels.append(Panel("Zero-filled", image, window, _quality(merit, "zero_filled_")))
    caption = _quality(merit, "") or f"window 0 to {_number(window[1])} {units}"
    name = "Posterior mean" if posterior.n_valid > 1 else "One sample"
    panels.append(Panel(name, mean * factor, window, caption))
    if truth is not None:
        reference = plane(np.asarray(truth))
        error = np.abs(_crop(mean, reference.shape) - reference) * factor
        scale = (0.0, window[1] / ERROR_SCALE)
        panels.append(Panel(f"|Error| of the mean, {TIMES}{ERROR_SCALE}", error, scale, cmap="inferno", bar=units))
    if posterior.n_valid > 1:
        top = float(np.quantile(std, 0.995)) * factor or 1.0
        panels.append(Panel("Posterior std (raw)", std * factor, (0.0, top), cmap="viridis", bar=units))
    mask = posterior.images.get("mask")
    if mask is not None:
        panels.append(_mask_panel(np.asarray(mask), mean.shape))
    return panels


def _overview(posterior: Posterior, window: tuple[float, float], factor: float, units: str) -> list[Row]:
    mean, std = np.abs(posterior.mean) * factor, np.asarray(posterior.std) * factor
    chosen = np.unique(np.linspace(0, len(mean) - 1, min(MAX_STRIP, len(mean))).round().astype(int))
    rows = [Row([Panel(f"slice {i}", mean[i], window) for i in chosen], f"Mean, {len(mean)} slices")]
    if posterior.n_valid > 1:
        top = float(np.quantile(std, 0.995)) or 1.0
        label = f"Std of the same slices, 0 to {_number(top)} {units}"
        rows.append(Row([Panel("", std[i], (0.0, top), cmap="viridis") for i in chosen], label))
    return rows


def _mask_panel(mask: NDArray, shape: tuple[int, ...]) -> Panel:
    pattern = np.atleast_2d(mask.astype(bool))
    pattern = pattern[(0,) * (pattern.ndim - 2)]
    rate = pattern.mean()
    if pattern.shape[0] == 1:
        pattern = np.repeat(pattern, shape[0], axis=0)
    caption = f"{rate:.1%} of k-space, R = {1 / rate:.1f}" if rate else "empty"
    return Panel("Sampling mask", pattern.astype(float), (0.0, 1.0), caption, smooth=False)


def _quality(merit: dict[str, float], prefix: str) -> str:
    if prefix + "psnr" not in merit:
        return ""
    return f"PSNR {merit[prefix + 'psnr']:.1f} dB   SSIM {merit[prefix + 'ssim']:.3f}"


def _title(posterior: Posterior) -> str:
    source = posterior.provenance.get("source")
    return f"diffrecon · {Path(str(source)).name}" if source else "diffrecon"


def _subtitle(posterior: Posterior) -> str:
    notes = posterior.provenance
    parts = [
        f"prior {notes['prior']}" if notes.get("prior") else "",
        f"sampler {notes['sampler']}" if notes.get("sampler") else "",
        f"{notes['steps']} steps" if notes.get("steps") else "",
        _sample_count(posterior),
        f"seed {notes['seed']}" if notes.get("seed") is not None else "",
        "R = {:.1f}".format(notes["acceleration"]) if isinstance(notes.get("acceleration"), float) else "",
    ]
    return "  ·  ".join(part for part in parts if part)


def _sample_count(posterior: Posterior) -> str:
    invalid = len(posterior.samples) - posterior.n_valid
    count = f"{posterior.n_valid} sample{'s' if posterior.n_valid != 1 else ''}"
    return count + (f" ({invalid} invalid left out)" if invalid else "")


def _footer(posterior: Posterior) -> str:
    merit = figures_of_merit(posterior)
    covered = ""
    if "coverage" in merit:
        covered = f"The {LEVEL:.0%} interval holds the reference in {merit['coverage']:.1%} of the foreground pixels.  "
    if merit and posterior.samples.ndim == 4:
        covered = f"Metrics are over all {posterior.samples.shape[1]} slices.  " + covered
    spread = RAW if posterior.n_valid > 1 else "One sample says nothing about uncertainty: draw more."
    return covered + spread + "  Research use only."


def _pixel_aspect(posterior: Posterior) -> float:
    size = posterior.geometry.get("voxel_size_mm")
    if size is None or len(size) < 2 or not all(np.isfinite(value) and value > 0 for value in size[-2:]):
        return 1.0
    return float(size[-2]) / float(size[-1])


def _units(white: float, units: str) -> tuple[float, str]:
    """Factor and label that bring a window to numbers people can read: 3.1e-6 a.u. becomes 3.1 (x 10^-6 a.u.)."""
    if 0.1 <= white < 10_000:
        return 1.0, units
    exponent = 3 * int(np.floor(np.log10(white) / 3))
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return 10.0**-exponent, f"{TIMES}10{raised} {units}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _crop(image: NDArray, shape: Sequence[int]) -> NDArray:
    """Centre-crop the last two axes to those of ``shape`` where they are longer (scanner images are often cropped)."""
    for axis in (-2, -1):
        excess = image.shape[axis] - shape[axis]
        if excess > 0:
            image = np.take(image, np.arange(shape[axis]) + excess // 2, axis=axis)
    return image


def _stem(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.is_dir():
        return target / "report"
    return target.with_suffix("") if target.suffix.lower() in (".png", ".html", ".h5") else target
