"""Text descriptions of CT images and projections, and warnings about them."""

from __future__ import annotations

import numpy as np

from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.options import CT
from recon.modalities.protocols import Findings
from recon.modalities.recording import short


def summary(stack: CTImages | CTProjections) -> str:
    """Describe format and size in a few words."""
    kind = "image(s)" if isinstance(stack, CTImages) else "sinogram(s)"
    return f"{stack.format}, {len(stack)} {kind} of {stack.shape[0]} x {stack.shape[1]}"


def sampling(stack: CTImages | CTProjections, options: CT) -> str:
    """Describe the projections that are used."""
    if not isinstance(stack, CTImages):
        every = options.views_every
        return "all projections" if every == 1 else f"every {every}-th of {stack.shape[0]} projections"
    noise = "no noise" if options.photons is None else f"{options.photons:g} photons per ray"
    noise += f", electronic noise of {options.electronic_noise:g}" if options.electronic_noise else ""
    arc = f" over {options.arc:g} degrees" if options.arc is not None else ""
    return f"{options.views} simulated projections ({options.geometry}){arc}, {noise}"


def lines(stack: CTImages | CTProjections) -> list[str]:
    """Describe CT images or projections by their headers."""
    found = []
    if isinstance(stack, CTImages):
        found.append(f"image: {stack.shape[0]} x {stack.shape[1]} (y, x), {stack.units}")
        found += [f"{name}: {value:g}" for name, value in stack.scanner.items()]
    else:
        rays = stack.geometry
        found.append(f"sinogram: {stack.shape[0]} x {stack.shape[1]} (angle, detector), {rays.kind}")
        span = np.degrees(np.ptp(rays.angles))
        found.append(f"angles: {span:.1f} degrees; detector elements every {rays.det_spacing_mm:.4g} mm")
        if rays.source_to_iso_mm is not None:
            distances = f"{rays.source_to_iso_mm:g} mm to the axis, {rays.source_to_detector_mm:g} mm to the detector"
            found.append(f"source: {distances}")
        found.append(f"photons: {'known' if stack.load_photons else 'not in the file'}")
        found.append(f"reference image: {'yes' if stack.load_reference else 'no'}")
    if stack.pixel_spacing_mm is not None:
        found.append("pixel: " + " x ".join(f"{length:.4g}" for length in stack.pixel_spacing_mm) + " mm (y, x)")
    if stack.positions_mm is not None and len(stack.positions_mm) > 1:
        found.append(f"positions: {stack.positions_mm[0]:.5g} to {stack.positions_mm[-1]:.5g} mm")
    found.extend(f"{name}: {short(value)}" for name, value in stack.attributes.items())
    return found


def inspect(stack: CTImages | CTProjections) -> Findings:
    """Read every slice of CT images or projections and describe its values; damaged slices raise an InputError."""
    findings = Findings()
    for i, values in enumerate(stack):
        low, high = float(values.min()), float(values.max())
        findings.facts.append(f"slice {i}: values {low:.4g} to {high:.4g}")
        if isinstance(stack, CTImages) and stack.units == "HU" and not -1100 <= low <= 500:
            findings.warnings.append(f"slice {i}: the smallest value is {low:.4g}, air has -1000 HU; are these HU?")
        if isinstance(stack, CTProjections) and high > 15:
            findings.warnings.append(
                f"slice {i}: a line integral of {high:.3g} lets no photon pass; was the log taken?"
            )
    return findings
