"""Write a posterior as one picture (PNG) and one self-contained page (HTML).

`write_report` needs matplotlib, the ``report`` extra; the rest of the package does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recon import metrics
from recon.errors import InputError
from recon.figure import draw
from recon.files.atomic import atomic_path, make_folder
from recon.printable import printable
from recon.report.layout import build_rows, centre_crop, plain_reconstruction
from recon.report.page import COLOURS, page
from recon.report.shown import Shown

if TYPE_CHECKING:
    from recon.posterior_samples import IntervalRule, PosteriorSamples

LEVEL = 0.9
#: Within this many dB of what the noise of the reference allows, a PSNR says more about the reference.
_NEAR_LIMIT = 6.0
RAW = "The std map is raw: the spread of the samples, not calibrated against outcomes."


def write_report(
    posterior: PosteriorSamples,
    path: str | os.PathLike[str],
    calibration: IntervalRule | None = None,
    group: str | None = None,
) -> tuple[Path, Path]:
    """Write ``<path>.png`` and ``<path>.html`` and return both paths.

    The picture shows the plain reconstruction (the modality's own, without a prior), the posterior mean, the standard
    deviation, the sampling mask, some samples and, if the posterior has a reference, the reference and the error. Gray
    images share one window, `geometry["window"]` or up to the 99.5 % quantile of the mean. A volume is shown by its
    central slice and an overview.

    Parameters
    ----------
    posterior : recon.Posterior
        Samples ``(n, [slice,] y, x)``.
    path : path-like
        Where to write; a suffix ``.png``, ``.html`` or ``.h5`` is dropped, a folder gets ``report.png`` and
        ``report.html``. Missing folders are created. Files are written atomically.
    calibration : recon.uncertainty.Calibration, optional
        Also show the width of the calibrated interval. Without one, everything shown is raw and labelled so.
    group : str, optional
        Group, for a calibration by groups.

    Raises
    ------
    InputError
        When matplotlib is missing, the samples are not images, the folder is a file, or the calibration does not belong
        to this posterior.
    StorageError
        When the disk is full or read-only.
    """
    stem = _stem(path)
    _require_slice(posterior)
    interval = None if calibration is None else calibration.apply(posterior, group)
    level = LEVEL if calibration is None else calibration.level
    merit = figures_of_merit(posterior, level, interval)
    rows = build_rows(posterior, merit, interval, level)
    figure = draw(
        rows,
        title=_title(posterior),
        subtitle=_subtitle(posterior),
        footer=_footer(posterior, merit, level),
        width=13.0 if len(rows[0].panels) > 4 else 11.0,
        aspect=_pixel_aspect(posterior),
        banner=_banner(posterior),
    )
    png, html = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".html")
    make_folder(stem.parent)
    with atomic_path(png) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())
    shown = Shown(posterior, interval, level)
    text = page(shown, _title(posterior), png.read_bytes(), merit, _pixel_aspect(posterior))
    with atomic_path(html) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # a name may not be UTF-8
    return png, html


def figures_of_merit(
    posterior: PosteriorSamples, level: float = LEVEL, calibrated: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, float]:
    """PSNR, SSIM and NMSE of the mean (and of the plain reconstruction), and coverage of the intervals.

    Over valid slices; empty without a reference. Keys are ``psnr``, ``psnr_object`` (over
    `recon.metrics.foreground`), ``ssim``, ``nmse``, the same with the prefix ``plain_`` (the reconstruction without a
    prior) and those of the names of ``--compare``, ``psnr_limit`` (PSNR of an image without error against a reference
    with this noise; absent if that is of no account), ``coverage`` of the raw interval (over the same pixels; absent
    with fewer than two samples) and ``calibrated_coverage`` of the calibrated interval, if given.
    """
    if "reference" not in posterior.images:
        return {}
    if calibrated is not None and posterior.samples.ndim == 4:
        valid = posterior.slice_valid
        calibrated = calibrated[0][valid], calibrated[1][valid]
    posterior = posterior.usable
    reference = posterior.images["reference"]
    truth = metrics.as_shown(np.asarray(reference))
    values: dict[str, float] = {}
    signal, noise = metrics.foreground(truth), metrics.noise_level(truth)
    _, plain = plain_reconstruction(posterior)
    others = {f"{name}_": metrics.as_shown(image) for name, image in posterior.compared.items()}
    for prefix, image in {"": posterior.mean, "plain_": plain, **others}.items():
        if image is None:
            continue
        cropped = centre_crop(np.asarray(image), truth.shape)
        values[prefix + "psnr"] = metrics.psnr(cropped, truth)
        values[prefix + "psnr_object"] = metrics.psnr(cropped, truth, signal)
        values[prefix + "ssim"] = metrics.ssim(cropped, truth)
        values[prefix + "nmse"] = metrics.nmse(cropped, truth)
    limit = 20 * np.log10(metrics.data_range(truth) / noise) if noise > 0 else np.inf
    if limit < values["psnr_object"] + _NEAR_LIMIT:
        values["psnr_limit"] = float(limit)
    intervals = {"coverage": posterior.interval(level)} if posterior.n_valid > 1 else {}
    if calibrated is not None:
        intervals["calibrated_coverage"] = calibrated
    for name, bounds in intervals.items():
        lower, upper = (centre_crop(bound, truth.shape) for bound in bounds)
        values[name] = metrics.coverage(lower, upper, truth, signal)
    return values


def _require_slice(posterior: PosteriorSamples) -> None:
    """Raise InputError if there is nothing to show."""
    if not posterior.slice_valid.any():
        raise InputError("no slice of the result is valid, so there is nothing to show")


def _banner(posterior: PosteriorSamples) -> tuple[str, str] | None:
    """Return text and colour of the bar on top of a result that is not to be believed; None if it is."""
    verdict = posterior.verdict
    if verdict.level not in COLOURS:
        return None
    others = f"  (and {len(verdict.reasons) - 1} more)" if len(verdict.reasons) > 1 else ""
    return f"{verdict.level.upper()}: {verdict.reasons[0]}{others}", COLOURS[verdict.level]


def _title(posterior: PosteriorSamples) -> str:
    source = _name(posterior.provenance.get("source"))
    return f"diffrecon · {printable(Path(source).name)}" if source else "diffrecon"


def _subtitle(posterior: PosteriorSamples) -> str:
    notes = posterior.provenance
    sampler = notes.get("sampler")
    steps = sampler.get("steps", 0) if isinstance(sampler, Mapping) else 0
    calls = notes.get("network_calls") if steps is None else None  # the data asked for so many
    mask = posterior.images.get("mask")
    parts = [
        f"prior {_name(notes.get('prior'))}" if _name(notes.get("prior")) else "",
        f"{_name(sampler)}" if _name(sampler) else "",
        f"{calls} network calls a sample" if calls else f"{steps} steps" if steps else "",
        _sample_count(posterior),
        f"seed {notes['seed']}" if notes.get("seed") is not None else "",
        f"R = {1 / np.mean(mask):.1f}" if mask is not None and np.any(mask) else "",
        f"verdict: {posterior.verdict.level}" if posterior.verdict.level != "unknown" else "",
        f"held-out χ² {posterior.held_out_chi2:.2f}" if posterior.held_out_chi2 is not None else "",
    ]
    return "  ·  ".join(part for part in parts if part)


def _name(entry: object) -> str:
    """Return the name of a provenance entry, which is a text or a mapping with a name."""
    if isinstance(entry, Mapping):
        entry = entry.get("name")
    return "" if entry is None else str(entry)


def _sample_count(posterior: PosteriorSamples) -> str:
    invalid = len(posterior.valid) - posterior.n_valid
    count = f"{posterior.n_valid} sample{'s' if posterior.n_valid != 1 else ''}"
    return count + (f" ({invalid} invalid excluded)" if invalid else "")


def _footer(posterior: PosteriorSamples, merit: Mapping[str, float], level: float) -> str:
    covered = ""
    if "coverage" in merit:
        covered = (
            f"The raw {level:.0%} interval holds the reference in {merit['coverage']:.1%} of the foreground pixels"
        )
        calibrated = merit.get("calibrated_coverage")
        covered += ".  " if calibrated is None else f", the calibrated one in {calibrated:.1%}.  "
    if "psnr_limit" in merit:
        covered = (
            f"The reference is noisy: against it no image can have a PSNR above {merit['psnr_limit']:.1f} dB, and "
            "intervals of the noise-free image hold less of it.  "
        ) + covered
    if merit and posterior.samples.ndim == 4:
        valid = posterior.slice_valid
        which = f"all {len(valid)} slices" if valid.all() else f"{valid.sum()} of {len(valid)} slices"
        covered = f"Metrics are over {which}.  " + covered
    spread = RAW if posterior.n_valid > 1 else "One sample carries no information about uncertainty: draw more."
    return covered + spread + "  Research use only."


def _pixel_aspect(posterior: PosteriorSamples) -> float:
    size = posterior.geometry.get("voxel_size_mm")
    if size is None or len(size) < 2 or not all(np.isfinite(value) and value > 0 for value in size[-2:]):
        return 1.0
    return float(size[-2]) / float(size[-1])


def _stem(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.is_dir():
        return target / "report"
    return target.with_suffix("") if target.suffix.lower() in (".png", ".html", ".h5") else target
