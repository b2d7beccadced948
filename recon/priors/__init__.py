"""Priors: what the engine knows about images before any measurement."""

from recon.priors.analytic import GaussianMixturePrior, GaussianPrior
from recon.priors.checkpoints import CheckpointPrior, load_checkpoint, load_torchscript
from recon.priors.exact import ExactPosterior, exact_posterior
from recon.priors.hub import list_models, load_prior

__all__ = [
    "CheckpointPrior",
    "ExactPosterior",
    "GaussianMixturePrior",
    "GaussianPrior",
    "exact_posterior",
    "list_models",
    "load_checkpoint",
    "load_prior",
    "load_torchscript",
]
