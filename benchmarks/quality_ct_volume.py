"""CT volumes: slices drawn one by one against slices drawn together with total variation along z.

    python benchmarks/quality_ct_volume.py --data FOLDER [--views 32] [--photons 1e5] [--size 128] [--slices 8]
        [--samples 2] [--weights 3 10 30] [--source NAME] [--precision float32]

Neighbouring slices that the prior was not trained on, of each source of configs/ct.toml that holds some out, simulated
as quality_ct.py does. Prints PSNR of the mean (full range and soft-tissue window) and of one sample, coverage of the
raw 90 % interval, and how alike errors of neighbouring slices are (correlation), by weight of total variation.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from quality_ct import CONFIG, quality_of, resized

from recon import load_prior, metrics
from recon.engine.samplers import resolve_sampler
from recon.engine.volume import BySlice, join
from recon.modalities import modality, training_images
from recon.modalities.ct.options import CT
from recon.modalities.ct.prepare import prepare_image
from recon.modalities.prepared import Prepared
from recon.training.config import load_config
from recon.uncertainty import coverage_curve
from samplers import Samples, sample


def main() -> None:
    """Reconstruct a stack of each source with both samplers."""
    arguments = _arguments()
    config = load_config(CONFIG)
    kind = training_images(config.modality)
    for source in config.sources:
        if not source.held_out or arguments.source not in source.pattern:
            continue
        items = [item for item in kind.load(arguments.data, source, True) if item.plane == source.planes[0]]
        first = (len(items) - arguments.slices) // 2
        stack = [resized(item, arguments.size) for item in items[first : first + arguments.slices]]
        truth = np.stack([image for image, _ in stack])
        prepared = [
            prepare_image(image, pixel, CT(arguments.views, photons=arguments.photons or None), seed=number)
            for number, (image, pixel) in enumerate(stack)
        ]
        print(f"{source.pattern}: {truth.shape}, neighbours differ by {_step(truth):.1f} HU", flush=True)
        _report(join(prepared), truth, arguments)


def _report(volume: Prepared, truth: np.ndarray, arguments: argparse.Namespace) -> None:
    """Print a line for the slices on their own and for each weight of total variation."""
    prior = load_prior("ct", precision=arguments.precision)
    single, together = (resolve_sampler(name, modality=modality("ct")) for name in ("dds", "dds-volume"))
    slices = [one.problem for one in volume.slices]
    _line("dds, one by one", truth, [sample(single, p, prior, arguments.samples, seed=k) for k, p in enumerate(slices)])
    for weight in arguments.weights:
        drawn = sample(replace(together, tv_weight=weight), volume.problem, BySlice(prior), arguments.samples)
        _line(f"dds-volume, {weight:g}", truth, [drawn])


def _line(name: str, truth: np.ndarray, drawn: list[Samples]) -> None:
    """Print how good the stack is that one run, or a run for each slice, has drawn."""
    mean, samples = (
        1000 * (torch.stack(found, dim=-3) if len(found) > 1 else found[0]).numpy() - 1000
        for found in ([one.mean for one in drawn], [one.samples for one in drawn])
    )
    support = np.stack([metrics.foreground(image) for image in truth])
    curve = coverage_curve(samples, truth, [0.9], support, mean)
    quality, one = quality_of(mean, truth), quality_of(samples[0], truth)
    error = (mean - truth)[:, support.all(axis=0)]
    print(
        f"  {name:18s} mean {quality['psnr_full']:.2f}, {quality['psnr_soft']:.2f} dB  one {one['psnr_full']:.2f} dB"
        f"  cover {float(curve.covered[0]):.3f}"
        f"  error along z {np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairwise(error)]):.2f}",
        flush=True,
    )


def _step(truth: np.ndarray) -> float:
    """Return the mean absolute difference of neighbouring slices where there is tissue, in HU."""
    tissue = np.minimum(truth[1:], truth[:-1]) > -200
    return float(np.abs(np.diff(truth, axis=0))[tissue].mean())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that the patterns of configs/ct.toml refer to")
    parser.add_argument("--source", default="", help="only sources whose pattern contains this")
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--photons", type=float, default=1e5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--weights", nargs="+", type=float, default=[3.0, 10.0, 30.0])
    parser.add_argument("--precision", default="float32")
    return parser.parse_args()


if __name__ == "__main__":
    main()
