"""`recon info`, `check`, `status` and `report`: inspecting files and folders; each returns the exit status."""

from pathlib import Path

from recon import modalities
from recon.commands.preflight import check_outputs
from recon.commands.text import posterior_lines, recording_lines
from recon.commands.uncertainty import load_calibration
from recon.errors import ConfigError
from recon.files.posterior_file import is_posterior
from recon.posterior import Posterior
from recon.printable import printable
from recon.study.status import status_lines, status_of


def info(file: Path) -> int:
    """Print what a raw-data file, a folder of raw data or a result contains."""
    if file.is_file() and is_posterior(file):
        lines = posterior_lines(file, Posterior.load(file))
    else:
        others = (known.auxiliary(file) for known in modalities.modalities()) if file.is_file() else ()
        known_lines = next((found for found in others if found is not None), None)
        lines = known_lines or recording_lines(*modalities.opened(file))
    print("\n".join(map(printable, lines)))
    return 0


def check(file: Path) -> int:
    """Read every slice of a raw-data file; unusable data raise an InputError, doubtful data give a warning."""
    modality, recording = modalities.opened(file)
    print("\n".join(map(printable, recording_lines(modality, recording))))
    findings = modality.description.inspect(recording)
    for line in findings.facts:
        print(printable(line))
    for line in findings.warnings:
        print(f"warning: {printable(line)}")
    print("usable" if not findings.warnings else f"usable, with {len(findings.warnings)} warning(s)")
    return 0


def status(folder: Path) -> int:
    """Print how far the run in a folder is: what is done, running or failed, and how long it will take."""
    print("\n".join(status_lines(folder, status_of(folder))))
    return 0


def report(
    file: Path,
    output: Path | None = None,
    calibration: Path | None = None,
    group: str | None = None,
    force: bool = False,
) -> int:
    """Render a result as PNG and HTML (with a calibrated interval if given a calibration), or index a folder."""
    if file.is_dir():
        return _study_index(file, output, calibration, force)
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


def _study_index(folder: Path, output: Path | None, calibration: Path | None, force: bool) -> int:
    """Write the index page of a folder of results; an older index is replaced, any other file is not."""
    from recon.report.study_index import is_study_index, write_study_index

    if calibration is not None:
        raise ConfigError("calibration: an index of a folder shows no intervals; give it with a single result")
    target = folder / "index.html" if output is None else output
    target = target / "index.html" if target.is_dir() else target
    if not (target.is_file() and is_study_index(target)):
        check_outputs([target], force)
    print(write_study_index(folder, target))
    return 0
