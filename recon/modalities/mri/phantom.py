"""A simulated multi-coil acquisition of the Shepp-Logan phantom, for trying things out where there is no scan."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError


class PhantomScan(NamedTuple):
    """What was simulated.

    ``kspace (coil, y, x)`` complex64, centred and fully sampled; ``image (y, x)``, the complex truth, whose maximum is
    1; ``coil_maps (coil, y, x)``, whose sum of squares is 1.
    """

    kspace: NDArray[np.complex64]
    image: NDArray[np.complex64]
    coil_maps: NDArray[np.complex64]


def simulate_phantom(
    shape: tuple[int, int] = (128, 128), coils: int = 8, noise_std: float = 0.01, seed: int = 0
) -> PhantomScan:
    """Simulate k-space of the Shepp-Logan phantom in a birdcage coil (sigpy), ``y_c = F S_c x + n``.

    Parameters
    ----------
    shape : (int, int)
        Image (y, x).
    coils : int
        Number of receive coils, at least 1.
    noise_std : float
        Noise of each k-space sample, ``E|n|^2 = noise_std^2``, where the maximum of the image is 1.
    seed : int
        Seed of the noise.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    from sigpy import fft, shepp_logan
    from sigpy.mri import birdcage_maps

    if coils < 1 or min(shape) < 16 or not 0 <= noise_std < np.inf:
        raise InputError(
            f"simulate_phantom: expected coils >= 1, at least 16 x 16 pixels and noise_std >= 0, got coils={coils}, "
            f"shape={shape}, noise_std={noise_std}"
        )
    image = shepp_logan(shape, dtype=np.complex64)
    image = image / np.abs(image).max()
    maps = birdcage_maps((coils, *shape), dtype=np.complex64)
    maps = maps / np.linalg.norm(maps, axis=0)
    parts = np.random.default_rng(seed).standard_normal((2, coils, *shape))
    noise = noise_std / np.sqrt(2) * (parts[0] + 1j * parts[1])
    kspace = fft(maps * image, axes=(-2, -1), norm="ortho") + noise
    return PhantomScan(*(array.astype(np.complex64) for array in (kspace, image, maps)))
