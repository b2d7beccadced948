"""CT without an inverse crime: slices projected by other code on a finer grid, with detectors of another spacing.

    python benchmarks/quality_ct_independent.py --data FOLDER [--slices lungdx_A0001_512:32 lidc_0314_512:20]
        [--grids 152 256 511] [--views 60]
        [--methods fbp sirt cgls tv dds] [--samples 4] [--precision bfloat16]
        [--output benchmarks/results/quality_ct_independent.json]

Chests of two patients of whom nothing is in the training data, 511 x 511 pixels of .84 and .78 mm, are projected by
`skimage.transform.radon`, which rotates the image and sums its rows; pairs of its elements are one detector element,
twice as large as these pixels, and the counts of 10^5 photons a ray are Poisson. Each grid covers the same field of
view; the truth is the image, resampled to it with anti-aliasing. All methods choose their weights and iterations by the
noise alone (`recon.estimators`). PSNR in dB over the full range, and in a soft-tissue window of -160 to 240 HU;
coverage of the raw 90 % interval in the body and in bone; the data residual.
A row that OUTPUT holds is kept unless --again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from skimage.transform import radon, resize

import recon
from recon.modalities.ct.data import CTProjections, ScanGeometry

OUTPUT = Path(__file__).parent / "results" / "quality_ct_independent.json"
#: Side of the image in pixels, attenuation of water in 1/mm, photons a ray, elements joined in one.
SIDE, WATER, PHOTONS, JOINED = 511, 0.02, 1e5, 2
WINDOW, BODY, BONE = (-160.0, 240.0), -500.0, 300.0


def main() -> None:
    """Measure all rows, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with ct_volumes")
    parser.add_argument("--slices", nargs="+", default=["lungdx_A0001_512:32", "lidc_0314_512:20"], help="FILE:INDEX")
    parser.add_argument("--grids", nargs="+", type=int, default=[152, 256, SIDE])
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--methods", nargs="+", default=["fbp", "sirt", "cgls", "tv", "dds"])
    parser.add_argument("--samples", type=int, default=4, help="of dds")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    rows = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    for name in arguments.slices:
        file, index = name.split(":")
        path = arguments.data / "ct_volumes" / f"{file}.npz"
        with np.load(path) as volume:
            image, pixel = truth_of(volume["hu"][int(index)]), float(volume["pixel_spacing_mm"][0])
        scan = projected(image, pixel, arguments.views, path)
        for grid in arguments.grids:
            for method in arguments.methods:
                key = f"{name}, {arguments.views} views, grid {grid}, {method}"
                if key not in rows or arguments.again:
                    samples = arguments.samples if method == "dds" else 1
                    rows[key] = measured(scan, pixel, resampled(image, grid), method, samples, arguments.precision)
                    arguments.output.write_text(json.dumps(rows, indent=1) + "\n")
                print(f"{key:52} " + " ".join(f"{n} {v:.3g}" for n, v in rows[key].items()), flush=True)


def truth_of(stored: np.ndarray) -> np.ndarray:
    """Return a slice in HU with an odd number of pixels, air outside of the circle that all views see."""
    image = stored.astype(np.float64)[:SIDE, :SIDE]
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    return np.where(x**2 + y**2 < (0.98 * SIDE / 2) ** 2, image, -1000.0)


def projected(image: np.ndarray, pixel: float, views: int, path: Path) -> CTProjections:
    """Return the noisy line integrals of a slice in HU."""
    degrees = np.arange(views) * 180 / views
    attenuation = np.maximum((image + 1000) / 1000, 0) * WATER
    lines = radon(attenuation, degrees, circle=False, preserve_range=True).T * pixel
    middle = lines.shape[1] // 2  # where the axis is
    count = lines.shape[1] // JOINED
    joined = lines[:, : count * JOINED].reshape(views, count, JOINED).mean(axis=-1)
    offset = ((count * JOINED - 1) / 2 - middle) * pixel
    counts = np.random.default_rng(0).poisson(PHOTONS * np.exp(-joined))
    noisy = -np.log(np.maximum(counts, 1) / PHOTONS).astype(np.float32)
    return CTProjections(
        path=path,
        format="lodopab",
        length=1,
        load=lambda i: noisy,
        geometry=ScanGeometry("parallel", np.radians(degrees), count, JOINED * pixel, offset),
        load_photons=lambda i: np.full((1, 1), PHOTONS, np.float32),
        water_attenuation_per_mm=WATER,
    )


def resampled(image: np.ndarray, grid: int) -> np.ndarray:
    """Return an image on a coarser grid of the same extent."""
    if grid == len(image):
        return image
    return np.asarray(resize(image, (grid, grid), anti_aliasing=True, order=1, preserve_range=True))


def measured(
    scan: CTProjections, pixel: float, truth: np.ndarray, method: str, samples: int, precision: str
) -> dict[str, Any]:
    """Reconstruct with every other option at its default, and compare with the truth."""
    on_grid = CTProjections(**{**vars(scan), "image_shape": truth.shape})
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = recon.reconstruct(
            on_grid,
            sampler=method,
            samples=samples,
            pixel_size=SIDE * pixel / len(truth),
            precision=precision,
            holdout=False,
            progress=False,
        )
    seconds = time.process_time() - started
    row = {
        "psnr": psnr(found.mean, truth, np.ptp(truth)),
        "window": psnr(*(np.clip(i, *WINDOW) for i in (found.mean, truth))),
    }
    if samples > 1:
        lower, upper = found.interval(0.9)
        inside = (lower <= truth) & (truth <= upper)
        row |= {"body": float(inside[truth > BODY].mean()), "bone": float(inside[truth > BONE].mean())}
    return {**row, "chi2": float(np.median(found.diagnostics["residual"])), "cpu_seconds": seconds}


def psnr(image: np.ndarray, truth: np.ndarray, span: float = WINDOW[1] - WINDOW[0]) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(span**2 / np.mean((image - truth) ** 2)))


if __name__ == "__main__":
    main()
