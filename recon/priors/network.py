"""A trained network as a prior: two channels for complex images, one for real ones.

The two noise conventions meet here and nowhere else:

- the *engine* uses complex noise n with E|n|^2 = 1, as ``torch.randn(dtype=torch.complex64)`` draws it;
- the *network* was trained with noise of standard deviation sigma in each real channel.

Complex noise sigma n has variance sigma^2 / 2 in each part, so the network is called with sigma / sqrt(2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.errors import CheckpointError, InputError, ShapeError
from recon.priors.covariance import beside
from recon.priors.inference import PreparedNetwork
from recon.priors.networks.blocks import from_channels, to_channels
from recon.priors.networks.files import read_card, read_tensors
from recon.priors.networks.unet import EDMDenoiser, UNet
from samplers import CovarianceModel

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
#: A schedule that starts at sigma_max may exceed it by float32 rounding.
_ROUNDING = 1.001


class NetworkPrior:
    """E[x0 | x0 + sigma n = x] from a network trained on complex images (two channels) or real ones (one channel).

    Parameters
    ----------
    model : EDMDenoiser
        Network with preconditioning; its sigma is per real channel.
    sigma_min, sigma_max : float
        Range of noise levels the network was trained for, **in the engine's convention** (E|n|^2 = 1).
    card : mapping
        Machine-readable description (training data, licence, scale); may be empty.
    max_batch, precision, compiled
        See `recon.priors.inference.PreparedNetwork`.

    Notes
    -----
    The network is fully convolutional: images of any size are padded to a multiple of its coarsest pixel and cropped
    back, so ``space`` is None. Gradients flow through to ``x``; parameters have none.
    """

    space = None

    def __init__(
        self,
        model: EDMDenoiser,
        sigma_min: float,
        sigma_max: float,
        card: Mapping[str, Any] | None = None,
        max_batch: int | None = None,
        precision: str = "float32",
        compiled: bool | str = False,
    ) -> None:
        self.model = model
        self.prepared = self._prepare(max_batch, precision, compiled)
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)
        self.card = dict(card or {})
        #: Covariance model of whole images, if its file is beside the weights.
        self.covariance_model: CovarianceModel | None = None
        self._error_tables: dict[tuple[tuple[int, ...], torch.device], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def _prepare(self, max_batch: int | None, precision: str, compiled: bool | str) -> PreparedNetwork:
        network = self.model.network
        return PreparedNetwork(
            self.model,
            network.multiple,
            precision=precision,
            compiled=compiled,
            max_batch=max_batch,
            told_positions=network.position_channels,
        )

    @property
    def max_batch(self) -> int | None:
        """Largest number of images per call of the network; None for as many as memory allows."""
        return self.prepared.max_batch

    @max_batch.setter
    def max_batch(self, value: int | None) -> None:
        self.prepared.max_batch = value

    @property
    def precision(self) -> str:
        """Arithmetic of the network."""
        return self.prepared.precision

    @property
    def channels(self) -> int:
        """Number of real channels: 2 for complex images, 1 for real ones."""
        return self.model.network.in_channels

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> NetworkPrior:
        """Move the network to ``device`` and return this prior."""
        self.model.to(device)
        return self

    def __call__(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Call ``denoise``."""
        return self.denoise(x, sigma)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return E[x0 | x0 + sigma n = x] with E|n|^2 = 1.

        Parameters
        ----------
        x : Tensor
            ``(batch, y, x)`` complex64 or, for a network of real images, float32, in the network's scale (see its
            card; for brain-mri, the .99 quantile of the clean magnitude is 1).
        sigma : float or Tensor
            Noise level, one for all or ``(batch,)``. Below ``sigma_min`` the network is evaluated at ``sigma_min``,
            where it hardly changes the image.

        Returns
        -------
        Tensor
            Like ``x``.

        Raises
        ------
        ShapeError
            If ``x`` is not ``(batch, y, x)`` of the network's kind, or the shape of ``sigma`` does not fit.
        InputError
            If ``sigma`` is negative, not finite or above ``sigma_max``; not checked if it is a tensor on a GPU.
        """
        if x.ndim != 3 or x.is_complex() != (self.channels == 2) or not (x.is_complex() or x.is_floating_point()):
            kind = "complex" if self.channels == 2 else "real"
            raise ShapeError(f"the prior expected {kind} images (batch, y, x), got {x.dtype} {tuple(x.shape)}")
        levels = self._levels(sigma, x)
        return from_channels(self.prepared(to_channels(x), levels / math.sqrt(self.channels))).to(x.dtype)

    def error_std(self, sigma: float) -> float | None:
        """Return the rms error per pixel at this noise level, measured on held-out images; None if not on the card.

        Interpolated linearly in the logarithms, and proportional to sigma below the table.
        """
        table = self.card.get("error_std")
        if not table:
            return None
        known = [math.log(s) for s in table["sigma"]], [math.log(e) for e in table["error"]]
        below = min(sigma / table["sigma"][0], 1.0)
        return below * math.exp(float(np.interp(math.log(sigma), *known)))

    def error_spectrum(self, sigma: float, shape: tuple[int, ...]) -> Tensor | None:
        """Return the variance of each Fourier coefficient of the error; None if the card has no table of it.

        Parameters
        ----------
        sigma : float
            Noise level.
        shape : tuple of int
            Shape of the image ``(y, x)``; the result is centred, for the orthonormal transform, and on the device of
            the network.
        """
        table = self.card.get("error_spectrum")
        if not table:
            return None
        rings, below, above, fraction = self._error_table(tuple(shape))
        (low,), (high,), (way,) = _between(np.log(table["sigma"]), np.array([math.log(sigma)]))
        ratio = torch.lerp(rings[int(low)], rings[int(high)], float(way)).exp()
        # Above the table, the error is constant; below it, it is proportional to sigma.
        level = min(sigma, table["sigma"][-1])
        return (level * torch.lerp(ratio[below], ratio[above], fraction)).square()

    def _error_table(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return log ratios ``(level, ring)``, and the rings around each frequency with the fraction of the way.

        They are made once for a shape and stay with the network, so that no step copies them to a GPU.
        """
        key = shape, self.device
        if key not in self._error_tables:
            table = self.card["error_spectrum"]
            y, x = (np.fft.fftshift(np.fft.fftfreq(n)) for n in shape)
            places = _between(np.asarray(table["frequency"], dtype=float), np.hypot(y[:, None], x))
            ratios = np.log(np.asarray(table["ratio"], dtype=float))
            rings, below, above, fraction = (torch.from_numpy(v).to(self.device) for v in (ratios, *places))
            self._error_tables[key] = rings.float(), below, above, fraction.float()
        return self._error_tables[key]

    def _levels(self, sigma: float | Tensor, x: Tensor) -> Tensor:
        """Return sigma as float32 ``(batch,)`` on the device of ``x``, checked and clipped from below.

        A number becomes a tensor by a fill, since a copy would wait for a GPU, as would a check of values on one.
        """
        if not isinstance(sigma, Tensor) and np.ndim(sigma) == 0:
            level = float(sigma)
            self._require_level(0 <= level <= self.sigma_max * _ROUNDING, sigma)
            return torch.full((len(x),), max(level, self.sigma_min), dtype=torch.float32, device=x.device)
        levels = torch.as_tensor(sigma)
        if levels.ndim > 1 or (levels.ndim == 1 and len(levels) not in (1, len(x))):
            raise ShapeError(f"expected sigma to be a number or of shape ({len(x)},), got shape {tuple(levels.shape)}")
        if levels.device.type == "cpu":
            known = (levels >= 0) & (levels <= self.sigma_max * _ROUNDING)
            self._require_level(bool(known.all()), levels.detach().tolist())
        return levels.to(x.device, torch.float32).clamp(min=self.sigma_min).expand(len(x))

    def _require_level(self, holds: bool, got: object) -> None:
        if not holds:
            raise InputError(f"expected sigma between 0 and {self.sigma_max:g}, got {got}")


