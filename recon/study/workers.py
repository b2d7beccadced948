"""How many processes pay on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recon.errors import ConfigError
from recon.memory import available_memory
from recon.priors.hub import GAUSSIAN
from recon.study.planning import Planned
from recon.threads import cores

#: Memory of one worker: libraries, network and the working arrays of a slice.
_BYTES = 1.5e9
#: Pixels for a network that take about a minute of one core.
_PAYS = 1e7


def worker_count(asked: str, planned: Sequence[Planned], threads: int | None = None) -> int:
    """Return the number of worker processes, with a number of threads each; 1 is this process alone.

    "auto": a process for each core (or for as many as it has threads), as far as there are slices and memory, where a
    network has enough to do to make up for the start of processes: it does not use several cores as well as several
    slices do (benchmarks/study.py). One on a GPU, which processes would only share. The number follows from the
    settings alone, since the last digits of the samples depend on the number of threads.
    """
    if asked != "auto":
        if not asked.isdigit() or int(asked) < 1:
            raise ConfigError(f"workers: expected a number >= 1 or auto, got {asked!r}")
        return int(asked)
    run = planned[0].wanted.run
    if run.device.type != "cpu" or run.prior == GAUSSIAN or sum(map(_work, planned)) < _PAYS:
        return 1
    free = available_memory(run.device)
    units = sum(len(one.wanted.units) for one in planned)
    places = cores() // (threads or 1)
    return max(1, min(places, units, places if free is None else int(free // _BYTES)))


def _work(planned: Planned) -> float:
    """Return the number of pixels that the network denoises."""
    run = planned.wanted.run
    pixels = math.prod(planned.recording.shape[-2:])
    return float(len(planned.wanted.chosen) * run.samples * getattr(run.sampler, "steps", 1) * pixels)
