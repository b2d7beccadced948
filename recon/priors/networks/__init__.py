"""Network architectures of priors."""

from recon.priors.networks.unet import EDMDenoiser, UNet

__all__ = ["EDMDenoiser", "UNet"]
