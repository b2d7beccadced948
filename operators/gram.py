"""The normal operator of line-sampled MRI as one dense matrix for each line of the image.

Where the mask varies along one axis only, ``A^H A = sum_c S_c^H F^H P F S_c`` does not couple the lines along it, and
for each line it is a small Hermitian matrix: the circulant kernel of the mask times the Gram matrix of the coil maps,
``G[i, j] = t[i - j] sum_c conj(S_c[i]) S_c[j]``. One batched matrix product then replaces two FFTs of each coil,
whatever the number of coils, and all samples share the reading of the matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Fewer coils are as quick by FFT; larger matrices would cost more memory than they save time.
LEAST_COILS = 3
_LARGEST_BYTES = 1 << 29


def fits(coil_maps: Tensor, axis: int) -> bool:
    """Tell whether line matrices along ``axis`` are worth their memory for maps ``(coil, y, x)``."""
    coils, ny, nx = coil_maps.shape
    length = (ny, nx)[axis]
    return coils >= LEAST_COILS and ny * nx * length * coil_maps.element_size() <= _LARGEST_BYTES


def line_matrices(coil_maps: Tensor, mask: Tensor, axis: int) -> Tensor:
    """Return the normal matrix of every line.

    Parameters
    ----------
    coil_maps : Tensor, shape ``(coil, y, x)``
    mask : Tensor, real, shape ``(n,)``
        Sampling along ``axis``, with the centre of k-space moved to index 0.
    axis : int
        -2 (y) or -1 (x).

    Returns
    -------
    Tensor, shape ``(line, n, n)``
    """
    maps = coil_maps.movedim(axis, -1).transpose(0, 1)  # (line, coil, n)
    gram = torch.bmm(maps.mH, maps)
    kernel = torch.fft.ifft(mask.to(maps.dtype))
    index = torch.arange(len(mask), device=maps.device)
    return gram.mul_(kernel[(index[:, None] - index) % len(mask)])


def apply_lines(matrices: Tensor, x: Tensor, axis: int) -> Tensor:
    """Multiply every line of images ``(batch, y, x)`` by its matrix."""
    lines = x.movedim(axis, -1).permute(1, 2, 0)  # (line, n, batch)
    return torch.bmm(matrices, lines).permute(2, 0, 1).movedim(-1, axis).contiguous()
