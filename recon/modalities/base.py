"""The contract of a modality: all that engine, commands, reports, calibration and training need to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recon.modalities.protocols import Description, Reader, Source
from recon.options import Options
from samplers import Problem, Sampler

if TYPE_CHECKING:
    from recon.figure import Row
    from recon.images.augment import Drawn, Pool
    from recon.images.sources import Slice, SourceConfig
    from recon.posterior_samples import PosteriorSamples


#: The held-out chi2 of right runs stays below this, unless a modality says otherwise.
HELD_OUT_LIMIT = 2.0


@dataclass(frozen=True)
class Export:
    """A format for exporting results.

    Parameters
    ----------
    formats : tuple of str
        Formats of recordings whose results are exported by default.
    name : str
        Path of the output below the folder of the results; ``{stem}`` is that of the input.
    write : callable
        ``(posterior, path, recording)``.
    lacking : callable
        ``recording -> text``: why its results cannot be exported, empty if they can.
    """

    formats: tuple[str, ...]
    name: str
    write: Callable[[PosteriorSamples, Path, Any], None]
    lacking: Callable[[Any], str] = field(default=lambda recording: "")


@dataclass(frozen=True)
class Condition:
    """A property of an acquisition that must match a calibration.

    Parameters
    ----------
    value
        Plain value; for a number, [least, most] over the slices. None where it is not recorded.
    tolerance : float, optional
        Factor by which numbers may lie outside the range of the calibration images; anything else must be equal.
    optional : bool
        Whether a missing value matches any other.
    """

    value: Any
    tolerance: float | None = None
    optional: bool = False


def single_data(problem: Problem) -> Tensor:
    """Return a separate group for each datum."""
    return torch.arange(problem.y.numel(), device=problem.y.device).reshape(problem.y.shape)


def rows_of_data(problem: Problem) -> Tensor:
    """Return a group for each row of the data (an index of the last axis but one): a view, a receiving element."""
    return torch.arange(problem.y.shape[-2], device=problem.y.device)[:, None]


def spread(posterior: PosteriorSamples, name: str) -> list[float] | None:
    """Return the least and the largest value of a diagnostic over the slices of a result; None where not recorded."""
    measured = posterior.provenance.get("measured") or []
    values = [found.get(name) for found in measured if isinstance(found, Mapping)]
    known = [float(value) for value in values if value is not None]
    return [min(known), max(known)] if known else None


@dataclass(frozen=True)
class Display:
    """How images become the values that a page shows.

    Parameters
    ----------
    units : str
        Units of the values.
    window : (float, float)
        Values shown in black and in white.
    values : callable
        ``(image, level) -> values``, real.
    spread : callable
        ``(posterior of one slice, level) -> values``: the standard deviation.
    level : callable
        ``image or volume -> level``: what ``values`` relates the image to.
    lowest : float, optional
        Values are cut off at this one.
    note : str
        Meaning of the values, as a sentence.
    """

    units: str
    window: tuple[float, float]
    values: Callable[[np.ndarray, float], np.ndarray]
    spread: Callable[[PosteriorSamples, float], np.ndarray]
    level: Callable[[np.ndarray], float] = field(default=lambda image: 1.0)
    lowest: float | None = None
    note: str = ""


@dataclass(frozen=True)
class ReportStyle:
    """How a report presents the results of a modality.

    Parameters
    ----------
    plain : (str, str), optional
        Name and title of the reconstruction without a prior.
    values : str
        Meaning of the pixel values, as a sentence.
    mask : str
        Data that a sampling mask selects from.
    rows : callable, optional
        ``posterior -> rows`` of panels, for images that are not shown as gray values in their own units.
    display : callable, optional
        ``posterior -> Display``, for the same images in pages.
    """

    plain: tuple[str, str] | None = None
    values: str = "Pixel values are in the units of the input."
    mask: str = "the data"
    rows: Callable[[PosteriorSamples], list[Row]] | None = None
    display: Callable[[PosteriorSamples], Display] | None = None


@dataclass(frozen=True)
class FewSteps:
    """Coverage of the 90 % interval of the default sampler with few steps.

    Parameters
    ----------
    coverage : mapping
        Fraction of the pixels with signal, by the number of steps.
    enough : int
        Number of steps at which it covers about 90 %.
    measured_on : str
        Data on which this was measured.
    """

    coverage: Mapping[int, float]
    enough: int
    measured_on: str


@dataclass(frozen=True)
class TrainingImages:
    """How training images are made from files.

    Parameters
    ----------
    channels : int
        Real channels of the network: 2 for complex images, 1 for real ones.
    scale : str
        Meaning of the value 1, for the model card.
    load : callable
        ``(root, source, held_out) -> slices``.
    draw : callable
        ``(pools, rng, batch, size, untouched) -> Drawn``: random training images ``(batch, channels, size, size)``,
        a fraction of which (``untouched``) is not augmented.
    test_image : callable
        ``(slice, number) -> (y, x)``, complex or real: the image on which denoising is measured.
    unused : tuple of str
        Fields of `SourceConfig` that mean nothing for these images; setting one is an error.
    """

    channels: int
    scale: str
    load: Callable[[Path, SourceConfig, bool], list[Slice]]
    draw: Callable[[Sequence[Pool], np.random.Generator, int, int, float], Drawn]
    test_image: Callable[[Slice, int], Tensor]
    unused: tuple[str, ...] = ()

    def held_out(self, root: Path, source: SourceConfig, count: int = 5) -> list[Slice]:
        """Return ``count`` slices spread evenly over the held-out files of a source, in its first plane."""
        slices = [item for item in self.load(root, source, True) if item.plane == source.planes[0]]
        return [slices[int(k)] for k in np.linspace(0, len(slices) - 1, count + 2)[1:-1]]


@dataclass(frozen=True, eq=False)
class Modality:
    """A modality: everything that the rest of the engine needs to know about a kind of measurement.

    Parameters
    ----------
    name : str
        ``recon.modalities.<name>``; also its TOML table, and its name in results.
    title : str
        Name in messages, help and reports.
    options : type
        A frozen dataclass of `recon.options.Options`.
    readers : mapping
        Readers by format; third-party readers join through the entry points ``diffrecon.readers.<name>``.
    formats : str
        The supported formats in words, for the message about an unknown file.
    recordings : tuple of type
        Types that readers return and that users may pass instead of a path (including arrays).
    source : callable
        ``(path or recording, options, seed) -> Source``.
    prior : str
        Shipped prior for ``prior="auto"``.
    operators : tuple of type
        Operators of this modality: a `samplers.Problem` belongs to the modality of its operator.
    description : Description
    samplers : mapping
        Settings that differ from the engine's defaults, by sampler name.
    estimators : mapping
        Reconstructions without a learned prior that only this modality has, by name (`recon.estimators`).
    qualities : mapping
        What a quality other than "standard" changes of these settings, by sampler name and quality.
    axes : (str, str)
        Axes of an image, and of a stack of images.
    doubts : str
        Possible errors of the model, named when the data do not fit it.
    few_steps : FewSteps, optional
    groups : callable
        ``problem -> Tensor of int``, broadcastable to the data: groups of data that are measured together (lines,
        views, elements), some of which the held-out test withholds; negative for data that are never withheld.
    held_out_limit : float
        The held-out chi2 of right runs stays below this.
    undersampled_by : str
        Command-line options that undersample fully sampled data.
    conditions : callable
        ``posterior -> {name: Condition}``: the conditions that a calibration of intervals must match.
    report : ReportStyle
    exports : mapping of Export
    training : TrainingImages, optional
    citations : callable
        ``diagnostics -> BibTeX keys`` of the methods used to prepare a slice.
    hint : callable, optional
        ``path -> str``: describes a file that accompanies these recordings but cannot be reconstructed.
    auxiliary : callable, optional
        ``path -> lines``: describes such a file for ``recon info``; None for any other file.
    """

    name: str
    title: str
    options: type[Options]
    readers: Mapping[str, Reader]
    formats: str
    recordings: tuple[type, ...]
    source: Callable[[Any, Any, int], Source]
    prior: str
    operators: tuple[type, ...]
    description: Description
    samplers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    estimators: Mapping[str, Sampler] = field(default_factory=dict)
    qualities: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    axes: tuple[str, str] = ("y x", "slice y x")
    doubts: str = "its geometry"
    few_steps: FewSteps | None = None
    groups: Callable[[Problem], Tensor] = field(default=single_data)
    held_out_limit: float = HELD_OUT_LIMIT
    undersampled_by: str = ""
    conditions: Callable[[PosteriorSamples], Mapping[str, Condition]] = field(default=lambda posterior: {})
    report: ReportStyle = field(default_factory=ReportStyle)
    exports: Mapping[str, Export] = field(default_factory=dict)
    training: TrainingImages | None = None
    citations: Callable[[Mapping[str, Any]], list[str]] = field(default=lambda diagnostics: [])
    hint: Callable[[Path], str | None] = field(default=lambda path: None)
    auxiliary: Callable[[Path], list[str] | None] = field(default=lambda path: None)
