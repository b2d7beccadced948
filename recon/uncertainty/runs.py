"""Reconstructing a folder of fully sampled files for a calibration, so that it can be stopped and resumed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recon.engine import provenance
from recon.errors import ConfigError, InputError
from recon.files.atomic import atomic_path
from recon.files.posterior_file import is_posterior
from recon.options import RunConfig
from recon.posterior import Posterior
from recon.uncertainty.conformal import check_method, least_images
from recon.uncertainty.folders import files_in, group_of

SETTINGS = "settings.json"
_FREE = ("device", "batch_size")  # these do not change what is drawn


@dataclass(frozen=True)
class Job:
    """One file: where its result belongs, how it is reconstructed, its group, and how many images it gives."""

    file: Path
    result: Path
    settings: RunConfig
    group: str
    slices: int

    def seed(self) -> int:
        """Return a seed of the file's own, so that masks and noise differ between files; independent of the others."""
        return (self.settings.seed + zlib.crc32(self.file.name.encode())) % 2**31


def plan(
    folder: Path, results: Path, settings: RunConfig, groups: Mapping[str, str] | None
) -> tuple[list[Job], list[str]]:
    """Find the raw-data files of a folder; return one job each, and why other files are left out.

    Raises
    ------
    InputError
        If there is none, or one is not fully sampled.
    """
    from recon.modalities.mri.files.readers import open_kspace
    from recon.modalities.mri.source import open_source
    from recon.modalities.selection import choose_slices

    if results.resolve() == folder.resolve():
        raise InputError(f"{results}: is the folder of the raw data; choose another one for the results")
    if settings.acceleration is None and settings.mask is None:
        raise ConfigError("calibrate undersamples fully sampled files: give --acceleration (or --mask)")
    jobs, skipped = [], []
    for file in files_in(folder):
        if file.suffix == ".hdr" and file.with_suffix(".cfl").exists():
            continue
        try:
            scan = open_kspace(file)
        except InputError as error:
            skipped.append(str(error))
            continue
        source = open_source(file, None)
        path = scan.path  # of a BART pair, the one that provenance names
        chosen = choose_slices(settings.slices, len(scan))
        if source[chosen[0]].reference is None:
            raise InputError(f"{file}: is not fully sampled, so there is no truth to calibrate on; take it away")
        result = results / f"{file.stem}.h5"
        jobs.append(Job(path, result, settings, group_of(groups, [file.name, file.stem]), len(chosen)))
    if not jobs:
        raise InputError(f"{folder}: holds no raw-data file" + (f" ({skipped[0]})" if skipped else ""))
    doubled = {job.result for job in jobs if sum(other.result == job.result for other in jobs) > 1}
    if doubled:
        raise InputError(f"{folder}: two files would both be written to {min(doubled)}; rename one")
    return jobs, skipped


def require_enough(jobs: Sequence[Job], level: float, method: str, delta: float, per: str) -> None:
    """Refuse before an hour is spent: every group needs the images that the level asks for."""
    check_method(level, method, delta)
    least = least_images(level, method)
    for group in dict.fromkeys(job.group for job in jobs):
        n = sum(job.slices if per == "slice" else 1 for job in jobs if job.group == group)
        if n < least:
            hint = "; --per slice counts slices" if per == "file" else ""
            raise InputError(
                f"group {group}: {method} at level {level:g} needs at least {least} calibration images, there are {n}"
                f"{hint}; give more files or a lower level"
            )


def lock_settings(results: Path, jobs: Sequence[Job], settings: RunConfig, force: bool) -> None:
    """Note how the results of a folder are made; results that were made otherwise are not mixed with new ones."""
    wanted = {key: value for key, value in provenance.plain(asdict(settings)).items() if key not in _FREE}
    path = results / SETTINGS
    if path.exists() and not force:
        known = _read(path)
        for key, value in wanted.items():
            if known.get(key) != value:
                raise InputError(
                    f"{results}: holds results with {key} = {known.get(key)}, now it is {value}; use the same options "
                    "to resume, --force to start again, or another --results folder"
                )
        return
    results.mkdir(parents=True, exist_ok=True)
    for job in jobs if force else ():
        if job.result.exists() and is_posterior(job.result):
            job.result.unlink()
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


def complete(job: Job) -> bool:
    """Reconstruct the file of a job unless its result exists; tell whether there was something to do."""
    from recon.api import reconstruct

    if job.result.exists():
        source = Posterior.load(job.result).provenance.get("source") or {}
        if source.get("sha256") != provenance.describe_source(job.file)["sha256"]:
            raise InputError(
                f"{job.result}: is not the result of {job.file}; remove it, or use another --results folder"
            )
        return False
    posterior = reconstruct(job.file, **asdict(replace(job.settings, seed=job.seed())))
    posterior.save(job.result)
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object of options")
    return content
