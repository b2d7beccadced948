"""Delays in plain torch, on any device: weights and indices are recomputed in chunks and not stored.

On a CPU the scatter adds in the order of the pixels. On a GPU the samples of a row are sorted and summed as segments,
without atomic sums, so that results are reproducible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from operators.ultrasound.delays.plan import DelayPlan

EDGE = 1 + 1e-5  # an element on the edge of the aperture counts as inside in every precision
_CPU_PAIRS, _GPU_PAIRS = 1 << 19, 1 << 24  # pairs of pixel and row per chunk, all images of a batch together


class Pairs(NamedTuple):
    """Positions and weights of all pixels in some rows (wave and element)."""

    rows: slice  # which rows, (angle, element) flattened
    start: Tensor  # (row, pixel) integer: sample of tap 0
    fraction: Tensor  # (row, pixel)
    weight: Tensor  # (row, pixel) complex: weight and phase of the carrier


class TorchDelays:
    """Scatter and gather of `plan` in torch."""

    def __init__(self, plan: DelayPlan, max_bytes: int = 0) -> None:
        self.plan = plan

    def scatter(self, image: Tensor) -> Tensor:
        """Spread images (batch, z, x) into rows (batch, angle, element, length)."""
        plan, flat = self.plan, image.reshape(len(image), -1)
        waves, elements = plan.rows
        out = flat.new_zeros(len(flat), waves * elements, plan.length)
        for pairs in pairs_of(plan, flat):
            values = flat[:, None] * pairs.weight
            for place, tap, phase in taps_of(plan, pairs):
                inside = (place >= 0) & (place < plan.length)
                place = torch.where(inside, place, plan.length)
                out[:, pairs.rows] += phase * add_up(values * (tap * inside), place, plan.length)
        return out.reshape(len(flat), waves, elements, plan.length)

    def gather(self, data: Tensor) -> Tensor:
        """Sum rows (batch, angle, element, length) into images (batch, z, x); the adjoint of `scatter`."""
        plan, flat = self.plan, data.reshape(len(data), -1, self.plan.length)
        out = flat.new_zeros(len(flat), len(plan.z) * len(plan.x))
        for pairs in pairs_of(plan, flat):
            out += (sampled(plan, flat, pairs) * pairs.weight.conj()).sum(1)
        return out.reshape(len(flat), len(plan.z), len(plan.x))


def sampled(plan: DelayPlan, flat: Tensor, pairs: Pairs) -> Tensor:
    """Interpolate rows (batch, row, length) at the positions of the pixels, without weight and carrier."""
    value = flat.new_zeros(len(flat), *pairs.start.shape)
    for place, tap, phase in taps_of(plan, pairs):
        inside = (place >= 0) & (place < plan.length)
        index = place.clamp(0, plan.length - 1).expand(len(flat), *place.shape)
        value += flat[:, pairs.rows].gather(2, index) * (tap * inside * phase.conjugate())
    return value


def pairs_of(
    plan: DelayPlan, like: Tensor, z_rows: slice = slice(None), waves: Iterable[int] | None = None
) -> Iterator[Pairs]:
    """Yield chunks of rows and all pixels of some image rows, in the precision and on the device of `like`."""
    at, real = placed(plan, like), like.real.dtype
    x, z = at.x.to(real), at.z[z_rows, None].to(real)
    elements = plan.rows[1]
    room = _CPU_PAIRS if like.device.type == "cpu" else _GPU_PAIRS
    step = max(room // (max(len(like), 1) * z.shape[0] * len(x)), 1)
    for wave in range(plan.rows[0]) if waves is None else waves:
        way = at.transmit_x[wave].to(real) + at.transmit_z[wave, z_rows, None].to(real)
        strength = None if at.transmit_weights is None else at.transmit_weights[wave, z_rows].to(real)
        for first in range(0, elements, step):
            some = slice(first, min(first + step, elements))
            distance, weight = receive(plan, x, z, at.elements[some].to(real), at.element_weights[some].to(real))
            position = distance + way
            weight = weight if strength is None else weight * strength
            whole = torch.floor(position)
            fraction = (position - whole).flatten(1)
            phase = torch.polar(weight.flatten(1), -plan.theta * fraction)
            rows = slice(wave * elements + some.start, wave * elements + some.stop)
            yield Pairs(rows, whole.flatten(1).long(), fraction, phase)


class Placed(NamedTuple):
    """The arrays of a plan as tensors: of the data's precision on a GPU, float64 and shared on a CPU."""

    x: Tensor
    z: Tensor
    elements: Tensor
    element_weights: Tensor
    transmit_x: Tensor
    transmit_z: Tensor
    transmit_weights: Tensor | None


