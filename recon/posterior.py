"""The posterior that users get: samples of an image given its measurement, with its files and reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recon.errors import InputError
from recon.posterior_samples import IntervalRule, PosteriorSamples


class Posterior(PosteriorSamples):
    """Samples of an image given its measurement: mean, uncertainty, intervals, files and reports.

    Samples that the sampler flagged as invalid (`diagnostics["valid"]`) are kept in `samples`, but excluded from
    everything computed here.

    Parameters
    ----------
    samples
        `(n, [slice,] y, x)`, complex64 or float32, in the units of the input.
    geometry
        `voxel_size_mm` (z, y, x), `recon_shape` (y, x), `axes`, ...: plain values that JSON can hold.
    provenance
        Versions, configuration, seed, source, prior, citations: plain values that JSON can hold.
    diagnostics
        Arrays or numbers: `valid` and `residual` (chi^2 = |y - A x|^2 / (m sigma^2)) per sample, `seconds`, ...
    images
        Auxiliary images `([slice,] y, x)`: `reference`, `mask`, ...; `expectation`, the posterior mean where the
        sampler estimates it better than the average of a few samples.

    Raises
    ------
    ShapeError
        If the axes do not fit together.
    """

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one HDF5 file, atomically; the layout is described in `recon.files.posterior_file`."""
        from recon.files.posterior_file import write_posterior

        write_posterior(path, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Posterior:
        """Read a file written by `save`; any other file raises an `InputError` that says why."""
        from recon.files.posterior_file import read_posterior

        return cls(**read_posterior(path))

    def report(
        self, path: str | os.PathLike[str], calibration: IntervalRule | None = None, group: str | None = None
    ) -> Any:
        """Render the result as one PNG and one self-contained HTML page (needs the extra `report`)."""
        from recon.report import write_report

        return write_report(self, path, calibration, group)

    def to_nifti(self, path: str | os.PathLike[str]) -> list[Any]:
        """Write mean, std and interval of the magnitude as NIfTI files (extra `nifti`); return their paths."""
        from recon.files.nifti import write_nifti

        return write_nifti(path, self)

    def export(self, name: str, path: str | os.PathLike[str], recording: Any = None) -> None:
        """Write the result in a format of its modality.

        Parameters
        ----------
        name
            Name of the format in the modality.
        path
            A file, or a folder if the format writes several files.
        recording
            The source of the reconstruction, for formats that copy its headers.

        Raises
        ------
        InputError
            If no modality offers such a format.
        """
        from recon.modalities import modalities

        own = self.provenance.get("modality")
        ordered = sorted(modalities(), key=lambda known: known.name == own)  # its own modality comes last, and wins
        formats = {key: export for known in ordered for key, export in known.exports.items()}
        if name not in formats:
            raise InputError(f"Posterior.export: expected one of {', '.join(sorted(formats))}, got {name!r}")
        formats[name].write(self, Path(path), recording)

    def to_fastmri(self, path: str | os.PathLike[str]) -> None:
        """Write the magnitude of the mean as a fastMRI submission; the same as ``export("fastmri", path)``."""
        self.export("fastmri", path)
