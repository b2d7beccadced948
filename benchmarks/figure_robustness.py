"""Draw rows of benchmarks/robustness_mri.py: reference, mean, error and standard deviation, on one scale.

    python benchmarks/figure_robustness.py FIGURE.png --data FOLDER --only NAME ... [--samples 8] [--zoom 5]

Each row is reconstructed for the figure. Error and standard deviation of the magnitude are shown ZOOM times too bright,
all four from 0 (black) to the maximum of the reference (white).
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from robustness_mri import chosen, measure
from robustness_scans import Scan

from recon.posterior import Posterior


def main() -> None:
    """Reconstruct the rows and draw those that gave an image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", required=True, metavar="NAME", help="rows whose name holds one of these")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--zoom", type=float, default=5.0)
    arguments = parser.parse_args()
    drawn = []
    for name, make in chosen(arguments.data, arguments.only).items():
        scan = make()
        row, posterior = measure(scan, arguments.samples, arguments.precision)
        if posterior is None:
            print(f"{name}: {row.get('refused') or row['crashed']}")
            continue
        quality = "" if row.get("psnr_head") is None else f", {row['psnr_head']:.1f} dB in the head"
        drawn.append((textwrap.fill(name, 30), f"mean{quality}", scan, posterior))
    if drawn:
        save(draw(drawn, arguments.zoom), arguments.figure)


def draw(drawn: list[tuple[str, str, Scan, Posterior]], zoom: float = 5.0) -> plt.Figure:
    """Return a figure with a row for each scan and posterior, with titles of the reference and the mean."""
    heights = [min(scan.reference.shape[0] / scan.reference.shape[1], 1.3) for *_, scan, _ in drawn]
    size = (8.0, sum(2.0 * height + 0.45 for height in heights))
    figure, axes = plt.subplots(
        len(drawn), 4, figsize=size, layout="constrained", squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for row, (title, quality, scan, posterior) in zip(axes, drawn, strict=True):
        reference, mean = np.abs(scan.reference), np.abs(posterior.mean)
        shown = {
            title: reference,
            quality: mean,
            f"|error| x {zoom:g}": zoom * np.abs(mean - reference),
            f"std x {zoom:g}": zoom * posterior.magnitude.std,
        }
        for axis, (name, image) in zip(row, shown.items(), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=reference.max(), interpolation="nearest")
            axis.set_title(name, fontsize=8, loc="left")
            axis.axis("off")
    return figure


def save(figure: plt.Figure, path: Path, levels: int = 48) -> None:
    """Write a figure in shades of grey, which takes a quarter of the room of colours."""
    figure.set_dpi(80)
    figure.canvas.draw()
    gray = np.asarray(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("L"))
    rounded = np.round(np.round(gray / 255 * (levels - 1)) * 255 / (levels - 1)).astype(np.uint8)
    Image.fromarray(rounded).save(path, optimize=True)


if __name__ == "__main__":
    main()
