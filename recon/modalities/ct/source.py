"""CT files as a sequence of slices: images with simulated projections, or measured projections."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators.ct.photons import MU_WATER
from recon.errors import InputError
from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.files.readers import open_ct
from recon.modalities.ct.options import CT
from recon.modalities.ct.prepare import WINDOW, grid_of, prepare_image, prepare_projections, typical_attenuation
from recon.modalities.prepared import Prepared


class CTSource:
    """Images or projections of a file or folder, or as returned by the readers.

    Parameters
    ----------
    source : path, CTImages or CTProjections
    options : CT
        The pixel size applies to images without one, and to the image of measured projections. For projections without
        known lengths it is that of the detector.
    seed : int
        Seed of simulated noise.

    Raises
    ------
    InputError
        If the file cannot be read, or the options do not fit what it holds.
    """

    def __init__(self, source: str | os.PathLike[str] | CTImages | CTProjections, options: CT, seed: int = 0) -> None:
        reader, pixel_size = options.reader or {}, options.pixel_size
        self.recording = _opened(source, reader) if isinstance(source, str | os.PathLike) else source
        self.options, self.seed, self._of_image = options, seed, pixel_size
        self._last: tuple[int, np.ndarray] | None = None
        _check_options(self.recording, options)
        if isinstance(source, str | os.PathLike) and pixel_size is not None and not self._lengths_known:
            self.recording = _opened(source, {**reader, "pixel_size_mm": pixel_size})
        # A pixel size given for the detector does not apply to the image.
        recording = self.recording
        if isinstance(recording, CTProjections) and recording.attributes.get("pixel_size_from") == "option":
            self._of_image = None if pixel_size == recording.geometry.det_spacing_mm else pixel_size

    @property
    def config(self) -> dict[str, Any]:
        """The options, for provenance."""
        known = dataclasses.asdict(self.options)
        if isinstance(self.recording, CTProjections):  # the other options are for simulated projections
            return {name: known[name] for name in ("views_every", "arc", "model_error", "pixel_size", "reader")}
        return known

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.recording.path

    @property
    def single(self) -> bool:
        """Whether there is only one slice."""
        return len(self) == 1

    @property
    def geometry(self) -> dict[str, Any]:
        """Geometry stored with the result."""
        size, stack = self._spacing(), self.recording
        if size is None and isinstance(stack, CTProjections) and self._lengths_known:
            size = (grid_of(stack.geometry, stack.image_shape)[1],) * 2
        positions = stack.positions_mm
        step = float(np.median(np.diff(positions))) if positions is not None and len(positions) > 1 else 1.0
        known: dict[str, Any] = {"voxel_size_mm": None if size is None else (step, *size), "units": self.units}
        known |= {"window": WINDOW} if self.units == "HU" else {}
        affine = getattr(stack, "affine", None)
        return known if affine is None or self._of_image is not None else {**known, "affine": affine.tolist()}

    @property
    def _lengths_known(self) -> bool:
        """Whether lengths are mm, and not elements of a detector of unknown size."""
        return self.recording.attributes.get("pixel_size_from") != "unknown"

    @property
    def retrospective(self) -> bool:
        """Whether there may be a reference image: that of simulated projections, or one in the file."""
        return True

    def __len__(self) -> int:
        return len(self.recording)

    def prepare(self, index: int, device: torch.device | str) -> Prepared:
        """Return a slice that is ready to be sampled."""
        if isinstance(self.recording, CTImages):
            image = self._image(self.recording, index)
            y, x = self._spacing() or (1.0, 1.0)
            if abs(y - x) > 1e-3 * x:
                raise InputError(f"{self.path}: the pixels are {y:g} x {x:g} mm, expected square ones")
            # Each slice has separate noise; that of the first one is the seed's.
            mixed = np.random.SeedSequence(self.seed, spawn_key=(index,)).generate_state(1)[0]
            seed = int(mixed) if index else self.seed
            ready = prepare_image(image, x, self.options, self.recording.scanner, device, seed)
            if self._spacing() is None:
                ready.notes.append("the images do not state their pixel size: 1 mm was assumed; give pixel_size")
            return ready
        return self._projections(self.recording, index, device, self._water)

    def reference(self, index: int) -> np.ndarray | None:
        """Return the image of simulated projections, or the reference in a file of projections, in `units`."""
        if isinstance(self.recording, CTImages):
            return self._image(self.recording, index)
        image = self.recording.reference(index)
        shape, _ = grid_of(self.recording.geometry, self.recording.image_shape, (self._spacing() or (None,))[0])
        if image is None or image.shape != shape or self._of_image is not None:
            return None
        relative = image / (self._water or MU_WATER)
        return 1000.0 * relative - 1000.0 if self.units == "HU" else relative * (self._water or MU_WATER)

    def _image(self, images: CTImages, index: int) -> np.ndarray:
        """Return a slice in HU; the last one is kept, since preparation and reference both need it."""
        if self._last is None or self._last[0] != index:
            self._last = (index, _hounsfield(images, index))
        return self._last[1]

    def _projections(
        self, stack: CTProjections, index: int, device: torch.device | str, water: float | None
    ) -> Prepared:
        return prepare_projections(
            stack[index],
            stack.geometry,
            self.options,
            photons=stack.photons(index),
            image_shape=stack.image_shape,
            pixel_size=(self._spacing() or (None,))[0],
            water=water,
            hounsfield=self.units == "HU",
            device=device,
        )

    @property
    def units(self) -> str:
        """The unit of the results: HU, or 1/mm (1/element) for other than medical data without a water attenuation."""
        known = getattr(self.recording, "water_attenuation_per_mm", None) is not None
        if known or self.recording.format not in ("data-exchange", "geometry-toml"):
            return "HU"
        return "1/mm" if self._lengths_known else "1/element"

    @cached_property
    def _water(self) -> float | None:
        """The attenuation that the prior calls 1; for synchrotron data the typical one of the middle slice."""
        stack = self.recording
        assert isinstance(stack, CTProjections)
        if self.units == "HU":
            return stack.water_attenuation_per_mm
        return typical_attenuation(self._projections(stack, len(stack) // 2, "cpu", 1.0).images["fbp"])

    def _spacing(self) -> tuple[float, float] | None:
        """Pixel size (y, x) in mm: the user's, else that of the file."""
        if self._of_image is not None:
            return self._of_image, self._of_image
        return self.recording.pixel_spacing_mm


