"""Make the synthetic patient that ships with ``recon demo``: no measured image goes into it.

A head is drawn from ellipses and folded random fields (a cartoon of an axial T1-weighted slice), blurred until only its
layout is left, and one posterior sample of the shipped prior given that blurred cartoon supplies the texture.

    python benchmarks/make_demo_patient.py                      # recon/data/demo_patient.npz
    python benchmarks/make_demo_patient.py --cartoon            # the bare cartoon, without a network
    python benchmarks/make_demo_patient.py --sheet draws.png    # look at six draws before choosing --seed
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter

from operators import CartesianMRI
from recon.priors import load_prior
from samplers import DDS, Problem, sample

TARGET = Path(__file__).resolve().parents[1] / "recon" / "data" / "demo_patient.npz"
SHAPE = (192, 160)
OVERSAMPLING = 3
SKIN, SKULL, MARROW, FLUID, CORTEX, WHITE, NUCLEI = 0.90, 0.06, 0.35, 0.14, 0.43, 0.65, 0.50


def random_field(rng: np.random.Generator, shape: tuple[int, int], width: float) -> np.ndarray:
    """Smooth random field of unit standard deviation; ``width`` in pixels."""
    field = gaussian_filter(rng.standard_normal(shape), width, mode="wrap")
    return field / field.std()


def ellipse(
    grid: tuple[np.ndarray, np.ndarray], center: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0
) -> np.ndarray:
    """Elliptic radius of every pixel: below 1 inside."""
    dy, dx = grid[0] - center[0], grid[1] - center[1]
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.hypot((cos * dy - sin * dx) / radii[0], (sin * dy + cos * dx) / radii[1])


def cartoon(shape: tuple[int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """Magnitude ``(y, x)`` of a synthetic head, 0 .. 1."""
    rng = np.random.default_rng(seed)
    fine = (shape[0] * OVERSAMPLING, shape[1] * OVERSAMPLING)
    unit = fine[0] / 2
    rows, columns = np.mgrid[: fine[0], : fine[1]]
    # Coordinates from -1 to 1 along y, bent a little so that nothing is a perfect ellipse.
    y = (rows - fine[0] / 2) / unit + 0.012 * random_field(rng, fine, fine[0] / 10)
    x = (columns - fine[1] / 2) / unit + 0.012 * random_field(rng, fine, fine[0] / 10)
    grid = (y, x)
    image = np.zeros(fine)
    image[ellipse(grid, (0.02, 0), (0.90, 0.70)) < 1] = SKIN
    bone = ellipse(grid, (0.02, 0), (0.845, 0.645))
    image[bone < 1] = SKULL
    image[(bone < 0.975) & (bone > 0.955)] = MARROW
    image[ellipse(grid, (0.02, 0), (0.785, 0.590)) < 1] = FLUID
    _paint_brain(image, grid, rng, unit)
    _paint_centre(image, grid)
    image += 0.010 * random_field(rng, fine, 0.01 * fine[0]) * (image > 0.3)
    image = gaussian_filter(image, 0.7 * OVERSAMPLING)  # a scanner resolves no perfect edges
    return image.reshape(shape[0], OVERSAMPLING, shape[1], OVERSAMPLING).mean(axis=(1, 3)).clip(0, 1)


def _paint_brain(image: np.ndarray, grid: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, unit: float) -> None:
    """Cortex folded along the zero lines of a random field, white matter inside it, a fissure between the halves."""
    y, x = grid
    fissure = np.abs(x + 0.006 * np.sin(9 * y)) < 0.010 + 0.012 * np.clip(2 * (np.abs(y) - 0.45), 0, 1)
    brain = (ellipse(grid, (0.02, 0), (0.755, 0.560)) < 1) & ~(fissure & (np.abs(y) > 0.30))
    depth = distance_transform_edt(brain) / unit
    folds = np.abs(random_field(rng, image.shape, 0.044 * unit))
    sulci = folds < 0.16 * np.clip(1 - depth / 0.17, 0, 1) ** 0.7
    tissue = brain & ~sulci
    thickness = 0.040 + 0.006 * random_field(rng, image.shape, 0.044 * unit)
    image[tissue] = CORTEX
    image[tissue & (distance_transform_edt(tissue) / unit > thickness)] = WHITE


def _paint_centre(image: np.ndarray, grid: tuple[np.ndarray, np.ndarray]) -> None:
    """Deep grey nuclei and ventricles, mirrored."""
    for side in (-1, 1):
        for value, center, radii, tilt in (
            (NUCLEI, (0.10, 0.085), (0.130, 0.062), 0.15),  # thalamus
            (NUCLEI, (-0.05, 0.210), (0.160, 0.055), -0.30),  # putamen
            (NUCLEI, (-0.15, 0.105), (0.100, 0.035), -0.35),  # caudate nucleus
            (CORTEX, (-0.03, 0.300), (0.170, 0.012), -0.25),  # insula
            (FLUID, (-0.17, 0.055), (0.115, 0.030), -0.32),  # frontal horn
            (FLUID, (0.30, 0.130), (0.130, 0.035), 0.38),  # occipital horn
        ):
            image[ellipse(grid, (center[0], side * center[1]), radii, side * tilt) < 1] = value
    image[ellipse(grid, (0.06, 0), (0.11, 0.011)) < 1] = FLUID  # third ventricle


def smooth_phase(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Unit-magnitude phase factor that varies slowly over the image, as field inhomogeneity makes it."""
    field = random_field(np.random.default_rng(seed), (2 * shape[0], 2 * shape[1]), 0.35 * shape[0])
    return np.exp(1j * 0.8 * field[: shape[0], : shape[1]])


