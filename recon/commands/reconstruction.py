"""`recon run`, `recon demo` and `recon train`: the commands that compute; each returns the exit status."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon.commands.machines import Machines
from recon.commands.preflight import check_outputs, check_settings
from recon.commands.speaking import Speaking
from recon.commands.text import lost_lines, plan_lines
from recon.errors import ReconError
from recon.settings import Settings
from recon.study.loop import State
from recon.study.planning import Planned, plan_files
from recon.study.pools import Pool
from recon.study.progress import Json, Lines, Silent
from recon.study.study import bar_of, run_study

#: Exit status of a run with --strict if the verdict on a result is "failed".
FAILED = 3


def run(
    files: Sequence[Path],
    output: Path,
    config: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    report: bool = True,
    nifti: bool = False,
    dicom: bool = False,
    strict: bool = False,
    workers: str = "auto",
    scheduler: str | None = None,
    cluster: Path | None = None,
    quiet: bool = False,
    log_json: bool = False,
    sampler_fields: Sequence[str] = (),
    **options: Any,
) -> int:
    """Reconstruct files slice by slice; what is done is kept, and the same command goes on where it was.

    Returns 0, 1 if a file or slice has no result, or 3 if ``strict`` and the verdict on a result is "failed".
    """
    settings = read_settings(config, options, sampler_fields)
    drawable = report and importlib.util.find_spec("matplotlib") is not None
    for asked, option, library in ((nifti, "nifti", "nibabel"), (dicom, "dicom", "pydicom")):
        if asked and importlib.util.find_spec(library) is None:
            raise ReconError(f"--{option} needs {library}: pip install 'diffrecon[{option}]'")
    machines = Machines(workers, scheduler, cluster, quiet or log_json)
    with machines.planning(settings) as settings:
        check_settings(settings)
        exports = ("dicom",) if dicom else ()
        planned, refused = plan_files(files, output, lambda of: settings.arguments(of.name), drawable, nifti, exports)
        if not planned:
            raise next(iter(refused.values()))
    if dry_run:
        for one in planned:
            print("\n".join(plan_lines(one, settings, force)))
        machines.describe()
        return _complain(refused)
    check_outputs([path for one in planned for path in one.outputs.all()], force=True)
    if report and not drawable and not (quiet or log_json):
        print("no report: matplotlib is missing (pip install 'diffrecon[report]')")
    pool = machines.pool(planned, settings.run.slices_together)
    listener = Speaking(_progress(planned, pool, quiet, log_json), quiet or log_json)
    try:
        states = run_study(planned, output, pool, listener, force)
    finally:
        listener.close()
    if len(files) == 1 and states[0].error is not None:
        raise states[0].error
    lost = _complain(refused) + _complain_of(states)
    failed = any(state.finished is not None and state.finished.verdict.level == "failed" for state in states)
    return 1 if lost else FAILED if strict and failed else 0


def _progress(planned: Sequence[Planned], pool: Pool, quiet: bool, log_json: bool) -> Silent:
    if log_json:
        return Json()
    if quiet:
        return Silent()
    return bar_of(planned, pool) if sys.stderr.isatty() else Lines()


def _complain(refused: Mapping[Path, Exception]) -> int:
    """Say which files cannot be used; return the exit status."""
    for error in refused.values():
        print(f"recon: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 1 if refused else 0


def _complain_of(states: Sequence[State]) -> int:
    """Say which files and slices have no result, in one table; return the exit status."""
    lines = [line for state in states for line in lost_lines(state)]
    for line in lines:
        print(f"recon: error: {line}", file=sys.stderr)
    return 1 if lines else 0


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
