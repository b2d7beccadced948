"""How many processes pay on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from recon.errors import ConfigError
from recon.priors.inference import available_memory
from recon.study.planning import Planned
from recon.study.pools import cores

#: Memory of one worker: libraries, network and the working arrays of a slice.
_BYTES = 1.5e9


def worker_count(asked: str, planned: Sequence[Planned]) -> int:
    """Return the number of worker processes; 1 is this process alone.

    "auto": a process for each core, as far as there are slices and memory. A network does not use several cores as well
    as several slices do (benchmarks/study.py). One on a GPU, where processes would only share it.
    """
    if asked != "auto":
        if not asked.isdigit() or int(asked) < 1:
            raise ConfigError(f"workers: expected a number >= 1 or auto, got {asked!r}")
        return int(asked)
    if planned[0].wanted.run.device.type != "cpu":
        return 1
    free = available_memory(planned[0].wanted.run.device)
    units = sum(len(one.wanted.units) for one in planned)
    return max(1, min(cores(), units, cores() if free is None else int(free // _BYTES)))
