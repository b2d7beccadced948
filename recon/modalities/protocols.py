"""What the parts of a modality must be able to do: sources, descriptions and readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from recon.modalities.prepared import Prepared


class Source(Protocol):
    """A recording, or arrays, with options: a sequence of slices that are prepared on demand.

    Attributes
    ----------
    recording : Recording or None
        None for arrays.
    path : Path or None
        The file or folder.
    single : bool
        Whether there is only one slice, so that results have no slice axis.
    geometry : mapping
        Geometry of the result: ``voxel_size_mm`` (z, y, x), ``units``, ...
    config : mapping
        The options, for provenance.
    retrospective : bool
        Whether the data are undersampled or simulated on loading, so that the truth may be known.
    """

    @property
    def recording(self) -> Any: ...  # noqa: D102

    @property
    def path(self) -> Path | None: ...  # noqa: D102

    @property
    def single(self) -> bool: ...  # noqa: D102

    @property
    def geometry(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def config(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def retrospective(self) -> bool: ...  # noqa: D102

    def __len__(self) -> int: ...

    def prepare(self, index: int, device: torch.device | str) -> Prepared:
        """Return a slice that is ready to be sampled."""

    def reference(self, index: int) -> NDArray | None:
        """Return the reference image ``(y, x)`` of a slice, or None."""


@dataclass
class Findings:
    """Diagnostics of a recording, and warnings about it; one line each."""

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Description(Protocol):
    """Text descriptions of a recording; a module with these functions is enough."""

    def summary(self, recording: Any) -> str:
        """Describe format and size in a few words."""

    def sampling(self, recording: Any, options: Any) -> str:
        """Describe the data that a reconstruction with these options uses."""

    def lines(self, recording: Any) -> list[str]:
        """Describe the headers of a recording, after path, format and number of slices."""

    def inspect(self, recording: Any) -> Findings:
        """Read every slice; damaged slices raise an InputError."""


class Reader(Protocol):
    """A module that reads one format; further keyword arguments of ``read`` are its options."""

    def sniff(self, path: Path) -> bool:
        """Tell by content whether this reader handles the file or folder."""

    def read(self, path: Path) -> Any:
        """Return the recording; slices are read on demand."""
