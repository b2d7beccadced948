"""Readers and recordings."""

from recon.modalities.ct.data import CTImages, CTProjections, ScanGeometry
from recon.modalities.ct.files.readers import open_ct
from recon.modalities.mri.data import KspaceScan
from recon.modalities.mri.files.readers import open_kspace
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files.picmus_files import read_picmus_image, read_picmus_phantom, read_picmus_scan
from recon.modalities.ultrasound.files.readers import open_ultrasound

__all__ = [
    "CTImages",
    "CTProjections",
    "KspaceScan",
    "PlaneWaveData",
    "ScanGeometry",
    "open_ct",
    "open_kspace",
    "open_ultrasound",
    "read_picmus_image",
    "read_picmus_phantom",
    "read_picmus_scan",
]
