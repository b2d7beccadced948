"""Opening the files of a study and naming their outputs; nothing is computed or written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon import modalities
from recon.engine.reconstruction import Reconstruction, plan
from recon.errors import ConfigError, InputError
from recon.modalities.base import Modality
from recon.study.job import Job, Outputs, job_of

#: A file extension, which is dropped from the name of a result; parts of a number such as a UID are not extensions.
_ENDING = re.compile(r"\.[A-Za-z]\w{0,4}")


@dataclass(frozen=True, eq=False)
class Planned:
    """One file that could be opened.

    Attributes
    ----------
    file : Path
    outputs : Outputs
    arguments : mapping
        Those of `recon.reconstruct`.
    wanted : Reconstruction
    """

    file: Path
    outputs: Outputs
    arguments: Mapping[str, Any]
    wanted: Reconstruction

    @property
    def modality(self) -> Modality:
        """The modality of the file."""
        assert self.wanted.run.modality is not None
        return self.wanted.run.modality

    @property
    def recording(self) -> Any:
        """The opened file."""
        assert self.wanted.source is not None
        return self.wanted.source.recording

    def job(self) -> Job:
        """Return the job, which knows the file by its size and time."""
        return job_of(self.file, self.outputs, self.arguments, self.wanted)


def plan_files(
    files: Sequence[Path],
    output: Path,
    arguments_of: Callable[[Modality], Mapping[str, Any]],
    report: bool = False,
    nifti: bool = False,
    exports: Sequence[str] = (),
) -> tuple[list[Planned], dict[Path, InputError]]:
    """Open every file and name its outputs.

    Parameters
    ----------
    files : sequence of Path
    output : Path
        Folder of the results.
    arguments_of : callable
        Arguments of `recon.reconstruct` for the files of a modality.
    report, nifti : bool
        Whether pictures and NIfTI files are written.
    exports : sequence of str
        Names of exports that are written for every file, beside those that follow from its format.

    Returns
    -------
    planned : list of Planned
    refused : dict
        Files that cannot be used, and why.

    Raises
    ------
    InputError
        If two files would have the same result, one would be overwritten, or an option suits no file.
    """
    planned: list[Planned] = []
    refused: dict[Path, InputError] = {}
    owners: dict[Path, Path] = {}
    for file in files:
        try:
            one = _planned(file, output, arguments_of, report, nifti, exports)
        except ConfigError:
            raise
        except InputError as error:
            refused[file] = error
            continue
        result = one.outputs.result
        if result in owners:
            raise InputError(f"{owners[result]} and {file} would both be written to {result}")
        owners[result] = file
        if any(path.resolve() == file.resolve() for path in one.outputs.all()):
            raise InputError(f"{file}: the result would overwrite its own source; choose another folder than {output}")
        planned.append(one)
    return planned, refused


def _planned(
    file: Path,
    output: Path,
    arguments_of: Callable[[Modality], Mapping[str, Any]],
    report: bool,
    nifti: bool,
    asked: Sequence[str],
) -> Planned:
    modality = modalities.find(file)
    arguments = arguments_of(modality)
    wanted = plan(file, **arguments)
    assert wanted.source is not None
    stem = file.stem if _ENDING.fullmatch(file.suffix) and not file.is_dir() else file.name
    exports = {
        name: output / export.name.format(stem=stem)
        for name, export in modality.exports.items()
        if name in asked or wanted.source.recording.format in export.formats
    }
    for name in asked:
        _require_export(file, modality, name, wanted.source.recording)
    kinds = ("mean", "std", "lower", "upper")[: None if wanted.run.samples > 1 else 2] if nifti else ()
    outputs = Outputs(
        result=output / f"{stem}.h5",
        pictures=tuple(output / f"{stem}{suffix}" for suffix in (".png", ".html")) if report else (),
        exports=exports,
        nifti=tuple(output / f"{stem}_{kind}.nii.gz" for kind in kinds),
    )
    return Planned(file, outputs, arguments, wanted)


def _require_export(file: Path, modality: Modality, name: str, recording: Any) -> None:
    """Refuse an export that a modality does not have, or that a recording has not enough for."""
    if name not in modality.exports:
        raise InputError(f"{file}: results of {modality.title} cannot be written as {name}")
    if reason := modality.exports[name].lacking(recording):
        raise InputError(f"{file}: {reason}")
