"""File of a prior's covariance model: a map of standard deviations and a spectrum, beside the weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from recon.errors import CheckpointError, InputError
from recon.files.atomic import atomic_path
from samplers import CovarianceModel

SUFFIX = ".covariance.safetensors"


def write_covariance(path: Path, model: CovarianceModel) -> None:
    """Write a model that has both a map and a spectrum.

    Raises
    ------
    InputError
        If it has no map or no spectrum.
    """
    if model.spectrum is None or not model.std_map.ndim:
        raise InputError("write_covariance: expected a covariance model with a map and a spectrum")
    tensors = {"std_map": model.std_map.float().contiguous(), "spectrum": model.spectrum.float().contiguous()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors))


def read_covariance(path: Path) -> CovarianceModel:
    """Read a covariance model.

    Raises
    ------
    CheckpointError
        If the file is damaged, or contains anything but a map and a spectrum of the same size.
    """
    try:
        found = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read the covariance model {path}: {error}") from error
    if set(found) != {"std_map", "spectrum"}:
        raise CheckpointError(f"{path}: expected std_map and spectrum in a covariance model, got {sorted(found)}")
    if any(value.dtype != torch.float32 or value.ndim != 2 for value in found.values()):
        raise CheckpointError(f"{path}: std_map and spectrum must be float32 (y, x)")
    try:
        return CovarianceModel(found["std_map"], found["spectrum"])
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from error


def beside(weights: Path) -> CovarianceModel | None:
    """Return the model in the file of the same name beside the weights, or None if there is none."""
    path = weights.with_suffix(SUFFIX)
    return read_covariance(path) if path.exists() else None
