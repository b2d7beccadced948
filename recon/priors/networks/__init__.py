"""Network architectures that priors are built from."""

from recon.priors.networks.unet import EDMDenoiser, UNet

__all__ = ["EDMDenoiser", "UNet"]
