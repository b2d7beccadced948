"""The normal operator of line-sampled MRI as one dense matrix for each line of the image.

Where the mask varies along one axis only, ``A^H A = sum_c S_c^H F^H P F S_c`` does not couple the lines along it, and
for each line it is a small Hermitian matrix: the circulant kernel of the mask times the Gram matrix of the coil maps,
``G[i, j] = t[i - j] sum_c conj(S_c[i]) S_c[j]``. One batched matrix product then replaces two FFTs of each coil,
whatever the number of coils, and the matrices are read once for all samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Larger matrices would cost more memory than they save time.
_LARGEST_BYTES = 1 << 29
# Time per pixel by FFT, and by matrices per value read (once) and multiplied (for each image), measured on a CPU from
# 8 x 230 x 180 to 32 x 320 x 320; only the ratios matter.
_FFT, _READ, _MULTIPLY = 3.0, 0.36, 0.036


def fits(coil_maps: Tensor, axis: int) -> bool:
    """Tell whether line matrices along ``axis`` fit in memory, for maps ``(coil, y, x)``."""
    _, ny, nx = coil_maps.shape
    return ny * nx * (ny, nx)[axis] * coil_maps.element_size() <= _LARGEST_BYTES


def pays(coil_maps: Tensor, axis: int, images: int) -> bool:
    """Tell whether this number of images is faster by line matrices than by the FFTs of their coils."""
    return coil_maps.shape[axis] * (_READ + _MULTIPLY * images) < _FFT * len(coil_maps) * images


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
