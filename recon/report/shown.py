"""The images of a result as an interactive page shows them, slice by slice, in the units of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon import modalities
from recon.metrics import as_shown
from recon.modalities.base import Display
from recon.report.layout import plain_reconstruction, style_of, window_and_units

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

Images = Mapping[str, NDArray[np.float32]]
#: Beyond this number of samples a page shows the first ones.
MOST_SAMPLES = 32


@dataclass(frozen=True)
class Shown:
    """The images of one result.

    ``interval`` is a calibrated interval ``([slice,] y, x)`` of that ``level``; None shows the raw one of the samples.
    """

    posterior: PosteriorSamples
    interval: tuple[NDArray, NDArray] | None = None
    level: float = 0.9

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        *rest, y, x = self.posterior.samples.shape[1:]
        return (rest[0] if rest else 1), y, x

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Which slices are valid."""
        return self.posterior.slice_valid

    @cached_property
    def display(self) -> Display:
        """Values, units and gray window."""
        return display_of(self.posterior)

    @cached_property
    def item(self) -> str:
        """What the images of a volume are called: "slice", or "frame"."""
        known = modalities.of_result(self.posterior)
        return "slice" if known is None else known.axes[1].split()[0]

    @cached_property
    def samples(self) -> NDArray[np.intp]:
        """The samples that are shown: the first valid ones."""
        kept = self.posterior.valid[: len(self.posterior.samples)]
        return np.flatnonzero(kept)[:MOST_SAMPLES]

    @cached_property
    def titles(self) -> dict[str, str]:
        """Titles of the images that a slice has, by their names."""
        several = self.posterior.n_valid > 1
        found = {"mean": "Mean" if several else "One sample"}
        if several:
            found |= {"std": "Std (raw)", "above": "", "below": ""}
        if "reference" in self.posterior.images:
            found["reference"] = "Reference"
        title, plain = plain_reconstruction(self.posterior)
        if plain is not None:
            found["plain"] = title
        return found

    @cached_property
    def _levels(self) -> dict[str, float]:
        """What each kind of image is related to, from the whole volume."""
        whole = self.posterior.usable
        _, plain = plain_reconstruction(whole)
        images = {"mean": whole.mean, "plain": plain, "reference": whole.images.get("reference")}
        return {name: self.display.level(np.asarray(image)) for name, image in images.items() if image is not None}

    def images(self, index: int) -> Images:
        """Return the images of a valid slice by name, each ``(y, x)`` and NaN where there is no value.

        ``above`` and ``below`` are the distances of the mean to the ends of the interval; ``sample k`` is sample k.
        """
        part = self._part(index)
        values, level = self.display.values, self._levels["mean"]
        found = {"mean": values(part.mean, level)}
        if "std" in self.titles:
            found["std"] = self.display.spread(part, level)
            ends = part.interval(self.level) if self.interval is None else self._ends(index)
            lower, upper = (values(end, level) for end in ends)
            found |= {"above": upper - found["mean"], "below": found["mean"] - lower}
        _, plain = plain_reconstruction(part)
        for name, image in {"reference": part.images.get("reference"), "plain": plain}.items():
            if name in self.titles and image is not None:
                found[name] = centred(values(np.asarray(image), self._levels[name]), self.shape[1:])
        if len(self.samples) > 1:
            found |= {f"sample {k}": values(part.samples[k], level) for k in self.samples}
        return {name: np.asarray(image, np.float32) for name, image in found.items()}

    def _part(self, index: int) -> PosteriorSamples:
        """Return the posterior of one slice."""
        if self.posterior.samples.ndim == 3:
            return self.posterior
        return self.posterior.slice(index)

    def _ends(self, index: int) -> tuple[NDArray, NDArray]:
        if self.interval is None or self.posterior.samples.ndim == 3:
            return self.interval or (np.empty(0), np.empty(0))
        return self.interval[0][index], self.interval[1][index]


def display_of(posterior: PosteriorSamples) -> Display:
    """Return how values of this result are shown: by its modality, or as magnitudes in readable units."""
    style = style_of(posterior)
    if style.display is not None:
        return style.display(posterior)
    central = posterior.central_slice
    mean = as_shown(posterior.mean if central is None else posterior.mean[central])
    (low, high), factor, units = window_and_units(posterior, mean)
    return Display(
        units,
        (low, high),
        values=lambda image, _: as_shown(image) * factor,
        spread=lambda part, _: np.asarray(part.std) * factor,
        note=style.values,
    )


def centred(image: NDArray, shape: tuple[int, int]) -> NDArray:
    """Crop or pad (with NaN) the last two axes to a shape, keeping the centre."""
    for axis, length in zip((-2, -1), shape, strict=True):
        excess = image.shape[axis] - length
        if excess > 0:
            image = np.take(image, np.arange(length) + excess // 2, axis=axis)
        elif excess < 0:
            before = -excess // 2
            width = [(0, 0)] * image.ndim
            width[axis] = (before, -excess - before)
            image = np.pad(image.astype(np.float32), width, constant_values=np.nan)
    return image
