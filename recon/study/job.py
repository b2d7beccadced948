"""One file of a study: its source, its outputs, and everything that determines the result, as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recon.engine.reconstruction import Reconstruction
from recon.study.request import request_of


@dataclass(frozen=True)
class Outputs:
    """The files that a run writes for one input; ``exports`` by the name of the format."""

    result: Path
    pictures: tuple[Path, ...] = ()
    exports: Mapping[str, Path] = field(default_factory=dict)
    nifti: tuple[Path, ...] = ()

    def all(self) -> list[Path]:
        """Return the paths of everything."""
        return [self.result, *self.pictures, *self.exports.values(), *self.nifti]

    @property
    def parts(self) -> Path:
        """The folder of finished slices, until the result is complete."""
        return self.result.with_name(f".{self.result.stem}.parts")


@dataclass(frozen=True)
class Job:
    """What is to be done with one source; other processes and machines can read it.

    Attributes
    ----------
    source : Path
    outputs : Outputs
    arguments : mapping
        Those of `recon.reconstruct`.
    units : tuple of tuple of int
        The slices that are drawn together.
    request : mapping
        Everything that determines the samples of a slice, as plain values.
    slices : tuple of int
    content : Path or None
        The file or folder of the data, by whose checksum results know it; None if there is none.
    """

    source: Path
    outputs: Outputs
    arguments: Mapping[str, Any]
    units: tuple[tuple[int, ...], ...]
    request: Mapping[str, Any]
    slices: tuple[int, ...]
    content: Path | None = None

    @property
    def key(self) -> str:
        """The identity of the samples: results with one key are the same."""
        text = json.dumps([self.request, str(self.source.absolute()), str(self.outputs.result.absolute())])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The name of the source, for messages."""
        return str(self.source)


def job_of(source: Path, outputs: Outputs, arguments: Mapping[str, Any], wanted: Reconstruction) -> Job:
    """Return the job of a source that is resolved."""
    content = None if wanted.source is None else wanted.source.path
    arguments = {**arguments, "precision": wanted.run.precision}  # decided once, for the slices of all workers
    return Job(source, outputs, arguments, tuple(wanted.units), request_of(wanted), wanted.chosen, content)
