"""Readers and writers of raw-data files, one format a file."""

from recon.io.base import KspaceScan
from recon.io.table import open_kspace

__all__ = ["KspaceScan", "open_kspace"]
