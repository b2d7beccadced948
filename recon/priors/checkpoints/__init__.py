"""Third-party pretrained networks: read safely, with every tensor accounted for, and wrapped as denoisers."""

from recon.priors.checkpoints.convert import convert_checkpoint
from recon.priors.checkpoints.load import checkpoint_lines, load_checkpoint, prior_lines, read_checkpoint
from recon.priors.checkpoints.prior import CheckpointPrior
from recon.priors.checkpoints.torchscript import load_torchscript

__all__ = [
    "CheckpointPrior",
    "checkpoint_lines",
    "convert_checkpoint",
    "load_checkpoint",
    "load_torchscript",
    "prior_lines",
    "read_checkpoint",
]
