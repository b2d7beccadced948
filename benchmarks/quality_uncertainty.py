"""Every sampler on held-out real images with the real network: quality of the mean, of the std map, of the intervals.

    python benchmarks/quality_uncertainty.py --data VOLUMES [--samplers dds ...] [--accelerations 4 8]
        [--pattern random] [--samples 8] [--precision bfloat16] [--output RESULTS.json]
    python benchmarks/quality_uncertainty.py --brain BRAIN.cfl [the same options]

Slices of patients that the network was not trained on (magnitude, smooth phase) become 8-coil k-space (loop coils,
noise .02 of the .99 quantile for each k-space sample) and go through the public API: scale and noise level come from
the undersampled data, the coil maps are given (8 % of the columns of a 2 mm slice are too few for ESPIRiT, and this is
not about coil maps). Measured are PSNR and SSIM of the mean, PSNR of one sample, coverage of the raw 90 % interval and
its length (of white), CRPS, spread over error, seconds; and where the slices are enough, coverage and length of the
calibrated interval (conformal, CRC) and of one of constant width, each slice calibrated by others (nine folds). With
--brain, measured 8-coil k-space plus noise takes the place of simulated data; its coil maps are estimated from the
undersampled data.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from quality_mri import rss, with_noise

import recon
from operators import make_mask
from recon.demo import loop_sensitivities
from recon.engine.samplers import resolve_sampler
from recon.io import open_kspace
from recon.metrics import foreground
from recon.modalities import training_images
from recon.modalities.mri.training import evaluation_image
from recon.training.config import load_config
from recon.uncertainty import Case, calibrate
from recon.uncertainty.evaluation import Evaluation, evaluate

CONFIG = Path(__file__).parent / "configs" / "brain-mri.toml"
COILS, NOISE_STD, CENTER_FRACTION = 8, 0.02, 0.08
#: With n images the conformal interval holds n / (n + 1) of them in the worst case: few images make long intervals.
ENOUGH, FOLDS = 30, 9
#: Factors that raw intervals are stretched by, to say what a calibration on other images is worth on these.
STRETCHES = tuple(round(0.8 * 1.05**k, 4) for k in range(66))


def main() -> None:
    """Run every sampler on every slice and print one line each."""
    arguments = _arguments()
    images = _held_out(arguments) if arguments.data else []
    rows: list[dict[str, Any]] = []
    for acceleration in arguments.accelerations:
        for name in arguments.samplers:
            started = time.perf_counter()
            if arguments.brain:
                cases = [_measured(name, acceleration, arguments)]
            else:
                cases = [_case(name, label, x, k, acceleration, arguments) for k, (label, x) in enumerate(images)]
            seconds = (time.perf_counter() - started) / len(cases)
            found = evaluate(cases)
            whole = found.summary()
            calibrated = _calibrated(cases) if len(cases) >= arguments.enough else {}
            rows.append(
                {
                    "slices_of": arguments.label,
                    "sampler": name,
                    "acceleration": acceleration,
                    "pattern": arguments.pattern,
                    "seconds": seconds,
                }
                | {key: whole[key] for key in ("psnr", "psnr_sample", "ssim", "crps", "spread_skill", "chi2")}
                | {"raw_coverage": whole["raw_coverage"], "raw_length": whole["raw_length"]}
                | {"slices": len(cases), **calibrated, "curves": _curves(found), "stretched": _stretched(cases)}
            )
            print(_line(rows[-1]), flush=True)
            if arguments.output:
                arguments.output.write_text(json.dumps(rows, indent=1) + "\n")


def _held_out(arguments: argparse.Namespace) -> list[tuple[str, np.ndarray]]:
    """Return the held-out slices by name."""
    known = [source for source in load_config(arguments.config).sources if source.held_out]
    sources = [source for source in known if arguments.source in source.pattern]
    items = [item for s in sources for item in training_images("mri").held_out(arguments.data, s, arguments.slices)]
    return [(item.name, evaluation_image(item, k).numpy()) for k, item in enumerate(items)]


def _measured(sampler: str, acceleration: float, arguments: argparse.Namespace) -> Case:
    """Undersample the measured k-space with noise and reconstruct it; the truth is the image without that noise."""
    clean = open_kspace(arguments.brain)[0]
    truth = rss(clean)
    posterior = recon.reconstruct(
        with_noise(clean, truth),
        mask=arguments.pattern,
        acceleration=acceleration,
        center_fraction=CENTER_FRACTION,
        prior=arguments.prior,
        sampler=resolve_sampler(sampler),
        samples=arguments.samples,
        precision=arguments.precision,
        progress=False,
    )
    return Case(posterior, arguments.brain.stem, truth)


def _curves(found: Evaluation) -> dict[str, list[float]]:
    """Return coverage by level, and spread and error by decile of the spread, each the mean over the slices."""
    curves = {"levels": found.levels, "covered": np.mean(found.curves, axis=0)}
    curves |= {"spread": np.mean(found.spread, axis=0), "error": np.mean(found.error, axis=0)}
    return {name: [round(float(value), 5) for value in values] for name, values in curves.items()}


def _stretched(cases: list[Case]) -> dict[str, list[float]]:
    """Return the coverage of raw intervals that are stretched by several factors: what calibration elsewhere gives."""
    covered = []
    for case in cases:
        mean, truth = case.posterior.magnitude.mean, case.reference
        half = case.posterior.interval(0.9)[1] - mean
        needed = (np.abs(truth - mean) / np.maximum(half, 1e-12))[foreground(truth)]
        covered.append([float(np.mean(needed <= factor)) for factor in STRETCHES])
    return {"factor": list(STRETCHES), "covered": np.mean(covered, axis=0).round(4).tolist()}


def _calibrated(cases: list[Case]) -> dict[str, float]:
    """Return the mean over the folds of coverage and length of intervals that the other folds have calibrated."""
    kept = ("calibrated_coverage", "calibrated_length", "constant_coverage", "constant_length")
    rows = []
    for fold in range(FOLDS):
        calibration = calibrate([case for k, case in enumerate(cases) if k % FOLDS != fold])
        summary = evaluate(cases[fold::FOLDS], calibration=calibration).summary()
        weight = len(cases[fold::FOLDS]) / len(cases)
        rows.append([weight * value for value in (*(summary[key] for key in kept), calibration.raw_ratio())])
    return dict(zip((*kept, "stretch"), np.sum(rows, axis=0).tolist(), strict=True))


def _case(
    sampler: str, label: str, image: np.ndarray, number: int, acceleration: float, arguments: argparse.Namespace
) -> Case:
    """Simulate the acquisition of one slice and reconstruct it."""
    kspace, mask, maps = acquire(image, arguments.pattern, acceleration, number)
    posterior = recon.reconstruct(
        kspace,
        mask=mask,
        coil_maps=maps,
        prior=arguments.prior,
        sampler=resolve_sampler(sampler),
        samples=arguments.samples,
        seed=number,
        precision=arguments.precision,
        progress=False,
    )
    # What differs from slice to slice and would make every calibration foreign to every other slice: the mask's seed.
    images = {**posterior.images, "mask": make_mask(mask.shape[-2:], "equispaced", acceleration, CENTER_FRACTION)}
    return Case(dataclasses.replace(posterior, images=images), label, np.abs(image))


def acquire(image: np.ndarray, pattern: str, acceleration: float, seed: int) -> tuple[np.ndarray, ...]:
    """Return undersampled 8-coil k-space with noise, its mask and the coil maps."""
    from recon.demo import _fft

    rng = np.random.default_rng(seed)
    maps = loop_sensitivities(image.shape, COILS)
    parts = rng.standard_normal((2, *maps.shape))
    noise = NOISE_STD / np.sqrt(2) * (parts[0] + 1j * parts[1])
    mask = make_mask(image.shape, pattern, acceleration, CENTER_FRACTION, seed=seed)
    kspace = np.where(mask, _fft(maps * image) + noise, 0).astype(np.complex64)
    return kspace, np.asarray(mask), maps.astype(np.complex64)


def _line(row: dict[str, Any]) -> str:
    text = (
        f"x{row['acceleration']:.0f} {row['sampler']:18s} {row['slices']} slices  mean {row['psnr']:.2f} dB / "
        f"{row['ssim']:.3f}  one {row['psnr_sample']:.2f}  spread/error {row['spread_skill']:.2f}  cover "
        f"{row['raw_coverage']:.3f} length {row['raw_length']:.3f}  CRPS {row['crps']:.4f}  chi2 {row['chi2']:.2f}  "
        f"{row['seconds']:.0f} s a slice"
    )
    if "stretch" in row:
        text += (
            f"  calibrated {row['calibrated_coverage']:.3f} {row['calibrated_length']:.3f}  constant "
            f"{row['constant_coverage']:.3f} {row['constant_length']:.3f}  stretch {row['stretch']:.2f}"
        )
    return text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder that the patterns of the config refer to")
    source.add_argument("--brain", type=Path, help="fully sampled measured k-space")
    parser.add_argument("--config", type=Path, default=CONFIG, help="training configuration: which files are held out")
    parser.add_argument("--prior", default="brain-mri")
    parser.add_argument("--samplers", nargs="+", default=["moment-matching", "dds"])
    parser.add_argument("--accelerations", nargs="+", type=float, default=[4.0, 8.0])
    parser.add_argument("--source", default="", help="only sources whose pattern contains this, such as nichart")
    parser.add_argument("--pattern", default="random")
    parser.add_argument("--slices", type=int, default=4, help="held-out slices of each source")
    parser.add_argument("--enough", type=int, default=ENOUGH, help="slices from which on intervals are calibrated")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--label", default="", help="what the slices are: tables and figures choose rows by it")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
