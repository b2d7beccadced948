"""Error of the model: what a fit leaves unexplained beyond the noise, as a noise level of each datum.

No model of a scanner is right: calibration, truncation, motion and decay leave errors that follow the strength of the
signal. A likelihood that knows the noise alone takes them for structure, and draws samples that agree on it. So what a
first fit leaves unexplained is added to the noise, by groups of data that are alike (by frequency, by view). Every
modality hands on the result in the same way: as ``Problem.noise_std`` and ``diagnostics["model_error"]``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from recon.errors import InputError

#: A fit that leaves up to this much more power than the noise has is as good as one can tell.
_TOLERANCE = 1.1
#: A fit that leaves less than this share of the power of the noise says that the noise level is too high; asked of
#: groups that hold at least this share of the data.
_TOO_LITTLE, _LEAST_SIZE = 0.7, 0.02


class ModelError(NamedTuple):
    """Noise that includes the error of the model.

    Attributes
    ----------
    noise_std : Tensor
        For each datum, in the shape of the groups.
    noise_level : float
        What the noise alone is found to be, in the mean.
    share : float
        Error of the model over the signal, both rms over all data.
    """

    noise_std: Tensor
    noise_level: float
    share: float


def from_residual(
    left: Tensor, data: Tensor, noise: float, groups: Tensor, taken_up: float, growth: float = 1.0
) -> ModelError:
    """Find the error of the model from what a fit leaves of the data.

    Parameters
    ----------
    left, data : Tensor, shape ``(channel, *groups.shape)``
        Residual and data; the same in both where nothing was measured.
    noise : float
        Noise level of a datum.
    groups : Tensor of int
        Number of the group of each datum; negative where nothing was measured.
    taken_up : float
        Share of the noise that the fit may have taken up: unknowns over data.
    growth : float
        By how much errors of the model grow in the image, compared with noise of their level: noise is another one in
        each datum and averages out, errors of the model are alike in data that are alike, and add up.
    """
    channels, measured = left.shape[0], groups >= 0
    labels = groups[measured]
    count = torch.bincount(labels).clamp_min(1) * channels
    residual = _by_group(left, measured, labels) / count
    signal = _by_group(data, measured, labels) / count
    size = count / count.sum()
    kept = 1 - min(max(taken_up, 0.0), 0.5)
    # Errors only add to the noise, so the quietest group bounds it from above.
    large = residual[size > _LEAST_SIZE]
    bound = float(large.min()) / kept if len(large) else math.inf
    if taken_up <= 0.5 and bound < _TOO_LITTLE * noise**2:
        noise = math.sqrt(bound)
    excess = (residual - _TOLERANCE * noise**2).clamp_min(0) * growth**2
    power = (signal - noise**2).clamp_min(0)
    share = float((excess * size).sum() / (power * size).sum().clamp_min(1e-30)) ** 0.5
    return ModelError(_spread(noise**2 + excess, groups), noise, share / growth)


def of_share(data: Tensor, noise: float, groups: Tensor, share: float) -> ModelError:
    """Return the noise with an error of the model of a given share of the local signal; arguments as above.

    Raises
    ------
    InputError
        If the share is not a finite number >= 0.
    """
    if not (0 <= share < float("inf")):
        raise InputError(f"model_error: expected a finite number >= 0, got {share}")
    measured = groups >= 0
    labels = groups[measured]
    signal = _by_group(data, measured, labels) / (torch.bincount(labels).clamp_min(1) * data.shape[0])
    power = (signal - noise**2).clamp_min(0)
    return ModelError(_spread(noise**2 + share**2 * power, groups), noise, share)


def _by_group(values: Tensor, measured: Tensor, labels: Tensor) -> Tensor:
    """Sum the power of the data of each group, over the channels."""
    power = values.abs().square().sum(dim=0)[measured]
    return torch.bincount(labels, weights=power.to(torch.float64))


def _spread(power: Tensor, groups: Tensor) -> Tensor:
    """Return the level of each datum from the power of its group; the mean one where nothing was measured."""
    levels = power.sqrt().to(torch.float32)[groups.clamp_min(0)]
    measured = groups >= 0
    return torch.where(measured, levels, levels[measured].square().mean().sqrt())
