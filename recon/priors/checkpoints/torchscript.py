"""TorchScript programs as priors: only on request, because programs are code."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from recon.errors import CheckpointError, InputError
from recon.priors.checkpoints.archive import sha256_of
from recon.priors.checkpoints.prior import CheckpointPrior


class ScriptedDenoiser(nn.Module):
    """A scripted ``D(x, sigma)`` with the interface of the other denoising modules."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.network = program

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoise ``x (batch, channel, y, x)`` with ``sigma (batch,)`` per channel."""
        return self.network(x, sigma)


def load_torchscript(
    path: str | Path,
    *,
    sigma_min: float,
    sigma_max: float,
    channels: int = 2,
    images: str = "complex",
    gain: float = 1.0,
    multiple: int = 1,
    device: torch.device | str = "cpu",
    max_batch: int | None = None,
) -> CheckpointPrior:
    """Load a TorchScript denoiser, as used by BART (``--external-graph``).

    A TorchScript file is a program, so `recon.load_prior` refuses it: load it here if you trust its source.

    Parameters
    ----------
    path : str or Path
        File written by ``torch.jit.save``: ``D(x, sigma)`` for ``x (batch, channels, y, x)`` float32 and ``sigma
        (batch,)``, the noise standard deviation per channel.
    sigma_min, sigma_max : float
        Range of noise levels it was trained for, per channel.
    channels, images, gain
        As in `CheckpointPrior`.
    multiple : int
        Height and width must be multiples of this; images are padded.

    Raises
    ------
    InputError, CheckpointError
        If the file does not exist, or is not a TorchScript program.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"prior: the file {path} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole
            program = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path}: not a TorchScript program ({reason})") from error
    card = {"layout": "torchscript", "sha256": sha256_of(path), "channels": channels}
    levels = (sigma_min, sigma_max)
    prior = CheckpointPrior(
        ScriptedDenoiser(program), channels, levels, images, gain, card, max_batch, multiple=multiple
    )
    prior.to(device)
    return prior
