"""Forward models of diffrecon: linear operators with exact adjoints, and what is needed to set them up."""

from operators.base import LinearOperator, Space
from operators.check import LawError, check_operator
from operators.coils import (
    compress_coils,
    estimate_noise_covariance,
    estimate_noise_std,
    noise_covariance,
    prewhiten,
)
from operators.elementary import Diagonal, Identity, Matrix
from operators.errors import DivergenceError, InputError, ReconError, ShapeError
from operators.espirit import calibration_size, espirit_maps
from operators.fourier import CenteredFFT, fftc, ifftc
from operators.masks import make_mask
from operators.mri import CartesianMRI
from operators.solve import conjugate_gradient, gaussian_draw, power_norm

__all__ = [
    "CartesianMRI",
    "CenteredFFT",
    "Diagonal",
    "DivergenceError",
    "Identity",
    "InputError",
    "LawError",
    "LinearOperator",
    "Matrix",
    "ReconError",
    "ShapeError",
    "Space",
    "calibration_size",
    "check_operator",
    "compress_coils",
    "conjugate_gradient",
    "espirit_maps",
    "estimate_noise_covariance",
    "estimate_noise_std",
    "fftc",
    "gaussian_draw",
    "ifftc",
    "make_mask",
    "noise_covariance",
    "power_norm",
    "prewhiten",
]
