"""From samples in the scale of the prior to a Posterior in physical units, with provenance."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.engine import provenance
from recon.errors import DivergenceError
from recon.files.plain_values import compact
from recon.modalities.base import FewSteps, Modality
from recon.modalities.prepared import Prepared
from recon.posterior import Posterior
from samplers import Denoiser, Problem, Sampler, Samples

#: A data residual outside this range means that model and data do not fit together.
RESIDUAL_RANGE = (0.5, 2.0)
#: Equations with a relative residual above this do not count as solved.
UNSOLVED = 1e-2
#: Fraction of the strongest data that a mean must reproduce; a datum is strong above this multiple of its noise.
HELD, STRONG = 0.9, 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One slice: its samples, the problem they solve, and for files how it was prepared and a reference.

    ``network_calls`` and ``back_propagations`` were made for each sample; ``steps`` is what the schedule of the sampler
    has for this prior.
    """

    drawn: Samples
    problem: Problem
    prepared: Prepared | None = None
    reference: np.ndarray | None = None
    network_calls: int = 0
    back_propagations: int = 0
    steps: int = 0

    def physical(self, images: Tensor | None = None) -> np.ndarray:
        """Return the samples, or other images in the scale of the prior, in physical units."""
        images = (self.drawn.samples if images is None else images) * self.problem.scale + self.problem.offset
        return (images if self.prepared is None else self.prepared.combine(images)).cpu().numpy()


def assemble(
    parts: list[Part],
    record: dict[str, Any],
    geometry: dict[str, Any],
    modality: Modality | None,
    *,
    single: bool,
    started: float,
    notes: Sequence[str] = (),
) -> Posterior:
    """Join the slices of a run into one Posterior; ``notes`` are about the run as a whole.

    Warns about what the user should know; the same lines are kept in ``provenance["notes"]``.

    Raises
    ------
    DivergenceError
        If no sample is valid in every slice.
    """

    def joined(arrays: list[np.ndarray], axis: int = 0) -> np.ndarray:
        return arrays[0] if single else np.stack(arrays, axis=axis)

    valid = torch.stack([part.drawn.valid.cpu() for part in parts]).all(dim=0).numpy()
    if not valid.any():
        raise DivergenceError(
            f"each of the {len(valid)} samples is invalid in some slice; draw more, or reconstruct slices separately"
        )
    diagnostics: dict[str, Any] = {
        "valid": valid,
        "residual": joined([_numpy(part.drawn.residual) for part in parts], axis=1),
        "seconds": time.perf_counter() - started,
    }
    for name in parts[0].drawn.facts:
        diagnostics[name] = joined([_numpy(part.drawn.facts[name]) for part in parts], axis=1)
    images: dict[str, np.ndarray] = {}
    prepared = [part.prepared for part in parts if part.prepared is not None]
    for name in prepared[0].images if prepared else ():
        images[name] = joined([_numpy(ready.images[name]) for ready in prepared])
    if all(part.drawn.expectation is not None for part in parts):
        images["expectation"] = joined([_expectation(part, valid) for part in parts])
    references = [part.reference for part in parts if part.reference is not None]
    if len(references) == len(parts):
        images["reference"] = joined(references)
    notes = [*notes, *_notes(parts, diagnostics, modality.doubts if modality is not None else "its geometry")]
    if record.get("sampler", {}).get("name") == "ExactGaussian":
        notes += _unsolved(diagnostics)
    if modality is not None and modality.few_steps is not None:
        notes += _few_steps(record.get("sampler", {}), modality.few_steps)
    notes += _fewer_steps(record.get("sampler", {}), min(part.steps for part in parts))
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    found = [ready.diagnostics for ready in prepared]
    if modality is not None:
        used = [key for diagnosed in found for key in modality.citations(diagnosed)]
        record = {**record, "citations": [*record["citations"], *used]}
    return Posterior(
        samples=joined([part.physical() for part in parts], axis=1),
        geometry=geometry,
        provenance=provenance.collect(
            **record,
            network_calls=max(part.network_calls for part in parts),
            back_propagations=max(part.back_propagations for part in parts),
            operator=type(parts[0].problem.operator).__name__,
            measured=found,
            notes=notes,
        ),
        diagnostics=diagnostics,
        images=images,
    )


def _expectation(part: Part, valid: np.ndarray) -> np.ndarray:
    """Return the mean of the conditional expectations of the samples that are valid in every slice."""
    drawn = part.drawn
    paths = drawn.expectation if drawn.expectation is not None else drawn.samples
    paths = paths[torch.from_numpy(valid).to(paths.device)]
    # Images of several parts are combined one by one: their phases differ from sample to sample.
    return part.physical(paths).mean(axis=0)


