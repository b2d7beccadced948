"""Options are declared once, as fields of a dataclass; API, command line, TOML and documentation read them there.

Nothing here loads torch, so that `recon --help` is fast.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, TypeVar

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
    value = plain_scalar(value)
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


def plain_scalar(value: Any) -> Any:
    """Return a NumPy or torch scalar as a Python value; any other value unchanged."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _range(kind: type, low: float | None, above: float | None, high: float | None) -> str:
    """Describe the range of a number."""
    if kind is int and low is not None and high is not None:
        return f"an integer from {low} to {high}"
    words = ["an integer" if kind is int else "a finite number"]
    words += [f"{sign} {bound:g}" for sign, bound in ((">=", low), (">", above), ("<=", high)) if bound is not None]
    return " ".join(words[:2]) + "".join(f" and {word}" for word in words[2:])


def is_integer(value: Any) -> bool:
    """Tell whether a value is an integer of any library, and no truth value."""
    return type(value) is not bool and isinstance(value, Integral)