def _between(known: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the entries of an increasing table below and above each value, and the fraction of the way between."""
    at = np.clip(at, known[0], known[-1])
    above = np.minimum(np.searchsorted(known, at, side="right"), len(known) - 1)
    below = np.maximum(above - 1, 0)
    return below, above, (at - known[below]) / np.maximum(known[above] - known[below], 1e-30)


def load_network_prior(
    path: str | Path = WEIGHTS_FOLDER / "brain-mri.safetensors",
    device: torch.device | str = "cpu",
    max_batch: int | None = None,
    precision: str = "float32",
    compiled: bool | str = False,
) -> NetworkPrior:
    """Load a network prior from a safetensors file and the JSON card of the same name beside it.

    See `recon.priors.inference.PreparedNetwork` for ``max_batch``, ``precision`` and ``compiled``.

    Raises
    ------
    CheckpointError
        If the card or the weights are missing or damaged, the sha256 differs from the card's, or a tensor is missing,
        unexpected, of the wrong shape or not finite (the message names it).
    """
    path = Path(path)
    card = read_card(path.with_suffix(".json"))
    try:
        with torch.device("meta"):  # takes no memory and no random numbers
            model = EDMDenoiser(UNet(**card["network"]), card["sigma_data"], card.get("parametrization", "edm"))
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: the card does not describe a network that this version can build: {error}"
        ) from error
    model.load_state_dict(read_tensors(path, card["sha256"], model.state_dict()), assign=True)
    prior = NetworkPrior(model, card["sigma_min"], card["sigma_max"], card, max_batch, precision, compiled)
    prior.covariance_model = beside(path)
    return prior.to(device)
