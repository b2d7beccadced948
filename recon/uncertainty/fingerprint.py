"""What a calibration belongs to: the operator, sampling, noise, prior, sampler and number of samples of a result.

A conformal factor holds for results that were made in the same way. The fingerprint is read from what
`Posterior.provenance` records; it cannot see what is imaged: anatomy, contrast and pathology must be those of the
calibration images, too, and only the user knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.engine.provenance import compact
from recon.errors import InputError

if TYPE_CHECKING:
    from recon.posterior import Posterior

#: Acceleration and noise level may leave the range of the calibration images by these factors.
TOLERANCE = {"acceleration": 1.1, "noise": 1.5}
_EXACT = ("operator", "sampling", "prior", "sampler", "precision", "samples")


def fingerprint(posterior: Posterior) -> dict[str, Any]:
    """Return what the calibration of a result depends on, as plain values.

    ``operator``: its class. ``sampling``: the kind of mask (see `describe_mask`), or the projections of CT.
    ``pattern``: the name of the mask, if it was drawn by the engine. ``acceleration``: [least, most] over the slices.
    ``noise``: the same of the noise level over the scale of the image. ``prior``: the sha256 of its weights, or its
    name. ``sampler``: class and every setting. ``precision``: arithmetic of the network. ``samples``: the number of
    valid samples. What is not recorded is None.
    """
    record = posterior.provenance
    config = _mapping(record.get("config"))
    prior = _mapping(record.get("prior"))
    measured = [facts for facts in record.get("measured") or [] if isinstance(facts, Mapping)]
    retrospective = config.get("acceleration") is not None or config.get("mask") not in (None, "array")
    return {
        "operator": record.get("operator"),
        "sampling": describe_mask(posterior.images.get("mask")) or _describe_views(measured),
        "pattern": (config.get("mask") or "random") if retrospective else None,
        "acceleration": _range([facts.get("acceleration") for facts in measured]),
        # Line integrals have no unit, so there is no scale to divide by.
        "noise": _range([_ratio(f.get("noise_std"), f.get("scale", 1.0 if "views" in f else None)) for f in measured]),
        "prior": prior.get("sha256") or prior.get("name"),
        "sampler": compact(_mapping(record.get("sampler"))),
        "precision": config.get("precision"),
        "samples": posterior.n_valid,
    }


def describe_mask(mask: np.ndarray | None) -> str | None:
    """Say what kind of sampling a mask ``([slice,] y, x)`` is: of columns, rows or points, evenly spaced or not.

    Lines count as evenly spaced when, outside the fully sampled centre, all but two of their gaps differ by one at
    most. None without a mask.
    """
    if mask is None:
        return None
    plane = np.atleast_2d(np.asarray(mask).astype(bool))
    plane = plane[(0,) * (plane.ndim - 2)]
    if plane.all():
        return "everything"
    for name, lines in (("columns", plane.any(axis=0)), ("rows", plane.any(axis=1))):
        if (plane == (lines if name == "columns" else lines[:, None])).all():
            return f"{'evenly spaced' if _even(lines) else 'uneven'} {name}"
    return "points"


def _describe_views(measured: Sequence[Mapping[str, Any]]) -> str | None:
    """Say how many projections of CT there are, and over how many degrees; None for what is not CT."""
    facts = next((one for one in measured if "views" in one), None)
    if facts is None:
        return None
    return f"{facts.get('geometry')}, {facts['views']} views over {facts.get('arc')} degrees"


def merge(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Join the fingerprints of the calibration images, given with their names.

    Raises
    ------
    InputError
        If two of them were not made in the same way; names the field.
    """
    first_name, first = found[0]
    merged = dict(first)
    for name, other in found[1:]:
        for key in (*_EXACT, "pattern"):
            field = _differs(first[key], other[key], key)
            if field:
                raise InputError(
                    f"{name}: {field} is not that of {first_name}: calibrate on results that were all made in one way"
                )
        for key in TOLERANCE:
            ranges = [item for item in (merged[key], other[key]) if item is not None]
            merged[key] = [min(low for low, _ in ranges), max(high for _, high in ranges)] if ranges else None
    return merged


def require_match(calibrated: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse a result that was not made as the calibration images were.

    Raises
    ------
    InputError
        Names the first field that differs, with both values.
    """
    for key in _EXACT:
        field = _differs(calibrated.get(key), found[key], key)
        if field:
            raise _refusal(field, _at(calibrated, field), _at(found, field))
    pattern = calibrated.get("pattern")
    if None not in (pattern, found["pattern"]) and pattern != found["pattern"]:
        raise _refusal("pattern", pattern, found["pattern"])
    for key, factor in TOLERANCE.items():
        known, here = calibrated.get(key), found[key]
        if known is None and here is None:
            continue
        if known is None or here is None or here[0] < known[0] / factor or here[1] > known[1] * factor:
            raise _refusal(key, known, here)


def _refusal(field: str, calibrated: Any, found: Any) -> InputError:
    return InputError(
        f"the calibration does not belong to this result: {field} is {_show(found)} here and was {_show(calibrated)} "
        "when it was calibrated; calibrate again with these settings"
    )


def _differs(first: Any, second: Any, field: str) -> str | None:
    """Return the name of the first entry that differs, with dots between levels."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            inner = _differs(first.get(key), second.get(key), f"{field}.{key}")
            if inner:
                return inner
        return None
    return None if first == second else field


def _at(tree: Any, field: str) -> Any:
    head, _, rest = field.partition(".")
    value = tree.get(head) if isinstance(tree, Mapping) else None
    return _at(value, rest) if rest else value


def _show(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, int | float) for item in value):
        return f"{value[0]:.3g}" if value[0] == value[1] else f"{value[0]:.3g} to {value[1]:.3g}"
    return "not recorded" if value is None else f"{value}"


def _even(lines: np.ndarray) -> bool:
    middle = len(lines) // 2
    if not lines[middle]:
        center = np.zeros(0, int)
    else:
        gaps = np.flatnonzero(~lines)
        below, above = gaps[gaps < middle], gaps[gaps > middle]
        center = np.arange(below[-1] + 1 if len(below) else 0, above[0] if len(above) else len(lines))
    steps = np.sort(np.diff(np.flatnonzero(np.delete(lines, center))))
    return len(steps) > 5 and int(np.ptp(steps[:-2])) <= 1


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _ratio(noise_std: Any, scale: Any) -> float | None:
    return float(noise_std) / float(scale) if noise_std is not None and scale else None


def _range(values: list[Any]) -> list[float] | None:
    known = [float(value) for value in values if value is not None]
    return [min(known), max(known)] if known else None