def draw(prior: str, seed: int, keep: int, noise_std: float, count: int = 1) -> np.ndarray:
    """Posterior samples ``(count, y, x)`` given the central ``keep`` x ``keep`` of the cartoon's k-space."""
    head = cartoon(seed=seed) * smooth_phase(SHAPE, seed)
    image = torch.as_tensor(head / np.quantile(np.abs(head), 0.99)).to(torch.complex64)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[tuple(slice(n // 2 - keep // 2, n // 2 - keep // 2 + keep) for n in SHAPE)] = True
    operator = CartesianMRI(mask, shape=SHAPE)
    problem = Problem(operator(image), operator, noise_std)
    sampler = DDS(steps=60, eta=0.85, gamma="rule")
    return sample(sampler, problem, load_prior(prior, shape=SHAPE), n_samples=count, seed=seed).samples.numpy()


def save_sheet(images: np.ndarray, path: Path) -> None:
    """Write magnitudes side by side as one picture, to choose from."""
    from matplotlib.image import imsave

    sheet = np.concatenate(list(np.abs(images)), axis=1)
    imsave(path, np.kron(sheet, np.ones((2, 2))), cmap="gray", vmin=0, vmax=np.quantile(sheet, 0.998))


def main() -> None:
    """Parse the command line and write the patient."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", default="brain-mri")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--draw", type=int, default=0, help="which of the draws of this seed to keep")
    parser.add_argument("--keep", type=int, default=60, help="side of the k-space centre that carries the layout")
    parser.add_argument("--noise-std", type=float, default=0.1, help="how loosely the draw follows the layout")
    parser.add_argument("--cartoon", action="store_true", help="store the cartoon itself, without a network")
    parser.add_argument("--sheet", type=Path, help="only write a picture of six draws to this file")
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    options = parser.parse_args()
    if options.cartoon:
        image = cartoon(seed=options.seed) * smooth_phase(SHAPE, options.seed)
    else:
        count = 6 if options.sheet else options.draw + 1
        images = draw(options.prior, options.seed, options.keep, options.noise_std, count)
        if options.sheet:
            save_sheet(np.concatenate([images, cartoon(seed=options.seed)[None]]), options.sheet)
            return
        image = images[options.draw]
    image = image / np.quantile(np.abs(image), 0.99)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    parts = np.stack([image.real, image.imag]).astype(np.float16)
    origin = "cartoon" if options.cartoon else f"prior {options.prior} given the cartoon of seed {options.seed}"
    np.savez_compressed(options.output, image=parts, voxel_size_mm=np.array([5.0, 1.25, 1.25]), origin=np.array(origin))
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
