"""Which slices of a result hold an image; the others are NaN, and everything that is shown or measured leaves them out.

`diagnostics["slice_valid"]` is a bool `(slice,)`; without it all slices are valid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError, ShapeError

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples


def valid_slices(posterior: PosteriorSamples) -> NDArray[np.bool_]:
    """Return whether each slice is valid: bool ``(slice,)``, of length 1 for a single image."""
    count = posterior.samples.shape[1] if posterior.samples.ndim == 4 else 1
    flags = posterior.diagnostics.get("slice_valid")
    if flags is None:
        return np.ones(count, bool)
    found = np.asarray(flags, bool).reshape(-1)
    if len(found) != count:
        raise ShapeError(f"diagnostics['slice_valid']: expected {count} values, got {len(found)}")
    return found


def central_slice(posterior: PosteriorSamples) -> int | None:
    """Return the valid slice that is nearest to the middle of a volume; None for a single image.

    Raises
    ------
    InputError
        If no slice is valid.
    """
    valid = np.flatnonzero(valid_slices(posterior))
    if not len(valid):
        raise InputError("no slice of the result is valid, so there is nothing to show")
    if posterior.samples.ndim == 3:
        return None
    return int(valid[np.argmin(np.abs(valid - posterior.samples.shape[1] // 2))])


def without_invalid_slices(posterior: PosteriorSamples) -> PosteriorSamples:
    """Return samples and images of the valid slices only; the posterior itself if all are valid."""
    valid = valid_slices(posterior)
    if valid.all():
        return posterior
    images = {}
    for name, image in posterior.images.items():
        array = np.asarray(image)
        images[name] = array[valid] if array.ndim >= 3 and len(array) == len(valid) else array
    kept = {"valid": posterior.valid}
    return replace(posterior, samples=posterior.samples[:, valid], images=images, diagnostics=kept)
