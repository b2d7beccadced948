"""Plane-wave ultrasound: channel data, preparation, reports and descriptions; physics in `operators.ultrasound`."""

from recon.plugins import exporter

_PICMUS = ("read_picmus_image", "read_picmus_phantom", "read_picmus_scan")
__all__ = ["PlaneWaveData", "open_ultrasound", "read_picmus_image", "read_picmus_phantom", "read_picmus_scan"]

__getattr__ = exporter(
    __name__,
    {"PlaneWaveData": "data", "open_ultrasound": "files.readers", **dict.fromkeys(_PICMUS, "files.picmus_files")},
)
