"""Computed tomography: images and projections, preparation and descriptions; physics in `operators.ct`."""

from recon.plugins import exporter

__all__ = ["CTImages", "CTProjections", "ScanGeometry", "open_ct"]

__getattr__ = exporter(
    __name__, {"CTImages": "data", "CTProjections": "data", "ScanGeometry": "data", "open_ct": "files.readers"}
)