def describe_prior(prior: str | Path | Denoiser, loaded: Denoiser) -> dict[str, Any]:
    """Return the name and the identity of a prior."""
    card = getattr(loaded, "card", {})
    name = str(prior) if isinstance(prior, str | Path) else type(prior).__name__
    return {"name": Path(name).name, "sha256": card.get("sha256"), "licence": card.get("licence")}


def describe_sampler(sampler: Sampler) -> dict[str, Any]:
    """Return the name and the hyper-parameters of a sampler; arrays (a covariance) by their sha256."""
    fields: tuple[dataclasses.Field, ...] = dataclasses.fields(sampler) if dataclasses.is_dataclass(sampler) else ()
    settings = {field.name: _setting(getattr(sampler, field.name)) for field in fields}
    return {"name": type(sampler).__name__, **compact(settings)}


def _setting(value: Any) -> Any:
    """Return a setting as it is; one that is itself a dataclass (a rule, a covariance) with its name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__, **dataclasses.asdict(value)}
    return value


def _notes(parts: list[Part], diagnostics: dict[str, Any], doubts: str) -> list[str]:
    """Collect what the user should know; ``doubts`` is what may be wrong with the model."""
    notes = [note for part in parts if part.prepared is not None for note in part.prepared.notes]
    invalid = int((~diagnostics["valid"]).sum())
    if invalid:
        notes.append(
            f"{invalid} of {len(diagnostics['valid'])} samples are not finite or grew without bound, and are excluded "
            "from mean and std"
        )
    if any(part.problem.operator.n_data == 0 for part in parts):
        return [*notes, "nothing was measured: the samples are those of the prior"]
    residual = float(np.median(diagnostics["residual"][diagnostics["valid"]]))
    # The allowance for model errors may be larger than the errors themselves.
    allowed = any(part.prepared is not None and "model_error" in part.prepared.diagnostics for part in parts)
    if not (RESIDUAL_RANGE[0] <= residual or allowed) or residual > RESIDUAL_RANGE[1]:
        notes.append(
            f"the data residual is {residual:.2g} times what the noise level explains (expected about 1): "
            f"the noise level or the model of the measurement ({doubts}) may be wrong for "
            "these data, or the sampler had too few steps to fit them"
        )
    held = min(_held(part) for part in parts)
    if held < HELD:
        notes.append(
            f"the mean reproduces only {held:.2f} of the signal of the strongest data (expected about 1): part of the "
            "measured signal is missing from the images. Is noise_std too high, or is the prior for other images? If "
            "neither, use more steps or another sampler ('moment-matching', 'pula')"
        )
    return list(dict.fromkeys(notes))


def _held(part: Part) -> float:
    """Return ``Re<A x, y> / (|y|^2 - noise^2)`` of the mean x, over the data far above their noise; 1 without any."""
    problem = part.problem
    if not bool(part.drawn.valid.any()):
        return 1.0
    noise = torch.as_tensor(problem.noise_std, device=problem.y.device).expand(problem.y.shape)
    strong = problem.y.abs() > STRONG * noise
    data, predicted = problem.y[strong], problem.operator(part.drawn.mean.to(problem.y.device))[strong]
    energy = float((data.abs().square() - noise[strong].square()).sum())
    return float((predicted.conj() * data).real.sum()) / energy if energy > 0 else 1.0


def _few_steps(sampler: dict[str, Any], known: FewSteps) -> list[str]:
    """Report the known coverage of the interval if the default sampler had few steps."""
    steps = sampler.get("steps")
    if not sampler.get("adapt_to_noise") or steps is None or steps >= sampler.get("mean_steps", 1):
        return []
    tried = max((n for n in known.coverage if n <= steps), default=min(known.coverage))
    return [
        f"{steps} steps: the spread of the samples is smaller than the error of their mean. With {tried} steps the "
        f"90 % interval covered {known.coverage[tried]:.0%} of the pixels with signal {known.measured_on}; "
        f"{known.enough} steps cover about 90 %"
    ]


def _fewer_steps(sampler: dict[str, Any], made: int) -> list[str]:
    """Say where a schedule was clipped to the noise levels that the prior knows."""
    asked = sampler.get("steps")
    if not isinstance(asked, int) or made >= asked:
        return []
    return [
        f"{made} of {asked} steps were made: the others have noise levels outside of the range of the prior "
        "(--set spacing=karras keeps their number)"
    ]


def _unsolved(diagnostics: dict[str, Any]) -> list[str]:
    """Report where a sampler that should be exact is not."""
    left = float(np.max(diagnostics["cg_residual"], initial=0.0))
    if left <= UNSOLVED:
        return []
    return [
        f"the equations of the exact sampler are solved only to {left:.2g}: very bright points, low noise and many "
        "data make them ill-conditioned, and the samples are not exact posterior samples"
    ]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
