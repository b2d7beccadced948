"""Image quality of one plane wave: posterior mean and sample against delay and sum and the coherence factor.

    python benchmarks/quality_us.py --data shared/data/ultrasound/picmus [--prior gaussian] [--samples 8] [--json FILE]

Scatterer maps of the PICMUS challenge (a wire and a cyst of its experimental phantoms) are heard by a PICMUS-like probe
through our own model of the waves: on a grid three times finer, with another pulse than the pipeline assumes, and with
noise. That is no measurement (the challenge's channel data cannot be had with an open licence), and it flatters what
inverts the same model. The challenge's own delay-and-sum images, which are real, are measured beside them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recon
from operators import Grid, PlaneWaveGeometry, PlaneWaveUltrasound, beamform
from recon.io import PlaneWaveData, read_picmus_image, read_picmus_phantom
from recon.metrics.ultrasound import box_region, cnr, contrast_regions, fwhm, gcnr, speckle_snr

PITCH, CENTER, RATE, SPEED, ELEMENTS = 0.3e-3, 5.208e6, 20.832e6, 1540.0, 64
NOISE = 0.03  # of the rms of the data


@dataclass(frozen=True)
class Scene:
    """A part of a phantom, in mm."""

    name: str
    phantom: int
    depth: tuple[float, float]
    width: tuple[float, float]


SCENES = (
    Scene("wire", 3, (16.5, 21.0), (-3.0, 2.2)),
    Scene("cyst", 4, (11.0, 19.0), (-4.5, 4.5)),
)


def main() -> None:
    """Measure both scenes, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with picmus_phantom_3.hdf5, DAS_3.hdf5, ...")
    parser.add_argument("--prior", default="gaussian")
    parser.add_argument("--sampler", help="default: exact for the Gaussian prior, else dds")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--waves", type=int, default=75, help="how many are simulated; 11 take a minute")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    sampler = arguments.sampler or ("exact" if arguments.prior == "gaussian" else "dds")
    rows = []
    for scene in SCENES:
        rows += measured(scene, arguments.data)
        rows += compare(scene, arguments.data, arguments.waves, arguments.prior, sampler, arguments)
    for row in rows:
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{v:<22}" for k, v in row.items()), flush=True)
    if arguments.json:
        settings = {"prior": arguments.prior, "sampler": sampler, "samples": arguments.samples, "noise": NOISE}
        arguments.json.write_text(json.dumps({**settings, "elements": ELEMENTS, "rows": rows}, indent=1) + "\n")


def measured(scene: Scene, folder: Path) -> list[dict[str, Any]]:
    """Measure the challenge's own images."""
    images = read_picmus_image(folder / f"DAS_{scene.phantom}.hdf5")
    return [score(f"measured DAS {waves}", images.frame(waves), images.grid, scene, folder) for waves in (1, 11, 75)]


def compare(
    scene: Scene, folder: Path, waves: int, prior: str, sampler: str, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Simulate the channel data of a scene, and measure all methods on one grid."""
    data = simulated(scene, folder, waves)
    posterior = recon.reconstruct(
        data,
        prior=prior,
        sampler=sampler,
        samples=options.samples,
        angles=1,
        depth=scene.depth,
        width=scene.width,
        device=options.device,
    )
    _, dz, dx = posterior.geometry["voxel_size_mm"]
    _, top, left = posterior.geometry["origin_mm"]
    rows, columns = posterior.mean.shape
    grid = Grid((left + dx * np.arange(columns)) * 1e-3, (top + dz * np.arange(rows)) * 1e-3)
    found = []
    for count, method in dict.fromkeys([(1, "das"), (1, "cf"), (min(11, waves), "das"), (waves, "das")]):
        used = data.undersample(angles=count)
        image = beamform(torch.from_numpy(used[0]), grid, method, geometry=used.geometry)
        found.append(score(f"{method.upper()} {count}", image, grid, scene, folder))
    found.append(score("posterior mean 1", posterior.mean, grid, scene, folder))
    found.append(score("posterior sample 1", posterior.samples[0], grid, scene, folder))
    found[-2]["chi2"] = float(np.median(posterior.diagnostics["residual"]))
    found[-2]["seconds"] = float(posterior.diagnostics["seconds"])
    return found


def simulated(scene: Scene, folder: Path, waves: int) -> PlaneWaveData:
    """Channel data of the scatterers around a scene, wave by wave; the aperture is the middle of the probe."""
    phantom = read_picmus_phantom(folder / f"picmus_phantom_{scene.phantom}.hdf5")
    x = (np.arange(ELEMENTS) - (ELEMENTS - 1) / 2) * PITCH
    count = int((scene.depth[1] * 1e-3 * 2.3 / SPEED) * RATE)
    geometry = PlaneWaveGeometry(
        np.stack([x, 0 * x], 1),
        np.deg2rad(np.linspace(-16, 16, waves)),
        RATE,
        CENTER,
        SPEED,
        count,
        element_width=0.9 * PITCH,
        transmit_aperture=(-19.05e-3, 19.05e-3),
    )
    wavelength = geometry.wavelength
    bottom = scene.depth[1] * 1e-3 * 1.15
    fine = Grid(np.arange(-12e-3, 12e-3, wavelength / 8), np.arange(5e-3, bottom, wavelength / 12))
    near = (np.abs(phantom.positions[:, 0]) < 11.9e-3) & (phantom.positions[:, 2] < bottom - wavelength)
    row = np.rint((phantom.positions[near, 2] - fine.z[0]) / fine.spacing[0]).astype(int)
    column = np.rint((phantom.positions[near, 0] - fine.x[0]) / fine.spacing[1]).astype(int)
    strength = np.zeros(fine.shape)
    np.add.at(strength, (np.maximum(row, 0), column), phantom.amplitudes[near])
    image = torch.from_numpy(strength).to(torch.complex64)
    rf = []
    for k in range(waves):
        operator = PlaneWaveUltrasound(geometry.select(angles=[k]), fine, bandwidth=0.6, interpolation="cubic")
        rf.append(operator(operator.from_reflectivity(image)).numpy()[0])
    values = np.stack(rf)
    values += NOISE * values.std() * np.random.default_rng(0).standard_normal(values.shape)
    values = values.astype(np.float32)
    return PlaneWaveData(Path(f"picmus-{scene.name}"), "simulated", 1, lambda i: values, geometry)


def score(name: str, image: Any, grid: Grid, scene: Scene, folder: Path) -> dict[str, Any]:
    """What the challenge measures, of the one target of a scene."""
    phantom = read_picmus_phantom(folder / f"picmus_phantom_{scene.phantom}.hdf5")
    found: dict[str, Any] = {"scene": scene.name, "method": name}
    pixels = np.abs(np.asarray(image))
    if scene.name == "wire":
        width = fwhm(pixels, grid.x, grid.z, tuple(phantom.points[0]))
        return {**found, "axial_mm": width.axial * 1e3, "lateral_mm": width.lateral * 1e3}
    x, z, diameter = phantom.cysts[0]
    inside, outside = contrast_regions(grid.x, grid.z, (x, z), diameter, phantom.lateral_resolution)
    speckle = outside & ~box_region(grid.x, grid.z, (x, z), (diameter / 2, diameter / 2))
    found |= {"cnr_db": cnr(pixels, inside, outside), "gcnr": gcnr(pixels, inside, outside)}
    return {**found, "speckle_snr": speckle_snr(pixels, speckle)}


if __name__ == "__main__":
    main()
