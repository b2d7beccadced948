"""Pictures of a training run: its curves, and images drawn from the prior it has so far."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.files.atomic import atomic_path
from samplers.base import Denoiser
from samplers.schedule import karras


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a line of JSON to a file; a truncated line before it is left on its own."""
    begun = path.exists() and not path.read_bytes().endswith(b"\n")
    with open(path, "a") as file:
        file.write("\n" * (begun and path.stat().st_size > 0) + json.dumps(row) + "\n")


def rows_of(path: Path, *keys: str) -> list[dict[str, Any]]:
    """Return the JSON lines of a file that have a step and ``keys``; truncated lines are skipped."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in found if isinstance(row, dict) and {"step", *keys} <= row.keys()]


def keep_until(path: Path, step: int) -> None:
    """Remove the rows of later steps."""
    rows = rows_of(path)
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows):
        with atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))


def has_matplotlib() -> bool:
    """Tell whether pictures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw_curves(losses: Path, held_out: Path, target: Path) -> None:
    """Plot the training loss and the held-out denoising quality over steps in a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = rows_of(losses, "loss")
    left.plot([row["step"] for row in found], [row["loss"] for row in found], color="tab:blue", linewidth=1)
    left.set(xlabel="step", ylabel="loss", title="training (mean of 50 steps)")
    curves = rows_of(held_out, "psnr")
    for sigma in dict.fromkeys(sigma for row in curves for sigma in row["psnr"]):
        seen = [row for row in curves if sigma in row["psnr"]]
        values = [row["psnr"][sigma] for row in seen]
        right.plot([row["step"] for row in seen], values, marker=".", label=f"sigma {sigma}")
    right.set(xlabel="step", ylabel="PSNR in dB", title="denoising of held-out slices")
    if curves:
        right.legend(fontsize="small")
    with atomic_path(target) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def draw_sheet(images: Tensor, target: Path) -> None:
    """Write the magnitudes of images ``(n, y, x)`` side by side into a PNG file; white is the brightest 0.2 %."""
    from matplotlib.image import imsave

    sheet = np.concatenate(list(images.abs().numpy()), axis=1)
    with atomic_path(target) as temporary:
        imsave(temporary, sheet, cmap="gray", vmin=0, vmax=max(float(np.quantile(sheet, 0.998)), 1e-6), format="png")


#: Training images (bright pixels are about 1) are invisible at this noise level.
_START = 10.0


@torch.no_grad()
def draw_prior(
    denoiser: Denoiser,
    shape: tuple[int, int],
    count: int,
    seed: int,
    steps: int = 18,
    real: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return ``(count, y, x)`` samples of a prior, by Heun's method along its probability flow.

    Parameters
    ----------
    denoiser : Denoiser
        The prior.
    shape : (int, int)
        Size of the images, (y, x).
    count : int
        Number of images.
    seed : int
        Image k is the same whatever ``count`` is.
    steps : int
        Number of sigma steps; each but the last evaluates the network twice.
    real : bool
        Whether the images of the prior are real.
    device : torch.device or str
        Device of the denoiser; noise is drawn on the CPU.

    Source: Karras et al., NeurIPS 2022, algorithm 1.
    """
    dtype = torch.float32 if real else torch.complex64
    levels = karras(min(_START, denoiser.sigma_max), denoiser.sigma_min, steps)
    noise = [
        torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed * 4096 + k)) for k in range(count)
    ]
    x = levels[0] * torch.stack(noise).to(device)
    for sigma, following in itertools.pairwise(levels):
        slope = (x - denoiser.denoise(x, sigma)) / sigma
        moved = x + (following - sigma) * slope
        if following > 0:
            ahead = (moved - denoiser.denoise(moved, following)) / following
            moved = x + (following - sigma) * (slope + ahead) / 2
        x = moved
    return x
