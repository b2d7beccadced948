"""Readers and writers of raw-data files, one format a file."""

from recon.io.ct.base import CTImages, CTProjections, ScanGeometry
from recon.io.ct.table import open_ct
from recon.io.mri.base import KspaceScan
from recon.io.mri.table import open_kspace
from recon.io.ultrasound.base import PlaneWaveData
from recon.io.ultrasound.picmus_files import read_picmus_image, read_picmus_phantom, read_picmus_scan
from recon.io.ultrasound.table import open_ultrasound

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
