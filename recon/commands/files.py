"""`recon info`, `recon check` and `recon report`: looking at files; each returns the exit status."""

from pathlib import Path

from recon.commands.preflight import check_outputs
from recon.commands.text import posterior_lines, scan_lines
from recon.commands.uncertainty import load_calibration


def info(file: Path) -> int:
    """Print what a raw-data file, a folder of CT data or a result holds."""
    from recon.files.posterior_file import is_posterior
    from recon.modalities.ct.describe import ct_lines
    from recon.modalities.ct.files.readers import is_ct, open_ct
    from recon.modalities.mri.files.readers import open_kspace
    from recon.modalities.ultrasound.describe import picmus_lines, us_lines
    from recon.modalities.ultrasound.files import picmus_files
    from recon.modalities.ultrasound.files.readers import is_ultrasound, open_ultrasound
    from recon.posterior import Posterior

    if file.is_file() and is_posterior(file):
        print("\n".join(posterior_lines(file, Posterior.load(file))))
    elif is_ct(file):
        print("\n".join(ct_lines(open_ct(file))))
    elif is_ultrasound(file):
        print("\n".join(us_lines(open_ultrasound(file))))
    elif file.is_file() and (kind := picmus_files.kind(file)):
        print("\n".join(picmus_lines(file, kind)))
    else:
        print("\n".join(scan_lines(open_kspace(file))))
    return 0


def check(file: Path) -> int:
    """Read every slice of a raw-data file; unusable data are an InputError, doubtful ones a warning."""
    from recon.modalities.ct.describe import ct_lines
    from recon.modalities.ct.files.readers import is_ct, open_ct
    from recon.modalities.mri.describe import inspect, inspect_ct, inspect_ultrasound
    from recon.modalities.mri.files.readers import open_kspace
    from recon.modalities.ultrasound.describe import us_lines
    from recon.modalities.ultrasound.files.readers import is_ultrasound, open_ultrasound

    if is_ct(file):
        stack = open_ct(file)
        print("\n".join(ct_lines(stack)))
        findings = inspect_ct(stack)
    elif is_ultrasound(file):
        data = open_ultrasound(file)
        print("\n".join(us_lines(data)))
        findings = inspect_ultrasound(data)
    else:
        scan = open_kspace(file)
        print("\n".join(scan_lines(scan)))
        findings = inspect(scan)
    for line in findings.facts:
        print(line)
    for line in findings.warnings:
        print(f"warning: {line}")
    print("usable" if not findings.warnings else f"usable, with {len(findings.warnings)} warning(s)")
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
