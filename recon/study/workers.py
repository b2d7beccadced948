"""How many processes pay on this machine, and how many slices in one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from recon.errors import ConfigError
from recon.memory import available_memory
from recon.priors.hub import GAUSSIAN
from recon.study.planning import Planned
from recon.study.pools import Pool, Together
from recon.threads import cores
from samplers import DPS, DDSVolume, MomentMatching, PiGDM

#: Memory of one worker: libraries, network and the working arrays of a slice.
_BYTES = 1.5e9
#: Pixels for a network that take about a minute of one core.
_PAYS = 1e7
#: Images that keep a GPU busy.
_IMAGES = 32
#: Samplers whose slices do not gain by a common call: they keep its gradients.
_WITH_GRADIENTS = (DPS, MomentMatching, PiGDM)


def worker_count(
    asked: str, planned: Sequence[Planned], together: int | None = None, threads: int | None = None
) -> int:
    """Return the number of worker processes, with a number of threads each; 1 is this process alone.

    "auto": a process for each core (or for as many as it has threads), as far as there are slices and memory, where a
    network has enough to do to make up for the start of processes: it does not use several cores as well as several
    slices do (benchmarks/study.py). One on a GPU, which processes would only share, and where several slices are to go
    through the network ``together``. The number follows from the settings alone, since the last digits of the samples
    depend on the number of threads.
    """
    if asked != "auto":
        if not asked.isdigit() or int(asked) < 1:
            raise ConfigError(f"workers: expected a number >= 1 or auto, got {asked!r}")
        return int(asked)
    run = planned[0].wanted.run
    if (together or 1) > 1 or run.device.type != "cpu" or run.prior == GAUSSIAN or sum(map(_work, planned)) < _PAYS:
        return 1
    free = available_memory(run.device)
    units = sum(len(one.wanted.units) for one in planned)
    places = cores() // (threads or 1)
    return max(1, min(places, units, places if free is None else int(free // _BYTES)))


def with_slices_together(pool: Pool, planned: Sequence[Planned], asked: int | None) -> Pool:
    """Return the pool; in place of this process alone, threads whose slices meet at the network, where that pays."""
    count = slices_together(asked, planned) if pool.here else 1
    return Together(count) if count > 1 else pool


def slices_together(asked: int | None, planned: Sequence[Planned]) -> int:
    """Return how many slices go through the network together.

    None: on a GPU, as many as make about 32 images, of a prior that is loaded by its name. One slice at a time where
    there is no network, or slices are coupled anyway.

    Raises
    ------
    ConfigError
        If several are asked for in an arithmetic that torch sets for all threads.
    """
    run = planned[0].wanted.run
    on_gpu = run.device.type == "cuda"
    units = sum(len(one.wanted.units) for one in planned)
    if asked is None:
        pays = on_gpu and isinstance(run.prior, str | Path) and not isinstance(run.sampler, _WITH_GRADIENTS)
        images = min(run.samples, run.batch_size or run.samples)
        asked = max(1, _IMAGES // images) if pays and run.precision != "tf32" and not run.compiled else 1
    elif asked > 1 and on_gpu and run.precision == "tf32":
        raise ConfigError(f"slices_together: expected 1 with precision tf32, which all threads share, got {asked}")
    return 1 if run.prior == GAUSSIAN or isinstance(run.sampler, DDSVolume) else min(asked, units)


def _work(planned: Planned) -> float:
    """Return the number of pixels that the network denoises."""
    run = planned.wanted.run
    pixels = math.prod(planned.recording.shape[-2:])
    return float(len(planned.wanted.chosen) * run.samples * run.sampler.usual_steps * pixels)
