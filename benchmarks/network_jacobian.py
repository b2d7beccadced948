"""Is sigma^2 times the Jacobian of the shipped network a covariance? Symmetry and curvature by noise level.

    python benchmarks/network_jacobian.py --data VOLUMES [--prior FILE] [--output RESULTS.json]

For held-out slices x0 and the state x = x0 + sigma n, with J the Jacobian of the denoiser at x (complex images as
pairs of real numbers) and v the directions that a solver asks for (D - x0, and smooth and white noise):
|J v - J^T v| / |J v|, how far the difference quotient is from J v, the share of directions with v^T J v < 0, and the
mean curvature v^T J v / |v|^2. Cov[x0 | x] = sigma^2 J needs a symmetric J without negative curvature.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recon.modalities import training_images
from recon.modalities.mri.training import evaluation_image
from recon.priors.network import WEIGHTS_FOLDER, NetworkPrior, load_network_prior
from recon.training.config import load_config
from recon.training.evaluate import evaluation_noise
from samplers.jacobian import differences, vjp

CONFIG = Path(__file__).parent / "configs" / "brain-mri.toml"
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0)


def main() -> None:
    """Measure and print one line for each noise level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prior", type=Path, default=WEIGHTS_FOLDER / "brain-mri.safetensors")
    parser.add_argument("--slices", type=int, default=2, help="held-out slices of each source")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    prior = load_network_prior(arguments.prior)
    sources = load_config(CONFIG).sources
    items = [item for s in sources for item in training_images("mri").held_out(arguments.data, s, arguments.slices)]
    images = [evaluation_image(item, k)[None, :96, :96] for k, item in enumerate(items)]
    rows = []
    for sigma in SIGMAS:
        found = [_measure(prior, image, sigma, k) for k, image in enumerate(images)]
        mean = {key: sum(row[key] for row in found) / len(found) for key in found[0]}
        rows.append({"sigma": sigma, **mean})
        print("  ".join(f"{key} {value:.3f}" for key, value in rows[-1].items()), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n")


def _measure(prior: NetworkPrior, clean: Tensor, sigma: float, number: int) -> dict[str, Any]:
    x = clean + sigma * evaluation_noise(clean.shape, number)
    denoised, transpose = vjp(prior, x, sigma)
    forward = differences(prior, x, sigma, denoised, 0.01)
    coarse = differences(prior, x, sigma, denoised, 0.1)
    white = evaluation_noise(clean.shape, 100 + number)
    smooth = torch.fft.ifft2(torch.fft.fft2(white) * _lowpass(clean))
    names = {"error": denoised - clean, "smooth": smooth, "white": white}
    result: dict[str, Any] = {}
    negative = 0.0
    for name, v in names.items():
        ahead, back = forward(v), transpose(v)
        size = ahead.abs().square().sum().sqrt()
        curvature = float((v.conj() * ahead).real.sum() / v.abs().square().sum())
        result[f"asymmetry_{name}"] = float((ahead - back).abs().square().sum().sqrt() / size)
        result[f"curvature_{name}"] = curvature
        negative += float(curvature < 0) / len(names)
        result[f"difference_{name}"] = float((coarse(v) - ahead).abs().square().sum().sqrt() / size)
    return result | {"negative": negative}


def _lowpass(image: Tensor) -> Tensor:
    ky, kx = (torch.fft.fftfreq(n) for n in image.shape[-2:])
    return torch.exp(-(ky[:, None].square() + kx[None, :].square()) / (2 * 0.05**2))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
