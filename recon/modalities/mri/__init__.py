"""Magnetic resonance imaging: k-space files, coil maps, preparation and descriptions; physics in `operators.mri`."""

from recon.plugins import exporter

__all__ = ["KspaceScan", "open_kspace", "simulate_phantom"]

__getattr__ = exporter(__name__, {"KspaceScan": "data", "open_kspace": "files.readers", "simulate_phantom": "phantom"})
