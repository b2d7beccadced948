"""Ultrasound reports: B-mode images in dB beside delay and sum, and the spread of the envelope in dB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon.figure import Panel, Row
from recon.modalities.base import Display
from recon.modalities.ultrasound.image_arrays import LOWEST_DB

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

MAX_STRIP = 8
#: Values in a page reach as far below the lowest level that is displayed.
BELOW_DB = 20.0
#: 0 dB is this quantile of an image: a single bright pixel does not make all others dark.
WHITE = 0.999


def rows(posterior: PosteriorSamples) -> list[Row]:
    """Lay out delay and sum, posterior mean and the standard deviation of the envelope, then samples, then frames.

    Images are log-compressed magnitudes in dB below their own 99.9 % quantile; samples use that of the mean.
    """
    low, high = posterior.geometry["display_db"]
    samples = posterior.kept
    central = posterior.central_slice
    extent = _extent(posterior, samples.shape[-2:])

    def plane(image: NDArray) -> NDArray:
        return image[central] if central is not None else image

    def shown(title: str, image: NDArray, white: float, caption: str = "") -> Panel:
        return Panel(title, level(image, white), (low, high), caption, extent=extent)

    panels = []
    das = posterior.images.get("das")
    if das is not None:
        image = plane(np.asarray(das))
        panels.append(shown("Delay and sum", image, white_of(image), _data(posterior)))
    for name, compared in posterior.compared.items():
        image = plane(compared)
        panels.append(shown(name, image, white_of(image)))
    mean = plane(posterior.mean)
    name = "Estimate" if posterior.is_estimate else "Posterior mean" if posterior.n_valid > 1 else "One sample"
    panels.append(shown(name, mean, white_of(mean), f"{low:g} to {high:g} dB of each image, axes in mm"))
    if posterior.n_valid > 1:
        spread = level_std(samples if central is None else samples[:, central], white_of(mean), low)
        top = max(float(np.quantile(spread, 0.995)), 0.1)
        label = "dB, raw"
        panels.append(Panel("Std of the envelope (dB)", spread, (0.0, top), cmap="viridis", bar=label, extent=extent))
    which = "" if central is None else f"Frame {central} of {samples.shape[1]}"
    found = [Row(panels, which, columns=3)]
    strip = [plane(sample) for sample in samples[:MAX_STRIP]]
    if len(strip) > 1:
        what = "Estimates from simulated data" if posterior.is_estimate else "Samples from the posterior"
        label = f"{what} ({len(strip)} of {posterior.n_valid}), 0 dB as in the mean"
        white = white_of(mean)
        row = [Panel("", level(image, white), (low, high)) for image in strip]
        found.append(Row(row, label, columns=max(4, len(strip))))
    if central is not None:
        chosen = np.unique(np.linspace(0, samples.shape[1] - 1, MAX_STRIP).round().astype(int))
        valid = posterior.slice_valid
        white = white_of(posterior.mean[valid])
        frames = [
            Panel(
                f"frame {i}",
                level(posterior.mean[i], white),
                (low, high),
                blank="" if valid[i] else "not reconstructed",
            )
            for i in chosen
        ]
        found.append(Row(frames, f"Mean, {len(chosen)} of {samples.shape[1]} frames, one scale", MAX_STRIP))
    return found


def display(posterior: PosteriorSamples) -> Display:
    """Show magnitudes in dB, and the standard deviation of the samples' envelopes in dB, as in `rows`."""
    low, high = (float(end) for end in posterior.geometry["display_db"])

    def values(image: NDArray, white: float) -> NDArray:
        return np.maximum(level(image, white), low - BELOW_DB)

    def spread(part: PosteriorSamples, white: float) -> NDArray:
        return level_std(np.asarray(part.samples)[part.valid], white, low)

    note = (
        "0 dB is the 99.9 % quantile of an image; samples and intervals use that of the mean. The std counts levels "
        f"below {low:g} dB as {low:g} dB."
    )
    return Display("dB", (low, high), values, spread, white_of, low - BELOW_DB, note)


def white_of(image: NDArray) -> float:
    """Return the magnitude displayed as 0 dB."""
    envelope = np.abs(image)
    return float(np.quantile(envelope, WHITE)) or float(envelope.max()) or 1.0


def level(image: NDArray, white: float) -> NDArray:
    """Return ``20 log10(|image| / white)``, not below -200 dB."""
    return np.asarray(20 * np.log10(np.maximum(np.abs(image) / white, 10 ** (LOWEST_DB / 20))))


def level_std(samples: NDArray, white: float, lowest: float) -> NDArray:
    """Return the standard deviation of the samples' envelopes in dB; levels below ``lowest`` all count as black.

    It is 5.6 dB where only the mean strength of speckle is known (the logarithm of a Rayleigh distribution).
    """
    return np.asarray(np.maximum(level(samples, white), lowest).std(axis=0, ddof=1))


def _extent(posterior: PosteriorSamples, shape: tuple[int, ...]) -> tuple[float, float, float, float] | None:
    """Return the edges of the image in mm: left, right, bottom, top."""
    size, origin = posterior.geometry.get("voxel_size_mm"), posterior.geometry.get("origin_mm")
    if size is None or origin is None:
        return None
    top, left = origin[1] - size[1] / 2, origin[2] - size[2] / 2
    return left, left + size[2] * shape[1], top + size[1] * shape[0], top


def _data(posterior: PosteriorSamples) -> str:
    """Return the number of plane waves and elements used for the images, as text."""
    measured = posterior.provenance.get("measured") or [{}]
    angles, elements = measured[0].get("angles_deg"), measured[0].get("elements")
    if angles is None or elements is None:
        return ""
    return f"{len(angles)} wave{'s' if len(angles) != 1 else ''}, {elements} elements"
