"""A complete reconstruction that needs no data file: what ``recon demo`` runs.

The patient is synthetic (``recon/data/demo_patient.npz``, drawn from the prior by ``benchmarks/make_demo_patient.py``).
Its 8-coil acquisition is simulated on the same grid that is reconstructed, so the numbers flatter every method; they
show that the installation works and what the output looks like, not how good the method is.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError

PATIENT = Path(__file__).parent / "data" / "demo_patient.npz"
COILS = 8
STEPS = 20  # fewer than the default of `recon run`, to keep the demo short; this costs 0.2 dB
NOISE_STD = 0.02  # of the 99 % quantile of the image, per k-space sample


class Acquisition(NamedTuple):
    """What a simulated scanner delivers.

    ``kspace (coil, y, x)`` complex64, zero outside ``mask (1, x)``; ``reference (y, x)``, the magnitude that a
    fully sampled scan without noise would show; ``voxel_size_mm`` (z, y, x).
    """

    kspace: NDArray[np.complex64]
    mask: NDArray[np.bool_]
    reference: NDArray[np.float32]
    voxel_size_mm: list[float]


def main(
    output_dir: str | os.PathLike[str] = "diffrecon-demo",
    *,
    samples: int = 8,
    seed: int = 0,
    acceleration: float = 4.0,
    prior: Any = "brain-mri",
    device: str = "auto",
    threads: int | None = None,
    shape: tuple[int, int] | None = None,
    progress: bool | None = None,
    echo: Callable[[str], None] = print,
) -> list[Path]:
    """Simulate an undersampled 8-coil scan, reconstruct it, write the result and a report, and say where they are.

    Parameters
    ----------
    output_dir : path-like
        Receives ``demo.h5``, ``demo.png`` and ``demo.html``; created if it does not exist.
    samples, seed, prior, device, threads, progress
        As for `recon.reconstruct`.
    acceleration : float
        Acceleration factor R: one in R columns of k-space is kept, at random, with the central 8 %.
    shape : (int, int), optional
        Scan at a lower resolution (y, x): quicker.
    echo : callable
        Receives each line of text.

    Returns
    -------
    list of Path
        The files written. Without matplotlib there is no report, only a message that says how to get it.
    """
    from recon.api import reconstruct
    from recon.report import figures_of_merit

    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    scan = simulate(acceleration, seed, shape=shape)
    coils, ny, nx = scan.kspace.shape
    echo(f"simulated {coils}-coil scan of a synthetic head, {ny} x {nx}, {scan.mask.sum()} of {nx} columns kept")
    started = time.perf_counter()
    posterior = reconstruct(
        scan.kspace,
        mask=scan.mask,
        prior=prior,
        samples=samples,
        steps=STEPS,
        seed=seed,
        device=device,
        threads=threads,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    posterior = dataclasses.replace(
        posterior,
        geometry={**posterior.geometry, "voxel_size_mm": scan.voxel_size_mm},
        provenance={**posterior.provenance, "source": {"name": "synthetic demo patient"}},
        images={**posterior.images, "reference": scan.reference},
    )
    merit = figures_of_merit(posterior)
    echo(f"{posterior.n_valid} posterior samples in {seconds:.0f} s")
    echo(f"PSNR  zero-filled {merit['plain_psnr']:.1f} dB   posterior mean {merit['psnr']:.1f} dB")
    if "coverage" in merit:
        echo(f"the 90% interval holds the true image in {merit['coverage']:.0%} of the pixels that show tissue")
    return _write(posterior, folder, echo)


def simulate(
    acceleration: float = 4.0, seed: int = 0, noise_std: float = NOISE_STD, shape: tuple[int, int] | None = None
) -> Acquisition:
    """Simulate the scan of the synthetic patient: coil sensitivities, Fourier transform, noise, undersampling.

    ``y_c = P (F S_c x + n)`` with ``E|n|^2 = noise_std^2`` in units of the 99 % quantile of ``|x|``.

    Parameters
    ----------
    acceleration : float
        Acceleration factor R: one in R columns is kept, at random, with the central 8 %; 1 keeps all.
    seed : int
        Seed of mask and noise.
    noise_std : float
        Noise level of each k-space sample.
    shape : (int, int), optional
        Scan at a lower resolution (y, x).
    """
    from operators import make_mask

    image, voxel_size_mm = load_patient(shape)
    maps = loop_sensitivities(image.shape, COILS)
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, *maps.shape))
    noise = noise_std / np.sqrt(2) * (parts[0] + 1j * parts[1])
    mask = make_mask(image.shape, "random", acceleration, center_fraction=0.08, seed=seed)
    kspace = np.where(mask, _fft(maps * image) + noise, 0)
    return Acquisition(kspace.astype(np.complex64), mask, np.abs(image).astype(np.float32), voxel_size_mm)


def load_patient(shape: tuple[int, int] | None = None) -> tuple[NDArray[np.complex128], list[float]]:
    """Return the complex image ``(y, x)`` of the synthetic patient (99 % quantile 1) and its voxel size (z, y, x).

    A smaller ``shape`` lowers the resolution by cutting the outer k-space off.
    """
    with np.load(PATIENT, allow_pickle=False) as file:
        parts, voxel = file["image"].astype(np.float64), file["voxel_size_mm"]
    image, full = parts[0] + 1j * parts[1], parts.shape[1:]
    if shape is not None:
        if not all(8 <= few <= many for few, many in zip(shape, full, strict=True)):
            raise InputError(
                f"expected a shape from 8 x 8 to {full} pixels (y, x) of the synthetic patient, got {shape}"
            )
        window = tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(full, shape, strict=True))
        image = _fft(_fft(image)[window], inverse=True) * np.sqrt(np.prod(shape) / np.prod(full))
        voxel = voxel * [1, full[0] / shape[0], full[1] / shape[1]]
    return image, [float(length) for length in voxel]


def loop_sensitivities(shape: tuple[int, ...], coils: int, distance: float = 1.6) -> NDArray[np.complex128]:
    """Receive sensitivities ``(coil, y, x)`` of small loops around the head, from the field of a magnetic dipole.

    ``B = (3 (m . r) r - m |r|^2) / |r|^5`` at ``r`` from a loop with axis ``m`` that points to the centre, seen as
    ``Bx - i By``. Loops sit on a circle of ``distance`` half fields of view. The sum of squares over the coils is 1
    everywhere, as after the scanner's usual intensity normalisation.
    """
    ny, nx = shape
    half = max(ny, nx) / 2
    y, x = np.meshgrid((np.arange(ny) - ny // 2) / half, (np.arange(nx) - nx // 2) / half, indexing="ij")
    maps = np.empty((coils, ny, nx), dtype=np.complex128)
    for coil, angle in enumerate(2 * np.pi * (np.arange(coils) + 0.5) / coils):
        axis_y, axis_x = -np.sin(angle), -np.cos(angle)
        ry, rx = y + distance * axis_y, x + distance * axis_x
        squared = ry**2 + rx**2
        along = 3 * (axis_y * ry + axis_x * rx)
        maps[coil] = ((along * rx - axis_x * squared) - 1j * (along * ry - axis_y * squared)) / squared**2.5
    return maps / np.linalg.norm(maps, axis=0)


def _fft(images: NDArray[np.complex128], inverse: bool = False) -> NDArray[np.complex128]:
    """Centred orthonormal Fourier transform over (y, x)."""
    axes = (-2, -1)
    transform = np.fft.ifft2 if inverse else np.fft.fft2
    return np.fft.fftshift(transform(np.fft.ifftshift(images, axes=axes), axes=axes, norm="ortho"), axes=axes)


def _write(posterior: Any, folder: Path, echo: Callable[[str], None]) -> list[Path]:
    files = [folder / "demo.h5"]
    posterior.save(files[0])
    try:
        files += posterior.report(folder / "demo")
    except InputError as error:
        echo(f"no report: {error}")
    for file, content in zip(files, ("samples, mean, std, provenance", "picture", "report"), strict=False):
        echo(f"{file}  ({content})")
    return files
