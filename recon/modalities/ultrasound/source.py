"""Channel data of plane waves as a sequence of frames that are ready to be sampled."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, TypeGuard

import torch

from recon.errors import InputError
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.files.readers import is_ultrasound, open_ultrasound
from recon.modalities.ultrasound.grid import scene_of
from recon.modalities.ultrasound.options import Acquisition
from recon.modalities.ultrasound.prepare import Prepared, prepare_frame

#: Levels that a B-mode image shows, in dB below the brightest.
DISPLAY = (-60.0, 0.0)


def is_us_source(source: Any) -> TypeGuard[str | os.PathLike[str] | PlaneWaveData]:
    """Tell whether something is channel data, or the path of such data."""
    return isinstance(source, PlaneWaveData) or (isinstance(source, str | os.PathLike) and is_ultrasound(source))


def span_of(text: str | tuple[float, float] | None, name: str) -> tuple[float, float] | None:
    """Return ``"A:B"`` or a pair as two numbers.

    Raises
    ------
    InputError
        If it is neither.
    """
    if text is None:
        return None
    parts = text.split(":") if isinstance(text, str) else list(text)
    try:
        low, high = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected A:B in mm, came {text!r}") from None
    return low, high


class USSource:
    """Frames of a file, or of channel data as the readers give them.

    Parameters
    ----------
    source : path or PlaneWaveData
    acquisition : Acquisition
        What is used of them.

    Raises
    ------
    InputError
        If the file cannot be read, or a selection is not in the data.
    """

    modality = "ultrasound"

    def __init__(self, source: str | os.PathLike[str] | PlaneWaveData, acquisition: Acquisition) -> None:
        self.data = source if isinstance(source, PlaneWaveData) else open_ultrasound(source)
        self.acquisition = acquisition
        # Selections that are not in the data are found out before anything is computed.
        self.used = acquisition.thin_out(acquisition.choose(self.data))
        try:
            _, region = scene_of(self.used.geometry, acquisition.depth, acquisition.width)
        except InputError as error:
            raise type(error)(f"{self.data.path}: {error}") from None
        self.grid = region.grid

    @property
    def config(self) -> dict[str, Any]:
        """The settings, for provenance."""
        return dataclasses.asdict(self.acquisition)

    @property
    def path(self) -> Path | None:
        """The file; None for data that were made in memory."""
        return self.data.path if self.data.path.is_file() else None

    @property
    def single(self) -> bool:
        """Whether there is only one frame."""
        return len(self) == 1

    @property
    def geometry(self) -> dict[str, Any]:
        """What a result knows of its geometry; rows go down, columns along the probe."""
        z, x = (spacing * 1e3 for spacing in self.grid.spacing)
        return {
            "voxel_size_mm": (1.0, z, x),
            "origin_mm": (0.0, float(self.grid.z[0]) * 1e3, float(self.grid.x[0]) * 1e3),
            "units": "a.u.",
            "display_db": DISPLAY,
        }

    def __len__(self) -> int:
        return len(self.data)

    def prepare(self, index: int, device: torch.device | str) -> tuple[Prepared, None]:
        """Return a frame that is ready to be sampled; there is never a reference."""
        return prepare_frame(self.data, index, self.acquisition, device), None
