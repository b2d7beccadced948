"""Reconstruction quality on real k-space: posterior mean against zero-filled, L1-wavelet and total variation.

    python benchmarks/quality_mri.py BRAIN.cfl [--output quality_mri.json] [--samples 8] [--layout fastmri]

BRAIN is a fully sampled multi-coil acquisition. Complex white noise of std 0.02 (of the .99 quantile of the
root-sum-of-squares image, for each k-space sample) is added, the file is written in the fastMRI or the BART layout,
and each case is reconstructed from that file through the public API: coil maps, noise level and scale come from the
undersampled data. The baselines get the coil maps of their own package (ESPIRiT of sigpy) and the best regularisation
weight of a grid *against the truth*; the posterior gets nothing from the truth. PSNR and SSIM of magnitudes, data
range = maximum of the reference.

Where the command ``bart`` is there, it reconstructs the same undersampled k-space with its own coil maps, again at
the best weight against the truth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import sigpy.mri.app as sigpy_mri
import torch

import recon
from operators import ifftc
from recon.io import open_kspace
from recon.metrics import psnr, ssim
from recon.modalities.mri.prepare import prepare
from recon.modalities.mri.prepared_slice import PreparedSlice
from recon.modalities.mri.sampling import Sampling

CASES = [
    ("random", 4.0),
    ("equispaced", 4.0),
    ("poisson", 4.0),
    ("random", 8.0),
    ("equispaced", 8.0),
    ("poisson", 8.0),
]
CENTER_FRACTION = 0.08
NOISE = 0.02
LAMBDAS = {"l1-wavelet": [0.002, 0.005, 0.01, 0.02, 0.05], "total-variation": [0.002, 0.005, 0.01, 0.02, 0.05]}
# Enough that more changes the PSNR by less than .1 dB (FISTA) or .3 dB (primal-dual).
ITERATIONS = {"l1-wavelet": 100, "total-variation": 400}
#: `bart pics`: regularisers and their weights, for images that it scales itself.
BART_REGULARISERS = ("W:3:0", "T:3:0")
BART_WEIGHTS = (0.001, 0.002, 0.005, 0.01, 0.02)


def main() -> None:
    """Run all cases and print the table."""
    arguments = _arguments()
    clean = open_kspace(arguments.brain)[0]
    reference = rss(clean)
    noisy = with_noise(clean, reference)
    baselines = json.loads(arguments.baselines.read_text()) if arguments.baselines.is_file() else {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = _write(noisy, Path(folder), arguments.layout)
        for pattern, acceleration in CASES:
            name = f"{pattern}-x{acceleration:.0f}"
            prepared = prepare(noisy, sampling=Sampling(pattern, acceleration, CENTER_FRACTION))
            if name not in baselines:
                baselines[name] = _baselines(noisy, prepared, reference)
                arguments.baselines.write_text(json.dumps(baselines, indent=1))
            if "bart" not in baselines[name] and shutil.which("bart"):
                baselines[name]["bart"] = _bart(noisy * prepared.mask.numpy(), reference, Path(folder))
                arguments.baselines.write_text(json.dumps(baselines, indent=1))
            row = {"case": name, **baselines[name]}
            if arguments.samples:
                row |= _ours(source, pattern, acceleration, reference, arguments)
                best = max(row[key]["psnr"] for key in ("zero-filled", *LAMBDAS))
                row["gain"] = row["ours"]["psnr"] - best
                if "bart" in row:
                    row["gain over BART"] = row["ours"]["psnr"] - row["bart"]["psnr"]
            rows.append(row)
            print(_line(row), flush=True)
    if arguments.samples:
        for key in ("gain", "gain over BART"):
            if all(key in row for row in rows):
                print(f"mean {key}: {np.mean([row[key] for row in rows]):+.2f} dB")
        arguments.output.write_text(json.dumps(rows, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brain", type=Path)
    parser.add_argument("--output", type=Path, default=Path("quality_mri.json"))
    parser.add_argument("--baselines", type=Path, default=Path("quality_mri_baselines.json"), help="cache of baselines")
    parser.add_argument("--samples", type=int, default=8, help="0 computes the baselines only")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--prior", default="brain-mri")
    parser.add_argument("--sampler", default="dds")
    parser.add_argument("--precision", default="float32", help="arithmetic of the network: float32 or bfloat16")
    parser.add_argument("--layout", choices=["fastmri", "bart"], default="fastmri")
    return parser.parse_args()


def with_noise(kspace: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Add complex white noise of std NOISE times the .99 quantile of the reference."""
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)) / np.sqrt(2)
    return (kspace + NOISE * np.quantile(reference, 0.99) * noise).astype(np.complex64)


def _write(kspace: np.ndarray, folder: Path, layout: str) -> Path:
    """Write one slice in the fastMRI or the BART layout."""
    if layout == "fastmri":
        path = folder / "brain.h5"
        with h5py.File(path, "w") as file:
            file["kspace"] = kspace[None]
            file.attrs["acquisition"] = "AXT1"
        return path
    return _write_cfl(kspace, folder / "brain.cfl")


