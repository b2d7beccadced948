"""CT on held-out real slices: posterior mean against filtered backprojection, least squares and total variation.

    python benchmarks/quality_ct.py --data FOLDER [--views 16 32 64] [--photons 0 1e5] [--samplers dds]
        [--arc DEGREES] [--geometry fan] [--size 256] [--samples 8] [--precision float32] [--set NAME=VALUE ...]
        [--output RESULTS.json]

Slices that the prior was not trained on, in HU, resampled to --size pixels across; simulated without noise and with so
many photons a ray, all around or over an --arc. The baselines are the best of their settings *against the truth*
(window of the filter, number of iterations, weight); ours gets nothing from the truth. PSNR in dB over the full range
and in a soft-tissue window (values outside are clipped); coverage of the raw 90 % interval; rank correlation of std and
error. Rows are added to an --output that exists. --set tries other settings of the samplers, such as sigma_max=9.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn import functional

import recon
from operators.ct.fbp import FILTERS, fbp
from recon import metrics
from recon.baselines import least_squares, total_variation
from recon.engine.samplers import resolve_sampler
from recon.modalities import modality, training_images
from recon.modalities.ct.options import GEOMETRIES
from recon.modalities.ct.prepare import prepare_image
from recon.modalities.prepared import Prepared
from recon.training.config import load_config

CONFIG = Path(__file__).parent / "configs" / "ct.toml"
WINDOWS = {"full": (-1000.0, 2000.0), "soft": (-160.0, 240.0)}
ITERATIONS = (5, 10, 20, 40)
WEIGHTS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def main() -> None:
    """Run every slice with every number of views and photons."""
    arguments = _arguments()
    config = load_config(CONFIG)
    kind = training_images(config.modality)
    items = [i for s in config.sources if s.held_out for i in kind.held_out(arguments.data, s, arguments.slices)]
    images = [resized(item, arguments.size) for item in items]
    rows = json.loads(arguments.output.read_text()) if arguments.output and arguments.output.exists() else []
    for views in arguments.views:
        for photons in arguments.photons:
            found = [_slice(image, views, photons, k, arguments) for k, image in enumerate(images)]
            row = {"views": views, "photons": photons, "slices": len(items)}
            row |= {"arc": arguments.arc, "geometry": arguments.geometry, "size": arguments.size}
            row |= {"samples": arguments.samples, "set": arguments.set}
            rows.append(row | {name: _mean([one[name] for one in found]) for name in found[0]})
            print(_line(rows[-1]), flush=True)
            if arguments.output:
                arguments.output.write_text(json.dumps(rows, indent=1) + "\n")


def _slice(
    image: tuple[np.ndarray, float], views: int, photons: float, number: int, arguments: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Reconstruct one slice in every way."""
    hounsfield, pixel = image
    scan = recon.CT(views=views, geometry=arguments.geometry, arc=arguments.arc, photons=photons or None)
    ready = prepare_image(hounsfield, pixel, scan, seed=number)
    result = _baselines(ready, hounsfield)
    support = metrics.foreground(hounsfield)
    for name in arguments.samplers:
        started = time.perf_counter()
        posterior = recon.reconstruct(
            ready.problem,
            prior=arguments.prior,
            sampler=replace(resolve_sampler(name, modality=modality("ct")), **arguments.set),
            samples=arguments.samples,
            seed=number,
            precision=arguments.precision,
            progress=False,
        )
        error = np.abs(posterior.mean - hounsfield)[support]
        result[name] = quality_of(posterior.mean, hounsfield) | {
            "coverage": metrics.coverage(*posterior.interval(0.9), hounsfield, support),
            "correlation": float(spearmanr(posterior.std[support], error).statistic),
            "chi2": float(np.median(posterior.diagnostics["residual"])),
            "seconds": time.perf_counter() - started,
        }
    return result


def _baselines(ready: Prepared, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the quality of each baseline at its best setting for each window."""
    problem = ready.problem
    geometry, shape = problem.operator.geometry, problem.operator.domain.shape
    pixel = problem.operator.pixel_size
    images = {
        "fbp": [fbp(problem.y, geometry, shape, pixel, name) for name in FILTERS],
        "least-squares": [least_squares(problem, n) for n in ITERATIONS],
        "total-variation": [],
    }
    warm = images["least-squares"][1]
    for weight in reversed(WEIGHTS):
        scale = weight * float((problem.operator.domain.shape[0]) / 256)
        warm = total_variation(problem, scale, nonnegative=True, start=warm)
        images["total-variation"].append(warm)
    result = {}
    for name, found in images.items():
        scores = [quality_of((problem.scale * x + problem.offset).cpu().numpy(), truth) for x in found]
        result[name] = {key: max(score[key] for score in scores) for key in scores[0]}
    return result


def quality_of(image: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return PSNR in each window."""
    result = {}
    for name, (low, high) in WINDOWS.items():
        error = np.mean(np.square(np.clip(image, low, high) - np.clip(truth, low, high)))
        result[f"psnr_{name}"] = float(20 * np.log10(high - low) - 10 * np.log10(error))
    return result


def resized(item: Any, size: int) -> tuple[np.ndarray, float]:
    """Return a slice in HU, ``size`` pixels across at most, and its pixel size in mm."""
    image = torch.from_numpy(item.image.astype(np.float32))
    factor = min(1.0, size / max(image.shape))
    shape = [round(length * factor) // 8 * 8 for length in image.shape]
    small = functional.interpolate(image[None, None], shape, mode="bilinear", antialias=True)[0, 0]
    return (1000 * small.clamp(min=0) - 1000).numpy(), float(item.spacing[1]) * image.shape[1] / shape[1]


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _line(row: dict[str, Any]) -> str:
    arc = f" over {row['arc']:g} degrees" if row["arc"] else ""
    lines = [f"{row['views']} views{arc}, {row['photons'] or 'no noise'} photons, {row['slices']} slices"]
    for name, values in row.items():
        if name != "set" and isinstance(values, dict):
            more = "".join(f"  {key} {value:.3g}" for key, value in values.items() if not key.startswith("psnr"))
            lines.append(f"  {name:18s} full {values['psnr_full']:.2f} dB  soft {values['psnr_soft']:.2f} dB{more}")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that the patterns of configs/ct.toml refer to")
    parser.add_argument("--prior", default="ct")
    parser.add_argument("--samplers", nargs="+", default=["dds"])
    parser.add_argument("--views", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--photons", nargs="+", type=float, default=[0.0, 1e5])
    parser.add_argument("--arc", type=float, help="degrees that the views cover")
    parser.add_argument("--geometry", default="fan", choices=GEOMETRIES)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=3, help="held-out slices of each source")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the samplers")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    arguments.set = {name: ast.literal_eval(value) for name, value in (pair.split("=") for pair in arguments.set)}
    return arguments


if __name__ == "__main__":
    main()
