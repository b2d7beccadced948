"""The conditions of a calibration: operator, sampling, noise, prior, sampler and number of samples of a result.

A conformal factor holds for results made with the same settings. The fingerprint is read from
`Posterior.provenance`, which does not record what is imaged: anatomy, contrast and pathology must also match those
of the calibration images, and only the user can check that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recon import modalities
from recon.errors import InputError
from recon.files.plain_values import compact, plain
from recon.modalities.base import Condition

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples

#: Factor by which the noise level may lie outside the range of the calibration images.
_NOISE_TOLERANCE = 1.5


def fingerprint(posterior: PosteriorSamples) -> dict[str, Any]:
    """Return the conditions that the calibration of a result depends on, as plain values.

    ``operator``: its class. ``prior``: the sha256 of its weights, or its name. ``sampler``: class and every setting.
    ``precision``: arithmetic of the network. ``start``, ``start_sigma``: of samples that start from an image.
    ``samples``: the number of valid samples. ``noise``: [least, most] over
    the slices of the noise level over the scale of the image. Further entries are the conditions of the modality: kind
    and pattern of sampling, views, waves, ... Missing entries are None.
    """
    record = posterior.provenance
    prior = _mapping(record.get("prior"))
    conditions = _conditions(posterior)
    return {
        "operator": record.get("operator"),
        "prior": prior.get("sha256") or prior.get("name"),
        "sampler": compact(_mapping(record.get("sampler"))),
        "precision": _mapping(record.get("config")).get("precision"),
        "start": _mapping(record.get("config")).get("start"),
        "start_sigma": _mapping(record.get("config")).get("start_sigma"),
        "samples": posterior.n_valid,
        **{name: plain(condition.value) for name, condition in conditions.items()},
        "tolerance": {name: one.tolerance for name, one in conditions.items() if one.tolerance is not None},
        "optional": [name for name, one in conditions.items() if one.optional],
    }


def _conditions(posterior: PosteriorSamples) -> dict[str, Condition]:
    """Return the noise level, common to all modalities, and the conditions of the modality."""
    measured = [found for found in posterior.provenance.get("measured") or [] if isinstance(found, Mapping)]
    # Data without a unit have no scale to divide by.
    ratios = [float(m["noise_std"]) / float(m.get("scale") or 1.0) for m in measured if m.get("noise_std") is not None]
    noise = [min(ratios), max(ratios)] if ratios else None
    modality = modalities.of_result(posterior)
    own = {} if modality is None else modality.conditions(posterior)
    return {"noise": Condition(noise, tolerance=_NOISE_TOLERANCE), **own}


def merge(found: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Merge the fingerprints of the calibration images, given with their names.

    Raises
    ------
    InputError
        If two of them were made with different settings; names the field.
    """
    first_name, first = found[0]
    merged, ranged = dict(first), first["tolerance"]
    for name, other in found[1:]:
        for key in dict.fromkeys([*first, *other]):
            if key in ranged:
                ranges = [item for item in (merged[key], other.get(key)) if item is not None]
                merged[key] = [min(low for low, _ in ranges), max(high for _, high in ranges)] if ranges else None
            elif field := _differs(first.get(key), other.get(key), key):
                raise InputError(
                    f"{name}: {field} differs from {first_name}: calibrate on results made with the same settings"
                )
    return merged


def require_match(calibrated: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse a result that was not made like the calibration images.

    Raises
    ------
    InputError
        With the first field that differs and both values.
    """
    for key in dict.fromkeys([*found, *calibrated]):
        if key in ("tolerance", "optional"):
            continue
        known, here = calibrated.get(key), found.get(key)
        if key in found["optional"] and None in (known, here):
            continue
        factor = found["tolerance"].get(key)
        if factor is None:
            if field := _differs(known, here, key):
                raise _refusal(field, _at(calibrated, field), _at(found, field))
        elif (known is None) != (here is None) or (known and here and not _within(known, here, factor)):
            raise _refusal(key, known, here)


def _within(known: Sequence[float], here: Sequence[float], factor: float) -> bool:
    """Tell whether a range lies within another range widened by a factor; anything but two numbers does not."""
    if not all(isinstance(pair, list) and [*map(_is_number, pair)] == [True, True] for pair in (known, here)):
        return False
    return here[0] >= known[0] / factor and here[1] <= known[1] * factor


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refusal(field: str, calibrated: Any, found: Any) -> InputError:
    return InputError(
        f"the calibration does not belong to this result: {field} is {_show(found)} here but was {_show(calibrated)} "
        "during calibration; calibrate again with these settings"
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


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
