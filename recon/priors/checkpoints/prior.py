"""A published network as a prior: complex or real images, in the engine's noise convention and units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recon.errors import CheckpointError, ConfigError, ShapeError
from recon.priors.inference import PreparedNetwork
from recon.priors.network import NetworkPrior

#: Noise level per channel, in network units, above which calls are in float32 also where others are in bfloat16: the
#: output of these networks is a score or the noise, whose rounding is multiplied by sigma in the denoised image.
_EXACT_ABOVE = 3.0


class CheckpointPrior(NetworkPrior):
    """E[x0 | x0 + sigma n = x] from a third-party network.

    Parameters
    ----------
    model : nn.Module
        ``model(x, sigma)`` denoises ``(batch, channels, y, x)`` with sigma per channel (see
        `recon.priors.checkpoints.parametrization`).
    channels : int
        Number of channels of the network.
    sigma_range : (float, float)
        Range of noise levels it was trained for, per channel and in network units.
    images : "complex" or "real"
        Kind of images. Real and imaginary part of complex images are the channels of a two-channel network, or are
        denoised separately by a one-channel network (score-MRI), in both cases with ``sigma / sqrt(2)`` per part.
        Real images are ``(batch, y, x)`` for a one-channel network and ``(batch, channel, y, x)`` otherwise.
    gain : float
        Network units per unit of the engine's images.
    offset : float
        Offset of real images: the input of the network is ``gain * x + offset``. A network that was trained on [-1, 1]
        needs gain 2 and offset -1 for images in [0, 1].
    card : mapping
        Machine-readable description.
    max_batch, precision, compiled
        As in `recon.priors.inference.PreparedNetwork`; noise levels above 3 in network units are computed in float32
        where ``precision`` is bfloat16.
    multiple : int, optional
        Sizes must be multiples of this; by default ``model.network.multiple``.
    """

    def __init__(
        self,
        model: nn.Module,
        channels: int,
        sigma_range: tuple[float, float],
        images: str = "complex",
        gain: float = 1.0,
        card: Mapping[str, Any] | None = None,
        max_batch: int | None = None,
        precision: str = "float32",
        multiple: int | None = None,
        offset: float = 0.0,
        compiled: bool | str = False,
    ) -> None:
        if images not in ("complex", "real"):
            raise ConfigError(f"expected images to be 'complex' or 'real', got {images!r}")
        if images == "complex" and channels > 2:
            raise CheckpointError(
                f"a network with {channels} channels cannot denoise complex images; pass images='real'"
            )
        if not 0 < gain < math.inf:
            raise CheckpointError(f"expected gain > 0 (network units per engine unit), got {gain}")
        if not math.isfinite(offset) or (images == "complex" and offset):
            raise CheckpointError(f"expected a finite offset, 0 for complex images, got {offset}")
        self.offset = float(offset)
        self._channels, self.images, self.gain = channels, images, float(gain)
        self.multiple = int(model.network.multiple) if multiple is None else multiple  # type: ignore[union-attr,arg-type]
        self.split = math.sqrt(2) if images == "complex" else 1.0
        low, high = (sigma * self.split / self.gain for sigma in sigma_range)
        super().__init__(model, low, high, card, max_batch, precision, compiled)  # type: ignore[arg-type]

    def _prepare(self, max_batch: int | None, precision: str, compiled: bool | str) -> PreparedNetwork:
        # Group normalisation of channels_last images loses three digits of precision on CPUs (torch 2.13).
        layout = torch.contiguous_format
        return PreparedNetwork(self.model, self.multiple, layout, precision, compiled, max_batch)

    @property
    def channels(self) -> int:
        """Channels of the network."""
        return self._channels

    @property
    def n_parameters(self) -> int:
        """Number of parameters of the network."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return E[x0 | x0 + sigma n = x]; for complex images E|n|^2 = 1.

        Parameters
        ----------
        x : Tensor
            ``(batch, y, x)``, complex or real according to `images`, or real ``(batch, channel, y, x)``.
        sigma : float or Tensor
            Noise level, one for all or ``(batch,)``. Below ``sigma_min`` the network is evaluated at ``sigma_min``.

        Returns
        -------
        Tensor
            Like ``x``.

        Raises
        ------
        ShapeError
            If ``x`` or ``sigma`` has another shape or kind.
        InputError
            If ``sigma`` is negative, not finite or above ``sigma_max``.
        """
        rank = 4 if self.images == "real" and self.channels > 1 else 3
        fits = x.ndim == rank and x.is_complex() == (self.images == "complex")
        if not fits or (rank == 4 and x.shape[1] != self.channels) or not (x.is_complex() or x.is_floating_point()):
            axes = f"(batch, {self.channels}, y, x)" if rank == 4 else "(batch, y, x)"
            other = "; load it with images='real' for real images" if self.channels == 1 and rank == 3 else ""
            raise ShapeError(f"the prior expected {self.images} images {axes}, got {x.dtype} {tuple(x.shape)}{other}")
        levels = self._levels(sigma, x)
        channels = self._to_channels(x) * self.gain + self.offset
        levels = (levels * (self.gain / self.split)).repeat_interleave(len(channels) // len(x))
        output = self.prepared(channels, levels, exact=self._exact(sigma))
        return self._from_channels((output - self.offset) / self.gain, x)

    def _exact(self, sigma: float | Tensor) -> bool:
        """Tell whether a noise level asks for float32; so do those on a GPU, which nothing waits for."""
        if isinstance(sigma, Tensor) and sigma.device.type != "cpu":
            return True
        return float(torch.as_tensor(sigma).max()) * self.gain / self.split > _EXACT_ABOVE

    def _to_channels(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, y, x)`` float32; with one channel, complex parts are stacked in the batch."""
        if x.is_complex():
            parts = torch.view_as_real(x.to(torch.complex64)).permute(0, 3, 1, 2)
            return parts if self.channels == 2 else parts.reshape(-1, 1, *x.shape[-2:])
        return x.float() if x.ndim == 4 else x.float()[:, None]

    def _from_channels(self, output: Tensor, x: Tensor) -> Tensor:
        if x.is_complex():
            parts = output.reshape(len(x), 2, *x.shape[-2:]).permute(0, 2, 3, 1)
            return torch.view_as_complex(parts.contiguous()).to(x.dtype)
        return output.reshape(x.shape).to(x.dtype)
