"""What each preparation of a network for inference is worth: layout, precision, compilation, padding, batches.

    python benchmarks/speed_network.py [--prior NAME] [--size 320] [--repeats N] [--data VOLUMES] [--json FILE]
        [--variants NAMES] [--threads N] [--device cpu] [--reconstruct]

All variants run in one process and in turns (ABC ABC ...), so that a busy machine disturbs all alike; reported are the
median milliseconds for an image, of the clock and of the processors, and the median of the ratios to the reference of
the same turn. The reference is one image at a time in the layout that torch uses by default, in float32. How much a
variant changes the images is the largest change of the PSNR over the noise levels .05, .3 and 1 (images: held-out
slices of the training configuration, where --data names its folder, else the demo's synthetic patient), and the PSNR
of its output against the reference's. With --reconstruct the demo's scan is reconstructed in every way, too, and the
PSNR of the mean of two samples is compared: the change should be below .05 dB.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import recon
from recon.demo import STEPS, load_patient, simulate
from recon.errors import ReconError
from recon.metrics import psnr as recon_psnr
from recon.modalities import training_images
from recon.modalities.mri.training import evaluation_image
from recon.priors import load_prior
from recon.priors.inference import GRAPHS, PreparedNetwork
from recon.priors.network import NetworkPrior
from recon.training.config import load_config
from recon.training.evaluate import psnr, with_noise

SIGMAS = (0.05, 0.3, 1.0)
BATCH = 8
REFERENCE = "plain"
CONFIG = Path(__file__).parent / "configs" / "brain-mri.toml"
Seconds = tuple[float, float]


@dataclass(frozen=True)
class Variant:
    """One way to run the network, and how many images it is given at once; ``crop`` pixels are taken off each side."""

    memory_format: torch.memory_format = torch.channels_last
    precision: str = "float32"
    compiled: bool | str = False
    batch: int = 1
    max_batch: int | None = 1
    crop: tuple[int, int] = (0, 0)


VARIANTS = {
    REFERENCE: Variant(torch.contiguous_format),
    "channels-last": Variant(),
    "channels-last, padded by 7 x 5": Variant(crop=(7, 5)),
    "bfloat16, plain layout": Variant(torch.contiguous_format, "bfloat16"),
    "bfloat16": Variant(precision="bfloat16"),
    "compiled": Variant(compiled=True),
    "compiled, bfloat16": Variant(compiled=True, precision="bfloat16"),
    "tf32": Variant(precision="tf32"),
    "cuda graphs": Variant(compiled=GRAPHS),
    "cuda graphs, bfloat16": Variant(compiled=GRAPHS, precision="bfloat16"),
    f"batch of {BATCH}, one by one": Variant(batch=BATCH),
    f"batch of {BATCH}, pieces by memory": Variant(batch=BATCH, max_batch=None),
    f"batch of {BATCH}, whole": Variant(batch=BATCH, max_batch=BATCH),
}


def main() -> None:
    """Prepare, compare, time, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="brain-mri")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="folder that the patterns of the training configuration refer to")
    parser.add_argument("--variants", nargs="*", help="only those whose names hold one of these words")
    parser.add_argument("--reconstruct", action="store_true", help="compare whole reconstructions, too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = {
        name: variant
        for name, variant in VARIANTS.items()
        if name == REFERENCE or not arguments.variants or any(word in name for word in arguments.variants)
        if arguments.device.startswith("cuda") or not (variant.precision == "tf32" or variant.compiled == GRAPHS)
    }
    images = test_images(arguments.data, arguments.size).to(arguments.device)
    runs, rows = prepare(chosen, arguments.prior, images, arguments.device)
    if arguments.reconstruct:
        compare_reconstructions(rows, {row["variant"]: chosen[row["variant"]] for row in rows}, arguments)
    times = in_turns(runs, arguments.repeats)
    for row in rows:
        if row["variant"] in times:
            one = times[row["variant"]]
            ratios = np.median(one / times[REFERENCE], axis=0)
            row["ms per image"], row["processor ms per image"] = (1e3 * float(v) for v in np.median(one, axis=0))
            row["times the reference"], row["processor times the reference"] = (float(v) for v in ratios)
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)
    if arguments.json:
        facts = {"prior": arguments.prior, "size": arguments.size, "threads": arguments.threads}
        facts |= {"device": arguments.device, "torch": torch.__version__, "load_average": os.getloadavg()}
        arguments.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def test_images(data: Path | None, size: int) -> Tensor:
    """Return complex images ``(image, size, size)``: held-out slices, or the synthetic patient of the demo."""
    if data is None:
        found = [torch.from_numpy(load_patient()[0].astype(np.complex64))]
    else:
        config = load_config(CONFIG)
        kind, held = training_images(config.modality), [s for s in config.sources if s.held_out]
        items = [item for s in held for item in kind.held_out(data, s, 1)]
        found = [evaluation_image(item, k) for k, item in enumerate(items)]
    return torch.stack([framed(image, size) for image in found])


