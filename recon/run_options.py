"""The options of a run of any modality, and the checks of its arguments.

Nothing here loads torch, so that `recon --help` is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from recon.options import Options, is_integer, option, plain_scalar, shown

#: Most samples and steps of a run: larger numbers are mistakes, and would fill the memory before anything is computed.
_MOST = 100_000
#: Network precision in reconstruction and in training, and the choice that is left to the device.
PRECISIONS, TRAINING_PRECISIONS, AUTO = ("float32", "tf32", "bfloat16"), ("float32", "bfloat16"), "auto"
#: Settings of a sampler between time and accuracy; the first is the default.
QUALITIES = ("standard", "draft")
#: Name of the prior of results that have none.
NO_PRIOR = "none"
#: Images that sampling may start from, made from the data.
STARTS = ("zero-filled", "least-squares", "tv")


def require_precision(precision: str) -> None:
    """Raise ConfigError for an unknown precision."""
    from recon.errors import ConfigError

    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ConfigError(f"precision: expected one of {', '.join(PRECISIONS)}, got {shown(precision)}")


def _slices(value: Any) -> Any:
    """Return a selection of slices as text, an integer or a tuple of integers."""
    from recon.errors import InputError

    number = plain_scalar(value)
    if isinstance(number, str):
        return number
    if is_integer(number):
        return int(number)
    listed = value.tolist() if hasattr(value, "tolist") else value
    items = list(listed) if isinstance(listed, list | tuple | range) else [None]
    numbers = [plain_scalar(item) for item in items]
    if not all(map(is_integer, numbers)):
        raise InputError(f"slices: expected A:B, an integer or a list of integers, got {shown(value)}")
    return tuple(int(item) for item in numbers)


def parse_keep(value: Any) -> str:
    """Return "all", "none" or a number as text."""
    from recon.errors import InputError

    text = str(value).strip().lower()
    if isinstance(value, bool) or not (text in ("all", "none") or text.isdigit()):
        raise InputError(f"keep: expected all, none or a number of samples, got {value!r}")
    return text


@dataclass(frozen=True)
class RunConfig(Options):
    """Options of a run of any modality: each is an argument of the API, an option of `recon run` and a TOML key."""

    prior: str = option(
        "auto",
        str,
        "prior: a model name (see `recon models`) or checkpoint file; auto: the shipped model of the modality",
    )
    sampler: str = option("dds", str, "sampling algorithm (see `recon samplers`)")
    samples: int = option(
        8, int, "number of posterior samples; a std map needs 2 or more", "N", at_least=1, at_most=_MOST
    )
    quality: str = option(
        QUALITIES[0],
        str,
        "standard, or draft: a third of the steps, for a first look, where the modality knows it",
        choices=QUALITIES,
    )
    steps: int | None = option(
        None, int, "number of sampler steps (default: that of the quality)", "N", at_least=1, at_most=_MOST
    )
    seed: int = option(0, int, "random seed; the same seed gives the same samples", "N", at_least=0)
    device: str = option("auto", str, "auto, cpu, cuda, cuda:1 or mps")
    slices: Any = option(
        None, str, "slices or frames to reconstruct: one number or A:B (default: all)", "A:B", parse=_slices
    )
    batch_size: int | None = option(None, int, "samples computed together (default: all)", "N", at_least=1)
    slices_together: int | None = option(
        None,
        int,
        "slices whose samples go through the network together, with one worker (default: as many as make about 32 "
        "images on a GPU, 1 on a CPU)",
        "N",
        at_least=1,
    )
    threads: int | None = option(
        None,
        int,
        "threads of each worker (default: its part of the cores that this process may use)",
        "N",
        at_least=1,
        at_most=_MOST,
    )
    precision: str = option(
        AUTO,
        str,
        f"network precision: {', '.join((AUTO, *PRECISIONS))}; auto: bfloat16 where this device is faster in it, "
        "float32 elsewhere",
        choices=(AUTO, *PRECISIONS),
    )
    compile: bool = option(
        False,
        bool,
        "compile the network for a GPU (needs a C++ compiler, and about a minute for each image size); on a CPU it "
        "does not pay, and is ignored",
    )
    keep: str = option(
        "all",
        str,
        "samples in the result: all, none or a number; mean, std, interval and quantiles are always of all samples",
        "N",
        parse=parse_keep,
    )
    holdout: bool = option(
        True,
        bool,
        "test each slice on data that are withheld from a short companion run; it takes an eighth of the time of 8 "
        "samples",
    )

    start: Any = option(
        None,
        str,
        f"start from an image instead of noise: {', '.join(STARTS)}, or a .npy file of images (y, x) or (slice, y, x) "
        "in the units of the result; in Python also an array. Samples then spread less",
        "NAME_OR_FILE",
        arrays=True,
    )
    start_sigma: float | None = option(
        None,
        float,
        "noise level at which the start joins the schedule, relative to the .99 quantile of the image (default: twice "
        "the error that the start is likely to have)",
        "SIGMA",
        above=0,
    )

    compare: str | None = option(
        None,
        str,
        "reconstructions without a learned prior to show beside the result, with commas: tv, and those of the modality "
        "(see `recon samplers`)",
        "NAMES",
    )

    @property
    def kept(self) -> int | None:
        """How many samples are kept; None for all."""
        return None if self.keep == "all" else 0 if self.keep == "none" else int(self.keep)


class RunArguments(NamedTuple):
    """Checked arguments of a run, in the order of `run_arguments`, as plain Python values."""

    samples: int
    seed: int
    slices: str | int | tuple[int, ...] | None
    steps: int | None
    device: str
    batch_size: int | None
    precision: str


def run_arguments(
    samples: Any, seed: Any, slices: Any, steps: Any, device: Any, batch_size: Any, precision: Any
) -> RunArguments:
    """Check the arguments that `recon.reconstruct` has for every modality, before anything is read or computed.

    Raises
    ------
    InputError
        Names the argument, what was expected and what was given.
    """
    given = RunArguments(samples, seed, slices, steps, device, batch_size, precision)
    # A torch.device is accepted wherever its name is.
    named = given._replace(device=str(device) if type(device).__name__ == "device" else device)
    known = RunConfig(**named._asdict())
    return RunArguments(*(getattr(known, name) for name in RunArguments._fields))