def _write_cfl(kspace: np.ndarray, path: Path) -> Path:
    coils, ny, nx = kspace.shape
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{ny} {nx} 1 {coils} 1\n")
    kspace.transpose(1, 2, 0)[:, :, None].ravel(order="F").tofile(path)
    return path


def _baselines(kspace: np.ndarray, prepared: PreparedSlice, reference: np.ndarray) -> dict[str, Any]:
    """Return the scores of zero-filled and of the best weight of each regulariser of sigpy, with its own coil maps."""
    weights = np.broadcast_to(prepared.mask.numpy(), kspace.shape[-2:]).astype(np.float32)
    scale = float(np.quantile(np.abs(prepared.images["zero_filled"].numpy()), 0.99))
    y = kspace * weights / scale
    lines = min(prepared.diagnostics["calibration"])
    maps = sigpy_mri.EspiritCalib(y, calib_width=lines, show_pbar=False).run()
    scores: dict[str, Any] = {"zero-filled": _scores(np.abs(prepared.images["zero_filled"].numpy()), reference)}
    apps = {"l1-wavelet": sigpy_mri.L1WaveletRecon, "total-variation": sigpy_mri.TotalVariationRecon}
    for name, app in apps.items():
        tried = []
        for weight in LAMBDAS[name]:
            image = app(y, maps, weight, weights=weights, show_pbar=False, max_iter=ITERATIONS[name]).run()
            tried.append({**_scores(np.abs(image) * scale, reference), "lambda": weight})
        scores[name] = max(tried, key=lambda score: score["psnr"])
    return scores


def _bart(kspace: np.ndarray, reference: np.ndarray, folder: Path) -> dict[str, Any]:
    """Return the best score of BART's ``pics`` on undersampled k-space, with the coil maps of its ``ecalib``."""

    def bart(*words: object) -> None:
        subprocess.run(["bart", *map(str, words)], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    _write_cfl(kspace.astype(np.complex64), folder / "undersampled.cfl")
    bart("ecalib", "-m1", "undersampled", "maps")
    tried = []
    for regulariser in BART_REGULARISERS:
        for weight in BART_WEIGHTS:
            bart("pics", "-S", "-d0", "-i100", "-R", f"{regulariser}:{weight}", "undersampled", "maps", "image")
            image = np.fromfile(folder / "image.cfl", np.complex64).reshape(reference.shape, order="F")
            tried.append({**_scores(np.abs(image), reference), "regulariser": regulariser, "lambda": weight})
    return max(tried, key=lambda score: score["psnr"])


def _ours(
    source: Path, pattern: str, acceleration: float, reference: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Reconstruct from the file and compare mean, one sample and interval with the truth."""
    started = time.perf_counter()
    posterior = recon.reconstruct(
        source,
        prior=arguments.prior,
        sampler=arguments.sampler,
        samples=arguments.samples,
        steps=arguments.steps,
        precision=arguments.precision,
        acceleration=acceleration,
        mask=pattern,
        center_fraction=CENTER_FRACTION,
    )
    seconds = time.perf_counter() - started
    lower, upper = posterior.interval(0.9)
    head = reference > 0.1 * reference.max()
    spread = np.sqrt((posterior.magnitude.std[head] ** 2).mean() * (1 + 1 / posterior.n_valid))
    skill = np.sqrt(((np.abs(posterior.mean) - reference)[head] ** 2).mean())
    return {
        "ours": _scores(np.abs(posterior.mean), reference),
        "one sample": _scores(np.abs(posterior.samples[0]), reference),
        "coverage 90": float(((lower <= reference) & (reference <= upper))[head].mean()),
        "spread/skill": float(spread / skill),
        "residual": float(np.mean(posterior.diagnostics["residual"])),
        "seconds": seconds,
        "precision": arguments.precision,
    }


def _scores(image: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    return {"psnr": float(psnr(image, reference)), "ssim": float(ssim(image, reference))}


def rss(kspace: np.ndarray) -> np.ndarray:
    return ifftc(torch.from_numpy(kspace)).abs().square().sum(dim=0).sqrt().numpy()


def _line(row: dict[str, Any]) -> str:
    shown = [f"{row['case']:15s}"]
    for key in ("zero-filled", *LAMBDAS, "bart", "ours", "one sample"):
        if key in row:
            shown.append(f"{key} {row[key]['psnr']:.2f}/{row[key]['ssim']:.3f}")
    if "gain" in row:
        shown.append(
            f"gain {row['gain']:+.2f} cover {row['coverage 90']:.3f} spread/skill {row['spread/skill']:.2f} "
            f"chi2 {row['residual']:.2f} {row['seconds']:.0f} s"
        )
    return "  ".join(shown)


if __name__ == "__main__":
    main()
