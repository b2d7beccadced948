"""Denoising quality of the ultrasound prior on held-out simulated images, against the Gaussian stand-in.

    python benchmarks/quality_denoising_us.py [--prior FILE.safetensors] [--images 5] [--output RESULTS.json]

Complex noise sigma n with E|n|^2 = 1. The stand-in is what ``--prior gaussian`` assumes of ultrasound: independent
complex pixels whose strength v is that of the image smoothed over 1 x 2 wavelengths, here of the noisy image less the
noise; it denoises to v / (v + sigma^2) times the noisy image. PSNR = 10 log10(1 / mean |error|^2) in dB, averaged over
the images. The results also hold the error of the network by noise level in pixels above 0.1, for the card; not that by
frequency, which is relative to such pixels, too, and makes no sense where the darker ones are as much speckle.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from recon.modalities import training_images
from recon.modalities.ultrasound.training import PIXEL
from recon.priors.network import WEIGHTS_FOLDER, load_network_prior
from recon.training.config import load_config
from recon.training.evaluate import SIGMAS, error_curve, psnr, with_noise

CONFIG = Path(__file__).parent / "configs" / "ultrasound.toml"
LEVELS = (0.01, *SIGMAS)


def stand_in(noisy: Tensor, sigma: float) -> Tensor:
    """Denoise independent pixels whose strength is that of their neighbourhood."""
    width = [length / step for length, step in zip((1.0, 2.0), PIXEL, strict=True)]
    power = ndimage.gaussian_filter(noisy.abs().square().numpy(), width)
    variance = torch.from_numpy(np.maximum(power - sigma**2, 0).astype(np.float32))
    return noisy * variance / (variance + sigma**2)


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, default=WEIGHTS_FOLDER / "ultrasound.safetensors")
    parser.add_argument("--config", type=Path, default=CONFIG, help="training configuration: which images are held out")
    parser.add_argument("--images", type=int, default=5, help="held-out images of each kind of scene")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--output", type=Path, help="JSON file with the results")
    options = parser.parse_args()
    prior = load_network_prior(options.prior, precision=options.precision)
    config = load_config(options.config)
    kind = training_images(config.modality)
    result: dict[str, Any] = {}
    every: list[Tensor] = []
    for source in config.sources:
        images = [kind.test_image(item, k) for k, item in enumerate(kind.held_out(Path(), source, options.images))]
        every += images
        result[source.pattern] = compare(prior, images)
        print(source.pattern, json.dumps(result[source.pattern]), flush=True)
    everything = {"images": len(every), **result}
    everything["error_std"] = error_curve(prior, every)
    if options.output:
        options.output.write_text(json.dumps(everything, indent=1) + "\n")


def compare(prior: Any, images: list[Tensor]) -> dict[str, dict[str, float]]:
    """Return PSNR in dB by method and sigma."""
    found: dict[str, dict[str, float]] = {"network": {}, "gaussian": {}}
    for sigma in LEVELS:
        noisy = [with_noise(clean, sigma, k) for k, clean in enumerate(images)]
        ours = [psnr(prior.denoise(y[None], sigma)[0], x) for x, y in zip(images, noisy, strict=True)]
        theirs = [psnr(stand_in(y, sigma), x) for x, y in zip(images, noisy, strict=True)]
        found["network"][str(sigma)] = round(float(np.mean(ours)), 2)
        found["gaussian"][str(sigma)] = round(float(np.mean(theirs)), 2)
    return found


if __name__ == "__main__":
    main()
