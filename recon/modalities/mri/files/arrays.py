"""Checks that readers of k-space share."""

import numpy as np

from recon.errors import InputError


def check_complex(dtype: np.dtype, where: str) -> None:
    """Refuse k-space that is not complex."""
    if dtype.kind != "c":
        raise InputError(f"{where}: k-space must be complex (complex64), got {dtype}; magnitude images are not k-space")


def check_lengths(lengths: tuple[int, ...], names: str, where: str) -> None:
    """Refuse axes without elements, by name."""
    for name, length in zip(names.split(), lengths, strict=True):
        if length < 1:
            raise InputError(f"{where}: the axis {name!r} has length {length}; there are no data")


def sampling_mask(values: np.ndarray, shape: tuple[int, int], where: str) -> np.ndarray:
    """Return a stored mask as bool that broadcasts to `(y, x)`.

    Columns `(x,)`, `(1, x)` and whole masks `(y, x)` are accepted, as booleans or as numbers 0 and 1.
    """
    mask = np.asarray(values)
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise InputError(f"{where}: a sampling mask must hold only 0 and 1")
    mask = mask.astype(bool)
    while mask.ndim > 2 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim == 1:
        mask = mask[None]
    if mask.shape not in ((1, shape[1]), (shape[0], 1), shape):
        raise InputError(f"{where}: a mask of shape {values.shape} does not fit k-space of (y, x) = {shape}")
    return mask
