"""Reconstructing a folder of fully sampled files for a calibration, so that it can be stopped and resumed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon import modalities
from recon.engine.reconstruction import plan as resolve
from recon.engine.slices import choose_slices
from recon.errors import ConfigError, InputError
from recon.files.atomic import atomic_path
from recon.files.documents import read_json
from recon.files.plain_values import plain
from recon.files.posterior_file import is_posterior
from recon.modalities.base import Modality
from recon.settings import Settings
from recon.study.job import Outputs
from recon.study.planning import Planned
from recon.uncertainty.conformal import check_method, least_images
from recon.uncertainty.folders import group_of, recordings_in, reference_named

SETTINGS = "settings.json"
#: These do not change the samples, or are compared file by file: the precision that "auto" has become.
_FREE = ("device", "batch_size", "slices_together", "holdout", "precision", "threads")


@dataclass(frozen=True)
class Job:
    """One recording: the path of its result, its settings, its group, and its number of images."""

    file: Path
    result: Path
    modality: Modality
    settings: Settings
    group: str
    slices: int
    reference: Path | None = None

    def seed(self) -> int:
        """Return a separate seed for each file, so that masks and noise differ between files."""
        return (self.settings.run.seed + zlib.crc32(self.file.name.encode())) % 2**31


def plan(
    folder: Path,
    results: Path,
    settings: Settings,
    groups: Mapping[str, str] | None,
    references: Path | None = None,
) -> tuple[list[Job], list[str]]:
    """Find the recordings of a folder (or the folder itself); return one job each, and why others are skipped.

    Parameters
    ----------
    folder : Path
        Files and folders of raw data.
    results : Path
    settings : Settings
    groups : mapping, optional
    references : Path, optional
        Folder of true images named like the recordings, for data without a reference.

    Raises
    ------
    InputError
        If there is no recording, or one has no true image to calibrate against.
    """
    if results.resolve() == folder.resolve():
        raise InputError(f"{results}: this is the folder of the raw data; choose another one for the results")
    jobs: list[Job] = []
    skipped: list[str] = []
    for path in recordings_in(folder):
        try:
            modality = modalities.find(path)
            source = modality.source(path, settings.options(modality.name), settings.run.seed)
        except ConfigError:
            raise
        except InputError as error:
            skipped.append(str(error))
            continue
        known = source.path or path  # of several files of one recording, the one recorded in provenance
        if known in (job.file for job in jobs):
            continue
        if not source.retrospective:
            raise ConfigError(f"calibrate undersamples fully sampled files: give {modality.undersampled_by}")
        chosen = choose_slices(settings.run.slices, len(source))
        truth = None if references is None else reference_named(references, path.stem)
        if truth is None and source.reference(chosen[0]) is None:
            raise InputError(
                f"{path}: not fully sampled, so there is no reference to calibrate against; remove it from the folder, "
                "or give true images (--reference)"
            )
        group = group_of(groups, [path.name, path.stem])
        jobs.append(Job(known, results / f"{path.stem}.h5", modality, settings, group, len(chosen), truth))
    if not jobs:
        raise InputError(f"{folder}: contains no raw-data file" + (f" ({skipped[0]})" if skipped else ""))
    doubled = {job.result for job in jobs if sum(other.result == job.result for other in jobs) > 1}
    if doubled:
        raise InputError(f"{folder}: two files would both be written to {min(doubled)}; rename one")
    return jobs, skipped


def require_enough(jobs: Sequence[Job], level: float, method: str, delta: float, per: str) -> None:
    """Check before reconstructing that every group has enough images for the level."""
    check_method(level, method, delta)
    least = least_images(level, method)
    for group in dict.fromkeys(job.group for job in jobs):
        n = sum(job.slices if per == "slice" else 1 for job in jobs if job.group == group)
        if n < least:
            hint = "; --per slice counts slices" if per == "file" else ""
            raise InputError(
                f"group {group}: {method} at level {level:g} needs at least {least} calibration images, got {n}"
                f"{hint}; give more files or a lower level"
            )


def lock_settings(results: Path, jobs: Sequence[Job], settings: Settings, force: bool) -> None:
    """Record the settings of the results in a folder; results with other settings are not mixed with new ones."""
    wanted = {key: value for key, value in plain(settings.plain()).items() if key not in _FREE}
    path = results / SETTINGS
    if path.exists() and not force:
        known = read_json(path)
        for key in dict.fromkeys([*wanted, *(name for name in known if name not in _FREE)]):
            if known.get(key) != wanted.get(key):
                raise InputError(
                    f"{results}: contains results with {key} = {known.get(key)}, but now {key} = {wanted.get(key)}; "
                    "use the same options to resume, --force to start again, or another --results folder"
                )
        return
    results.mkdir(parents=True, exist_ok=True)
    for job in jobs if force else ():
        if job.result.exists() and is_posterior(job.result):
            job.result.unlink()
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def planned(job: Job) -> Planned:
    """Return what a study does with a job."""
    arguments = {**job.settings.arguments(job.modality.name), "seed": job.seed()}
    return Planned(job.file, Outputs(job.result), arguments, resolve(job.file, **arguments))
