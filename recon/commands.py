"""What the commands of the command line do; each returns the exit status."""

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.commands_uncertainty import calibrate, evaluate, load_calibration
from recon.config import RunConfig
from recon.descriptions import Outputs, card_lines, plan_lines, posterior_lines, scan_lines
from recon.errors import InputError
from recon.preflight import check_outputs, check_settings

__all__ = ["calibrate", "check", "demo", "evaluate", "info", "models", "report", "run", "train"]

if TYPE_CHECKING:
    from recon.io import KspaceScan
    from recon.posterior import Posterior


def run(
    files: Sequence[Path],
    output: Path,
    config: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    report: bool = True,
    **options: Any,
) -> int:
    """Reconstruct files one after the other; all of them are checked before the first one starts."""
    settings = RunConfig() if config is None else RunConfig.from_toml(config)
    settings = settings.updated(options, "command line")
    drawable = report and importlib.util.find_spec("matplotlib") is not None
    jobs = _plan(files, output, drawable)
    check_settings(settings)
    if dry_run:
        for file, (scan, outputs) in jobs.items():
            print("\n".join(plan_lines(file, scan, outputs, settings, force)))
        return 0
    check_outputs([path for _, outputs in jobs.values() for path in outputs.all()], force)
    if report and not drawable:
        print("no pictures: matplotlib is missing (pip install 'diffrecon[report]')")
    for file, (_, outputs) in jobs.items():
        started = time.perf_counter()
        posterior = _reconstruct(file, settings)
        _save(posterior, outputs)
        print(f"{file}: {posterior.n_valid} samples in {time.perf_counter() - started:.0f} s")
        for path in outputs.all():
            print(f"  {path}")
    return 0


def demo(output: Path, force: bool = False, **options: Any) -> int:
    """Reconstruct the simulated scan that ships with the package."""
    check_outputs([output / f"demo.{suffix}" for suffix in ("h5", "png", "html")], force)
    from recon.demo import main

    main(output, **options)
    return 0


def info(file: Path) -> int:
    """Print what a raw-data file or a result holds."""
    from recon.io import open_kspace
    from recon.io.posterior_file import is_posterior
    from recon.posterior import Posterior

    if file.is_file() and is_posterior(file):
        print("\n".join(posterior_lines(file, Posterior.load(file))))
    else:
        print("\n".join(scan_lines(open_kspace(file))))
    return 0


def check(file: Path) -> int:
    """Read every slice of a raw-data file; unusable data are an InputError, doubtful ones a warning."""
    from recon.inspection import inspect
    from recon.io import open_kspace

    scan = open_kspace(file)
    print("\n".join(scan_lines(scan)))
    findings = inspect(scan)
    for line in findings.facts:
        print(line)
    for line in findings.warnings:
        print(f"warning: {line}")
    print("usable" if not findings.warnings else f"usable, with {len(findings.warnings)} warning(s)")
    return 0


def models() -> int:
    """List the priors that are installed."""
    from recon.priors.hub import list_models

    cards = list_models()
    for card in cards:
        print("\n".join(card_lines(card)))
    if not cards:
        print("no trained prior is installed; --prior gaussian needs none")
    return 0


def report(
    file: Path,
    output: Path | None = None,
    calibration: Path | None = None,
    group: str | None = None,
    force: bool = False,
) -> int:
    """Draw a result as PNG and HTML; its interval is calibrated only if a calibration is given."""
    from recon.posterior import Posterior
    from recon.report import write_report

    target = output or file.with_suffix("")
    stem = target.with_suffix("") if target.suffix in (".png", ".html", ".h5") else target
    if not target.is_dir():
        check_outputs([stem.with_name(stem.name + suffix) for suffix in (".png", ".html")], force)
    else:
        check_outputs([target / "report.png", target / "report.html"], force)
    for path in write_report(Posterior.load(file), target, load_calibration(calibration), group):
        print(path)
    return 0


def train(config: Path, **overrides: Any) -> int:
    """Train a prior, or continue a training that was stopped; options replace keys of the file."""
    from recon.train import main

    print(main(config, **overrides))
    return 0


def _plan(files: Sequence[Path], output: Path, drawable: bool) -> dict[Path, tuple["KspaceScan", Outputs]]:
    """Open every input and name its outputs, without writing anything."""
    from recon.io import open_kspace

    jobs: dict[Path, tuple[KspaceScan, Outputs]] = {}
    owners: dict[Path, Path] = {}
    for file in files:
        scan = open_kspace(file)
        stem = file.stem if file.suffix in (".h5", ".hdf5", ".npy", ".npz", ".cfl", ".hdr") else file.name
        pictures = tuple(output / f"{stem}{suffix}" for suffix in (".png", ".html")) if drawable else ()
        submission = output / "submission" / f"{stem}.h5" if scan.format == "fastmri" else None
        outputs = Outputs(output / f"{stem}.h5", pictures, submission)
        if outputs.result in owners:
            raise InputError(f"{owners[outputs.result]} and {file} would both be written to {outputs.result}")
        owners[outputs.result] = file
        if any(path.resolve() == file.resolve() for path in outputs.all()):
            raise InputError(f"{file}: the result would overwrite its own source; choose another folder than {output}")
        jobs[file] = (scan, outputs)
    return jobs


def _reconstruct(file: Path, settings: RunConfig) -> "Posterior":
    from recon.api import reconstruct

    return reconstruct(file, **asdict(settings))


def _save(posterior: "Posterior", outputs: Outputs) -> None:
    for folder in {path.parent for path in outputs.all()}:
        folder.mkdir(parents=True, exist_ok=True)
    posterior.save(outputs.result)
    if outputs.submission is not None:
        posterior.to_fastmri(outputs.submission)
    if outputs.pictures:
        posterior.report(outputs.result.with_suffix(""))
