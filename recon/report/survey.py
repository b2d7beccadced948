"""One pass over all images of a result, before they are encoded: which values occur, and what follows from what."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recon.report.encoding import Scale, make_scale
from recon.report.shown import Images, Shown
from recon.report.thinning import SPREAD

#: Relative difference of two ends of an interval that counts as rounding.
_ROUNDING = 1e-5
_TOP = 0.995


@dataclass
class Survey:
    """What a pass over the valid slices has found.

    Attributes
    ----------
    ends : dict
        Least and largest value of each kind of image.
    tops : dict
        99.5 % quantile of each kind of image, and of the "width" of the interval: the largest of all slices.
    mirrored, cut_off : bool
        Whether the lower end of each interval is as far from the mean as the upper one: always, or but for a cut at 0.
    """

    ends: dict[str, tuple[float, float]] = field(default_factory=dict)
    tops: dict[str, float] = field(default_factory=dict)
    mirrored: bool = True
    cut_off: bool = True

    def scale(self, name: str, bits: int, window: tuple[float, float]) -> Scale:
        """Return the scale of an image by its name: fine in the gray window, that of a spread up to nearly the top."""
        kind = kind_of(name)
        low, high = self.ends[kind]
        return make_scale(low, high, (low, self.tops[kind]) if kind in SPREAD else window, bits)

    def add(self, images: Images) -> None:
        """Take in the images of a slice."""
        for name, image in images.items():
            finite = image[np.isfinite(image)]
            if finite.size:
                self._add(kind_of(name), finite)
        if "above" in images:
            self._add("width", images["above"] + images["below"])
            lower, mirror = images["mean"] - images["below"], images["mean"] - images["above"]
            self.mirrored &= _same(lower, mirror)
            self.cut_off &= _same(lower, np.maximum(mirror, 0))

    def _add(self, kind: str, values: NDArray) -> None:
        low, high = float(values.min()), float(values.max())
        before = self.ends.get(kind, (low, high))
        self.ends[kind] = (min(before[0], low), max(before[1], high))
        if kind in SPREAD or kind == "width":
            top = float(np.quantile(values, _TOP))
            self.tops[kind] = max(self.tops.get(kind, top), top)


def survey(shown: Shown) -> Survey:
    """Return what the valid slices of a result hold."""
    found = Survey()
    for index in np.flatnonzero(shown.valid):
        found.add(shown.images(int(index)))
    return found


def kind_of(name: str) -> str:
    """Return what images that share a scale are called: all samples have one."""
    return "sample" if name.startswith("sample ") else name


def _same(first: NDArray, second: NDArray) -> bool:
    return bool(np.allclose(first, second, rtol=0, atol=_ROUNDING * float(np.abs(first).max() + np.abs(second).max())))
