"""Image quality of one plane wave: posterior means against beamformers, on simulated phantoms and real acquisitions.

    python benchmarks/quality_us.py --data ULTRASOUND [--priors gaussian ultrasound] [--counts 1] [--elements 64]
        [--array centre] [--decimation N] [--samples 8] [--waves 75] [--scenes wire cyst muscle disk] [--json FILE]
        [--pictures FOLDER]

The scatterers of two phantoms of the PICMUS challenge (a wire, a cyst), which no prior was trained on, are heard by a
PICMUS-like probe through a simulation of its own (``us_simulation.py``), with a pulse that the pipeline has to find out
and noise. Channel data of the challenge itself cannot be had with an open licence; its delay-and-sum images, which are
real, are measured beside them. The two real acquisitions (a muscle in vivo, a disk) have no truth: what is measured is
how well the samples explain the data, and their speckle. ULTRASOUND holds picmus/ and the two acquisitions.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from us_simulation import channel_data, true_image

import recon
from operators import Grid, beamform
from recon.errors import InputError
from recon.io import open_ultrasound, read_picmus_image, read_picmus_phantom
from recon.modalities.ultrasound.image_metrics import box_region, cnr, contrast_regions, fwhm, gcnr, speckle_snr
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.patterns import ARRAYS
from recon.modalities.ultrasound.prepare import prepare_frame
from recon.modalities.ultrasound.report import level, level_std, white_of
from recon.modalities.ultrasound.speckle import speckle_size, speckle_test

ELEMENTS, NOISE = 64, 0.03  # noise of the rms of the data
#: Title, values, what is black and white, colours.
Picture = tuple[str, np.ndarray, tuple[float, float], str]


@dataclass(frozen=True)
class Scene:
    """A part of a phantom or of an acquisition, in mm."""

    name: str
    phantom: int | None
    depth: tuple[float, float]
    width: tuple[float, float] | None
    file: str = ""
    attenuation: float = 0.0


SCENES = (
    Scene("wire", 3, (16.5, 21.0), (-3.0, 2.2)),
    # The whole width: what lies outside of a part can only be guessed, and its side lobes fill the cyst.
    Scene("cyst", 4, (11.0, 19.0), None),
    Scene("muscle", None, (14.0, 22.0), (-6.0, 6.0), "muscle_invivo_1angle.hdf5", 0.5),
    Scene("disk", None, (18.0, 24.0), (-4.0, 4.0), "rotating_disk_1angle.mat"),
)


def main() -> None:
    """Measure all scenes, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with picmus/ and the two real acquisitions")
    parser.add_argument("--priors", nargs="+", default=["gaussian", "ultrasound"], help="names or weights files")
    parser.add_argument("--counts", nargs="+", type=int, default=[1], help="waves that the posteriors get, in turn")
    parser.add_argument("--elements", nargs="+", type=int, default=[ELEMENTS], help="that the posteriors get, in turn")
    parser.add_argument("--array", default="centre", choices=ARRAYS, help="which of the elements these are")
    parser.add_argument("--decimation", nargs="+", type=int, default=[0], help="every n-th IQ sample; 0: as by default")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--scenes", nargs="+", default=[scene.name for scene in SCENES])
    parser.add_argument("--steps", type=int, help="of the strategy, where it has steps")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--waves", type=int, default=75, help="how many are simulated")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="where to write the results; other rows that are in there stay")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of 60 dB")
    options = parser.parse_args()
    found = json.loads(options.json.read_text())["rows"] if options.json and options.json.exists() else []
    rows = {(row["scene"], row["method"]): row for row in found}
    for scene in (scene for scene in SCENES if scene.name in options.scenes):
        pictures: list[Picture] = []
        measure = simulated if scene.phantom else acquired
        for row in measure(scene, options, pictures):
            print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{v:<20}" for k, v in row.items()), flush=True)
            rows[row["scene"], row["method"]] = row
        if options.pictures:
            draw(pictures, options.pictures / f"us_{scene.name}.png")
        if options.json:
            settings = {"samples": options.samples, "noise": NOISE, "elements": ELEMENTS, "waves": options.waves}
            options.json.write_text(json.dumps({**settings, "rows": list(rows.values())}, indent=1) + "\n")


