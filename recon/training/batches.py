"""Training batches (images, noise levels and noise), drawn in advance, and the loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recon.images.augment import Pool, step_generator
from recon.modalities.base import TrainingImages
from recon.priors.networks.unet import EDMDenoiser
from recon.training.config import TrainConfig

#: Fraction of images left unaugmented when the network is conditioned on augmentation.
_UNTOUCHED = 0.25


@dataclass(frozen=True)
class Batch:
    """Clean images ``(batch, channel, y, x)``, sigma ``(batch,)`` per real channel, and unit noise, like the images.

    ``conditions`` holds ``position`` and ``labels`` for networks that are conditioned on them.
    """

    clean: Tensor
    sigma: Tensor
    noise: Tensor
    conditions: dict[str, Tensor]

    def to(self, device: torch.device) -> Batch:
        """Return a copy on ``device``."""
        conditions = {name: value.to(device) for name, value in self.conditions.items()}
        return Batch(self.clean.to(device), self.sigma.to(device), self.noise.to(device), conditions)


def draw_batch(config: TrainConfig, kind: TrainingImages, pools: Sequence[Pool], step: int, piece: int = 0) -> Batch:
    """Return one piece of a step; it depends on nothing but the seed, the step and the index of the piece.

    All pieces of a step have the same patch size, so that parallel processes take the same time.
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

    ``conditions`` holds ``position`` and ``labels`` for networks that are conditioned on them.
    """
    noisy = clean + sigma[:, None, None, None] * noise
    c_skip, c_out, c_in, c_noise = model.coefficients(sigma)
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        output = model.network(c_in * noisy, c_noise, **conditions)
    # The EDM weight is 1 / c_out^2: the loss is the plain squared error of F against its target.
    target = (clean - c_skip * noisy) / c_out
    return (output.float() - target).square().mean()


#: Index of a step, and of a piece of it.
Key = tuple[int, int]


class Ahead:
    """Draws upcoming batches in background threads, so that no processor waits for data.

    Parameters
    ----------
    draw : callable
        ``(step, piece) -> Batch``; its result may depend on its arguments only, so that it does not matter when, or in
        which thread, a batch is drawn.
    following : callable
        ``(step, piece) -> (step, piece)``: the batch that will be requested next. A wrong guess only costs time.
    threads : int
        Number of drawing threads; each draws at most one batch in advance.
    """

    def __init__(self, draw: Callable[[int, int], Batch], following: Callable[[int, int], Key], threads: int) -> None:
        self._draw, self._following, self._threads = draw, following, threads
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self._waiting: dict[Key, Future[Batch]] = {}

    def take(self, step: int, piece: int) -> Batch:
        """Return a batch and start drawing the following ones; errors raised while drawing are raised here."""
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
        """Discard drawn batches and end the threads."""
        self._pool.shutdown(cancel_futures=True)


def drawing_threads(device: torch.device) -> int:
    """Return the number of drawing threads: one beside the workers on a CPU, the idle cores (at most 8) on a GPU."""
    if device.type == "cpu":
        return 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, (os.cpu_count() or 1) // processes - 1))
