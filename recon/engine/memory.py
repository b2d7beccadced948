"""Out of memory: a first batch that fits, and one line where no smaller batch can help.

`samplers.sample` halves a batch for which memory is refused. A CPU is not always refused memory: beyond the limit of a
container or a job the system ends the process without a word. So batches far beyond what is available do not begin.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from recon.memory import available_memory
from samplers import BatchLimit, Problem
from samplers.memory import is_out_of_memory, release, typed

#: Images and data sets in use at once for each sample: 24 MiB for 8 x 256 x 256, where DDS was measured to take 25.
IMAGES, DATA = 24, 3
#: Fraction of the available memory for them; a network takes up to half.
FRACTION = 0.5


def fit(limit: BatchLimit, problem: Problem, wanted: int) -> None:
    """Lower a limit, with a warning, if the samples of a batch need more memory than a CPU has."""
    device, operator = problem.y.device, problem.operator
    available = available_memory(device) if device.type == "cpu" else None
    if available is None:
        return
    counts = ((IMAGES, operator.domain), (DATA, operator.codomain))
    each = sum(count * math.prod(space.shape) * space.dtype.itemsize for count, space in counts)
    most = max(1, int(FRACTION * available / each))
    together = limit.of(wanted)
    if most < together:
        limit.most = most
        sizes = f"about {together * each / 2**30:.2g} GiB, of {available / 2**30:.2g} GiB available"
        message = f"{together} samples together take {sizes}: going on with a batch of {most}"
        warnings.warn(message, UserWarning, stacklevel=2)


@contextmanager
def told_out_of_memory() -> Iterator[None]:
    """Turn the errors of all libraries that mean "out of memory" into one; also as a decorator of a function.

    Raises
    ------
    OutOfMemoryError
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release(error)
        told = typed(error)
        if told is error:
            raise
        raise told from error