def simulated(scene: Scene, options: argparse.Namespace, pictures: list[Picture]) -> Iterator[dict[str, Any]]:
    """Simulate the channel data of a scene, and measure all methods on one grid."""
    folder = options.data / "picmus"
    das = read_picmus_image(folder / f"DAS_{scene.phantom}.hdf5")
    phantom = read_picmus_phantom(folder / f"picmus_phantom_{scene.phantom}.hdf5")
    for waves in (1, 11, 75):
        yield score(f"measured DAS {waves}", das.frame(waves), das.grid, scene, phantom)
    depth = scene.depth[1] * 1e-3
    data = channel_data(phantom, scene.name, waves=options.waves, elements=ELEMENTS, depth=depth, noise=NOISE)
    truth = grid = None
    settings = itertools.product(options.priors, options.counts, options.elements, options.decimation)
    for prior, count, elements, decimation in settings:
        posterior = posterior_of(data, prior, scene, options, count, elements, decimation)
        if grid is None:
            grid = grid_of(posterior)
            truth = heard(data, true_image(phantom, grid, data.geometry.wavelength), scene, options)
            add(pictures, "truth, in the band of the prior", truth)
            yield score("truth in the band", truth, grid, scene, phantom)
        used = f"{count}{selection(options, elements, decimation)}"
        name = f"{Path(prior).stem} %s {used}"
        add_posterior(pictures, name, posterior, truth)
        if used != str(count):
            yield score(f"DAS {used}", posterior.images["das"], grid, scene, phantom)
        yield {**score(name % "mean", posterior.mean, grid, scene, phantom), **against(posterior, truth)}
        yield score(name % "sample", posterior.samples[0], grid, scene, phantom)
    methods = [(1, "das"), (1, "cf"), (1, "mv"), (min(11, options.waves), "das"), (options.waves, "das")]
    for count, method in dict.fromkeys(methods):
        used = data.undersample(angles=count)
        image = beamform(torch.from_numpy(used[0]), grid, method, geometry=used.geometry).numpy()
        add(pictures, f"{method.upper()}, {count}", image)
        yield score(f"{method.upper()} {count}", image, grid, scene, phantom)


def selection(options: argparse.Namespace, elements: int, decimation: int) -> str:
    """Name the channel data that are used, where it is not all of them."""
    array = "" if options.array == "centre" else f", {options.array}"
    used = f", {elements} elements{array}" if elements != ELEMENTS else ""
    return used + (f", every {decimation}th IQ sample" if decimation else "")


def acquired(scene: Scene, options: argparse.Namespace, pictures: list[Picture]) -> Iterator[dict[str, Any]]:
    """Reconstruct a real acquisition from one wave; there is no truth."""
    data = open_ultrasound(options.data / scene.file)
    for number, prior in enumerate(options.priors):
        posterior = posterior_of(data, prior, scene, options, 1, ELEMENTS)
        grid = grid_of(posterior)
        if not number:
            add(pictures, "DAS, 1", posterior.images["das"])
            yield {"scene": scene.name, "method": "DAS 1", **texture(posterior.images["das"], grid)}
        name = f"{Path(prior).stem} %s 1"
        add_posterior(pictures, name, posterior)
        row = {"scene": scene.name, "method": name % "mean", **texture(posterior.mean, grid)}
        yield {**row, **quality_of_fit(posterior)}
        yield {"scene": scene.name, "method": name % "sample", **texture(posterior.samples[0], grid)}


def posterior_of(
    data: Any, prior: str, scene: Scene, options: argparse.Namespace, count: int, elements: int, decimation: int = 0
) -> Any:
    """Reconstruct the part of a scene from ``count`` waves and a number of elements, by the sampler of the prior."""
    exact = prior == "gaussian"
    return recon.reconstruct(
        data,
        prior=prior if exact else recon.load_prior(prior, precision=options.precision),
        sampler="exact" if exact else "dds",
        steps=None if exact else options.steps,
        samples=options.samples,
        slices=None if scene.phantom else 0,
        angles=count,
        elements=min(elements, len(data.geometry.element_positions)),
        array=options.array,
        decimation=decimation or None,
        depth=scene.depth,
        width=scene.width,
        attenuation=scene.attenuation,
        device=options.device,
        progress=False,
    )


def grid_of(posterior: Any) -> Grid:
    """Return the pixels of a result."""
    _, dz, dx = posterior.geometry["voxel_size_mm"]
    _, top, left = posterior.geometry["origin_mm"]
    rows, columns = posterior.mean.shape
    return Grid((left + dx * np.arange(columns)) * 1e-3, (top + dz * np.arange(rows)) * 1e-3)


def quality_of_fit(posterior: Any) -> dict[str, float]:
    """Return how well the samples explain the data, and the time they took."""
    return {
        "chi2": float(np.median(posterior.diagnostics["residual"])),
        "seconds": float(posterior.diagnostics["seconds"]),
    }


def against(posterior: Any, truth: np.ndarray) -> dict[str, float]:
    """Compare a posterior with the truth."""
    error = np.abs(posterior.mean - truth)
    spread, wrong = levels_of(posterior, truth)
    return {
        "correlation": float(
            np.abs(np.vdot(truth, posterior.mean)) / np.linalg.norm(truth) / np.linalg.norm(posterior.mean)
        ),
        "std_over_error": float(np.sqrt(np.mean(posterior.std**2) / np.mean(error**2))),
        "rank_std_error": float(spearmanr(posterior.std.ravel(), error.ravel())[0]),
        "rank_level_std_error": float(spearmanr(spread.ravel(), wrong.ravel())[0]),
        **quality_of_fit(posterior),
    }


