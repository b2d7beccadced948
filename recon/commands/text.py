"""Files, plans, results and priors as lines of text for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.modalities.recording import short

if TYPE_CHECKING:
    from recon.modalities.base import Modality
    from recon.posterior import Posterior
    from recon.settings import Settings
    from recon.study.loop import State
    from recon.study.planning import Planned
    from recon.uncertainty import Calibration


def recording_lines(modality: Modality, recording: Any) -> list[str]:
    """Describe raw data by their headers."""
    lines = [f"{recording.path}", f"format: {recording.format}", f"{recording.item}s: {len(recording)}"]
    return lines + modality.description.lines(recording)


def plan_lines(planned: Planned, settings: Settings, force: bool) -> list[str]:
    """Describe what a run would do with one file."""
    modality, recording, run = planned.modality, planned.recording, settings.run
    chosen = planned.wanted.chosen
    sampling = modality.description.sampling(recording, settings.options(modality.name))
    steps = f", {run.steps} steps" if run.steps else ""
    fields = "".join(f", {name} = {value}" for name, value in settings.sampler.items())
    lines = [
        f"{planned.file}: {modality.description.summary(recording)}",
        f"  slices    {len(chosen)} of {len(recording)}{f' ({run.slices})' if run.slices else ''}",
        f"  sampling  {sampling}",
        f"  sampler   {run.sampler}{steps}{fields}, {run.samples} samples, seed {run.seed}",
        f"  prior     {run.prior}",
        f"  device    {run.device}, network in {planned.wanted.run.precision}",
    ]
    exists = " (exists, will be overwritten)" if force else " (exists)"
    for path in planned.outputs.all():
        lines.append(f"  writes    {path}{exists if path.exists() else ''}")
    return lines


def result_lines(state: State) -> list[str]:
    """Describe a finished result: verdict first, then the paths of what was written."""
    found = state.finished
    assert found is not None
    verdict, chi2 = found.verdict, found.held_out_chi2
    tested = "" if chi2 is None else f", held-out chi2 {chi2:.2g}"
    done = "done before" if found.kept else f"in {found.seconds:.0f} s"
    lines = [f"{state.job.name}: {verdict.level}, {found.samples} samples {done}{tested}"]
    lines += [f"  {verdict.level}: {reason}" for reason in verdict.reasons]
    return lines + [f"  {path}" for path in state.job.outputs.all()]


def lost_lines(state: State) -> list[str]:
    """Say what of a file has no result, and why."""
    name = state.job.name
    if state.error is not None:
        return [f"{name}: no result: {state.error}"]
    kept = len(state.job.units) - len(state.broken)
    on = f"; {kept} of {len(state.job.units)} slices are kept, and the same command goes on"
    lines = []
    for reason in dict.fromkeys(state.broken.values()):
        numbers = sorted(unit[0] for unit, known in state.broken.items() if known == reason)
        which = ", ".join(map(str, numbers[:6])) + (f" and {len(numbers) - 6} more" if len(numbers) > 6 else "")
        lines.append(f"{name}: slice{'s' if len(numbers) > 1 else ''} {which}: {reason}{on}")
    failed = state.finished.failed if state.finished is not None else ()
    return lines + [f"{name}: slice {one.index} has no result: {one.reason}" for one in failed]


def posterior_lines(file: Path, posterior: Posterior) -> list[str]:
    """Describe a result."""
    record = posterior.provenance
    lines = [
        f"{file}",
        "format: diffrecon result",
        f"verdict: {posterior.verdict}",
        f"samples: {len(posterior.samples)} of {' x '.join(map(str, posterior.samples.shape[1:]))}, "
        f"{posterior.n_valid} valid",
        f"images: {', '.join(posterior.images) or 'none'}",
    ]
    lines.extend(f"geometry.{name}: {short(value)}" for name, value in posterior.geometry.items())
    lines.extend(f"{name}: {short(value)}" for name, value in record.items() if name != "verdict")
    return lines


def calibration_lines(file: Path, calibration: Calibration) -> list[str]:
    """Describe a calibration."""
    promise = "on average over images"
    if calibration.method == "rcps":
        promise = f"with probability {1 - calibration.delta:g} over calibration images"
    lines = [
        f"{file}",
        f"level {calibration.level:g} by {calibration.method} ({promise}), one image is one {calibration.per}",
    ]
    for group, factor in calibration.factors.items():
        ratio = calibration.raw_ratio(group)
        verdict = "the raw interval was too narrow" if ratio > 1 else "the raw interval was wide enough"
        name = "" if group == "all" else f"{group}: "
        lines.append(
            f"  {name}lambda {factor:.3g} from {calibration.images[group]} images; {ratio:.2f} times the raw width "
            f"({verdict})"
        )
        constant = calibration.constant_ratio(group)
        if constant is not None and constant < 1:
            lines.append(
                f"  {name}a constant width with the same guarantee would be {constant:.2f} times as long on average: "
                "the map does not show where the errors of these images are"
            )
    return lines


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """Describe a prior by its card."""
    lines = [f"{card['name']} (version {card.get('version', '?')})"]
    data = card.get("data", [])
    if data:
        listed = data if isinstance(data, list) else [data]
        names = [source.get("name", source) if isinstance(source, Mapping) else source for source in listed]
        lines.append(f"  trained on  {'; '.join(map(str, names))}")
    lines.append(
        f"  sigma       {card.get('sigma_min', '?')} to {card.get('sigma_max', '?')} ({card.get('scale', '?')})"
    )
    lines.append(f"  licence     {card.get('licence', '?')}")
    limits = card.get("limits", [])
    lines.extend(f"  limit       {limit}" for limit in (limits if isinstance(limits, list) else [limits]))
    lines.append(f"  sha256      {card.get('sha256', '?')}")
    return lines


def sampler_lines(name: str, sampler: Any) -> list[str]:
    """Describe a sampler: its summary, its papers, and its fields with their values."""
    what = (type(sampler).__doc__ or "").strip().splitlines()
    lines = [f"{name}: {type(sampler).__name__}. {what[0] if what else ''}".rstrip()]
    if sampler.citations:
        lines.append(f"  papers  {', '.join(sampler.citations)} (docs/references.bib)")
    return lines + [f"  {field} = {short(value, 60)}" for field, value in vars(sampler).items()]
