"""Options are declared once, as fields of a dataclass; API, command line, TOML and documentation read them there.

Nothing here loads torch, so that `recon --help` is fast.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

#: Most samples and steps of a run: larger numbers are mistakes, and would fill the memory before anything is computed.
_MOST = 100_000
#: Network precision in reconstruction and in training, and the choice that is left to the device.
PRECISIONS, TRAINING_PRECISIONS, AUTO = ("float32", "tf32", "bfloat16"), ("float32", "bfloat16"), "auto"

Chosen = TypeVar("Chosen", bound="Options")


def option(
    default: Any,
    kind: type | None,
    text: str,
    metavar: str | None = None,
    *,
    unit: str | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    parse: Callable[[Any], Any] | None = None,
    arrays: bool = False,
) -> Any:
    """Return a field of an options class.

    Parameters
    ----------
    default
        ``None`` if the value follows from the data; None is then always accepted.
    kind : type or None
        Type on the command line: int, float, str or bool (a switch). None: available in Python only.
    text : str
        Help text, one sentence without a full stop.
    metavar, unit : str, optional
        For help and tables.
    at_least, above, at_most : float, optional
        Limits of a finite number.
    choices : tuple of str
        Allowed values of a text option.
    parse : callable, optional
        Converts the user's value into the one that is kept; raises InputError.
    arrays : bool
        Whether an array is also accepted.
    """
    known = {"kind": kind, "help": text, "metavar": metavar, "unit": unit, "choices": choices, "parse": parse}
    return field(
        default=default,
        metadata={**known, "at_least": at_least, "above": above, "at_most": at_most, "arrays": arrays},
    )


@dataclass(frozen=True)
class Options:
    """Self-checking options; subclasses are frozen dataclasses whose fields are made by `option`.

    Raises
    ------
    InputError
        Names the option, what was expected and what was given.
    """

    def __post_init__(self) -> None:
        for known in fields(self):
            value = getattr(self, known.name)
            if value is None and known.default is None:
                continue
            if known.metadata["parse"] is not None:
                object.__setattr__(self, known.name, known.metadata["parse"](value))
            elif not (known.metadata["arrays"] and hasattr(value, "shape")):
                object.__setattr__(self, known.name, _checked(known.name, value, known.metadata))

    def updated(self: Chosen, values: Mapping[str, Any], origin: str) -> Chosen:
        """Return a copy with other values.

        Parameters
        ----------
        values : mapping
        origin : str
            Where they were written, for messages.

        Raises
        ------
        ConfigError
            For an unknown name (with the most similar known one), or a value that does not fit.
        """
        from recon.errors import ConfigError, InputError

        names = [known.name for known in fields(self)]
        for name in values:
            if name not in names:
                raise ConfigError(f"{origin}: {unknown_option(name, names)}")
        try:
            return replace(self, **values)
        except InputError as error:
            raise ConfigError(f"{origin}: {error}") from None


def unknown_option(name: str, names: list[str]) -> str:
    """Return the message for an unknown option, with the most similar known one."""
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known options: {', '.join(names)}"
    return f"unknown option {name!r}; {hint}"


def shown(value: Any, limit: int = 80) -> str:
    """Return a value in one short line, for messages; an object whose ``repr`` fails is shown by its type."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # such as that of an integer with more than 4300 digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def is_finite(value: Any) -> bool:
    """Tell whether a number fits a finite float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _checked(name: str, value: Any, known: Mapping[str, Any]) -> Any:
    """Return a value as a plain Python value; refuse one of the wrong type or out of range."""
    from recon.errors import InputError

    kinds: dict[Any, Any] = {int: Integral, float: Real}
    kind = known["kind"]
    value = _plain_scalar(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}: expected true or false, got {shown(value)}")
        return value
    if kind is not None and (isinstance(value, bool) or not isinstance(value, kinds.get(kind, kind))):
        words = {int: "an integer", float: "a number", str: "text"}
        raise InputError(f"{name}: expected {words[kind]}, got {shown(value)}")
    if known["choices"] and value not in known["choices"]:
        raise InputError(f"{name}: expected one of {', '.join(known['choices'])}, got {shown(value)}")
    if kind not in kinds:
        return value
    low, above, high = known["at_least"], known["above"], known["at_most"]
    inside = is_finite(value) and (low is None or value >= low) and (above is None or value > above)
    if not inside or (high is not None and value > high):
        raise InputError(f"{name}: expected {_range(kind, low, above, high)}, got {shown(value)}")
    return value if isinstance(value, int | float) else kind(value)


def _plain_scalar(value: Any) -> Any:
    """Return a NumPy or torch scalar as a Python value; any other value unchanged."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _range(kind: type, low: float | None, above: float | None, high: float | None) -> str:
    """Describe the range of a number."""
    if kind is int and low is not None and high is not None:
        return f"an integer from {low} to {high}"
    words = ["an integer" if kind is int else "a finite number"]
    words += [f"{sign} {bound:g}" for sign, bound in ((">=", low), (">", above), ("<=", high)) if bound is not None]
    return " ".join(words[:2]) + "".join(f" and {word}" for word in words[2:])


def require_precision(precision: str) -> None:
    """Raise ConfigError for an unknown precision."""
    from recon.errors import ConfigError

    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ConfigError(f"precision: expected one of {', '.join(PRECISIONS)}, got {shown(precision)}")


def _is_integer(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, Integral)


def _slices(value: Any) -> Any:
    """Return a selection of slices as text, an integer or a tuple of integers."""
    from recon.errors import InputError

    number = _plain_scalar(value)
    if isinstance(number, str):
        return number
    if _is_integer(number):
        return int(number)
    listed = value.tolist() if hasattr(value, "tolist") else value
    items = list(listed) if isinstance(listed, list | tuple | range) else [None]
    numbers = [_plain_scalar(item) for item in items]
    if not all(map(_is_integer, numbers)):
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
    steps: int | None = option(
        None, int, "number of sampler steps (default: the sampler's own)", "N", at_least=1, at_most=_MOST
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
