"""A training run: model, data, loss and log; ``TrainingRun.advance`` takes one step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon.device import resolve_device
from recon.errors import CheckpointError, DivergenceError
from recon.images.augment import Pool
from recon.priors.network import NetworkPrior
from recon.training import pictures
from recon.training.batches import Ahead, Batch, draw_batch, drawing_threads, edm_loss
from recon.training.config import TrainConfig
from recon.training.evaluate import denoising_curve
from recon.training.modalities import modality
from recon.training.parallel import Ranks, Replicas, Workers, device_of_this_process
from recon.training.pictures import draw_prior
from recon.training.state import (
    TrainingState,
    build_model,
    changes,
    differences,
    identity_of,
    load_checkpoint,
    save_checkpoint,
    start_from,
)


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """Return the learning rate: linear warm-up, constant, then linear decay to zero over ``config.decay`` steps."""
    rise = (step + 1) / max(1, config.warmup)
    fall = (config.steps - step) / max(1, config.decay)
    return config.learning_rate * max(0.0, min(1.0, rise, fall))


class TrainingRun:
    """A training run: data, model, log; ``advance`` takes one step."""

    def __init__(self, config: TrainConfig, say: Callable[[str], None] | None = None) -> None:
        self.config, self.say = config, say
        self.folder = Path(config.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = resolve_device(device_of_this_process(config.device))
        self.ranks = Ranks(self.device)
        self.path = self.folder / "checkpoint.pt"
        self.modality, root = modality(config.modality), Path(config.data)
        self.pools = [Pool.build(s, self.modality.load(root, s, False)) for s in config.sources]
        items = [item for s in config.sources if s.held_out for item in self.modality.held_out(root, s)]
        self.held_out = [self.modality.test_image(item, k).to(self.device) for k, item in enumerate(items)]
        model = build_model(config)
        if config.initial and not self.path.exists():
            start_from(model, Path(config.initial))
        model.to(self.device)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.state = TrainingState(model, config.weight_decay, config.ema_decay)
        if self.path.exists():
            self._resume()
        self.ranks.wait()  # before the first process writes what the others may still be reading
        self.workers = Workers(config.threads if self.device.type == "cpu" else 1)
        self.replicas = Replicas(model, self.workers)
        self.batches = Ahead(self._draw, self._following, drawing_threads(self.device))
        self.started = self.saved = self.reported = time.monotonic()
        self.evaluated = time.monotonic()
        self.first_step = self.state.step
        self.losses: list[Tensor] = []

    def _resume(self) -> None:
        state = load_checkpoint(self.path)
        if wrong := differences(state, self.config):
            raise CheckpointError(
                f"{self.path} was written with a different network, seed, data or noise distribution "
                f"({', '.join(wrong)} differs); choose another output folder, or the configuration it was started with"
            )
        self.state.load_state_dict(state)
        if changed := changes(state, self.config):
            self.log(f"changed on resume: {', '.join(changed)}")
        for name in ("loss.jsonl", "held_out.jsonl"):  # steps after the checkpoint are repeated
            if self.ranks.first:
                pictures.keep_until(self.folder / name, self.state.step)

    def advance(self) -> None:
        """Take one optimiser step; raise DivergenceError if the loss or the gradient is not finite."""
        config, state = self.config, self.state
        rate = learning_rate_at(config, state.step)
        state.set_learning_rates(config.muon_factor * rate, rate)
        loss = self._gradients()
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip, foreach=True)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise DivergenceError(f"step {state.step}: loss {loss.item()} is not finite; lower learning_rate")
        state.update(self.workers)
        self.losses.append(loss)

    def _gradients(self) -> Tensor:
        """Store the gradient over all pieces and processes in the model; return the mean loss of this process."""
        count, parameters = self.config.accumulate, list(self.state.model.parameters())
        losses: list[Tensor] = []
        total: list[Tensor] = []
        for k in range(count):
            piece = self.ranks.rank * count + k
            losses.append(self._piece(piece))
            if count > 1:
                found = [p.grad.clone() / count for p in parameters if p.grad is not None]
                total = [a + b for a, b in zip(total, found, strict=True)] if total else found
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient, value in zip(gradients, total, strict=False):
            gradient.copy_(value)
        self.ranks.average(gradients)
        return torch.stack(losses).mean()

    def _draw(self, step: int, piece: int) -> Batch:
        return draw_batch(self.config, self.modality, self.pools, step, piece)

    def _following(self, step: int, piece: int) -> tuple[int, int]:
        """Return step and piece of the batch that this process needs next."""
        count, first = self.config.accumulate, self.ranks.rank * self.config.accumulate
        return (step, piece + 1) if piece + 1 < first + count else (step + 1, first)

    def _piece(self, piece: int) -> Tensor:
        """Draw one piece of the step, store its gradient in the model and return its loss."""
        batch = self.batches.take(self.state.step, piece).to(self.device)

        def loss_of(model: Any, *parts: Tensor) -> Tensor:
            conditions = dict(zip(batch.conditions, parts[3:], strict=True))
            return edm_loss(model, parts[0], parts[1], parts[2], self.config.precision, **conditions)

        return self.replicas.gradients(loss_of, batch.clean, batch.sigma, batch.noise, *batch.conditions.values())

    def close(self) -> None:
        """End the threads and leave the process group."""
        self.batches.close()
        self.workers.close()
        self.ranks.close()

    def housekeeping(self) -> None:
        """Log, save and evaluate when due."""
        if self.state.step % 50 == 0:
            self.report()
        now = time.monotonic()
        if now - self.saved > 60 * self.config.checkpoint_minutes:
            self.checkpoint()
            self.saved = now
        if now - self.evaluated > 60 * self.config.evaluation_minutes:
            self.evaluate()
            self.draw()
            self.evaluated = time.monotonic()

    def report(self) -> None:
        """Log the mean loss since the last report, if there were any steps, and the remaining time."""
        if not self.losses:
            return
        now, step = time.monotonic(), self.state.step
        rate = (now - self.started) / (step - self.first_step)
        remaining = (self.config.steps - step) * (now - self.reported) / len(self.losses)
        mean = torch.stack(self.losses).mean().item()
        self.log(f"step {step} loss {mean:.4f} {rate:.3f} s/step, {remaining / 60:.0f} min to go")
        if self.ranks.first:
            pictures.append(self.folder / "loss.jsonl", {"step": step, "loss": round(mean, 6)})
        self.losses, self.reported = [], now

    def checkpoint(self) -> None:
        """Write the checkpoint atomically."""
        if not self.ranks.first:
            return
        settings = json.dumps(asdict(self.config))
        identity = json.dumps(identity_of(self.config), sort_keys=True)
        save_checkpoint(self.path, self.state.state_dict() | {"identity": identity, "config": settings})

    def evaluate(self) -> None:
        """Append the denoising quality of the averaged weights on held-out slices to ``held_out.jsonl``."""
        if not self.held_out or not self.ranks.first:
            return
        curve = denoising_curve(self.state.average, self.held_out)
        pictures.append(self.folder / "held_out.jsonl", {"step": self.state.step, "psnr": curve})
        self.log(f"step {self.state.step} held-out PSNR {curve}")

    def draw(self) -> None:
        """Plot the curves and draw images from the current prior, if matplotlib is installed."""
        if not (self.ranks.first and self.config.previews and pictures.has_matplotlib()):
            return
        pictures.draw_curves(*(self.folder / name for name in ("loss.jsonl", "held_out.jsonl", "curves.png")))
        channels, size = self.modality.channels, int(self.config.patches[0][0])
        low, high = (math.sqrt(channels) * s for s in (self.config.sigma_min, self.config.sigma_max))
        prior = NetworkPrior(self.state.average, low, high, precision=self.config.precision)
        images = draw_prior(prior, (size, size), self.config.previews, self.config.seed, 12, channels == 1, self.device)
        pictures.draw_sheet(images.cpu(), self.folder / "previews.png")

    def log(self, message: str) -> None:
        """Append a line with the time in UTC to ``log.txt``."""
        if not self.ranks.first:
            return
        line = f"{time.strftime('%H:%M:%S', time.gmtime())} {message}"
        with open(self.folder / "log.txt", "a") as file:
            file.write(line + "\n")
        if self.say is not None:
            self.say(line)
