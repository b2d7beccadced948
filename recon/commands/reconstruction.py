"""`recon run`, `recon demo` and `recon train`: what computes; each returns the exit status."""

import importlib.util
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.commands.preflight import check_outputs, check_settings
from recon.commands.text import Outputs, plan_lines
from recon.errors import InputError, ReconError
from recon.options import RunConfig

if TYPE_CHECKING:
    from recon.modalities.ct.data import CTImages, CTProjections
    from recon.modalities.mri.data import KspaceScan
    from recon.modalities.ultrasound.data import PlaneWaveData
    from recon.posterior import Posterior

    Source = KspaceScan | CTImages | CTProjections | PlaneWaveData
    Job = tuple[Source, Outputs]

#: Endings that the names of results do not keep.
_ENDINGS = (".h5", ".hdf5", ".npy", ".npz", ".cfl", ".hdr", ".mat", ".uff", ".dcm", ".ima", ".IMA")


def run(
    files: Sequence[Path],
    output: Path,
    config: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    report: bool = True,
    nifti: bool = False,
    **options: Any,
) -> int:
    """Reconstruct files one after the other; all of them are checked before the first one starts."""
    settings = RunConfig() if config is None else RunConfig.from_toml(config)
    settings = settings.updated(options, "command line")
    drawable = report and importlib.util.find_spec("matplotlib") is not None
    if nifti and importlib.util.find_spec("nibabel") is None:
        raise ReconError("--nifti needs nibabel: pip install 'diffrecon[nifti]'")
    jobs = _plan(files, output, drawable, nifti, settings)
    check_settings(settings)
    if dry_run:
        for file, (scan, outputs) in jobs.items():
            print("\n".join(plan_lines(file, scan, outputs, settings, force)))
        return 0
    check_outputs([path for _, outputs in jobs.values() for path in outputs.all()], force)
    if report and not drawable:
        print("no pictures: matplotlib is missing (pip install 'diffrecon[report]')")
    for file, (scan, outputs) in jobs.items():
        started = time.perf_counter()
        posterior = _reconstruct(file, scan, settings)
        _save(posterior, outputs, scan)
        print(f"{file}: {posterior.n_valid} samples in {time.perf_counter() - started:.0f} s")
        for path in outputs.all():
            print(f"  {path}")
    return 0


def demo(output: Path, force: bool = False, **options: Any) -> int:
    """Reconstruct the simulated scan that ships with the package."""
    check_outputs([output / f"demo.{suffix}" for suffix in ("h5", "png", "html")], force)
    check_settings(RunConfig().updated(options, "command line"))
    from recon.demo import main

    main(output, **options)
    return 0


def train(config: Path, **overrides: Any) -> int:
    """Train a prior, or continue a training that was stopped; options replace keys of the file."""
    from recon.training.cli import main

    return main(config, **overrides)


def _plan(files: Sequence[Path], output: Path, drawable: bool, nifti: bool, settings: RunConfig) -> "dict[Path, Job]":
    """Open every input and name its outputs, without writing anything."""
    jobs: dict[Path, Job] = {}
    owners: dict[Path, Path] = {}
    for file in files:
        scan = _open(file, settings)
        stem = file.stem if file.suffix in _ENDINGS else file.name
        pictures = tuple(output / f"{stem}{suffix}" for suffix in (".png", ".html")) if drawable else ()
        submission = output / "submission" / f"{stem}.h5" if scan.format == "fastmri" else None
        dicom = output / f"{stem}_dicom" if scan.format == "dicom" else None
        kinds = ("mean", "std", "lower", "upper")[: None if settings.samples > 1 else 2] if nifti else ()
        volumes = tuple(output / f"{stem}_{kind}.nii.gz" for kind in kinds)
        outputs = Outputs(output / f"{stem}.h5", pictures, submission, dicom, volumes)
        if outputs.result in owners:
            raise InputError(f"{owners[outputs.result]} and {file} would both be written to {outputs.result}")
        owners[outputs.result] = file
        if any(path.resolve() == file.resolve() for path in outputs.all()):
            raise InputError(f"{file}: the result would overwrite its own source; choose another folder than {output}")
        jobs[file] = (scan, outputs)
    return jobs


def _open(file: Path, settings: RunConfig) -> "Source":
    from recon.modalities.ct.options import Scan
    from recon.modalities.ct.source import CTSource, is_ct_source
    from recon.modalities.mri.files.readers import open_kspace
    from recon.modalities.ultrasound.source import is_us_source

    if is_us_source(file):
        return _open_ultrasound(file, settings)
    if not is_ct_source(file):
        return open_kspace(file)
    names = ("views", "geometry", "arc", "photons", "views_every", "electronic_noise")
    scan = Scan(**{name: getattr(settings, name) for name in names})
    return CTSource(file, scan, settings.pixel_size, settings.reader).stack


def _open_ultrasound(file: Path, settings: RunConfig) -> "PlaneWaveData":
    """Open channel data, and find out whether all that is wanted of them is there."""
    from recon.modalities.ultrasound.options import Acquisition
    from recon.modalities.ultrasound.source import USSource, span_of

    names = ("angles", "elements", "array", "decimation", "attenuation", "model_error", "time_shift", "noise_std")
    wanted: dict[str, Any] = {name: getattr(settings, name) for name in names}
    wanted |= {name: span_of(getattr(settings, name), name) for name in ("depth", "width")}
    return USSource(file, Acquisition(**wanted, seed=settings.seed)).data


def _reconstruct(file: Path, scan: "Source", settings: RunConfig) -> "Posterior":
    from recon.api import reconstruct
    from recon.modalities.ct.source import is_ct_source

    # The headers of a CT folder, a file a slice or a projection, are read once.
    return reconstruct(scan if is_ct_source(scan) else file, **asdict(settings))


def _save(posterior: "Posterior", outputs: Outputs, scan: "Source") -> None:
    for folder in {path.parent for path in outputs.all()}:
        folder.mkdir(parents=True, exist_ok=True)
    posterior.save(outputs.result)
    if outputs.submission is not None:
        posterior.to_fastmri(outputs.submission)
    if outputs.dicom is not None:
        _save_dicom(posterior, outputs.dicom, scan)
    if outputs.nifti:
        posterior.to_nifti(outputs.result.with_name(f"{outputs.result.stem}.nii.gz"))
    if outputs.pictures:
        posterior.report(outputs.result.with_suffix(""))


def _save_dicom(posterior: "Posterior", folder: Path, source: Any) -> None:
    """Write mean and std as derived DICOM series; a folder of an earlier run is there only with --force."""
    from recon.modalities.ct.files.dicom_write import write_dicom

    if folder.is_dir():
        shutil.rmtree(folder)
    maps = {"mean": posterior.mean, "std": posterior.std}
    write_dicom(folder, source, maps, posterior.provenance["slices"], "posterior mean and standard deviation")
