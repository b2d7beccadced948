"""How much of a run is spent outside the network, and how much memory it takes at its peak.

    python benchmarks/network_share.py [--coils 15] [--size 320] [--samples 8] [--steps 10] [--pattern random]
        [--sampler dds]

Simulated multi-coil k-space is undersampled four-fold and reconstructed through the public API with the shipped prior;
the time inside the prior is measured by wrapping it. Prints one line of JSON. Run by ``speed_mri.py`` in a process of
its own, so that the peak memory is that of the run alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import recon
from recon.demo import loop_sensitivities
from recon.priors.network import NetworkPrior, load_network_prior


class Timed:
    """A prior that knows how long it took."""

    def __init__(self, prior: NetworkPrior) -> None:
        self.prior = prior
        self.sigma_min, self.sigma_max, self.space = prior.sigma_min, prior.sigma_max, prior.space
        self.seconds = 0.0

    def error_std(self, sigma: float) -> float | None:
        return self.prior.error_std(sigma)

    def error_spectrum(self, sigma: float, shape: tuple[int, ...]) -> torch.Tensor | None:
        return self.prior.error_spectrum(sigma, shape)

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        started = time.perf_counter()
        differentiated = torch.is_grad_enabled() and x.requires_grad
        x = x.view_as(x) if differentiated else x
        out = self.prior.denoise(x, sigma)
        self._stop(started, x)
        if differentiated:  # back-propagation from the output to the input is the network's time, too
            begun: list[float] = []
            out.register_hook(lambda gradient: begun.append(time.perf_counter()))
            x.register_hook(lambda gradient: self._stop(begun.pop(), x))
        return out

    def _stop(self, started: float, x: torch.Tensor) -> None:
        if x.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started


def main() -> None:
    """Reconstruct and print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coils", type=int, default=15)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pattern", default="random")
    parser.add_argument("--sampler", default="dds")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    kspace = simulate(arguments.coils, arguments.size)
    prior = Timed(load_network_prior(precision=arguments.precision))
    settings = {
        "prior": prior,
        "sampler": arguments.sampler,
        "acceleration": 4,
        "mask": arguments.pattern,
        "progress": False,
    }
    recon.reconstruct(kspace, samples=1, steps=1, **settings)
    prior.seconds = 0.0
    started = time.perf_counter()
    recon.reconstruct(kspace, samples=arguments.samples, steps=arguments.steps, **settings)
    total = time.perf_counter() - started
    row = {
        "case": f"{arguments.coils} x {arguments.size} x {arguments.size}",
        "what": f"{arguments.sampler}, {arguments.samples} samples, {arguments.steps} steps, {arguments.pattern}",
        "precision": arguments.precision,
        "seconds": total,
        "outside the network": 1 - prior.seconds / total,
        "outside / network": total / prior.seconds - 1,
        "peak MiB": peak_memory(),
    }
    print(json.dumps(row))


def simulate(coils: int, size: int) -> torch.Tensor:
    """Return k-space of the demo's synthetic head, interpolated to ``size``, with noise."""
    from operators import fftc
    from recon.demo import load_patient

    image = torch.as_tensor(load_patient()[0], dtype=torch.complex64)
    channels = torch.view_as_real(image).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(channels, size=(size, size), mode="bicubic")[0]
    image = torch.view_as_complex(resized.permute(1, 2, 0).contiguous())
    maps = torch.as_tensor(loop_sensitivities((size, size), coils), dtype=torch.complex64)
    noise = torch.randn(coils, size, size, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    return fftc(maps * image) + 0.02 * noise


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
