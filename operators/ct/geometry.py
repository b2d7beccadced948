"""Scanner geometries of two-dimensional CT as immutable values; engines only use the rays.

In world coordinates, x points right (along the columns) and y up (against the rows); the origin is the isocentre.
Lengths are in mm and angles in rad. At angle t the detector axis is ``u = (cos t, sin t)`` and the central ray runs
along ``d = (-sin t, cos t)``; the source of a fan is at ``-source_to_iso d``. This is ASTRA's convention.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from operators.errors import InputError, ShapeError

Numbers = Sequence[float] | np.ndarray | Tensor


@dataclass(frozen=True)
class Beam(ABC):
    """Base of all geometries: a list of angles, and a detector of equal elements on a line or an arc."""

    angles: Numbers
    det_count: int
    det_spacing: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a sinogram, (angle, detector)."""
        return len(self.angles), self.det_count

    @property
    def image_shift(self) -> tuple[float, float]:
        """Offset of the isocentre from the middle of the image array, (y, x) in pixels."""
        return _pair(getattr(self, "center_shift", 0.0))

    def coordinates(self) -> Tensor:
        """Position of each detector element along the detector in mm (arc length on an arc), in float64."""
        index = torch.arange(self.det_count, dtype=torch.float64)
        return (index - (self.det_count - 1) / 2) * self.det_spacing + getattr(self, "detector_offset", 0.0)

    def to_index(self, coordinate: Tensor) -> Tensor:
        """Convert a position along the detector in mm to a fractional element index."""
        offset = getattr(self, "detector_offset", 0.0)
        return (coordinate - offset) / self.det_spacing + (self.det_count - 1) / 2

    @abstractmethod
    def rays(self) -> tuple[Tensor, Tensor]:
        """Return a point on every ray and its unit direction, each (angle, detector, 2) as (x, y) in float64."""

    @abstractmethod
    def detector_index(self, angle: int, x: Tensor, y: Tensor) -> Tensor:
        """Return the fractional detector element that sees the points (x, y) in mm at the angle with this index."""

    def _axes(self) -> tuple[Tensor, Tensor]:
        """Return the detector axis u and the direction d of the central ray, (angle, 2)."""
        angles = torch.tensor(self.angles, dtype=torch.float64)
        cos, sin = torch.cos(angles), torch.sin(angles)
        return torch.stack((cos, sin), -1), torch.stack((-sin, cos), -1)

    def _check(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "angles", finite(self.angles, f"{name}(angles)"))
        if not len(self.angles):
            raise InputError(f"{name} needs at least one angle, got none")
        if isinstance(self.det_count, bool) or int(self.det_count) != self.det_count or self.det_count < 1:
            raise InputError(f"{name} needs det_count >= 1 detector elements, got {self.det_count}")
        object.__setattr__(self, "det_count", int(self.det_count))
        positive(self, "det_spacing")
        for field in ("detector_offset", "center_shift"):
            value = getattr(self, field)
            pair = _pair(value)
            if not all(math.isfinite(v) for v in pair):
                raise InputError(f"{name} needs a finite {field}, got {value}")
        object.__setattr__(self, "center_shift", _pair(getattr(self, "center_shift")))  # noqa: B009


@dataclass(frozen=True)
class ParallelBeam(Beam):
    """Parallel rays: element j at angle t measures the line of points p with <p, u> = s_j.

    ``s_j = (j - (det_count - 1) / 2) det_spacing + detector_offset``.

    Parameters
    ----------
    angles : sequence of float, array or tensor
        Any list of angles in rad.
    det_count : int
        Number of detector elements.
    det_spacing : float
        Distance between elements in mm.
    detector_offset : float
        Shift of the detector along its axis in mm; ``((det_count - 1) / 2 - c) det_spacing`` if the axis of rotation
        projects to element c.
    center_shift : float or (float, float)
        The isocentre is at index (n - 1) / 2 + center_shift of the image, (y, x) in pixels. Toolchains that rotate
        about n // 2 need 0.5 for even n.

    Raises
    ------
    InputError
        If there is no angle or no element, a length is not positive, or a value is not finite.
    """

    detector_offset: float = 0.0
    center_shift: float | tuple[float, float] = 0.0

    def __post_init__(self) -> None:
        self._check()

    def rays(self) -> tuple[Tensor, Tensor]:
        """Return points s_j u and directions d, each (angle, detector, 2) as (x, y) in mm."""
        u, d = self._axes()
        points = self.coordinates()[:, None] * u[:, None]
        return points, d[:, None].expand_as(points).contiguous()

    def detector_index(self, angle: int, x: Tensor, y: Tensor) -> Tensor:
        """Return the fractional element at which the points (x, y) project."""
        t = float(self.angles[angle])
        return self.to_index(x * math.cos(t) + y * math.sin(t))