def framed(image: Tensor, size: int) -> Tensor:
    """Cut the centre out, or put the image in the middle of zeros."""
    for axis in (0, 1):
        length = image.shape[axis]
        first = max((length - size) // 2, 0)
        image = image.narrow(axis, first, min(size, length))
    out = torch.zeros(size, size, dtype=image.dtype)
    top, left = ((size - n) // 2 for n in image.shape)
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def build(name: str, variant: Variant, device: str) -> NetworkPrior:
    """Load the prior and prepare its network in one way."""
    prior = load_prior(name, device=device)
    if not isinstance(prior, NetworkPrior):
        raise SystemExit(f"{name} is no network of this engine")
    prior.prepared = PreparedNetwork(
        prior.model,
        prior.prepared.multiple,
        variant.memory_format,
        variant.precision,
        variant.compiled,
        variant.max_batch,
        prior.prepared.told_positions,
    )
    return prior


def prepare(
    chosen: dict[str, Variant], name: str, images: Tensor, device: str
) -> tuple[dict[str, Callable[[], Seconds]], list[dict[str, Any]]]:
    """Return what is to be timed (each call returns seconds for an image), and rows with what changes in the images."""
    runs: dict[str, Callable[[], Seconds]] = {}
    rows: list[dict[str, Any]] = []
    expected: list[Tensor] = []
    for label, variant in chosen.items():
        prior = build(name, variant, device)
        try:
            found, seconds = denoised(prior, images, variant)
        except ReconError as error:  # no compiler
            rows.append({"variant": label, "skipped": str(error)})
            continue
        expected = expected or found
        change, distance = differences(found, expected, images, variant.crop)
        row: dict[str, Any] = {"variant": label, "first call s": seconds}
        rows.append({**row, "change of PSNR, dB": change, "PSNR to the reference, dB": distance})
        runs[label] = timed(prior, images, variant)
    return runs, rows


def compare_reconstructions(
    rows: list[dict[str, Any]], chosen: dict[str, Variant], arguments: argparse.Namespace
) -> None:
    """Add to the rows how much the PSNR of a reconstruction of the demo's scan changes, in dB."""
    scan = simulate()
    found: dict[tuple[Any, ...], float] = {}
    for row in rows:
        variant = chosen[row["variant"]]
        way = (variant.memory_format, variant.precision, variant.compiled)  # what changes the arithmetic
        if "skipped" not in row and way not in found:
            posterior = recon.reconstruct(
                scan.kspace,
                mask=scan.mask,
                prior=build(arguments.prior, variant, arguments.device),
                samples=2,
                steps=STEPS,
                device=arguments.device,
                progress=False,
            )
            found[way] = recon_psnr(posterior.magnitude.mean, scan.reference)
        if way in found:
            row["change of a reconstruction, dB"] = found[way] - next(iter(found.values()))


@torch.no_grad()
def denoised(prior: NetworkPrior, images: Tensor, variant: Variant) -> tuple[list[Tensor], float]:
    """Return the denoised images for each noise level, and how long the very first call took."""
    found: list[Tensor] = []
    first = 0.0
    for sigma in SIGMAS:
        noisy = torch.stack([with_noise(image.cpu(), sigma, k) for k, image in enumerate(images)]).to(images.device)
        started = time.perf_counter()
        found.append(prior.denoise(cropped(noisy, variant.crop), sigma))
        first = first or time.perf_counter() - started
    return found, first


def cropped(images: Tensor, crop: tuple[int, int]) -> Tensor:
    """Take pixels off the lower and the right side."""
    return images[..., : images.shape[-2] - crop[0], : images.shape[-1] - crop[1]].contiguous()


def differences(
    found: list[Tensor], expected: list[Tensor], images: Tensor, crop: tuple[int, int]
) -> tuple[float, float | None]:
    """Return the largest change of the PSNR in dB, and the smallest PSNR of the outputs against the reference's."""
    truth = cropped(images, crop)
    expected = [cropped(e, crop) for e in expected]
    changes = [psnr(f, truth) - psnr(e, truth) for f, e in zip(found, expected, strict=True)]
    same = all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    distance = None if same else min(psnr(f, e) for f, e in zip(found, expected, strict=True) if not torch.equal(f, e))
    return max(changes, key=abs), distance


def timed(prior: NetworkPrior, images: Tensor, variant: Variant) -> Callable[[], Seconds]:
    """Return a function that denoises and says how many seconds, of the clock and of the processors, an image took."""
    x = cropped(with_noise(images[0].cpu(), 0.3, 0).to(images.device).expand(variant.batch, -1, -1), variant.crop)

    @torch.no_grad()
    def run() -> Seconds:
        started, used = time.perf_counter(), time.process_time()
        prior.denoise(x, 0.3)
        if x.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / len(x), (time.process_time() - used) / len(x)

    return run


def in_turns(runs: dict[str, Callable[[], Seconds]], repeats: int) -> dict[str, np.ndarray]:
    """Time all of them in turns, after a turn that does not count; ``(turn, 2)``."""
    times: dict[str, list[Seconds]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            seconds = run()
            if turn:
                times[name].append(seconds)
    return {name: np.array(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
