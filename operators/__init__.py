"""Forward models of diffrecon: linear operators with exact adjoints, and what is needed to set them up."""

from operators.base import LinearOperator, Space
from operators.check import LawError, check_operator
from operators.ct.cone import ConeBeam, ConeCT
from operators.ct.fbp import fbp
from operators.ct.geometry import FanBeam, ParallelBeam
from operators.ct.photons import hu_to_mu, log_counts, mu_to_hu, simulate_counts
from operators.ct.projection import CT
from operators.ct.radon import Radon, RadonFanbeam
from operators.draw import gaussian_draw
from operators.elementary import Diagonal, Identity, Matrix, Slices
from operators.errors import DivergenceError, InputError, OutOfMemoryError, ReconError, ShapeError
from operators.fourier import CenteredFFT, fftc, ifftc
from operators.mri.cartesian import CartesianMRI
from operators.mri.coil_maps import CoilMaps
from operators.mri.coils import (
    compress_coils,
    estimate_noise_covariance,
    estimate_noise_std,
    noise_covariance,
    prewhiten,
)
from operators.mri.espirit import calibration_size, espirit_eigenmaps, espirit_maps
from operators.mri.masks import make_mask
from operators.mri.sampling import Sampling
from operators.solve import Solution, conjugate_gradient, power_norm
from operators.ultrasound.beamform import beamform
from operators.ultrasound.geometry import Grid, PlaneWaveGeometry
from operators.ultrasound.plane_wave import PlaneWaveUltrasound

__all__ = [
    "CT",
    "CartesianMRI",
    "CenteredFFT",
    "CoilMaps",
    "ConeBeam",
    "ConeCT",
    "Diagonal",
    "DivergenceError",
    "FanBeam",
    "Grid",
    "Identity",
    "InputError",
    "LawError",
    "LinearOperator",
    "Matrix",
    "OutOfMemoryError",
    "ParallelBeam",
    "PlaneWaveGeometry",
    "PlaneWaveUltrasound",
    "Radon",
    "RadonFanbeam",
    "ReconError",
    "Sampling",
    "ShapeError",
    "Slices",
    "Solution",
    "Space",
    "beamform",
    "calibration_size",
    "check_operator",
    "compress_coils",
    "conjugate_gradient",
    "espirit_eigenmaps",
    "espirit_maps",
    "estimate_noise_covariance",
    "estimate_noise_std",
    "fbp",
    "fftc",
    "gaussian_draw",
    "hu_to_mu",
    "ifftc",
    "log_counts",
    "make_mask",
    "mu_to_hu",
    "noise_covariance",
    "power_norm",
    "prewhiten",
    "simulate_counts",
]
