"""What one step is computed from: images, noise levels and noise, drawn ahead of need; and the loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.images.augment import Pool, step_generator
from recon.priors.networks.unet import EDMDenoiser
from recon.training.config import TrainConfig
from recon.training.modalities import Modality

#: Share of the images that are not augmented, where the network is told of augmentation.
_UNTOUCHED = 0.25


@dataclass(frozen=True)
class Batch:
    """Clean images ``(batch, channel, y, x)``, sigma ``(batch,)`` per real channel, unit noise like the images.

    ``conditions`` are the ``position`` and ``labels`` of the network, where it has them.
    """

    clean: Tensor
    sigma: Tensor
    noise: Tensor
    conditions: dict[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """Move everything."""
        told = {name: value.to(device) for name, value in self.conditions.items()}
        return Batch(self.clean.to(device), self.sigma.to(device), self.noise.to(device), told)


def draw_batch(config: TrainConfig, kind: Modality, pools: Sequence[Pool], step: int, piece: int = 0) -> Batch:
    """Return one piece of a step: nothing but the seed, the step and the number of the piece decides what is in it.

    The pieces of a step have the same size of patches, so that processes which share them take the same time.
    """
    rng = step_generator(config.seed, step)
    sizes = np.array(config.patches, dtype=float)
    size, batch = (int(v) for v in sizes[rng.choice(len(sizes), p=sizes[:, 2] / sizes[:, 2].sum())][:2])
    rng = step_generator(config.seed, step, piece) if piece else rng
    drawn = kind.draw(pools, rng, batch, size, _UNTOUCHED if config.augmentation_labels else 0.0)
    log_sigma = rng.normal(config.sigma_log_mean, config.sigma_log_std, batch)
    sigma = np.exp(log_sigma).clip(config.sigma_min, config.sigma_max).astype(np.float32)
    noise = rng.standard_normal((batch, size, size, kind.channels), dtype=np.float32)
    conditions = {}
    if config.position_channels:
        conditions["position"] = drawn.position()
    if config.augmentation_labels:
        conditions["labels"] = drawn.labels()
    clean = drawn.images.contiguous(memory_format=torch.channels_last)
    return Batch(clean, torch.from_numpy(sigma), torch.from_numpy(noise).permute(0, 3, 1, 2), conditions)


def edm_loss(
    model: EDMDenoiser, clean: Tensor, sigma: Tensor, noise: Tensor, precision: str, **conditions: Tensor
) -> Tensor:
    """Return the mean EDM loss of ``clean (batch, channel, y, x)`` at ``sigma (batch,)`` per real channel.

    ``conditions`` are the ``position`` and ``labels`` of the network, where it has them.
    """
    noisy = clean + sigma[:, None, None, None] * noise
    c_skip, c_out, c_in, c_noise = model.coefficients(sigma)
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        output = model.network(c_in * noisy, c_noise, **conditions)
    # The EDM weight is 1 / c_out^2: the loss is the plain squared error of F against its target.
    target = (clean - c_skip * noisy) / c_out
    return (output.float() - target).square().mean()


#: Number of a step, and of a piece of it.
Key = tuple[int, int]


class Ahead:
    """Draws the batches that follow the one that is asked for.

    Parameters
    ----------
    draw : callable
        ``(step, piece) -> Batch``; nothing but its arguments may decide what it returns, so that it does not matter
        when, or in which thread, a batch is drawn.
    following : callable
        ``(step, piece) -> (step, piece)``: what will be asked for next. A wrong guess costs time only.
    threads : int
        That draw, each at most one batch that nobody has asked for.
    """

    def __init__(self, draw: Callable[[int, int], Batch], following: Callable[[int, int], Key], threads: int) -> None:
        self._draw, self._following, self._threads = draw, following, threads
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._waiting: dict[Key, Future[Batch]] = {}

    def take(self, step: int, piece: int) -> Batch:
        """Return a batch, and let those that follow be drawn; what drawing raised is raised here."""
        keys = [(step, piece)]
        for _ in range(self._threads):
            keys.append(self._following(*keys[-1]))
        for key in self._waiting.keys() - set(keys):
            self._waiting.pop(key).cancel()
        for key in keys:
            if key not in self._waiting:
                self._waiting[key] = self._pool.submit(self._draw, *key)
        return self._waiting.pop(keys[0]).result()

    def close(self) -> None:
        """Forget what was drawn and end the threads."""
        self._pool.shutdown(cancel_futures=True)


def drawing_threads(device: torch.device) -> int:
    """Return how many threads draw: one beside the workers of a CPU; what a GPU leaves idle, at most eight."""
    if device.type == "cpu":
        return 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, (os.cpu_count() or 1) // processes - 1))
