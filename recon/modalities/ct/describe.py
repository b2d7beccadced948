"""CT data in lines of text: what the command line prints of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recon.commands.wording import short

if TYPE_CHECKING:
    from recon.modalities.ct.data import CTImages, CTProjections
    from recon.options import RunConfig


def ct_summary(stack: CTImages | CTProjections) -> str:
    """Say in a few words what a file or folder holds."""
    kind = "image(s)" if hasattr(stack, "units") else "sinogram(s)"
    return f"{stack.format}, {len(stack)} {kind} of {stack.shape[0]} x {stack.shape[1]}"


def ct_sampling(stack: CTImages | CTProjections, settings: RunConfig) -> str:
    """Say which projections are used."""
    if not hasattr(stack, "units"):
        every = settings.views_every
        return "all projections" if every == 1 else f"every {every}. projection of {stack.shape[0]}"
    noise = "no noise" if settings.photons is None else f"{settings.photons:g} photons a ray"
    noise += f", electronic noise of {settings.electronic_noise:g}" if settings.electronic_noise else ""
    arc = f" over {settings.arc:g} degrees" if settings.arc is not None else ""
    return f"{settings.views} simulated projections ({settings.geometry}){arc}, {noise}"


def ct_lines(stack: Any) -> list[str]:
    """Describe CT images or projections by their headers."""
    lines = [f"{stack.path}", f"format: {stack.format}", f"slices: {len(stack)}"]
    if hasattr(stack, "units"):
        lines.append(f"image: {stack.shape[0]} x {stack.shape[1]} (y, x), {stack.units}")
        lines += [f"{name}: {value:g}" for name, value in stack.scanner.items()]
    else:
        scan = stack.geometry
        lines.append(f"sinogram: {stack.shape[0]} x {stack.shape[1]} (angle, detector), {scan.kind}")
        span = np.degrees(np.ptp(scan.angles))
        lines.append(f"angles: {span:.1f} degrees; detector elements every {scan.det_spacing_mm:.4g} mm")
        if scan.source_to_iso_mm is not None:
            distances = f"{scan.source_to_iso_mm:g} mm to the axis, {scan.source_to_detector_mm:g} mm to the detector"
            lines.append(f"source: {distances}")
        lines.append(f"photons: {'known' if stack.load_photons else 'not in the file'}")
        lines.append(f"reference image: {'yes' if stack.load_reference else 'no'}")
    if stack.pixel_spacing_mm is not None:
        lines.append("pixel: " + " x ".join(f"{length:.4g}" for length in stack.pixel_spacing_mm) + " mm (y, x)")
    if stack.positions_mm is not None and len(stack.positions_mm) > 1:
        lines.append(f"positions: {stack.positions_mm[0]:.5g} to {stack.positions_mm[-1]:.5g} mm")
    lines.extend(f"{name}: {short(value)}" for name, value in stack.attributes.items())
    return lines
