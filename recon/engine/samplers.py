"""The samplers by name, with the settings that suit the shipped priors."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recon import modalities, plugins
from recon.errors import InputError
from recon.estimators import Estimator, TotalVariation
from recon.options import unknown_option
from recon.run_options import QUALITIES
from samplers import (
    DAPS,
    DDS,
    DPS,
    PULA,
    DDSVolume,
    DiffPIR,
    ExactGaussian,
    LocalEnergy,
    MomentMatching,
    PiGDM,
    PnPDM,
    REDDiff,
    Sampler,
    ScoreALD,
    ScoreMRI,
    Support,
    Uniform,
)

if TYPE_CHECKING:
    from recon.modalities.base import Modality

#: Settings common to the two forms of DDS.
_DDS: dict[str, Any] = {"steps": 30, "noise": "ddim", "eta": 1.0, "spacing": "karras", "sigma_max": 3.0}
#: With draws of the image in each step the levels may end at .06: the last draw is what remains, without a call.
_DRAWN: dict[str, Any] = {
    **_DDS,
    "steps": None,
    "image_draws": True,
    "branches": True,
    "sigma_min": 0.06,
    "mean_sigma": 0.08,
}

#: The samplers by name, with the settings that `recon run` uses, for images whose .99 quantile is 1. For DDS: data
#: weighted by the measured error of the denoiser, the DDIM variance, and the mean from where it is best known. On
#: held-out data its mean is within .2 dB of the best and its spread is near the error (docs/uncertainty.md).
SAMPLERS: dict[str, Sampler] = {
    "dds": DDS(gamma="rule", spread=Support(0.05), adapt_to_noise=True, **_DRAWN),
    "dds-narrow": DDS(steps=30, gamma="rule", spread=Uniform(0.1), spacing="karras", sigma_max=3.0, sigma_min=0.01),
    # Slices of a volume together, held by a weak total variation: at 10 instead of 3 real stacks lose .2 to .9 dB and
    # the spread of the samples falls further below their error.
    "dds-volume": DDSVolume(**_DDS, sigma_min=0.015, mean_sigma=0.15, spread=Uniform(), tv_weight=3.0),
    "exact": ExactGaussian(),
    "moment-matching": MomentMatching(steps=30, sigma_max=3.0, sigma_min=0.015, mean_sigma=0.15, model_iterations=8),
    # As published: weighted by Bayes' rule the errors of a network's Jacobian grow without bound.
    "pigdm": PiGDM(steps=50, weight="published", prior_std=0.3, sigma_max=3.0, sigma_min=0.01, chunk=4),
    "pula": PULA(steps=30, sigma_max=3.0, sigma_min=0.02),
    "pnp-dm": PnPDM(steps=30, sigma_max=3.0, sigma_min=0.02),
    "diffpir": DiffPIR(steps=50, sigma_max=3.0, sigma_min=0.01),
    "daps": DAPS(steps=20, sigma_max=3.0, sigma_min=0.02, likelihood="exact", width="rule", prior_std=0.1),
    # A fifth of the paper's steps, and longer ones: with .3 the data are not reached.
    "dps": DPS(steps=200, zeta=3.0, sigma_max=3.0, sigma_min=0.02, chunk=4),
    "score-mri": ScoreMRI(steps=150, sigma_max=3.0, sigma_min=0.01),
    "score-ald": ScoreALD(steps=100, sigma_max=3.0, sigma_min=0.01),
    "red-diff": REDDiff(steps=200, sigma_max=3.0, sigma_min=0.02, learning_rate=0.03),
}

#: Settings as in the papers and their programs, for comparison; a schedule is clipped to the range of the prior.
PUBLISHED: dict[str, Sampler] = {
    **{f"dds-published-{n}": DDS(steps=n, eta=eta) for n, eta in ((19, 0.15), (49, 0.5), (99, 0.8))},
    "dps-published": DPS(steps=1000, zeta=0.3, variables="vp", spacing="vp", chunk=4),
    "score-mri-published": ScoreMRI(steps=2000),
    "score-ald-paper": ScoreALD(steps=1155, step_size=0.02, sigma_max=1.24, sigma_min=0.0066),
    "score-ald-code": ScoreALD(steps=1155, step_size=0.02, rule="code", sigma_max=1.24, sigma_min=0.0066),
}

#: Reconstructions without a learned prior that suit any modality.
ESTIMATORS: dict[str, Sampler] = {"tv": TotalVariation()}

#: Steps of the first image of a slice, with which the preparation of some modalities goes on.
FIRST_IMAGE_STEPS = 10


def resolve_sampler(
    sampler: str | Mapping[str, Any] | Sampler,
    steps: int | None = None,
    modality: Modality | None = None,
    quality: str = QUALITIES[0],
) -> Sampler:
    """Return a sampler by name, or the one given, with another number of steps if requested.

    Parameters
    ----------
    sampler : str, mapping or Sampler
        A name stands for settings tuned to the shipped priors and the modality. A mapping has a ``name`` ("dds" by
        default) and values for fields of that sampler: ``{"name": "dds", "eta": 0.5}``.
    steps : int, optional
        Replaces the number of steps of the quality.
    modality : Modality, optional
    quality : "standard" or "draft"
        Settings of a named sampler between time and accuracy, see `recon.modalities.base.Modality.qualities`.

    Raises
    ------
    InputError
        If there is no such sampler or field, the sampler has no steps to set, or no settings of this quality.
    """
    changes: dict[str, Any] = {}
    if isinstance(sampler, Mapping):
        changes = {name: value for name, value in sampler.items() if name != "name"}
        sampler = sampler.get("name", "dds")
    changes = {**_of_quality(quality, sampler, modality), **changes}
    if isinstance(sampler, str):
        sampler = _named(sampler, modality)
    if not isinstance(sampler, Sampler):
        raise InputError(f"sampler: expected a name or a samplers.Sampler, got {type(sampler).__name__}")
    if steps is not None:
        changes["steps"] = steps
    return _changed(sampler, changes) if changes else sampler


def compared(names: str | None, modality: Modality | None) -> dict[str, Estimator]:
    """Return the reconstructions without a learned prior that are named, with commas.

    Raises
    ------
    InputError
        If one of them is unknown, or has a prior.
    """
    found = {}
    for name in filter(None, map(str.strip, (names or "").split(","))):
        sampler = resolve_sampler(name, None, modality)
        if not isinstance(sampler, Estimator):
            known = ", ".join([*ESTIMATORS, *({} if modality is None else modality.estimators)])
            raise InputError(f"compare: expected some of {known}, got {name}")
        found[name] = sampler
    return found


def sampler_names() -> list[str]:
    """Return the names of all samplers: ours, published settings, those without a prior, and other distributions'."""
    return [*SAMPLERS, *PUBLISHED, *ESTIMATORS, *_of_modalities(), *plugins.names("samplers")]


