"""The samplers of diffrecon: one file per published method, and the loop that runs them."""

from samplers.base import AnnealedSampler, Run, Sampler, Step
from samplers.covariance import CovarianceModel
from samplers.daps import DAPS
from samplers.dds import DDS
from samplers.dds_volume import DDSVolume
from samplers.denoiser import Denoiser
from samplers.diffpir import DiffPIR
from samplers.dps import DPS
from samplers.exact import ExactGaussian
from samplers.knowledge import CarriesCovariance, KnowsError
from samplers.likelihood import Gaussian, Likelihood
from samplers.loop import Progress, sample
from samplers.memory import BatchLimit
from samplers.moment_matching import MomentMatching
from samplers.noise import Noise
from samplers.parts import PartsAsBatch
from samplers.pigdm import PiGDM
from samplers.pnp_dm import PnPDM
from samplers.problem import Problem
from samplers.pula import PULA
from samplers.red_diff import REDDiff
from samplers.samples import Samples
from samplers.score_ald import ScoreALD
from samplers.score_mri import ScoreMRI
from samplers.spread import LocalEnergy, Spread, Support, Uniform
from samplers.stepping import Estimate, PosteriorDenoising

__all__ = [
    "DAPS",
    "DDS",
    "DPS",
    "PULA",
    "AnnealedSampler",
    "BatchLimit",
    "CarriesCovariance",
    "CovarianceModel",
    "DDSVolume",
    "Denoiser",
    "DiffPIR",
    "Estimate",
    "ExactGaussian",
    "Gaussian",
    "KnowsError",
    "Likelihood",
    "LocalEnergy",
    "MomentMatching",
    "Noise",
    "PartsAsBatch",
    "PiGDM",
    "PnPDM",
    "PosteriorDenoising",
    "Problem",
    "Progress",
    "REDDiff",
    "Run",
    "Sampler",
    "Samples",
    "ScoreALD",
    "ScoreMRI",
    "Spread",
    "Step",
    "Support",
    "Uniform",
    "sample",
]
