"""CT files as a sequence of slices: images, from which projections are simulated, or measured projections."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch

from recon.errors import InputError
from recon.modalities.ct.data import CTImages, CTProjections
from recon.modalities.ct.files.readers import is_ct, open_ct
from recon.modalities.ct.options import Scan
from recon.modalities.ct.prepare import (
    WINDOW,
    Prepared,
    grid_of,
    prepare_image,
    prepare_projections,
    typical_attenuation,
)
from recon.modalities.selection import reader_options


def is_ct_source(source: Any) -> TypeGuard[str | os.PathLike[str] | CTImages | CTProjections]:
    """Tell whether something is CT data, or the path of such data."""
    return isinstance(source, CTImages | CTProjections) or (isinstance(source, str | os.PathLike) and is_ct(source))


class CTSource:
    """Images or projections of a file, a folder, or as the readers give them.

    Parameters
    ----------
    source : path, CTImages or CTProjections
    scan : Scan
        How to simulate projections of images, or thin out measured ones.
    pixel_size : float, optional
        In mm; for images without one, and for the image of measured projections. Where a file of projections does not
        know its lengths, that of the detector.
    reader : str or mapping, optional
        Options of the reader of a path, see `recon.io.open_ct`, such as ``"series=3"``.

    Raises
    ------
    InputError
        If the file cannot be read, or the scan does not fit what it holds.
    """

    modality = "ct"

    def __init__(
        self,
        source: str | os.PathLike[str] | CTImages | CTProjections,
        scan: Scan,
        pixel_size: float | None = None,
        reader: str | Mapping[str, Any] | None = None,
    ) -> None:
        options = reader_options(reader)
        self.stack = _opened(source, options) if isinstance(source, str | os.PathLike) else source
        self.reader = options
        self.scan, self.pixel_size, self._of_image = scan, pixel_size, pixel_size
        if pixel_size is not None and not 0 < pixel_size < np.inf:
            raise InputError(f"pixel_size: expected a length in mm above 0, came {pixel_size}")
        _check_scan(self.stack, scan)
        if isinstance(source, str | os.PathLike) and pixel_size is not None and not self._lengths_known:
            self.stack = _opened(source, {**options, "pixel_size_mm": pixel_size})
        # Given for the detector, it is not that of the image, too.
        if isinstance(self.stack, CTProjections) and self.stack.attributes.get("pixel_size_from") == "option":
            self._of_image = None if pixel_size == self.stack.geometry.det_spacing_mm else pixel_size

    @property
    def config(self) -> dict[str, Any]:
        """The settings, for provenance."""
        scan = dataclasses.asdict(self.scan)
        if isinstance(self.stack, CTProjections):
            scan = {name: scan[name] for name in ("views_every", "arc")}  # the others are of simulated projections
        return {**scan, "pixel_size": self.pixel_size, "reader": self.reader}

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.stack.path

    @property
    def single(self) -> bool:
        """Whether there is only one slice."""
        return len(self) == 1

    @property
    def geometry(self) -> dict[str, Any]:
        """What a result knows of its geometry."""
        size, stack = self._spacing(), self.stack
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
        return self.stack.attributes.get("pixel_size_from") != "unknown"

    def __len__(self) -> int:
        return len(self.stack)

    def prepare(self, index: int, device: torch.device | str) -> tuple[Prepared, np.ndarray | None]:
        """Return a slice that is ready to be sampled, and its reference in HU where there is one."""
        if isinstance(self.stack, CTImages):
            image = _hounsfield(self.stack, index)
            y, x = self._spacing() or (1.0, 1.0)
            if abs(y - x) > 1e-3 * x:
                raise InputError(f"{self.path}: the pixels are {y:g} x {x:g} mm, expected square ones")
            # Each slice has noise of its own; that of the first one is the seed's.
            mixed = np.random.SeedSequence(self.scan.seed, spawn_key=(index,)).generate_state(1)[0]
            scan = dataclasses.replace(self.scan, seed=int(mixed)) if index else self.scan
            ready = prepare_image(image, x, scan, self.stack.scanner, device)
            if self._spacing() is None:
                ready.notes.append(
                    "the images do not say how large their pixels are: 1 mm was taken; say it by pixel_size"
                )
            return ready, image
        ready = self._projections(self.stack, index, device, self._water)
        reference = self.stack.reference(index)
        if reference is None or reference.shape != tuple(ready.fbp.shape) or self._of_image is not None:
            return ready, None
        return ready, ready.problem.scale * reference / ready.water + ready.problem.offset

    def _projections(
        self, stack: CTProjections, index: int, device: torch.device | str, water: float | None
    ) -> Prepared:
        return prepare_projections(
            stack[index],
            stack.geometry,
            self.scan,
            photons=stack.photons(index),
            image_shape=stack.image_shape,
            pixel_size=(self._spacing() or (None,))[0],
            water=water,
            hounsfield=self.units == "HU",
            device=device,
        )

    @property
    def units(self) -> str:
        """The unit of the results: HU, or what attenuates in data of a synchrotron, where water is not known."""
        if self.stack.format != "data-exchange":
            return "HU"
        return "1/mm" if self._lengths_known else "1/element"

    @cached_property
    def _water(self) -> float | None:
        """The attenuation that is one for the prior; of a synchrotron's data that of most of the middle slice."""
        stack = self.stack
        assert isinstance(stack, CTProjections)
        if self.units == "HU":
            return stack.water_attenuation_per_mm
        return typical_attenuation(self._projections(stack, len(stack) // 2, "cpu", 1.0).fbp)

    def _spacing(self) -> tuple[float, float] | None:
        """Pixel size (y, x) in mm: that of the user, else that of the file."""
        if self._of_image is not None:
            return self._of_image, self._of_image
        return self.stack.pixel_spacing_mm


def _opened(path: str | os.PathLike[str], options: Mapping[str, Any]) -> CTImages | CTProjections:
    """Open a path with options that a user may have mistyped."""
    try:
        return open_ct(path, **options)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise InputError(f"{path}: the reader cannot use the options {dict(options)} ({error})") from error


def _check_scan(stack: CTImages | CTProjections, scan: Scan) -> None:
    """Refuse settings that have no meaning for what a file holds."""
    if isinstance(stack, CTProjections):
        if scan.views is not None:
            raise InputError(f"{stack.path} holds measured projections: use views_every, not views")
        own = ("geometry", "photons", "electronic_noise")
        given = [name for name in own if getattr(scan, name) != getattr(Scan(), name)]
        if given:
            raise InputError(f"{stack.path} holds measured projections, which have their own {' and '.join(given)}")
    elif scan.views_every != 1:
        raise InputError(f"{stack.path} holds images: use views to simulate projections, not views_every")
    elif scan.views is None:
        raise InputError(f"{stack.path} holds images: say how many projections to simulate (views, --views 32)")


def _hounsfield(images: CTImages, index: int) -> np.ndarray:
    """Return a slice in HU; relative images (about [0, 1]) are taken to show water at one half."""
    image = images[index]
    return image if images.units == "HU" else 2000 * image - 1000
