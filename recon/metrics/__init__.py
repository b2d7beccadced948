"""Compare images with a reference: PSNR, SSIM, NMSE, coverage of an interval, spread against error.

Nothing here rescales an image before comparing it: a reconstruction that is off by a factor is off. Complex images
are compared by magnitude, real ones (Hounsfield units, say) as they are. The data range of PSNR and SSIM is the maximum
of the reference (the rule of the fastMRI challenge), or its distance to the minimum where that is below zero; so
numbers can be compared between methods, never between differently scaled references.
"""

from recon.metrics.images import (
    as_shown,
    brightness,
    coverage,
    data_range,
    foreground,
    lowest_level,
    nmse,
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
    "psnr",
    "spread_skill",
    "ssim",
]
