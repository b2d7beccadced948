"""`recon calibrate` and `recon evaluate`; each returns the exit status."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.commands.preflight import check_outputs, check_settings
from recon.commands.reconstruction import read_settings
from recon.commands.text import calibration_lines
from recon.errors import ConfigError, ReconError
from recon.study.loop import State
from recon.study.progress import Silent
from recon.study.study import pool_of, run_study
from recon.study.workers import with_slices_together, worker_count

if TYPE_CHECKING:
    from recon.uncertainty import Calibration


def calibrate(
    folder: Path,
    output: Path,
    config: Path | None = None,
    results: Path | None = None,
    level: float = 0.9,
    method: str = "crc",
    delta: float = 0.1,
    smoothing: int = 1,
    per: str = "file",
    groups: Path | None = None,
    reference: Path | None = None,
    force: bool = False,
    workers: str = "auto",
    sampler_fields: Sequence[str] = (),
    **options: Any,
) -> int:
    """Undersample and reconstruct a folder of fully sampled files, and fit the calibration of their intervals."""
    from recon.uncertainty import conformal, fitting, folders, runs

    settings = read_settings(config, options, sampler_fields)
    check_settings(settings)
    if settings.run.samples < 2:
        raise ConfigError(f"samples: an interval needs at least 2, got {settings.run.samples}")
    conformal.check_smoothing(smoothing)
    place = results or output.with_name(f"{output.stem}-results")
    jobs, skipped = runs.plan(folder, place, settings, folders.read_groups(groups), reference)
    runs.require_enough(jobs, level, method, delta, per)
    check_outputs([output], force)
    check_outputs([place / runs.SETTINGS], force=True)  # may exist, but must be writable
    for reason in skipped:
        print(f"left out: {reason}")
    runs.lock_settings(place, jobs, settings, force)
    planned = [runs.planned(job) for job in jobs]
    together = settings.run.slices_together
    pool = pool_of(worker_count(workers, planned, together, settings.run.threads))
    pool = with_slices_together(pool, planned, together)
    for state in run_study(planned, place, pool, Counted(), force=False):
        if state.error is not None:
            raise state.error
        for unit, reason in state.broken.items():
            raise ReconError(f"{state.job.name}: slice {unit[0]}: {reason}")
    cases = (case for job in jobs for case in folders.read_cases([job.result], reference, group=job.group))
    found = fitting.calibrate(cases, level, method, delta=delta, smoothing=smoothing, per=per)
    output.parent.mkdir(parents=True, exist_ok=True)
    found.save(output)
    print("\n".join(calibration_lines(output, found)))
    return 0


def evaluate(
    folder: Path,
    output: Path,
    reference: Path | None = None,
    calibration: Path | None = None,
    groups: Path | None = None,
    level: float | None = None,
    pictures: bool = True,
    force: bool = False,
) -> int:
    """Compare results with their references: a table, JSON, CSV and, with matplotlib, figures."""
    from recon.uncertainty import evaluation, folders
    from recon.uncertainty.evaluation_files import PICTURES, TEXTS, table_lines, write_evaluation

    if level is not None and not 0 < level < 1:
        raise ConfigError(f"level: must be between 0 and 1, got {level}")
    drawable = pictures and importlib.util.find_spec("matplotlib") is not None
    check_outputs([output / name for name in (*TEXTS, *(PICTURES if drawable else ()))], force)
    known = load_calibration(calibration)
    cases = folders.read_cases(folders.results_in(folder), reference, folders.read_groups(groups))
    found = evaluation.evaluate(cases, level, known)
    paths = write_evaluation(found, output, drawable)
    if pictures and not drawable:
        print("no figures: matplotlib is missing (pip install 'diffrecon[report]')")
    print("\n".join(table_lines(found)))
    for path in paths:
        print(path)
    return 0


class Counted(Silent):
    """Prints a line for each file."""

    def __init__(self) -> None:
        self._total = self._number = 0

    def begin(self, states: Sequence[State]) -> None:  # noqa: D102
        self._total = len(states)
        for state in states:
            if state.finished is not None:
                self.finished(state)

    def finished(self, state: State) -> None:  # noqa: D102
        self._number += 1
        if state.finished is not None:
            done = "already done" if state.finished.kept else "reconstructed"
            print(f"{self._number} of {self._total}: {state.job.source.name} {done}", flush=True)


def load_calibration(path: Path | None) -> "Calibration | None":
    """Read a calibration, if one is given."""
    from recon.uncertainty import Calibration

    return None if path is None else Calibration.load(path)
