"""Sampling strategies of diffrecon: one method, one paper, one file, and the one loop that runs them."""

from samplers.base import Denoiser, Progress, Sampler, Samples, Step, sample
from samplers.dds import DDS
from samplers.exact import ExactGaussian
from samplers.noise import Noise
from samplers.problem import Problem

__all__ = [
    "DDS",
    "Denoiser",
    "ExactGaussian",
    "Noise",
    "Problem",
    "Progress",
    "Sampler",
    "Samples",
    "Step",
    "sample",
]
