"""Files, plans, results and priors in lines of text: what the command line prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recon.commands.wording import short
from recon.options import RunConfig

if TYPE_CHECKING:
    from recon.modalities.ct.data import CTImages, CTProjections
    from recon.modalities.mri.data import KspaceScan
    from recon.modalities.ultrasound.data import PlaneWaveData
    from recon.posterior import Posterior
    from recon.uncertainty import Calibration


class Outputs(NamedTuple):
    """The files that a run writes for one input."""

    result: Path
    pictures: tuple[Path, ...]
    submission: Path | None = None
    dicom: Path | None = None
    nifti: tuple[Path, ...] = ()

    def all(self) -> list[Path]:
        """Return the paths of everything."""
        others = (path for path in (self.submission, self.dicom) if path is not None)
        return [self.result, *self.pictures, *others, *self.nifti]


def plan_lines(
    file: Path,
    scan: "KspaceScan | CTImages | CTProjections | PlaneWaveData",
    outputs: Outputs,
    settings: RunConfig,
    force: bool,
) -> list[str]:
    """Describe what a run would do with one file."""
    from recon.modalities.ct.describe import ct_sampling, ct_summary
    from recon.modalities.mri.data import KspaceScan
    from recon.modalities.selection import choose_slices
    from recon.modalities.ultrasound.data import PlaneWaveData
    from recon.modalities.ultrasound.describe import us_sampling, us_summary

    chosen = choose_slices(settings.slices, len(scan))
    if isinstance(scan, KspaceScan):
        content = f"{scan.format}, {len(scan)} slice(s) of {scan.shape[0]} coil(s) x {scan.shape[1]} x {scan.shape[2]}"
        sampling = "as measured"
        if settings.mask is not None or settings.acceleration is not None:
            sampling = f"{settings.mask or 'random'}, acceleration {settings.acceleration or 4.0:g} (retrospective)"
    elif isinstance(scan, PlaneWaveData):
        content, sampling = us_summary(scan), us_sampling(scan, settings)
    else:
        content, sampling = ct_summary(scan), ct_sampling(scan, settings)
    steps = f", {settings.steps} steps" if settings.steps else ""
    lines = [
        f"{file}: {content}",
        f"  slices    {len(chosen)} of {len(scan)}{f' ({settings.slices})' if settings.slices else ''}",
        f"  sampling  {sampling}",
        f"  sampler   {settings.sampler}{steps}, {settings.samples} samples, seed {settings.seed}",
        f"  prior     {settings.prior}",
        f"  device    {settings.device}",
    ]
    for path in outputs.all():
        exists = " (exists: overwritten)" if force else " (exists: refused without --force)"
        lines.append(f"  writes    {path}{exists if path.exists() else ''}")
    return lines


def scan_lines(scan: "KspaceScan") -> list[str]:
    """Describe a raw-data file by its headers."""
    coils, y, x = scan.shape
    lines = [
        f"{scan.path}",
        f"format: {scan.format}",
        f"slices: {len(scan)}",
        f"k-space: {coils} coil(s) x {y} x {x} (coil, y, x)",
    ]
    if scan.readout_axis is not None:
        lines.append(f"readout: {'y' if scan.readout_axis == -2 else 'x'}, oversampled {scan.readout_oversampling:g} x")
    if scan.recon_shape is not None:
        lines.append(f"image: {scan.recon_shape[0]} x {scan.recon_shape[1]} (y, x)")
    if scan.voxel_size_mm is not None:
        lines.append("voxel: " + " x ".join(f"{length:.3g}" for length in scan.voxel_size_mm) + " mm (z, y, x)")
    if scan.acquired is not None:
        lines.append(f"encoded columns: {scan.acquired[0]} to {scan.acquired[1] - 1}")
    if scan.mask is not None:
        lines.append(f"sampling mask: {scan.mask.mean():.1%} of k-space")
    lines.append(f"reference image: {'yes' if scan.load_reference else 'no'}")
    lines.extend(f"{name}: {short(value)}" for name, value in scan.attributes.items())
    return lines


def posterior_lines(file: Path, posterior: "Posterior") -> list[str]:
    """Describe a result."""
    record = posterior.provenance
    lines = [
        f"{file}",
        "format: diffrecon result",
        f"samples: {len(posterior.samples)} of {' x '.join(map(str, posterior.samples.shape[1:]))}, "
        f"{posterior.n_valid} valid",
        f"images: {', '.join(posterior.images) or 'none'}",
    ]
    lines.extend(f"geometry.{name}: {short(value)}" for name, value in posterior.geometry.items())
    lines.extend(f"{name}: {short(value)}" for name, value in record.items())
    return lines


def calibration_lines(file: Path, calibration: "Calibration") -> list[str]:
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
    return lines


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """Describe a prior by its card."""
    lines = [f"{card['name']} (version {card.get('version', '?')})"]
    data = card.get("data", [])
    if data:
        lines.append(f"  trained on  {'; '.join(str(source.get('name', source)) for source in data)}")
    lines.append(
        f"  sigma       {card.get('sigma_min', '?')} to {card.get('sigma_max', '?')} ({card.get('scale', '?')})"
    )
    lines.append(f"  licence     {card.get('licence', '?')}")
    lines.extend(f"  limit       {limit}" for limit in card.get("limits", []))
    lines.append(f"  sha256      {card.get('sha256', '?')}")
    return lines
