"""Arrays as users have them, as tensors: any byte order, read-only, reversed or of a type that torch lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError

_WIDEST = {"f": np.float64, "c": np.complex128}


def native(values: Any, owner: str = "array") -> np.ndarray:
    """Return numbers as an array that torch can share: native byte order, a type of torch, writable.

    Parameters
    ----------
    values : array_like
        Tensors are moved to the CPU. The array itself is returned, without a copy, where it is already so.
    owner : str
        Named in the message.

    Raises
    ------
    InputError
        For anything but an array of numbers or booleans.
    """
    try:
        array = values.detach().cpu().resolve_conj().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{owner}: expected an array of numbers, got {type(values).__name__} ({error})") from error
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biufc":
        raise InputError(f"{owner}: expected an array of numbers, got {array.dtype}")
    dtype = array.dtype.newbyteorder("=")
    if kind in _WIDEST and size > np.dtype(_WIDEST[kind]).itemsize:
        dtype = np.dtype(_WIDEST[kind])
    elif kind == "u" and size > 1:
        dtype = np.dtype(np.int64)
    shared = array.flags.writeable and all(step >= 0 for step in array.strides)
    return array.astype(dtype, copy=not shared)


def tensor(values: Any, owner: str = "array") -> Tensor:
    """Return numbers as a tensor, see `native`; a tensor is returned unchanged."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(native(values, owner)))
