"""Draw the figures of docs/uncertainty.md: curves of coverage and spread, and maps of one held-out slice.

    python benchmarks/figure_uncertainty.py curves benchmarks/results/quality_uncertainty.json FIGURE.png
    python benchmarks/figure_uncertainty.py maps --data VOLUMES FIGURE.png [--samplers dds score-mri ...]

Curves are those of benchmarks/quality_uncertainty.py. Maps: a slice of open_ms patient20 (never trained on) as 8-coil
k-space at acceleration 4; mean, error of the mean and standard deviation of the magnitude, the latter two on one scale.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from quality_uncertainty import CONFIG, acquire

import recon
from recon import metrics
from recon.engine.samplers import resolve_sampler
from recon.modalities import training_images
from recon.modalities.mri.training import evaluation_image
from recon.training.config import load_config


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    curves, maps = kinds.add_parser("curves"), kinds.add_parser("maps")
    curves.add_argument("results", type=Path)
    curves.add_argument(
        "--of", default="NiChart T1w and FLAIR, 4 samples", help="only rows that say this of their slices"
    )
    maps.add_argument("--data", type=Path, required=True)
    maps.add_argument("--samplers", nargs="+", default=["dds", "dds-narrow", "moment-matching", "score-mri"])
    maps.add_argument("--precision", default="float32")
    for kind in (curves, maps):
        kind.add_argument("figure", type=Path)
    arguments = parser.parse_args()
    draw = _curves(arguments) if arguments.kind == "curves" else _maps(arguments)
    draw.savefig(arguments.figure, dpi=110, pil_kwargs={"optimize": True})


def _curves(arguments: argparse.Namespace) -> plt.Figure:
    """Return coverage against level and error against spread, a row for each acceleration."""
    rows = [
        row
        for row in json.loads(arguments.results.read_text())
        if row["slices_of"] == arguments.of and row["psnr"] > 0  # a sampler that diverged would set the scale
    ]
    accelerations = sorted({row["acceleration"] for row in rows})
    size = (9.2, 4.2 * len(accelerations))
    figure, axes = plt.subplots(len(accelerations), 2, figsize=size, layout="constrained", squeeze=False)
    names = list(dict.fromkeys(row["sampler"] for row in rows))
    colors = dict(zip(names, plt.get_cmap("tab10" if len(names) <= 10 else "tab20").colors, strict=False))
    for (left, right), acceleration in zip(axes, accelerations, strict=True):
        for row in (row for row in rows if row["acceleration"] == acceleration):
            style: dict[str, Any] = {"color": colors[row["sampler"]], "label": row["sampler"], "marker": "o", "ms": 3}
            style["lw"] = 2.2 if row["sampler"] == "dds" else 1.2
            left.plot(row["curves"]["levels"], row["curves"]["covered"], **style)
            right.plot(row["curves"]["spread"], row["curves"]["error"], **style)
        left.plot([0, 1], [0, 1], "k--", lw=0.8)
        left.set(title=f"acceleration {acceleration:g}", xlabel="level of the interval", xlim=(0, 1), ylim=(0, 1))
        left.set_ylabel("share of pixels inside")
        largest = max(max(row["curves"]["error"]) for row in rows if row["acceleration"] == acceleration)
        right.plot([0, largest], [0, largest], "k--", lw=0.8, label="right")
        right.set(xlabel="predicted spread (of white)", xlim=(0, None), ylim=(0, None))
        right.set_ylabel("rms error of the mean (of white)")
    axes[0, 1].legend(fontsize=7)
    return figure


def _maps(arguments: argparse.Namespace) -> plt.Figure:
    """Return mean, error and standard deviation of one slice, a row for each sampler."""
    source = next(s for s in load_config(CONFIG).sources if "open_ms" in s.pattern)
    item = training_images("mri").held_out(arguments.data, source, 3)[1]
    image = evaluation_image(item, 1).numpy()
    kspace, mask, maps = acquire(image, "random", 4.0, 0)
    truth = np.abs(image)
    size = (9.6, 0.35 + 3.1 * len(arguments.samplers))
    figure, axes = plt.subplots(len(arguments.samplers), 3, figsize=size, layout="constrained", squeeze=False)
    for row, name in zip(axes, arguments.samplers, strict=True):
        found = recon.reconstruct(
            kspace,
            mask=mask,
            coil_maps=maps,
            sampler=resolve_sampler(name),
            precision=arguments.precision,
            progress=False,
        ).magnitude
        covered = metrics.coverage(*found.interval(0.9), truth, metrics.foreground(truth))
        top = 0.12 * np.quantile(truth, 0.99)
        row[0].imshow(found.mean, cmap="gray", vmin=0, vmax=truth.max())
        row[1].imshow(np.abs(found.mean - truth), cmap="inferno", vmin=0, vmax=top)
        shown = row[2].imshow(found.std, cmap="inferno", vmin=0, vmax=top)
        row[0].set_title(f"{name}: mean, {metrics.psnr(found.mean, truth):.1f} dB", fontsize=10)
        row[1].set_title("|error| of the mean", fontsize=10)
        row[2].set_title(f"std; 90 % interval holds {covered:.0%}", fontsize=10)
        figure.colorbar(shown, ax=row[2], shrink=0.8)
        for axis in row:
            axis.axis("off")
    return figure


if __name__ == "__main__":
    main()