_PLACED: WeakKeyDictionary[DelayPlan, dict[tuple[torch.device, torch.dtype], Placed]] = WeakKeyDictionary()


def placed(plan: DelayPlan, like: Tensor) -> Placed:
    """Return the arrays of a plan on the device of ``like``, to which they are copied once."""
    real = torch.float64 if like.device.type == "cpu" else like.real.dtype
    known = _PLACED.setdefault(plan, {})
    if (like.device, real) not in known:
        there = {
            name: None if value is None else torch.as_tensor(value, dtype=real, device=like.device)
            for name, value in ((name, getattr(plan, name)) for name in Placed._fields)
        }
        known[like.device, real] = Placed(**there)  # type: ignore[arg-type]
    return known[like.device, real]


def receive(plan: DelayPlan, x: Tensor, z: Tensor, elements: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance in samples and the receive weight, both (element, z, x)."""
    across, down = x - elements[:, 0, None, None], z - elements[:, 1, None, None]
    squared = across**2 + down**2 + elements[:, 2, None, None] ** 2
    distance = squared.sqrt()
    far = distance.clamp(min=1.0)
    weight = weights[:, None, None].expand_as(distance)
    if plan.directivity is not None:
        weight = weight * _horner(plan.directivity, (across / far) ** 2) * (down.clamp(min=0) / far)
    if plan.spreading:
        weight = weight * (plan.reference / far) ** plan.spreading
    if plan.attenuation:
        weight = weight * torch.exp(-plan.attenuation * distance)
    if plan.f_number:
        reach = down.clamp(min=0)
        if plan.window is not None:
            ratio = 2 * plan.f_number * across / reach.clamp(min=1e-6)
            weight = weight * _horner(plan.window, (ratio**2).clamp(max=1.0))
        weight = weight * (across.abs() * (2 * plan.f_number) <= reach * EDGE)
    return distance, weight


def taps_of(plan: DelayPlan, pairs: Pairs) -> Iterator[tuple[Tensor, Tensor, complex]]:
    """Yield sample, weight and phase of every tap."""
    for m, coefficients in enumerate(plan.taps):
        offset = plan.first + m
        angle = plan.theta * offset
        yield pairs.start + offset, _horner(coefficients, pairs.fraction), complex(np.cos(angle), np.sin(angle))


def add_up(values: Tensor, place: Tensor, length: int) -> Tensor:
    """Sum values (batch, row, pixel) at places (row, pixel) into (batch, row, length), except places = length."""
    if values.device.type == "cpu":
        parts = torch.view_as_real(values).movedim(-1, 0)
        index = place.expand(*parts.shape)
        sums = parts.new_zeros(*parts.shape[:-1], length + 1).scatter_add_(-1, index, parts)
        return torch.complex(sums[0, ..., :length], sums[1, ..., :length])
    return add_sorted(values, place, length)


def add_sorted(values: Tensor, place: Tensor, length: int) -> Tensor:
    """Compute the same as `add_up` by sorting: differences of running sums, in double precision."""
    ordered, order = torch.sort(place, dim=-1, stable=True)
    edges = torch.arange(length + 1, device=place.device).expand(len(place), -1).contiguous()
    ends = torch.searchsorted(ordered.contiguous(), edges)
    running = values.to(torch.complex128).gather(-1, order.expand(values.shape)).cumsum(-1)
    running = torch.nn.functional.pad(torch.view_as_real(running), (0, 0, 1, 0))
    sums = torch.view_as_complex(running.contiguous()).gather(-1, ends.expand(*values.shape[:-1], -1))
    return sums.diff(dim=-1).to(values.dtype)


def _horner(coefficients: np.ndarray, t: Tensor) -> Tensor:
    value = torch.full_like(t, float(coefficients[-1]))
    for c in coefficients[-2::-1]:
        value = value * t + float(c)
    return value