def _of_modalities() -> dict[str, Modality]:
    """Return the modality of each estimator that only one has."""
    return {name: kind for kind in modalities.modalities() for name in kind.estimators}


def _named(name: str, modality: Modality | None) -> Any:
    known: Any = {**SAMPLERS, **PUBLISHED, **ESTIMATORS, **({} if modality is None else modality.estimators)}.get(name)
    known = known or plugins.find("samplers", name)
    owner = _of_modalities().get(name) if known is None else None
    if owner is not None:
        if modality is not None:
            raise InputError(f"sampler: {name} is for {owner.title}, not for {modality.title}")
        return owner.estimators[name]
    if known is None:
        names = ", ".join(sampler_names())
        raise InputError(f"sampler: unknown sampler {name!r}; choose one of {names}")
    settings = {} if modality is None else modality.samplers.get(name, {})
    known = known() if isinstance(known, type) else known
    return _changed(known, settings) if settings else known


def _of_quality(quality: str, sampler: Any, modality: Modality | None) -> Mapping[str, Any]:
    """Return what a quality changes of a sampler that is given by name."""
    known = {} if modality is None or not isinstance(sampler, str) else modality.qualities.get(sampler, {})
    if quality == QUALITIES[0]:
        return {}
    if quality not in known:
        name = sampler if isinstance(sampler, str) else type(sampler).__name__
        where = "" if modality is None else f" of {modality.title}"
        raise InputError(f"quality: sampler {name}{where} has no {quality!r} settings; set steps instead")
    return known[quality]


def _changed(sampler: Sampler, changes: Mapping[str, Any]) -> Sampler:
    """Return a copy of a sampler with other field values."""
    names = [field.name for field in dataclasses.fields(sampler)]  # type: ignore[arg-type]
    for name in changes:
        if name not in names:
            raise InputError(f"sampler {type(sampler).__name__}: {unknown_option(name, names)}")
    known = {name: _rule(value) for name, value in changes.items()}
    try:
        return dataclasses.replace(sampler, **known)  # type: ignore[type-var]
    except TypeError as error:
        raise InputError(f"sampler {type(sampler).__name__}: {dict(changes)} does not fit ({error})") from None


def _rule(value: Any) -> Any:
    """Return a spread rule given as text, such as "Uniform(0.3)", as an object; any other value unchanged."""
    found = re.fullmatch(r"(\w+)\(([-+.\deE]*)\)", value) if isinstance(value, str) else None
    rules = {kind.__name__: kind for kind in (Uniform, Support, LocalEnergy)}
    if found is None or found[1] not in rules:
        return value
    rule: Any = rules[found[1]]
    try:
        return rule(*([ast.literal_eval(found[2])] if found[2] else []))
    except (ValueError, SyntaxError, TypeError) as error:
        raise InputError(f"{value}: expected {found[1]}(NUMBER) ({error})") from None
