"""Everything a run needs to continue: weights, optimiser, moving average and step, written atomically."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recon.errors import CheckpointError, ReconError
from recon.files.atomic import atomic_path
from recon.priors.networks.unet import EDMDenoiser
from recon.training.muon import Muon
from recon.training.workers import Workers


class TrainingState:
    """Model, optimisers, moving average of the weights and the number of finished steps."""

    def __init__(self, model: EDMDenoiser, weight_decay: float, ema_decay: float) -> None:
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        kernels, others = split_parameters(model)
        # Two groups of about the same size, for two workers.
        groups = [{"params": kernels[0::2]}, {"params": kernels[1::2]}]
        self.muon = Muon(groups, lr=0.0, weight_decay=weight_decay)
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self.ema_decay, self.weight_decay = ema_decay, weight_decay
        self.step = 0

    def set_learning_rates(self, muon: float, adam: float) -> None:
        """Set the rates of the next step."""
        for optimiser, rate in ((self.muon, muon), (self.adam, adam)):
            for group in optimiser.param_groups:
                group["lr"] = rate

    def update(self, workers: Workers) -> None:
        """Step both optimisers with the gradients at hand and count the step."""
        workers.map(self.muon.step_group, self.muon.param_groups)
        self.adam.step()
        self.step += 1
        self.update_average()

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the weights; the window grows with the step, so the start is forgotten."""
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        for group in (*self.muon.param_groups, *self.adam.param_groups):
            group["weight_decay"] = self.weight_decay  # a setting, which may have changed since
        self.step = int(state["step"])


def split_parameters(model: EDMDenoiser) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the kernels of the inner convolutions (for Muon) and all other parameters (for AdamW)."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        outer = name.startswith(("network.stem", "network.head"))
        (kernels if parameter.ndim == 4 and not outer else others).append(parameter)
    return kernels, others


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that ``path`` always holds a complete file.

    Raises
    ------
    ReconError
        If it cannot be written: the disk is full, or the folder is gone. What was there is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for half in path.parent.glob(f".*-{path.name}"):  # of a process that was killed while it wrote
            half.unlink(missing_ok=True)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
        reason = str(error.__context__ if isinstance(error.__context__, OSError) else error).splitlines()[0]
        raise ReconError(
            f"cannot write the checkpoint {path}: {reason}; is the disk full? An earlier one is kept as it was"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without executing code from it.

    Raises
    ------
    CheckpointError
        If the file is damaged, is not a training checkpoint or holds numbers that are not finite.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"cannot read the training checkpoint {path}: {error}") from error
    if not isinstance(state, dict) or not {"model", "average", "muon", "adam", "step"} <= set(state):
        raise CheckpointError(f"{path} is not a training checkpoint of this engine")
    for part in ("model", "average"):
        for name, value in state[part].items():
            if isinstance(value, Tensor) and not torch.isfinite(value).all():
                raise CheckpointError(f"{path}: {part} tensor {name!r} is not finite")
    return state
