"""What the index of a study says about one result, read from its file slice by slice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recon.errors import InputError
from recon.files import hdf5
from recon.metrics import as_shown
from recon.posterior_samples import PosteriorSamples
from recon.report.layout import centre_crop
from recon.report.png import gray_png, thumbnail
from recon.report.shown import display_of
from recon.verdict import Verdict

UNREADABLE = "unreadable"
_LARGEST_TEXT = 16 * 2**20
#: Slices of a volume that are named.
_WORST = 4


@dataclass(frozen=True)
class StudyRow:
    """One result of a study.

    Attributes
    ----------
    file : Path
    level : str
        Verdict, or "unreadable".
    reasons : tuple of str
    held_out, residual, psnr, seconds : float or None
        None where the file does not say.
    slices : int
        0 for a single image.
    worst : tuple of (int, str)
        Number and trouble of the worst slices of a volume, worst first.
    picture : bytes
        A small PNG; empty if there is no image.
    """

    file: Path
    level: str
    reasons: tuple[str, ...] = ()
    held_out: float | None = None
    residual: float | None = None
    psnr: float | None = None
    seconds: float | None = None
    slices: int = 0
    worst: tuple[tuple[int, str], ...] = ()
    picture: bytes = b""


def read_row(path: Path, side: int) -> StudyRow:
    """Return what a result says of itself, with a picture of at most ``side`` pixels; also for unreadable files."""
    try:
        with hdf5.open_hdf5(path) as file:
            return _row(path, file, side)
    except InputError as error:
        return StudyRow(path, UNREADABLE, (str(error).removeprefix(f"{path}: "),))


def _row(path: Path, file: h5py.File, side: int) -> StudyRow:
    record, geometry = _json(file, "provenance"), _json(file, "geometry")
    verdict = Verdict.recorded(record)
    shape = hdf5.dataset(file, "samples").shape
    valid = _valid_slices(file, shape)
    tests = record.get("held_out")
    chi2 = (
        []
        if not isinstance(tests, list)
        else [_finite(test.get("chi2")) if isinstance(test, Mapping) else None for test in tests]
    )
    residuals = _array(file, "diagnostics/residual")
    worst: tuple[tuple[int, str], ...] = ()
    if len(shape) == 4:
        known = record.get("slices")
        numbers = known if isinstance(known, list) and len(known) == shape[1] else range(shape[1])
        worst = _worst(list(numbers), valid, chi2 if len(chi2) == shape[1] else [None] * shape[1])
    return StudyRow(
        path,
        verdict.level,
        verdict.reasons,
        held_out=max((value for value in chi2 if value is not None), default=None),
        residual=None if residuals is None else _finite(_median(residuals)),
        psnr=_psnr(file, valid),
        seconds=_finite(_array(file, "diagnostics/seconds")),
        slices=shape[1] if len(shape) == 4 else 0,
        worst=worst,
        picture=_picture(file, record, geometry, valid, side),
    )


def _valid_slices(file: h5py.File, shape: tuple[int, ...]) -> np.ndarray:
    flags = _array(file, "diagnostics/slice_valid")
    count = shape[1] if len(shape) == 4 else 1
    return np.ones(count, bool) if flags is None or flags.size != count else flags.reshape(-1).astype(bool)


def _worst(numbers: list[int], valid: np.ndarray, chi2: list[float | None]) -> tuple[tuple[int, str], ...]:
    """Return invalid slices, then the others by their held-out test."""
    found = [(int(number), "not reconstructed") for number, flag in zip(numbers, valid, strict=True) if not flag]
    tested = [(value, int(number)) for number, value, flag in zip(numbers, chi2, valid, strict=True) if value and flag]
    found += [(number, f"\N{GREEK SMALL LETTER CHI}² {value:.2f}") for value, number in sorted(tested, reverse=True)]
    return tuple(found[:_WORST])


def _psnr(file: h5py.File, valid: np.ndarray) -> float | None:
    """Return the PSNR of the mean over the valid slices, as `recon.metrics.psnr`, with one slice in memory."""
    if not (hdf5.has(file, "mean") and hdf5.has(file, "images/reference")):
        return None
    mean, reference = hdf5.dataset(file, "mean"), hdf5.dataset(file, "images/reference")
    if mean.ndim != reference.ndim or (mean.ndim == 3 and len(mean) != len(reference)):
        return None
    error, count, low, high = 0.0, 0, np.inf, -np.inf
    for index in np.flatnonzero(valid):
        truth = as_shown(_slice(reference, int(index))).astype(np.float64)
        image = centre_crop(as_shown(_slice(mean, int(index))), truth.shape)
        if image.shape != truth.shape:
            return None
        error, count = error + float(np.sum((image - truth) ** 2)), count + truth.size
        low, high = min(low, float(truth.min())), max(high, float(truth.max()))
    span = high - min(low, 0.0)
    return _finite(10 * np.log10(span**2 * count / error)) if error > 0 and span > 0 else None


def _picture(
    file: h5py.File, record: Mapping[str, Any], geometry: dict[str, Any], valid: np.ndarray, side: int
) -> bytes:
    """Return the mean of the valid slice nearest to the middle as a small PNG."""
    if side <= 0 or not valid.any() or not hdf5.has(file, "mean"):
        return b""
    chosen = np.flatnonzero(valid)
    central = int(chosen[np.argmin(np.abs(chosen - len(valid) // 2))])
    mean = _slice(hdf5.dataset(file, "mean"), central)
    if mean.ndim != 2 or mean.dtype.kind not in "fc" or not np.isfinite(mean).all():
        return b""
    names = list(file["images"]) if hdf5.has(file, "images") else []  # of an older result they tell the modality
    display = display_of(PosteriorSamples(mean[None], geometry, dict(record), {}, dict.fromkeys(names, mean)))
    values = display.values(mean, display.level(mean))
    return gray_png(thumbnail(values, side), display.window)


def _slice(data: h5py.Dataset, index: int) -> np.ndarray:
    return np.asarray(data[index] if data.ndim == 3 else data[()])


def _json(file: h5py.File, name: str) -> dict[str, Any]:
    try:
        found = json.loads(hdf5.text(hdf5.dataset(file, name), _LARGEST_TEXT))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.filename}: {name}: is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{file.filename}: {name}: expected a JSON object, got {type(found).__name__}")
    return found


def _array(file: h5py.File, name: str) -> np.ndarray | None:
    """Return a small array of numbers; None if there is none."""
    if not hdf5.has(file, name):
        return None
    found = hdf5.dataset(file, name)
    return np.asarray(found[()]) if found.dtype.kind in "biuf" and found.size <= 10**6 else None


def _median(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def _finite(value: Any) -> float | None:
    """Return a single finite number; None for anything else."""
    array = np.asarray(np.nan if value is None else value)
    return (
        float(array.reshape(-1)[0])
        if array.size == 1 and array.dtype.kind in "biuf" and np.isfinite(array).all()
        else None
    )
