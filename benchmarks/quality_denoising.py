"""Denoising quality of a network prior on held-out patients, against total variation at its best weight.

    python benchmarks/quality_denoising.py --data FOLDER [--config configs/brain-mri.toml] [--prior FILE.safetensors]
        [--output RESULTS.json]

MRI: complex images (magnitude of a held-out slice, scale: 0.99 quantile = 1, fixed smooth phase) plus complex noise
sigma n with E|n|^2 = 1. CT: real images, attenuation of water = 1, real noise. Total variation gets two forms, complex
isotropic TV (gradient of both parts coupled) and the Chambolle TV of scikit-image for each part, and the weight with
the smallest error *against the truth*, which the network does not have: one for each image and sigma, or one for each
sigma. PSNR = 10 log10(1 / mean |error|^2) in dB, averaged over the slices.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.baselines import divergence, gradient
from recon.modalities import training_images
from recon.priors.network import WEIGHTS_FOLDER, load_network_prior
from recon.training.config import load_config
from recon.training.evaluate import SIGMAS, error_curve, error_spectrum, psnr, with_noise

CONFIG = Path(__file__).parent / "configs" / "brain-mri.toml"


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
    """Chambolle TV of scikit-image, on each part of complex images."""
    from skimage.restoration import denoise_tv_chambolle

    if not noisy.is_complex():
        return torch.from_numpy(denoise_tv_chambolle(noisy.numpy(), weight=weight).astype(np.float32))
    parts = [denoise_tv_chambolle(part.numpy(), weight=weight) for part in (noisy.real, noisy.imag)]
    return torch.complex(*(torch.from_numpy(part.astype(np.float32)) for part in parts))


Method = Callable[[Tensor, float], Tensor]
Images = list[tuple[str, Tensor]]
Scores = dict[str, dict[str, float]]  # PSNR in dB by sigma and slice


def climb(score: Callable[[float], float], start: float) -> tuple[float, float]:
    """Walk over weights in steps of 15 % until the score falls on both sides; return the best score and weight."""
    scores: dict[int, float] = {}

    def at(k: int) -> float:
        if k not in scores:
            scores[k] = score(start * 1.15**k)
        return scores[k]

    k = 0
    while at(k + 1) > at(k):
        k += 1
    while at(k - 1) > at(k):
        k -= 1
    return scores[k], start * 1.15**k


def noisy_images(images: Images, sigma: float) -> list[tuple[str, Tensor, Tensor]]:
    return [(n, x, with_noise(x, sigma, k)) for k, (n, x) in enumerate(images)]


def tv_by_image(images: Images) -> Scores:
    """Return the better TV's PSNR at the best weight of every image and sigma."""
    result: Scores = {str(sigma): {} for sigma in SIGMAS}
    for sigma in SIGMAS:
        starts: dict[Method, float] = {complex_tv: 0.7 * sigma, channel_tv: 0.9 * sigma}
        for name, clean, noisy in noisy_images(images, sigma):
            best = -math.inf
            for method, start in starts.items():
                value, starts[method] = climb(lambda w, m=method, y=noisy, x=clean: psnr(m(y, w), x), start)
                best = max(best, value)
            result[str(sigma)][name] = best
    return result


def tv_by_sigma(images: Images) -> Scores:
    """Return the better TV's PSNR at one weight for each sigma, the best one for the mean over all images."""
    result: Scores = {}
    for sigma in SIGMAS:
        noisy = noisy_images(images, sigma)
        forms = [one_weight(noisy, complex_tv, 0.7 * sigma), one_weight(noisy, channel_tv, 0.9 * sigma)]
        result[str(sigma)] = max(forms, key=lambda row: float(np.mean(list(row.values()))))
    return result


def one_weight(noisy: list[tuple[str, Tensor, Tensor]], method: Method, start: float) -> dict[str, float]:
    """Return the PSNR of every image at the one weight with the best mean."""
    runs: dict[float, dict[str, float]] = {}

    def mean(weight: float) -> float:
        runs[weight] = {name: psnr(method(y, weight), x) for name, x, y in noisy}
        return float(np.mean(list(runs[weight].values())))

    return runs[climb(mean, start)[1]]


def network(images: Images, path: Path, precision: str) -> Scores:
    """Return the network's PSNR by sigma and slice."""
    prior = load_network_prior(path, precision=precision)  # type: ignore[arg-type]
    return {
        str(sigma): {n: psnr(prior.denoise(y[None], sigma)[0], x) for n, x, y in noisy_images(images, sigma)}
        for sigma in SIGMAS
    }


def baselines(images: Images, cache: Path | None) -> dict[str, Scores]:
    if cache and cache.exists():
        return json.loads(cache.read_text())
    result = {"tv_best_weight_by_image": tv_by_image(images), "tv_best_weight_by_sigma": tv_by_sigma(images)}
    if cache:
        cache.write_text(json.dumps(result))
    return result


def summary(values: Scores, name_contains: str = "") -> dict[str, float]:
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
    config = load_config(arguments.config)
    kind, sources = training_images(config.modality), [s for s in config.sources if s.held_out]
    items = [(s, item) for s in sources for item in kind.held_out(arguments.data, s, arguments.slices)]
    images = [(f"{s.pattern}|{item.name}", kind.test_image(item, k)) for k, (s, item) in enumerate(items)]
    tv = baselines(images, arguments.baseline)
    ours = network(images, arguments.prior, arguments.precision)
    table: dict[str, Any] = {"slices": len(images)}
    for group in ("", *(s.pattern.split("/")[0] for s in sources)):
        rows = {"network": summary(ours, group)}
        for name, values in tv.items():
            rows[name] = summary(values, group)
            rows[name.replace("tv", "gain_over_tv", 1)] = {
                k: round(rows["network"][k] - v, 2) for k, v in rows[name].items()
            }
        table[group or "all"] = rows
        print(f"{group or 'all'}: PSNR in dB by sigma")
        for label, row in rows.items():
            print(f"  {label:36s}" + "".join(f"{key:>6s} {value:6.2f}" for key, value in row.items()))
    prior = load_network_prior(arguments.prior, precision=arguments.precision)
    some = [image for _, image in images[::3]]
    table |= {"error_std": error_curve(prior, some), "error_spectrum": error_spectrum(prior, some)}
    if arguments.output:
        arguments.output.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
