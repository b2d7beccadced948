"""Whether an array looks like centred Cartesian k-space ``(coil, y, x)``, judged by where its energy lies.

All tests compare fractions of energy that differ by large factors between right and wrong data, since a false alarm is
worse than a miss: noise, undersampling, partial Fourier and small matrices must pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from operators import ifftc

#: Shorter axes are too short for a judgement, except as a possible coil axis.
_SHORT = 12
#: Fraction of the energy in a quarter of an axis, from which the axis has a centre, and below which it has none.
_CENTRE, _NO_CENTRE = 0.7, 0.5
#: A coil axis of at least this length would not have its energy in the middle.
_MANY_COILS = 16
#: The centre counts as displaced from this fraction of an axis on, and as a corner from the second one on.
_DISPLACED, _CORNER = 0.1, 0.4
#: Lines of radial k-space vary by less than this fraction in their energy.
_ALIKE = 0.4
#: The mean energy of a sample around the centre is at least this multiple of that elsewhere, as the sampling pattern
#: alone may put most samples in one place.
_CONTRAST = 5.0
#: An image has less than a quarter of its energy in the central 1/64, and its transform at least this fraction.
_CONCENTRATED, _RATIO = 0.2, 4.0
_STRONGEST = 4  # coils that are transformed


@dataclass(frozen=True)
class Doubt:
    """A sentence about suspicious data, and whether they cannot be reconstructed as they are."""

    text: str
    fatal: bool = False


@dataclass(frozen=True)
class Profile:
    """The distribution of the energy along one axis.

    Attributes
    ----------
    length : int
    best : float
        Largest fraction of the energy in any quarter of the (circular) axis.
    middle : float
        Fraction in the central quarter.
    offset : int
        Distance of the peak from the centre ``n // 2``.
    variation : float
        Standard deviation over the mean.
    contrast : float
        Mean energy of the samples in the best quarter, over that of the others; 0 without others.
    """

    length: int
    best: float
    middle: float
    offset: int
    variation: float
    contrast: float

    @classmethod
    def of(cls, energy: Tensor, samples: Tensor) -> Profile:
        """Summarise the energy ``(n,)`` along an axis, and the number of samples that have it, ``(n,)``."""
        n = len(energy)
        windows, counts = _quarters(energy), _quarters(samples)
        place = int(windows.argmax())
        best = float(windows[place])
        outside, rest = 1 - float(counts[place]), 1 - best
        dense = best / max(float(counts[place]), 1e-30)
        return cls(
            length=n,
            best=best,
            middle=float(windows[n // 2 - max(n // 4, 1) // 2]),
            offset=int(energy.argmax()) - n // 2,
            variation=float(energy.std() / energy.mean().clamp_min(1e-30)) if n > 1 else 0.0,
            contrast=0.0 if outside <= 1e-9 else dense * outside / max(rest, 1e-30),
        )

    @property
    def centred(self) -> bool:
        """Whether most of the energy lies in the middle."""
        return self.middle > _CENTRE

    @property
    def concentrated(self) -> bool:
        """Whether most of the energy lies around one place."""
        return self.best > _CENTRE and self.contrast > _CONTRAST

    @property
    def spread(self) -> bool:
        """Whether the energy is spread over a long axis."""
        return self.length >= _SHORT and self.best < _NO_CENTRE


def doubts(kspace: Tensor) -> list[Doubt]:
    """Return what is suspicious about an array that should be centred k-space.

    Parameters
    ----------
    kspace : Tensor, shape ``(coil, y, x)``
        Zeros where not sampled.
    """
    energy = kspace.abs().square()
    samples = (energy > 0).to(energy)
    coils, y, x = (
        Profile.of(energy.sum(dim=other).cpu().double(), samples.sum(dim=other).cpu().double())
        for other in ((1, 2), (0, 2), (0, 1))
    )
    found = (
        _coils_elsewhere(coils, y, x)
        or _axis_without_centre(y, x)
        or _uncentred(y, x)
        or _image(kspace, energy.sum(0))
        or _displaced(y, x)
    )
    return [found] if found is not None else []


def _coils_elsewhere(coils: Profile, y: Profile, x: Profile) -> Doubt | None:
    other = next((axis for axis in (x, y) if axis.length < _SHORT or axis.best < _CENTRE), None)
    if coils.length < _MANY_COILS or not coils.centred or other is None:
        return None
    place, source = ("last", -1) if other is x else ("second", 1)
    return Doubt(
        f"the centre of k-space lies along the first axis (length {coils.length}), not the {place} ({other.length}): "
        f"the coils seem to be {place}, expected (coil, y, x); use numpy.moveaxis(kspace, {source}, 0)",
        fatal=True,
    )


def _axis_without_centre(y: Profile, x: Profile) -> Doubt | None:
    for name, axis, other in (("y", y, x), ("x", x, y)):
        if not (axis.spread and other.concentrated and other.length >= _SHORT):
            continue
        if axis.variation < _ALIKE:
            return Doubt(
                f"all {axis.length} lines along {name} cross the centre of k-space with similar energy: this looks "
                "like radial (non-Cartesian) k-space, which is not supported; grid it first",
                fatal=True,
            )
        return Doubt(
            f"the energy along {name} (length {axis.length}) has no centre as k-space has: this axis may hold slices, "
            "coils or time points, or be an image axis already; expected (coil, y, x) of one slice, in BART files "
            "slices in dimension 13 (bart transpose 2 13)",
            fatal=True,
        )
    return None


def _uncentred(y: Profile, x: Profile) -> Doubt | None:
    corner = [
        axis.length >= _SHORT
        and axis.best > _NO_CENTRE
        and axis.contrast > _CONTRAST
        and axis.middle < axis.best / 2
        and abs(axis.offset) > _CORNER * axis.length
        for axis in (y, x)
    ]
    if not any(corner):
        return None
    axes = tuple(k - 2 for k in range(2) if corner[k])
    return Doubt(
        "the largest values are at the edge of the array: is this k-space, and centred? Shift the zero frequency to "
        f"the middle with numpy.fft.fftshift(kspace, axes={axes})",
        fatal=True,
    )


def _image(kspace: Tensor, energy: Tensor) -> Doubt | None:
    if min(energy.shape) < 2 * _SHORT:
        return None
    strongest = kspace.abs().square().sum((1, 2)).topk(min(_STRONGEST, len(kspace))).indices
    image = ifftc(kspace[strongest]).abs().square().sum(0)
    own, transformed = _central(energy), _central(image)
    if transformed < _CONCENTRATED or transformed < _RATIO * own:
        return None
    return Doubt(
        f"this looks like an image, not k-space: the centre of its Fourier transform holds {transformed:.0%} of the "
        "energy, its own centre "
        f"{own:.0%}; transform coil images first (operators.fftc)",
        fatal=True,
    )


def _displaced(y: Profile, x: Profile) -> Doubt | None:
    if not (y.concentrated and x.concentrated):
        return None
    away = [abs(axis.offset) > _DISPLACED * axis.length and axis.length >= _SHORT for axis in (y, x)]
    if not any(away):
        return None
    return Doubt(
        f"the centre of k-space is {(y.offset, x.offset)} samples (y, x) from the middle of the array, n // 2: is it "
        "centred (fftshift), and partial Fourier data padded with zeros to the full matrix?"
    )


def _quarters(values: Tensor) -> Tensor:
    """Return the fraction of the sum of values ``(n,)`` in the quarter of the circular axis that begins at each."""
    width = max(len(values) // 4, 1)
    sums = torch.cat([values.new_zeros(1), torch.cat([values, values[: width - 1]]).cumsum(0)])
    return (sums[width:] - sums[:-width]) / values.sum().clamp_min(1e-30)


def _central(energy: Tensor) -> float:
    """Return the fraction of the energy in the central 1/8 of both axes."""
    rows, columns = (slice(n // 2 - n // 16, n // 2 - n // 16 + max(n // 8, 1)) for n in energy.shape)
    return float(energy[rows, columns].sum() / energy.sum().clamp_min(1e-30))
