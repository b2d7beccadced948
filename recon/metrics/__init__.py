"""Compare images with a reference: PSNR, SSIM, NMSE, coverage of intervals, spread versus error.

Images are never rescaled before they are compared: a wrong scale is an error. Complex images are compared by magnitude,
real ones as they are. The data range of PSNR and SSIM is the maximum of the reference (the
rule of the fastMRI challenge), minus its minimum if that is negative; numbers can therefore be compared between
methods, but not between differently scaled references.
"""

from recon.metrics.images import (
    as_shown,
    brightness,
    coverage,
    data_range,
    foreground,
    lowest_level,
    nmse,
    noise_level,
    psnr,
    spread_skill,
    ssim,
)

__all__ = [
    "as_shown",
    "brightness",
    "coverage",
    "data_range",
    "foreground",
    "lowest_level",
    "nmse",
    "noise_level",
    "psnr",
    "spread_skill",
    "ssim",
]
