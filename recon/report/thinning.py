"""How much of a large result goes into a page: which bits, pixels, samples and slices, so that it stays small enough.

The page says what is left out. Pixels are left out, never averaged: each that is kept has the value and the interval of
that pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SPREAD = ("std", "above", "below")
#: (bits, every N-th pixel of the mean, of other images, of spreads, of samples, number of samples).
_LADDER = (
    (12, 1, 1, 1, 1, 32),
    (12, 1, 1, 1, 1, 8),
    (8, 1, 1, 1, 1, 8),
    (8, 1, 1, 2, 2, 8),
    (8, 1, 1, 2, 2, 4),
    (8, 1, 2, 2, 4, 4),
    (8, 2, 2, 2, 4, 4),
    (7, 2, 2, 4, 4, 4),
    (7, 2, 4, 4, 4, 2),
    (7, 4, 4, 4, 4, 2),
)


@dataclass(frozen=True)
class Thinning:
    """What of a result is kept.

    Attributes
    ----------
    bits : int
        Bits of a value of an image.
    mean_step, image_step, spread_step, sample_step : int
        Every N-th pixel is kept in both directions; powers of 2.
    samples : int
        The largest number of samples.
    slice_step : int
        Every N-th slice is kept.
    """

    bits: int
    mean_step: int
    image_step: int
    spread_step: int
    sample_step: int
    samples: int
    slice_step: int = 1

    def bits_of(self, name: str) -> int:
        """Return the bits of an image by its name: one less for spreads, which few samples tell less exactly."""
        return self.bits - (name in SPREAD and self.bits <= 8)

    def step_of(self, name: str) -> int:
        """Return the step of an image by its name."""
        if name in SPREAD:
            return self.spread_step
        if name == "mean":
            return self.mean_step
        return self.sample_step if name.startswith("sample") else self.image_step

    def text(self, samples: int, item: str) -> str:
        """Say what is left out; empty if nothing is. ``samples`` is the number of valid samples."""
        parts = []
        steps = {"mean": self.mean_step, "other images": self.image_step, "spread and interval": self.spread_step}
        if samples > 1:
            steps["samples"] = self.sample_step
        if len(set(steps.values())) == 1 and self.mean_step > 1:
            parts.append(f"every {_nth(self.image_step)} pixel in both directions")
        else:
            parts += [f"every {_nth(step)} pixel of the {name}" for name, step in steps.items() if step > 1]
        if samples > self.samples:
            parts.append(f"{self.samples} of {samples} samples")
        if self.slice_step > 1:
            parts.append(f"every {_nth(self.slice_step)} {item}")
        return "; ".join(parts)


def ladder() -> Iterator[Thinning]:
    """Yield what to keep, each time less than before, without end."""
    for rung in _LADDER:
        yield Thinning(*rung)
    step = 2
    while True:
        yield Thinning(*_LADDER[-1], slice_step=step)
        step *= 2


def _nth(number: int) -> str:
    return f"{number}nd" if number in (2, 32) else f"{number}th"
