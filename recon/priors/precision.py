"""Which arithmetic a network runs in where the user leaves it open: bfloat16 where this device is faster in it."""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path

import torch
from torch.nn import functional

from recon.priors.inference import arithmetic
from recon.run_options import AUTO, require_precision

#: Channels of the convolution that is measured: those of the shipped networks at full resolution.
_CHANNELS = 48
#: Its pixels: a few milliseconds of a core, and enough for a GPU not to wait for Python.
_SIZES = {"cpu": 64, "cuda": 512}
_TURNS = 4
#: bfloat16 is chosen if it takes less than this fraction of the time of float32. Where there are instructions for it
#: it takes .3 to .5 (benchmarks/results/speed_network.json), so that a busy machine does not change the choice.
_GAIN = 0.8
#: x86 instructions for bfloat16, as torch and Linux name them.
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the arithmetic of networks on a device: what was asked for, or for "auto" what is best there.

    "auto" is bfloat16 on a CPU with instructions for it (avx512_bf16 or AMX) and on a GPU with hardware for it, if a
    convolution of a few milliseconds, measured once in a process, is faster; float32 on any other device.

    Raises
    ------
    ConfigError
        For an unknown precision.
    """
    if precision != AUTO:
        require_precision(precision)
        return precision
    return "bfloat16" if has_bfloat16(device) and _pays(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device of this machine has instructions for bfloat16; False where nothing tells."""
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            return False  # work that other machines do
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(_INSTRUCTIONS & (_cpu_flags() or set()))


def lacks_bfloat16(device: torch.device) -> bool:
    """Tell whether this is known to be a CPU without instructions for bfloat16: several times slower than float32."""
    flags = _cpu_flags() if device.type == "cpu" else None
    return flags is not None and not _INSTRUCTIONS & flags


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str] | None:
    """Return what an x86 CPU can do; None if neither torch nor the system tells."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # newer than the oldest torch that is accepted
    if ask is not None:
        known = ask()
        return {name for name, value in known.items() if value is True} if "avx512_bf16" in known else None
    try:
        found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return set(found[1].split()) if found else None


@functools.cache
def _pays(device: torch.device) -> bool:
    """Measure a 3 x 3 convolution in both types, in turns."""
    size = _SIZES[device.type]
    image = torch.ones(1, _CHANNELS, size, size, device=device).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(_CHANNELS, _CHANNELS, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(_TURNS):
        for precision, times in seconds.items():
            times.append(_seconds(image, weight, precision))
    return min(seconds["bfloat16"]) < _GAIN * min(seconds["float32"])


@torch.no_grad()
def _seconds(image: torch.Tensor, weight: torch.Tensor, precision: str) -> float:
    with arithmetic(precision, image.device):
        _wait(image)
        started = time.perf_counter()
        functional.conv2d(image, weight, padding=1)
        _wait(image)
        return time.perf_counter() - started


def _wait(image: torch.Tensor) -> None:
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
