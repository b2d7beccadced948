"""Denoising quality of a network prior on held-out patients, against total variation at its best weight.

    python benchmarks/quality_denoising.py --data FOLDER [--prior FILE.safetensors] [--output RESULTS.json]

Complex images (magnitude of a held-out slice, scale: 0.99 quantile = 1, fixed smooth phase) plus complex noise sigma n
with E|n|^2 = 1. Total variation gets two forms, complex isotropic TV (gradient of both parts coupled) and the Chambolle
TV of scikit-image for the two parts, and for each image and sigma the weight with the smallest error *against the
truth*: an oracle that the network does not have. PSNR = 10 log10(1 / mean |error|^2) in dB, averaged over the slices.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recon.priors.network import WEIGHTS_FOLDER, load_network_prior
from recon.training.config import load_config
from recon.training.evaluate import SIGMAS, evaluation_image, evaluation_noise, psnr
from recon.training.volumes import held_out_slices

CONFIG = Path(__file__).parent / "configs" / "brain-mri.toml"


def gradient(x: Tensor) -> Tensor:
    """Forward differences ``(2, y, x)``, zero across the border."""
    down = torch.cat([x[1:] - x[:-1], torch.zeros_like(x[:1])], 0)
    across = torch.cat([x[:, 1:] - x[:, :-1], torch.zeros_like(x[:, :1])], 1)
    return torch.stack([down, across])


def divergence(p: Tensor) -> Tensor:
    """Negative adjoint of ``gradient``."""
    down, across = p
    zero_row, zero_column = torch.zeros_like(down[:1]), torch.zeros_like(down[:, :1])
    return (
        torch.cat([down[:-1], zero_row], 0)
        - torch.cat([zero_row, down[:-1]], 0)
        + torch.cat([across[:, :-1], zero_column], 1)
        - torch.cat([zero_column, across[:, :-1]], 1)
    )


def complex_tv(noisy: Tensor, weight: float, iterations: int = 80) -> Tensor:
    """argmin_x |x - noisy|^2 / 2 + weight TV(x) by the fast gradient projection of Beck and Teboulle (2009)."""
    p = previous = torch.zeros((2, *noisy.shape), dtype=noisy.dtype)
    q, t = p, 1.0
    for _ in range(iterations):
        p = q + gradient(noisy + weight * divergence(q)) / (8 * weight)
        p = p / p.abs().square().sum(0).sqrt().clamp(min=1)
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        q = p + (t - 1) / t_next * (p - previous)
        previous, t = p, t_next
    return noisy + weight * divergence(p)


def channel_tv(noisy: Tensor, weight: float) -> Tensor:
    """Chambolle TV of scikit-image on the real and on the imaginary part."""
    from skimage.restoration import denoise_tv_chambolle

    parts = [denoise_tv_chambolle(part.numpy(), weight=weight) for part in (noisy.real, noisy.imag)]
    return torch.complex(*(torch.from_numpy(part.astype(np.float32)) for part in parts))


def best_tv(
    method: Callable[[Tensor, float], Tensor], noisy: Tensor, clean: Tensor, start: float
) -> tuple[float, float]:
    """Walk over weights in steps of 15 % until the PSNR falls on both sides; return the best PSNR and weight."""
    scores: dict[int, float] = {}

    def score(k: int) -> float:
        if k not in scores:
            scores[k] = psnr(method(noisy, start * 1.15**k), clean)
        return scores[k]

    k = 0
    while score(k + 1) > score(k):
        k += 1
    while score(k - 1) > score(k):
        k -= 1
    return scores[k], start * 1.15**k


def baseline(images: list[tuple[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Return the better TV's PSNR by sigma and slice."""
    result: dict[str, dict[str, float]] = {str(sigma): {} for sigma in SIGMAS}
    for sigma in SIGMAS:
        starts = {complex_tv: 0.7 * sigma, channel_tv: 0.9 * sigma}
        for index, (name, clean) in enumerate(images):
            noisy = clean + sigma * evaluation_noise(clean.shape, index)
            best = -math.inf
            for method in starts:
                value, starts[method] = best_tv(method, noisy, clean, starts[method])
                best = max(best, value)
            result[str(sigma)][name] = best
    return result


def network(images: list[tuple[str, Tensor]], path: Path, precision: str) -> dict[str, dict[str, float]]:
    """Return the network's PSNR by sigma and slice."""
    prior = load_network_prior(path, precision=precision)  # type: ignore[arg-type]
    result: dict[str, dict[str, float]] = {str(sigma): {} for sigma in SIGMAS}
    for sigma in SIGMAS:
        for index, (name, clean) in enumerate(images):
            noisy = clean + sigma * evaluation_noise(clean.shape, index)
            result[str(sigma)][name] = psnr(prior.denoise(noisy[None], sigma)[0], clean)
    return result


def summary(values: dict[str, dict[str, float]], name_contains: str = "") -> dict[str, float]:
    means = {s: float(np.mean([v for n, v in row.items() if name_contains in n])) for s, row in values.items()}
    return {s: round(v, 2) for s, v in {**means, "mean": float(np.mean(list(means.values())))}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that the patterns of the config refer to")
    parser.add_argument("--config", type=Path, default=CONFIG, help="training configuration: which files are held out")
    parser.add_argument("--prior", type=Path, default=WEIGHTS_FOLDER / "brain-mri.safetensors")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--slices", type=int, default=10, help="held-out slices per source")
    parser.add_argument("--baseline", type=Path, help="cache of the TV results: read if there, written if not")
    parser.add_argument("--output", type=Path, help="JSON file with the results")
    arguments = parser.parse_args()
    sources = load_config(arguments.config).sources
    items = [(s, item) for s in sources for item in held_out_slices(arguments.data, s, arguments.slices)]
    images = [(f"{s.pattern}|{item.name}", evaluation_image(item, k)) for k, (s, item) in enumerate(items)]
    if arguments.baseline and arguments.baseline.exists():
        tv = json.loads(arguments.baseline.read_text())
    else:
        tv = baseline(images)
        if arguments.baseline:
            arguments.baseline.write_text(json.dumps(tv))
    ours = network(images, arguments.prior, arguments.precision)
    table = {"slices": len(images)}
    for group in ("", *(s.pattern.split("/")[0] for s in sources)):
        net, reference = summary(ours, group), summary(tv, group)
        gain = {key: round(net[key] - reference[key], 2) for key in net}
        table[group or "all"] = {"network": net, "tv_best_weight": reference, "gain": gain}
        print(f"{group or 'all'}: PSNR in dB by sigma")
        for label, row in (("network", net), ("TV", reference), ("gain", gain)):
            print(f"  {label:8s}" + "".join(f"{key:>6s} {value:6.2f}  " for key, value in row.items()))
    if arguments.output:
        arguments.output.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