def heard(data: Any, truth: np.ndarray, scene: Scene, options: argparse.Namespace) -> np.ndarray:
    """Return the complex multiple of the truth whose echoes are closest to the data of one wave.

    A multiple that is closest to a posterior mean would not do: means are smaller than what they are the mean of.
    """
    elements = min(ELEMENTS, len(data.geometry.element_positions))
    used = Ultrasound(angles=1, elements=elements, array="centre", depth=scene.depth, width=scene.width)
    problem = prepare_frame(data, 0, used).problem
    weight = 1 / problem.noise_std
    echoes = weight * problem.operator(torch.from_numpy(truth.astype(np.complex64)))
    factor = torch.vdot(echoes.flatten(), (weight * problem.y).flatten()) / echoes.abs().square().sum()
    left = weight * problem.y - factor * echoes
    print(f"{scene.name}: the truth leaves {float(left.norm() / (weight * problem.y).norm()):.3f} of the data")
    return truth * complex(factor) * problem.scale


def levels_of(posterior: Any, truth: np.ndarray | None) -> tuple[np.ndarray, Any]:
    """Return the std of the samples' levels in dB, and how far that of the mean is off where there is a truth."""
    reference = posterior.mean if truth is None else truth
    white = white_of(reference)
    spread = level_std(np.asarray(posterior.samples), white, -60.0)
    if truth is None:
        return spread, None
    return spread, np.abs(np.clip(level(posterior.mean, white), -60, 0) - np.clip(level(reference, white), -60, 0))


def texture(image: np.ndarray, grid: Grid) -> dict[str, Any]:
    """Speckle of the middle of an image."""
    middle = (float(np.mean(grid.x)), float(np.mean(grid.z)))
    half = (float(np.ptp(grid.x)) / 3, float(np.ptp(grid.z)) / 3)
    region = box_region(grid.x, grid.z, middle, half)
    return {"speckle_snr": speckle_snr(image, region), **size_of(image, grid, region)}


def size_of(image: np.ndarray, grid: Grid, region: np.ndarray) -> dict[str, float]:
    """Size of the speckle in mm, where it can be told."""
    try:
        size = speckle_size(image, grid.x, grid.z, region)
    except InputError:
        return {}
    return {"speckle_axial_mm": size.axial * 1e3, "speckle_lateral_mm": size.lateral * 1e3}


def score(name: str, image: Any, grid: Grid, scene: Scene, phantom: Any) -> dict[str, Any]:
    """What the challenge measures, of the one target of a scene."""
    found: dict[str, Any] = {"scene": scene.name, "method": name}
    pixels = np.abs(np.asarray(image))
    if scene.name == "wire":
        width = fwhm(pixels, grid.x, grid.z, tuple(phantom.points[0]))
        return {**found, "axial_mm": width.axial * 1e3, "lateral_mm": width.lateral * 1e3}
    x, z, diameter = phantom.cysts[0]
    inside, outside = contrast_regions(grid.x, grid.z, (x, z), diameter, phantom.lateral_resolution)
    found |= {"cnr_db": cnr(pixels, inside, outside), "gcnr": gcnr(pixels, inside, outside)}
    beside = box_region(grid.x, grid.z, (x + 1.1 * diameter, z), (0.45 * diameter, 0.7 * diameter))
    test = speckle_test(pixels, beside)
    found |= {"speckle_snr": speckle_snr(pixels, beside), "ks": test.statistic, "ks_passes": float(test.passes)}
    return found | size_of(pixels, grid, beside)


def add(pictures: list[Picture], title: str, image: Any) -> None:
    """Add an image in dB below its own white."""
    pictures.append((title, level(np.asarray(image), white_of(np.asarray(image))), (-60, 0), "gray"))


def add_posterior(pictures: list[Picture], name: str, posterior: Any, truth: np.ndarray | None = None) -> None:
    """Add mean, sample, the error of the level where there is a truth, and the std of the level."""
    add(pictures, name % "mean", posterior.mean)
    add(pictures, name % "sample", posterior.samples[0])
    spread, wrong = levels_of(posterior, truth)
    if wrong is not None:
        pictures.append((name % "|error of level|", wrong, (0, 20), "viridis"))
    pictures.append((name % "std of level", spread, (0, 12), "viridis"))


def draw(pictures: list[Picture], path: Path) -> None:
    """Draw the pictures side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
    for axis, (title, values, (low, high), colours) in zip(figure.subplots(rows, columns).flat, pictures, strict=False):
        axis.imshow(values, vmin=low, vmax=high, cmap=colours, aspect=0.75)
        axis.set_title(title, fontsize=9)
    for axis in figure.axes:
        axis.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))


if __name__ == "__main__":
    main()
