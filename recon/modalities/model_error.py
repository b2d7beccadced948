"""Model error: the residual of a fit beyond the noise, as a noise level for each datum.

No model of a scanner is exact: calibration, truncation, motion and decay leave errors proportional to the signal. A
likelihood that includes only the noise takes them for structure, and all samples agree on it. So the residual of a
first fit is added to the noise, by groups of similar data (by frequency, by view). Every modality passes the result on
in the same way: as ``Problem.noise_std`` and ``diagnostics["model_error"]``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recon.errors import InputError

#: Residual power up to this multiple of the noise power is consistent with noise alone.
_TOLERANCE = 1.1
#: The quiet groups of the data hold this fraction of them.
_QUIET = 0.25


class ModelError(NamedTuple):
    """Noise including the model error.

    Attributes
    ----------
    noise_std : Tensor
        Noise level of each datum, in the shape of the groups.
    noise_level : float
        Mean level of the noise alone.
    share : float
        Relative model error: rms of the error over rms of the signal, over all data.
    single : Tensor
        Standard deviation of a single datum around that of the true image: ``noise_std`` without growth.
    """

    noise_std: Tensor
    noise_level: float
    share: float
    single: Tensor


def from_residual(left: Tensor, data: Tensor, noise: float, groups: Tensor, growth: float = 1.0) -> ModelError:
    """Estimate the model error from the residual of a fit.

    Parameters
    ----------
    left, data : Tensor, shape ``(channel, *groups.shape)``
        Residual, as large as if the fit had absorbed no noise, and data.
    noise : float
        Noise level of a datum.
    groups : Tensor of int
        Group index of each datum; negative where nothing was measured.
    growth : float
        Growth of model errors in the image, relative to noise of the same level: noise is independent in each datum and
        averages out; model errors are similar in similar data and add up.
    """
    channels, measured = left.shape[0], groups >= 0
    count = torch.bincount(groups[measured]).clamp_min(1) * channels
    residual = by_group(left, groups) / count
    signal = by_group(data, groups) / count
    size = count / count.sum()
    excess = (residual - _TOLERANCE * noise**2).clamp_min(0)
    power = (signal - noise**2).clamp_min(0)
    share = float((excess * size).sum() / (power * size).sum().clamp_min(1e-30)) ** 0.5
    grown, single = (_spread(noise**2 + factor**2 * excess, groups) for factor in (growth, 1.0))
    return ModelError(grown, noise, share, single)


def of_share(data: Tensor, noise: float, groups: Tensor, share: float) -> ModelError:
    """Return the noise with a given relative model error of the local signal; arguments as for `from_residual`.

    Raises
    ------
    InputError
        If the relative error is not a finite number >= 0.
    """
    if not (0 <= share < float("inf")):
        raise InputError(f"model_error: expected a finite number >= 0, got {share}")
    measured = groups >= 0
    signal = by_group(data, groups) / (torch.bincount(groups[measured]).clamp_min(1) * data.shape[0])
    power = (signal - noise**2).clamp_min(0)
    level = _spread(noise**2 + share**2 * power, groups)
    return ModelError(level, noise, share, level)


def quiet_power(left: Tensor, groups: Tensor) -> float:
    """Return the power of a datum of a residual in its quiet groups: an upper limit of the noise.

    Model errors only add to the noise. Arguments as for `from_residual`.
    """
    count = torch.bincount(groups[groups >= 0]).clamp_min(1)
    power = by_group(left, groups) / (count * len(left))
    order = power.argsort()
    return float(power[order][count[order].cumsum(0) >= _QUIET * count.sum()][0])


def by_group(values: Tensor, groups: Tensor) -> Tensor:
    """Sum the power of the data of each group, over the channels."""
    measured = groups >= 0
    return torch.bincount(groups[measured], weights=values.abs().square().sum(dim=0)[measured].to(torch.float64))


def _spread(power: Tensor, groups: Tensor) -> Tensor:
    """Return the level of each datum from the power of its group; the mean level where nothing was measured."""
    levels = power.sqrt().to(torch.float32)[groups.clamp_min(0)]
    measured = groups >= 0
    return torch.where(measured, levels, levels[measured].square().mean().sqrt())
