"""Choice of the computing device."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from recon.errors import ConfigError
from recon.options import shown

if TYPE_CHECKING:
    import torch

#: What is said where `compiling_pays` is false.
NOT_COMPILED = "compile: ignored, because compiling a network pays on a GPU only"
#: Whether the work is done on other machines, whose devices cannot be looked at here.
_ELSEWHERE = ContextVar("elsewhere", default=False)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Accept devices that this machine lacks, because the work is done on others."""
    token = _ELSEWHERE.set(True)
    try:
        yield
    finally:
        _ELSEWHERE.reset(token)


def resolve_device(name: str = "auto") -> "torch.device":
    """Return the device to compute on.

    "auto" takes the first NVIDIA/AMD GPU if there is one, and the CPU otherwise; "mps" (Apple) is never chosen
    automatically, because it lacks some complex operations.

    Parameters
    ----------
    name
        "auto", "cpu", "cuda", "cuda:1", "mps".

    Raises
    ------
    ConfigError
        If torch does not know the name or this machine has no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if not isinstance(name, str | torch.device):
            raise TypeError("a device is named by text")
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"device: expected auto, cpu, cuda, cuda:0 or mps, got {shown(name)}") from error
    missing = {
        "cuda": not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count(),
        "mps": not torch.backends.mps.is_available(),
        "cpu": False,
    }
    if missing.get(device.type, True) and not (device.type in missing and _ELSEWHERE.get()):
        raise ConfigError(f"device: this machine (or this build of torch) has no {name!r}; use --device auto or cpu")
    return device


def compiling_pays(device: "torch.device") -> bool:
    """Tell whether it pays on a device to compile a network.

    Not on a CPU: in float32 the shipped network becomes slower (512 ms per image of 320 x 320, 431 ms before); in
    bfloat16 it gains 21 ms, of which it takes 800 images to make up for the 18 s of compiling
    (benchmarks/results/speed_network.json).
    """
    return device.type == "cuda"
