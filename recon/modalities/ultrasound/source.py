"""Channel data of plane waves as a sequence of frames that are ready to be sampled."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from recon.errors import InputError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files.readers import open_ultrasound
from recon.modalities.ultrasound.grid import scene_of
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.prepare import Frame, prepare_frame
from recon.modalities.ultrasound.selection import choose, thin_out

#: Dynamic range of a B-mode image, in dB relative to the brightest level.
DISPLAY = (-60.0, 0.0)


class USSource:
    """Frames of a file, or of channel data as returned by the readers.

    Parameters
    ----------
    source : path or PlaneWaveData
    options : Ultrasound
        Selection of data and region.
    seed : int
        Seed of a sparse array.

    Raises
    ------
    InputError
        If the file cannot be read, or a selection is not in the data.
    """

    def __init__(self, source: str | os.PathLike[str] | PlaneWaveData, options: Ultrasound, seed: int = 0) -> None:
        self.recording = source if isinstance(source, PlaneWaveData) else open_ultrasound(source)
        self.options, self.seed = options, seed
        # Selections that are not in the data are detected before anything is computed.
        used = thin_out(options, choose(options, self.recording, seed))
        try:
            _, region = scene_of(used.geometry, options.depth, options.width)
        except InputError as error:
            raise type(error)(f"{self.recording.path}: {error}") from None
        self.grid = region.grid

    @property
    def config(self) -> dict[str, Any]:
        """The options, for provenance."""
        return dataclasses.asdict(self.options)

    @property
    def path(self) -> Path | None:
        """The file; None for data that were made in memory."""
        return self.recording.path if self.recording.path.is_file() else None

    @property
    def single(self) -> bool:
        """Whether there is only one frame."""
        return len(self) == 1

    @property
    def geometry(self) -> dict[str, Any]:
        """Geometry stored with the result; rows go down, columns along the probe."""
        z, x = (spacing * 1e3 for spacing in self.grid.spacing)
        return {
            "voxel_size_mm": (1.0, z, x),
            "origin_mm": (0.0, float(self.grid.z[0]) * 1e3, float(self.grid.x[0]) * 1e3),
            "units": "a.u.",
            "display_db": DISPLAY,
        }

    @property
    def retrospective(self) -> bool:
        """Whether the data may be undersampled: channel data always may."""
        return True

    def __len__(self) -> int:
        return len(self.recording)

    def prepare(self, index: int, device: torch.device | str) -> Frame:
        """Return a frame that is ready to be sampled."""
        return prepare_frame(self.recording, index, self.options, device, self.seed)

    def reference(self, index: int) -> None:
        """Return None: recordings hold no true image."""