@dataclass(frozen=True)
class FanBeam(Beam):
    """Rays from a point source to a detector on a line (flat) or on an arc about the source (curved, equiangular).

    Parameters
    ----------
    angles, det_count, det_spacing, detector_offset, center_shift
        As in `ParallelBeam`; `det_spacing` and `detector_offset` are measured at the detector (arc lengths when
        `curved`).
    source_to_iso : float
        Distance of the source from the isocentre in mm.
    source_to_detector : float
        Distance of the source from the middle of the detector in mm.
    curved : bool
        The detector is an arc of radius `source_to_detector` about the nominal source.
    source_angle_offset : float or sequence of float
        Flying focal spot: angle in rad added to that of the source, one for all or one per projection. The detector
        does not move.
    source_radius_offset : float or sequence of float
        Flying focal spot: mm added to the distance of the source from the isocentre.

    Raises
    ------
    InputError, ShapeError
        As in `ParallelBeam`; also if the detector is in front of the isocentre, the arc is more than half a circle,
        or an offset is neither one number nor one per angle.
    """

    source_to_iso: float
    source_to_detector: float
    curved: bool = False
    detector_offset: float = 0.0
    center_shift: float | tuple[float, float] = 0.0
    source_angle_offset: float | Numbers = 0.0
    source_radius_offset: float | Numbers = 0.0

    def __post_init__(self) -> None:
        self._check()
        positive(self, "source_to_iso")
        positive(self, "source_to_detector")
        if self.source_to_detector < self.source_to_iso:
            raise InputError(
                f"FanBeam needs source_to_detector >= source_to_iso, got {self.source_to_detector} mm and "
                f"{self.source_to_iso} mm"
            )
        if self.curved and float(self.fan_angles().abs().max()) >= math.pi / 2:
            raise InputError("FanBeam(curved=True) needs an arc of less than half a circle; is det_spacing in mm?")
        for field in ("source_angle_offset", "source_radius_offset"):
            value = finite(np.atleast_1d(np.asarray(getattr(self, field))), f"FanBeam({field})")
            if len(value) not in (1, len(self.angles)):
                raise ShapeError(f"FanBeam expected 1 or {len(self.angles)} values of {field}, got {len(value)}")
            object.__setattr__(self, field, value[0] if len(value) == 1 else value)
        if float(torch.linalg.vector_norm(self.sources(), dim=-1).min()) <= 0 or self._radius().min() <= 0:
            raise InputError("FanBeam: source_radius_offset moves the source into the isocentre")

    def fan_angles(self) -> Tensor:
        """Angle between each element's ray and the central ray, for the source at its nominal position."""
        s = self.coordinates() / self.source_to_detector
        return s if self.curved else torch.atan(s)

    def sources(self) -> Tensor:
        """Position of the source at each angle, (angle, 2) in mm, flying focal spot included."""
        offset = torch.as_tensor(np.asarray(self.source_angle_offset), dtype=torch.float64)
        t = torch.tensor(self.angles, dtype=torch.float64) + offset
        return self._radius()[:, None] * torch.stack((torch.sin(t), -torch.cos(t)), -1)

    def _radius(self) -> Tensor:
        offset = torch.as_tensor(np.asarray(self.source_radius_offset), dtype=torch.float64)
        return (self.source_to_iso + offset).expand(len(self.angles))

    def rays(self) -> tuple[Tensor, Tensor]:
        """Return the source and the direction to each element, each (angle, detector, 2) as (x, y) in mm."""
        u, d = (axis[:, None] for axis in self._axes())
        s = self.coordinates()[:, None]
        if self.curved:
            gamma = s / self.source_to_detector
            across, along = torch.sin(gamma) * self.source_to_detector, torch.cos(gamma) * self.source_to_detector
        else:
            across, along = s, torch.full_like(s, self.source_to_detector)
        detector = across * u + (along - self.source_to_iso) * d
        source = self.sources()[:, None].expand_as(detector)
        direction = detector - source
        return source.contiguous(), direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)

    def detector_index(self, angle: int, x: Tensor, y: Tensor) -> Tensor:
        """Return the fractional element hit by the ray from the source through (x, y)."""
        t = float(self.angles[angle])
        cos, sin = math.cos(t), math.sin(t)
        sx, sy = (float(value) for value in self.sources()[angle])
        # across: along the detector axis; along: from the nominal source to the detector
        across0, along0 = sx * cos + sy * sin, -sx * sin + sy * cos + self.source_to_iso
        across = x * cos + y * sin - across0
        along = -x * sin + y * cos + self.source_to_iso - along0
        if not self.curved:
            return self.to_index(across0 + across * (self.source_to_detector - along0) / along)
        # (across0 + k across)^2 + (along0 + k along)^2 = source_to_detector^2, the root in front of the source
        a = across**2 + along**2
        b = across0 * across + along0 * along
        c = across0**2 + along0**2 - self.source_to_detector**2
        k = (torch.sqrt(b**2 - a * c) - b) / a
        return self.to_index(torch.atan2(across0 + k * across, along0 + k * along) * self.source_to_detector)


def finite(values: Numbers, owner: str) -> tuple[float, ...]:
    """Return a flat tuple of finite numbers."""
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{owner} expected a list of numbers, got {values!r:.60}") from None
    if array.ndim != 1:
        raise ShapeError(f"{owner} expected a one-dimensional list, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{owner} contains values that are not finite")
    return tuple(array.tolist())


def positive(beam: object, field: str) -> None:
    """Convert a field of a geometry to a float, or refuse it if it is not a length."""
    value = float(getattr(beam, field))
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"{type(beam).__name__} needs {field} > 0 mm, got {value}")
    object.__setattr__(beam, field, value)


def _pair(value: float | tuple[float, float]) -> tuple[float, float]:
    """Return (y, x) from one number for both axes or from two."""
    pair = tuple(float(v) for v in np.atleast_1d(np.asarray(value, dtype=np.float64)))
    if len(pair) not in (1, 2):
        raise ShapeError(f"expected one number or (y, x), got {value}")
    return pair[0], pair[-1]
