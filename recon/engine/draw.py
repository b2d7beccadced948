"""Drawing all slices of a source in this process."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from tqdm import tqdm

from recon.engine.reconstruction import Reconstruction
from recon.engine.slice_result import FailedSlice, SliceResult
from recon.errors import ConfigError, DivergenceError, InputError
from samplers import Progress


def draw_all(wanted: Reconstruction, failed: list[FailedSlice], progress: bool | None = None) -> Iterator[SliceResult]:
    """Draw the slices one after the other, as they are asked for; unusable ones do not stop the others.

    Parameters
    ----------
    wanted : Reconstruction
    failed : list of FailedSlice
        Receives the slices without a result.
    progress : bool, optional
        Show a bar over all steps; by default only on a terminal.

    Raises
    ------
    InputError, DivergenceError
        The first error, if no slice could be drawn.
    """
    errors: list[Exception] = []
    with _bar(wanted, progress) as bar:
        for unit in wanted.units:
            try:
                result = wanted.draw(unit, functools.partial(_stepped, bar, wanted.run.sampler.usual_steps))
            except ConfigError:
                raise
            except (InputError, DivergenceError) as error:
                errors.append(error)
                failed.append(FailedSlice(unit[0], str(error)))
            else:
                yield result
    if len(errors) == len(wanted.units):
        raise errors[0]


def _bar(wanted: Reconstruction, progress: bool | None) -> tqdm:
    run = wanted.run
    batches = math.ceil(run.samples / run.batch_size) if run.batch_size else 1
    total = len(wanted.units) * batches * run.sampler.usual_steps
    hidden = None if progress is None else not progress
    return tqdm(total=total, desc=type(run.sampler).__name__, unit="step", disable=hidden)


def _stepped(bar: tqdm, expected: int, step: Progress) -> None:
    """Count a step; the first one of a batch says how many there are."""
    if step.step == 1:
        bar.total += step.total - expected
    bar.update()
