"""Estimate the covariance model of a prior from its training images.

``python -m recon.training.covariance CONFIG WEIGHTS --data FOLDER [--size 96] [--images 800]`` where CONFIG is the TOML
file of the training and WEIGHTS the exported prior; the model is written beside it. Whole slices are resampled to one
size; magnitudes get a random smooth phase.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recon.images.augment import step_generator
from recon.modalities import training_images
from recon.priors.covariance import SUFFIX, write_covariance
from recon.priors.networks.blocks import from_channels, to_channels
from recon.training.config import TrainConfig, load_config
from samplers import CovarianceModel

#: The map is averaged over 5 x 5 pixels: a few hundred images do not determine single pixels well.
_SMOOTH = 2


def whole_images(config: TrainConfig, size: int, count: int) -> Tensor:
    """Return ``(count, size, size)`` training images, complex or real, from each source in proportion to its weight."""
    kind, root = training_images(config.modality), Path(config.data)
    weights = np.array([source.weight for source in config.sources])
    images = []
    for number, (source, fraction) in enumerate(zip(config.sources, weights / weights.sum(), strict=True)):
        slices = kind.load(root, source, False)
        chosen = step_generator(config.seed, number).integers(len(slices), size=max(1, round(count * fraction)))
        images += [squared(kind.test_image(slices[k], 1000 * number + i), size) for i, k in enumerate(chosen)]
    return torch.stack(images)


def squared(image: Tensor, size: int) -> Tensor:
    """Return an image ``(y, x)`` as ``(size, size)``: padded to a square of its longer side, then resampled."""
    rows, columns = image.shape
    side = max(rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    channels = to_channels(image[None]) if image.is_complex() else image[None, None]
    padded = functional.pad(channels, (left, side - columns - left, top, side - rows - top), mode="replicate")
    resized = functional.interpolate(padded, (size, size), mode="bilinear", antialias=True)
    return from_channels(resized)[0] if image.is_complex() else resized[0, 0]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the estimate from the command line."""
    parser = argparse.ArgumentParser(description="Estimate the covariance model of a prior from its training images.")
    parser.add_argument("config", type=Path)
    parser.add_argument("weights", type=Path, help="exported prior (.safetensors); the model is written beside it")
    parser.add_argument("--data", required=True, help="folder with the training data")
    parser.add_argument("--size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=800, help="number of images")
    arguments = parser.parse_args(argv)
    images = whole_images(load_config(arguments.config, {"data": arguments.data}), arguments.size, arguments.images)
    path = arguments.weights.with_suffix(SUFFIX)
    write_covariance(path, CovarianceModel.estimate(images, smooth=_SMOOTH))
    print(f"{path}: {len(images)} images of {arguments.size} x {arguments.size}")


if __name__ == "__main__":
    main()
