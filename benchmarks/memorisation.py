"""Does a prior copy its training images? Nearest training neighbours of its samples against those of held-out slices.

    python benchmarks/memorisation.py --data VOLUMES [--config CONFIG] [--prior NAME] [--samples 16] [--size 128]
        [--patch 32] [--patches 128] [--shrink 2] [--training 150] [--json FILE] [--sheet PNG]

Samples are drawn from the prior alone. Training and held-out slices are those of the training configuration, at the
pixel sizes it trains with: training images are compared at three pixel sizes spread over its range, held-out ones at
random ones inside it. Patches are compared with every window of the training slices, whole slices after what they show
was brought to one frame; both mirrored and turned in eight ways (``recon.training.memorisation``). ``--shrink``
averages pixels first: at full resolution the noise of the measured slices has a large part in their distances.
``--sheet`` shows the samples that are closest to a training slice, each beside that slice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recon.images.sources import Slice, SourceConfig
from recon.modalities import training_images
from recon.priors import load_prior
from recon.training.config import load_config
from recon.training.memorisation import compare, cut_patches, nearest, whole
from recon.training.pictures import draw_prior

CONFIG = Path(__file__).parent / "configs" / "brain-mri.toml"
FRAME = 48


def main() -> None:
    """Draw, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that the patterns of the config refer to")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--prior", default="brain-mri", help="name or file")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--size", type=int, default=128, help="side of the samples in pixels")
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--patch", type=int, default=32, help="side of the patches in pixels of the samples")
    parser.add_argument("--patches", type=int, default=128)
    parser.add_argument("--shrink", type=int, default=2, help="average this many pixels before comparing")
    parser.add_argument("--training", type=int, default=150, help="training slices, evenly over the sources")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    kind = training_images(config.modality)
    training = images_of(arguments, config.sources, kind, held_out=False)
    held_out = images_of(arguments, [s for s in config.sources if s.held_out], kind, held_out=True)
    shape = (arguments.size, arguments.size)
    drawn = draw_prior(
        load_prior(arguments.prior, shape=shape),
        shape,
        arguments.samples,
        arguments.seed,
        arguments.steps,
        kind.channels == 1,
    )
    samples = [shrunk(image.abs(), arguments.shrink) for image in drawn]
    side = arguments.patch // arguments.shrink
    patches, others = (cut_patches(images, side, arguments.patches, arguments.seed) for images in (samples, held_out))
    framed = [whole(images, FRAME) for images in (samples, held_out, training)]
    result: dict[str, Any] = {
        "prior": arguments.prior,
        "samples": len(samples),
        "training slices": len(training),
        "held-out slices": len(held_out),
        "patches": compare(patches, others, training),
        "whole": compare(framed[0], framed[1], list(framed[2])),
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.sheet:
        save_sheet(framed[0], framed[2], arguments.sheet)


def images_of(
    arguments: argparse.Namespace, sources: Sequence[SourceConfig], kind: Any, held_out: bool
) -> list[Tensor]:
    """Return magnitudes: training slices at three pixel sizes, as many held-out ones each at one."""
    rng = np.random.default_rng(arguments.seed)
    found = []
    for source in sources:
        items = kind.load(arguments.data, source, held_out)
        count = arguments.training // len(sources) // (1 if held_out else 3)
        chosen = [items[int(k)] for k in np.linspace(0, len(items) - 1, count)]
        low, high = np.log(source.spacing)
        for item in chosen:
            spacings = [rng.uniform(low, high)] if held_out else [low, (low + high) / 2, high]
            found += [shrunk(resampled(item, source, float(np.exp(s))), arguments.shrink) for s in spacings]
    smallest = arguments.patch // arguments.shrink
    return [image for image in found if min(image.shape) >= smallest]


def resampled(item: Slice, source: SourceConfig, spacing: float) -> Tensor:
    """Return the magnitude of a slice at a pixel size in mm, or as fine as the training makes it."""
    image = torch.from_numpy(np.abs(item.image).astype(np.float32))
    zoom = [min(pixel / spacing, source.max_zoom) for pixel in item.spacing]
    shape = [max(8, round(n * z)) for n, z in zip(image.shape, zoom, strict=True)]
    return functional.interpolate(image[None, None], shape, mode="bilinear", antialias=True)[0, 0]


def shrunk(image: Tensor, factor: int) -> Tensor:
    """Average blocks of pixels."""
    return functional.avg_pool2d(image[None, None], factor)[0, 0] if factor > 1 else image


def save_sheet(samples: Tensor, training: Tensor, path: Path) -> None:
    """Write the eight samples nearest to a training slice above those slices."""
    from matplotlib.image import imsave

    found = nearest(samples, list(training))
    order = found.distance.argsort()[:8]
    rows = [torch.cat(list(samples[order]), dim=1), torch.cat(list(training[found.image[order]]), dim=1)]
    imsave(path, np.kron(torch.cat(rows).numpy(), np.ones((3, 3))), cmap="gray", vmin=0, vmax=1.2)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
