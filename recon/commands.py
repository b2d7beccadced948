"""What the commands of the command line do; each returns the exit status."""

import importlib.util
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recon.config import RunConfig
from recon.errors import ConfigError, InputError, ReconError

if TYPE_CHECKING:
    from recon.io import KspaceScan
    from recon.posterior import Posterior


class Outputs(NamedTuple):
    """The files that a run writes for one input."""

    result: Path
    pictures: tuple[Path, ...]
    submission: Path | None

    def all(self) -> list[Path]:
        """Return the paths of everything."""
        return [self.result, *self.pictures, *([self.submission] if self.submission else [])]


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
    _check_settings(settings)
    if dry_run:
        for file, (scan, outputs) in jobs.items():
            print(_describe_plan(file, scan, outputs, settings, force))
        return 0
    _check_outputs([path for _, outputs in jobs.values() for path in outputs.all()], force)
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
    _check_outputs([output / f"demo.{suffix}" for suffix in ("h5", "png", "html")], force)
    from recon.demo import main

    main(output, **options)
    return 0


def info(file: Path) -> int:
    """Print what a raw-data file or a result holds."""
    from recon.io import open_kspace
    from recon.io.posterior_file import is_posterior
    from recon.posterior import Posterior

    if file.is_file() and is_posterior(file):
        print("\n".join(_posterior_lines(file, Posterior.load(file))))
    else:
        print("\n".join(_scan_lines(open_kspace(file))))
    return 0


def check(file: Path) -> int:
    """Read every slice of a raw-data file; unusable data are an InputError, doubtful ones a warning."""
    from recon.inspection import inspect
    from recon.io import open_kspace

    scan = open_kspace(file)
    print("\n".join(_scan_lines(scan)))
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
        print(f"{card['name']}: {card.get('description') or card.get('summary') or 'no description'}")
        for key in ("training_data", "licence", "parameters", "sigma_min", "sigma_max", "sha256"):
            if key in card:
                print(f"  {key}: {_short(card[key])}")
    if not cards:
        print("no trained prior is installed; --prior gaussian needs none")
    return 0


def report(file: Path, output: Path | None = None, force: bool = False) -> int:
    """Draw a result as PNG and HTML."""
    from recon.posterior import Posterior
    from recon.report import write_report

    target = output or file.with_suffix("")
    stem = target.with_suffix("") if target.suffix in (".png", ".html", ".h5") else target
    if not target.is_dir():
        _check_outputs([stem.with_name(stem.name + suffix) for suffix in (".png", ".html")], force)
    else:
        _check_outputs([target / "report.png", target / "report.html"], force)
    for path in write_report(Posterior.load(file), target):
        print(path)
    return 0


def train(config: Path) -> int:
    """Train a prior as a TOML file says."""
    from recon.train import load_config
    from recon.train import train as run_training

    print(run_training(load_config(config)))
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


def _check_settings(settings: RunConfig) -> None:
    """Refuse what cannot work before the first file is touched."""
    from operators.masks import PATTERNS
    from recon.api import resolve_sampler
    from recon.device import resolve_device

    resolve_device(settings.device)
    resolve_sampler(settings.sampler, settings.steps)
    if settings.mask is not None and settings.mask not in PATTERNS:
        raise ConfigError(f"mask: there is no pattern {settings.mask!r}; choose one of {', '.join(PATTERNS)}")
    for name in ("samples", "steps", "batch_size", "coils", "calib_size"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}: must be 1 or more, got {value}")


def _check_outputs(paths: Sequence[Path], force: bool) -> None:
    """Refuse to overwrite, and to compute for an hour what then cannot be written."""
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(f"{existing[0]}{more} exists already; use --force to overwrite, or another folder")
    for folder in {path.parent for path in paths}:
        present = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not present.is_dir():
            raise InputError(f"{present}: is a file, expected a folder for the results")
        if not os.access(present, os.W_OK | os.X_OK):
            raise ReconError(f"{present}: no permission to write there; choose another folder for the results")


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


def _describe_plan(file: Path, scan: "KspaceScan", outputs: Outputs, settings: RunConfig, force: bool) -> str:
    from recon.sources import choose_slices

    chosen = choose_slices(settings.slices, len(scan))
    sampling = "as measured"
    if settings.mask is not None or settings.acceleration is not None:
        sampling = f"{settings.mask or 'random'}, acceleration {settings.acceleration or 4.0:g} (retrospective)"
    steps = f", {settings.steps} steps" if settings.steps else ""
    lines = [
        f"{file}: {scan.format}, {len(scan)} slice(s) of {scan.shape[0]} coil(s) x {scan.shape[1]} x {scan.shape[2]}",
        f"  slices    {len(chosen)} of {len(scan)}{f' ({settings.slices})' if settings.slices else ''}",
        f"  sampling  {sampling}",
        f"  sampler   {settings.sampler}{steps}, {settings.samples} samples, seed {settings.seed}",
        f"  prior     {settings.prior}",
        f"  device    {settings.device}",
    ]
    for path in outputs.all():
        exists = " (exists: overwritten)" if force else " (exists: refused without --force)"
        lines.append(f"  writes    {path}{exists if path.exists() else ''}")
    return "\n".join(lines)


def _scan_lines(scan: "KspaceScan") -> list[str]:
    coils, y, x = scan.shape
    lines = [
        f"{scan.path}",
        f"format: {scan.format}",
        f"slices: {len(scan)}",
        f"k-space: {coils} coil(s) x {y} x {x} (coil, y, x)",
    ]
    if scan.readout_axis is not None:
        lines.append(f"readout: {'y' if scan.readout_axis == -2 else 'x'}, oversampled {scan.readout_oversampling:g} x")
    if scan.recon_shape is not None:
        lines.append(f"image: {scan.recon_shape[0]} x {scan.recon_shape[1]} (y, x)")
    if scan.voxel_size_mm is not None:
        lines.append("voxel: " + " x ".join(f"{length:.3g}" for length in scan.voxel_size_mm) + " mm (z, y, x)")
    if scan.acquired is not None:
        lines.append(f"encoded columns: {scan.acquired[0]} to {scan.acquired[1] - 1}")
    if scan.mask is not None:
        lines.append(f"sampling mask: {scan.mask.mean():.1%} of k-space")
    lines.append(f"reference image: {'yes' if scan.load_reference else 'no'}")
    lines.extend(f"{name}: {_short(value)}" for name, value in scan.attributes.items())
    return lines


def _posterior_lines(file: Path, posterior: "Posterior") -> list[str]:
    record = posterior.provenance
    lines = [
        f"{file}",
        "format: diffrecon result",
        f"samples: {len(posterior.samples)} of {' x '.join(map(str, posterior.samples.shape[1:]))}, "
        f"{posterior.n_valid} valid",
        f"images: {', '.join(posterior.images) or 'none'}",
    ]
    lines.extend(f"geometry.{name}: {_short(value)}" for name, value in posterior.geometry.items())
    lines.extend(f"{name}: {_short(value)}" for name, value in record.items())
    return lines


def _short(value: Any, limit: int = 160) -> str:
    """Return a value in one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
