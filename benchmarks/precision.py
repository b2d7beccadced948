"""By how much bfloat16 changes the images of each shipped prior: bounds of `--precision auto`.

    python benchmarks/precision.py [--priors NAME ...] [--size 64] [--samples 4] [--steps 10] [--json FILE]

The images are drawn by each prior itself in float32, so that no data are needed. Denoising: the difference of the two
outputs, added to the error of the network on held-out images as its card records it, as a loss of PSNR; the largest of
several noise levels. Reconstruction: one image from half of its pixels with noise, with the same random numbers in
float32 and in bfloat16; the change of the PSNR of the mean and of the coverage of the 90 % interval. Bounds: .05 dB and
.01. Errors of bfloat16 do not depend on whether the machine has instructions for it, only its speed does. Exit status 1
if a bound is exceeded.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import Diagonal, Space
from recon.posterior_samples import PosteriorSamples
from recon.priors import load_prior
from recon.priors.hub import list_models
from recon.priors.network import NetworkPrior
from recon.training.evaluate import psnr, with_noise
from samplers import DDS, Problem, sample

SIGMAS = (0.05, 0.1, 0.3, 1.0, 3.0)
NOISE_STD = 0.1
#: Bounds of the changes.
MOST_DB, MOST_COVERAGE = 0.05, 0.01
#: Steps that draw the truth.
_STEPS = 20


def main(given: list[str] | None = None) -> int:
    """Compare each prior with itself, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [card["name"] for card in list_models()]
    parser.add_argument("--priors", nargs="+", default=names, metavar="NAME")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(given)
    rows = []
    for name in arguments.priors:
        rows.append({"prior": name, **compare(name, arguments.size, arguments.samples, arguments.steps)})
        print("  ".join(f"{k} {v:+.4f}" if isinstance(v, float) else f"{v}" for k, v in rows[-1].items()), flush=True)
    if arguments.json:
        facts = {"size": arguments.size, "samples": arguments.samples, "steps": arguments.steps}
        arguments.json.write_text(json.dumps({**facts, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")
    return 0 if all(row["within"] for row in rows) else 1


@torch.no_grad()
def compare(name: str, size: int, samples: int, steps: int) -> dict[str, Any]:
    """Return the changes of one prior, and whether they are within the bounds."""
    full, half = (network(name, precision) for precision in ("float32", "bfloat16"))
    truth = drawn(full, size)
    row: dict[str, Any] = {}
    row["denoising dB"] = min(loss(full, half, with_noise(truth, sigma, 0)[None], sigma) for sigma in SIGMAS)
    before, after = (reconstructed(prior, truth, samples, steps) for prior in (full, half))
    row["mean dB"], row["coverage"] = after[0] - before[0], after[1] - before[1]
    row |= {"PSNR, float32": before[0], "coverage, float32": before[1]}
    decibels = max(abs(row["denoising dB"]), abs(row["mean dB"]))
    row["within"] = decibels < MOST_DB and abs(row["coverage"]) < MOST_COVERAGE
    return row


def loss(full: NetworkPrior, half: NetworkPrior, noisy: Tensor, sigma: float) -> float:
    """Return by how many dB the difference of two outputs lowers the PSNR of the network on held-out images."""
    own = full.error_std(sigma)
    assert own is not None
    difference = (half.denoise(noisy, sigma) - full.denoise(noisy, sigma)).abs().square().mean().item()
    return -10 * math.log10(1 + difference / own**2)


def network(name: str, precision: str) -> NetworkPrior:
    """Load a shipped network."""
    prior = load_prior(name, precision=precision)
    if not isinstance(prior, NetworkPrior):
        raise SystemExit(f"{name} is no network")
    return prior


def drawn(prior: NetworkPrior, size: int) -> Tensor:
    """Draw one image of a prior, without data."""
    dtype = torch.complex64 if prior.channels == 2 else torch.float32
    levels = np.geomspace(prior.sigma_max, prior.sigma_min, _STEPS)
    x = with_noise(torch.zeros(size, size, dtype=dtype), levels[0], 1)[None]
    for sigma, following in zip(levels, [*levels[1:], 0.0], strict=True):
        denoised = prior.denoise(x, float(sigma))
        x = denoised + (following / sigma) * (x - denoised)
    return x[0]


def reconstructed(prior: NetworkPrior, truth: Tensor, samples: int, steps: int) -> tuple[float, float]:
    """Return the PSNR of the mean and the coverage of the 90 % interval, from half of the pixels with noise."""
    seen = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    operator = Diagonal(seen, Space(tuple(truth.shape), truth.dtype))
    problem = Problem(operator(with_noise(truth, NOISE_STD, 2)), operator, NOISE_STD)
    found = PosteriorSamples(sample(DDS(steps=steps), problem, prior, samples, 0).samples.numpy())
    low, high = found.magnitude.interval(0.9)
    image = np.abs(truth.numpy()) if truth.is_complex() else truth.numpy()
    return psnr(torch.from_numpy(found.mean), truth), float(((low <= image) & (image <= high)).mean())


if __name__ == "__main__":
    sys.exit(main())