def _opened(path: str | os.PathLike[str], options: Mapping[str, Any]) -> CTImages | CTProjections:
    """Open a path with reader options, which may be mistyped."""
    try:
        return open_ct(path, **options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise InputError(f"{path}: the reader cannot use the options {dict(options)} ({error})") from error


def _check_options(stack: CTImages | CTProjections, options: CT) -> None:
    """Refuse options that do not apply to the contents of a file."""
    if isinstance(stack, CTProjections):
        if options.views is not None:
            raise InputError(f"{stack.path} holds measured projections: use views_every, not views")
        own = ("geometry", "photons", "electronic_noise")
        given = [name for name in own if getattr(options, name) != getattr(CT(), name)]
        if given:
            raise InputError(f"{stack.path} holds measured projections, which already define {' and '.join(given)}")
    elif options.views_every != 1:
        raise InputError(f"{stack.path} holds images: use views to simulate projections, not views_every")
    elif options.views is None:
        raise InputError(f"{stack.path} holds images: give the number of projections to simulate (views, --views 32)")


def _hounsfield(images: CTImages, index: int) -> np.ndarray:
    """Return a slice in HU; relative images (about [0, 1]) are assumed to show water at one half."""
    image = images[index]
    return image if images.units == "HU" else 2000 * image - 1000
