"""Out of memory: how to tell it, how to free what the failed attempt held, and the batch with which to go on."""

from __future__ import annotations

import ctypes
import errno
import functools
import gc
import re
import sys
import traceback
import warnings

import torch

from operators.errors import OutOfMemoryError

#: What libraries say that raise a plain RuntimeError or OSError: torch's allocators, C++, cuDNN, cuFFT and cuBLAS, and
#: on a CPU the FFT and the convolutions of MKL and oneDNN (which name no reason: seen where memory was out).
_SAID = re.compile(
    r"out of memory|can(?:no|')t allocate memory|DefaultCPUAllocator|bad_alloc|ALLOC_FAILED|"
    r"DFTI ERROR: (?:Memory allocation|Inconsistent configuration)|could not create a primitive",
    re.IGNORECASE,
)
_ASKED = re.compile(r"allocate (\d+(?:\.\d*)?) ?([KMGTP]i?B|bytes)", re.IGNORECASE)
_UNITS = "BKMGTP"
#: Parameters of the GNU C library (malloc.h); the bytes from which arrays are large, the most that is accepted, and the
#: freed bytes that are kept.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGE, _LARGEST, _KEPT = -1, -3, 1 << 20, 1 << 25, 1 << 29
#: What to lower if one sample alone is too much, and elsewhere.
_ALONE = "lower the size of the images, the number of channels or --precision, or use a sampler without gradients (dds)"
_ELSEWHERE = "lower the size of the images, the number of channels, --samples or --batch-size"


class BatchLimit:
    """The largest batch that fits in memory, as far as it is known.

    Calls of `samplers.sample` that are given the same one start with what an earlier call has found out.

    Attributes
    ----------
    most : int or None
        Number of samples; None as long as memory has not run out.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def of(self, wanted: int) -> int:
        """Return how many of the samples wanted to compute together."""
        return wanted if self.most is None else min(wanted, self.most)

    def lower(self, failed: int, error: BaseException) -> None:
        """Halve the batch that failed, with a warning, after the memory of the failed attempt is freed.

        Raises
        ------
        OutOfMemoryError
            If the batch cannot be halved.
        """
        release(error)
        if failed == 1:
            raise typed(error, batch=1) from error
        self.most = failed // 2
        warnings.warn(f"out of memory with a batch of {failed}: going on with {self.most}", UserWarning, stacklevel=4)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of any library means that memory is out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def release(error: BaseException) -> None:
    """Free what the frames of an error hold, which are the arrays of the attempt that failed."""
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None:
            traceback.clear_frames(one.__traceback__)
            pending += [one.__cause__, one.__context__]
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        # The C library keeps most of what is freed, in pieces. From now on large arrays go back to the system at once:
        # slower (2.5 times for 8 x 8 x 256 x 256), but 8 samples then fit where otherwise one did not.
        libc.malloc_trim(0)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)


@functools.cache
def keep_freed_memory() -> None:
    """Keep freed memory for the next arrays, until memory is out (`release`); once in a process.

    The GNU C library gives large arrays back to the system at once, and the network then waits for fresh pages in each
    layer: 117,000 of them for a slice of 192 x 192 and 10 steps, 1,600 with this. What that costs depends on the
    system; Dask starts workers with MALLOC_TRIM_THRESHOLD_=65536, which makes it worse: 1.6 times the time.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST)


def typed(error: BaseException, batch: int | None = None) -> OutOfMemoryError:
    """Return an error in one line: how much was asked for, where the message tells, and what to lower."""
    if isinstance(error, OutOfMemoryError):
        return error
    tried = "" if batch is None else f" with a batch of {batch}"
    lines = str(error).strip().splitlines() or [""]
    found = _ASKED.search(str(error))
    why = f"asked for {_amount(*found.groups())}" if found else f"{type(error).__name__}: {lines[0]}".rstrip(": ")
    return OutOfMemoryError(f"out of memory{tried} ({why}): {_ELSEWHERE if batch is None else _ALONE}")


def _amount(number: str, unit: str) -> str:
    """Return a number of bytes in the unit that suits it."""
    size = float(number) * 1024.0 ** _UNITS.index(unit[0].upper())
    power = max(k for k in range(len(_UNITS)) if k == 0 or size >= 1024**k)
    return f"{size / 1024**power:.3g} {_UNITS[power]}iB" if power else f"{size:.0f} bytes"
