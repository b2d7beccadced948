"""Everything a run needs to continue: weights, optimiser, moving average and step, written atomically."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recon.errors import CheckpointError


class TrainingState:
    """Model, optimiser, moving average of the weights and the number of finished steps."""

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float, ema_decay: float) -> None:
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        self.ema_decay = ema_decay
        self.step = 0

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
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` so that ``path`` always holds a complete file: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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
    if not isinstance(state, dict) or not {"model", "average", "optimiser", "step"} <= set(state):
        raise CheckpointError(f"{path} is not a training checkpoint of this engine")
    for part in ("model", "average"):
        for name, value in state[part].items():
            if isinstance(value, Tensor) and not torch.isfinite(value).all():
                raise CheckpointError(f"{path}: {part} tensor {name!r} is not finite")
    return state
