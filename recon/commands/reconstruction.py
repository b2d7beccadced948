"""`recon run`, `recon demo` and `recon train`: the commands that compute; each returns the exit status."""

import importlib.util
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon import modalities
from recon.api import reconstruct
from recon.commands.preflight import check_outputs, check_settings
from recon.commands.text import Job, Outputs, plan_lines, result_lines
from recon.errors import InputError, ReconError
from recon.posterior import Posterior
from recon.settings import Settings

#: Exit status of a run with --strict if the verdict on a result is "failed".
FAILED = 3
#: A file extension, which is dropped from the name of a result; parts of a number such as a UID are not extensions.
_ENDING = re.compile(r"\.[A-Za-z]\w{0,4}")


def run(
    files: Sequence[Path],
    output: Path,
    config: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    report: bool = True,
    nifti: bool = False,
    strict: bool = False,
    sampler_fields: Sequence[str] = (),
    **options: Any,
) -> int:
    """Reconstruct files one after the other; all of them are checked before the first one starts.

    Returns 0, or 3 if ``strict`` and the verdict on a result is "failed".
    """
    settings = read_settings(config, options, sampler_fields)
    drawable = report and importlib.util.find_spec("matplotlib") is not None
    if nifti and importlib.util.find_spec("nibabel") is None:
        raise ReconError("--nifti needs nibabel: pip install 'diffrecon[nifti]'")
    jobs = _plan(files, output, drawable, nifti, settings)
    check_settings(settings)
    if dry_run:
        for file, job in jobs.items():
            print("\n".join(plan_lines(file, job, settings, force)))
        return 0
    check_outputs([path for job in jobs.values() for path in job.outputs.all()], force)
    if report and not drawable:
        print("no report: matplotlib is missing (pip install 'diffrecon[report]')")
    failed = False
    for file, job in jobs.items():
        started = time.perf_counter()
        posterior = _reconstruct(job, settings)
        _save(posterior, job)
        failed |= posterior.verdict.level == "failed"
        print("\n".join(result_lines(file, posterior, job.outputs, time.perf_counter() - started)))
    return FAILED if strict and failed else 0


def read_settings(config: Path | None, options: dict[str, Any], sampler_fields: Sequence[str]) -> Settings:
    """Return the settings of a TOML file, overridden by those of the command line."""
    settings = Settings() if config is None else Settings.from_toml(config)
    return settings.updated(options, "command line").with_sampler_fields(list(sampler_fields))


def demo(output: Path, force: bool = False, **options: Any) -> int:
    """Reconstruct the simulated scan that ships with the package."""
    check_outputs([output / f"demo.{suffix}" for suffix in ("h5", "png", "html")], force)
    check_settings(Settings().updated(options, "command line"))
    from recon.demo import main

    main(output, **options)
    return 0


def train(config: Path, **overrides: Any) -> int:
    """Train a prior, or resume an interrupted training; options override keys of the file."""
    from recon.training.cli import main

    return main(config, **overrides)


def _plan(files: Sequence[Path], output: Path, drawable: bool, nifti: bool, settings: Settings) -> dict[Path, Job]:
    """Open every input and name its outputs, without writing anything."""
    jobs: dict[Path, Job] = {}
    owners: dict[Path, Path] = {}
    for file in files:
        modality = modalities.find(file)
        source = modality.source(file, settings.options(modality.name), settings.run.seed)
        stem = file.stem if _ENDING.fullmatch(file.suffix) and not file.is_dir() else file.name
        pictures = tuple(output / f"{stem}{suffix}" for suffix in (".png", ".html")) if drawable else ()
        exports = {
            name: output / export.name.format(stem=stem)
            for name, export in modality.exports.items()
            if source.recording.format in export.formats
        }
        kinds = ("mean", "std", "lower", "upper")[: None if settings.run.samples > 1 else 2] if nifti else ()
        volumes = tuple(output / f"{stem}_{kind}.nii.gz" for kind in kinds)
        outputs = Outputs(output / f"{stem}.h5", pictures, exports, volumes)
        if outputs.result in owners:
            raise InputError(f"{owners[outputs.result]} and {file} would both be written to {outputs.result}")
        owners[outputs.result] = file
        if any(path.resolve() == file.resolve() for path in outputs.all()):
            raise InputError(f"{file}: the result would overwrite its own source; choose another folder than {output}")
        jobs[file] = Job(modality, source, outputs)
    return jobs


def _reconstruct(job: Job, settings: Settings) -> Posterior:
    # The headers of a folder with one file per slice or projection are read once.
    return reconstruct(job.source.recording, **settings.arguments(job.modality.name))


def _save(posterior: Posterior, job: Job) -> None:
    outputs = job.outputs
    for folder in {path.parent for path in outputs.all()}:
        folder.mkdir(parents=True, exist_ok=True)
    posterior.save(outputs.result)
    for name, path in outputs.exports.items():
        job.modality.exports[name].write(posterior, path, job.source.recording)
    if outputs.nifti:
        posterior.to_nifti(outputs.result.with_name(f"{outputs.result.stem}.nii.gz"))
    if outputs.pictures:
        posterior.report(outputs.result.with_suffix(""))
