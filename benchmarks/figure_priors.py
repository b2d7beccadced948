"""Draw images from a shipped prior alone, for its card.

    python benchmarks/figure_priors.py NAME FIGURE.png [--size 160] [--count 6] [--steps 24] [--seed 0]
        [--precision float32]

Draws 0 to count - 1 of the seed, none left out, by Heun's method along the probability flow. Magnitudes, the .999
quantile of all of them is white; CT in a window of -400 to 600 HU; ultrasound over 60 dB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recon.priors.network import WEIGHTS_FOLDER, load_network_prior
from recon.training.pictures import draw_prior


def main() -> None:
    """Draw the images and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in WEIGHTS_FOLDER.glob("*.md")))
    parser.add_argument("figure", type=Path)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    chosen = parser.parse_args()
    prior = load_network_prior(WEIGHTS_FOLDER / f"{chosen.name}.safetensors", precision=chosen.precision)
    shape = (chosen.size, chosen.size)
    drawn = draw_prior(prior, shape, chosen.count, chosen.seed, chosen.steps, chosen.name == "ct").numpy()
    figure = Figure(figsize=(1.6 * chosen.count, 1.6))
    axes = figure.subplots(1, chosen.count, gridspec_kw={"wspace": 0.03}, squeeze=False)[0]
    for axis, image in zip(axes, shown(drawn, chosen.name), strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.savefig(chosen.figure, dpi=100, pil_kwargs={"optimize": True})


def shown(drawn: np.ndarray, name: str) -> np.ndarray:
    """Return images between black, 0, and white, 1."""
    if name == "ct":
        return (drawn - 0.6) / 1.0
    magnitude = np.abs(drawn)
    relative = magnitude / np.quantile(magnitude, 0.999)
    return 1 + 20 * np.log10(np.maximum(relative, 1e-6)) / 60 if name == "ultrasound" else relative


if __name__ == "__main__":
    main()
