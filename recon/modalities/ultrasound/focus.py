"""The sound speed at which the echoes are in focus, found in the channel data themselves.

Images of a few plane waves are formed at several trial speeds, at the same echo times. The sharpness of an image is the
mean fourth power of the compounded image over the squared mean energy of the single waves. It has its maximum at the
right speed for two reasons: the waves add in phase there, speckle included, and echoes of single scatterers, edges and
layers are sharp. With one wave only the latter remains: developed speckle of one plane wave is equally sharp at any
speed. The peak is therefore compared with the fluctuations of the sharpness over the other speeds, in many blocks.

Sources: Nock, Trahey & Smith, J. Acoust. Soc. Am. 85 (1989) 1819 (speckle brightness); Anderson & Trahey, J. Acoust.
Soc. Am. 104 (1998) 3099 (sound speed from channel data).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from operators.ultrasound.beamform import beamform
from operators.ultrasound.geometry import Grid
from recon.modalities.ultrasound.data import PlaneWaveData
from recon.modalities.ultrasound.options import Ultrasound
from recon.modalities.ultrasound.selection import band, choose

#: Number of plane waves, spread over all of them.
WAVES = 3
#: Trial speeds relative to the stated one. With waves 20 degrees apart, the peak is about 5 % wide.
FACTORS = np.linspace(0.88, 1.12, 13)
#: Receive f-number: the curvature of an echo grows with the square of the aperture.
_F_NUMBER = 1.0
#: Spacing of points in wavelengths (rows, columns), and the most points along an axis.
_SPACING, _MOST = (0.4, 0.5), 200
#: Least number of points along the side of a block, most blocks along an axis, and fewest blocks in all.
_SIDE, _SPLIT, _FEWEST = 8, 6, 6
#: Speeds within this distance of the peak do not count as its surroundings.
_NEAR = 0.035
#: Least height of the peak above its surroundings, in standard errors; none of 75 cases of speckle of one wave had it.
_LEAST_HEIGHT = 5.0
#: Largest standard error of a speed that is told, relative to the stated one.
_MOST_ERROR = 0.015
#: Relative errors of the speed up to this one are tolerated; beyond, by this many standard errors.
_TOLERATED, _SIGMAS = 0.015, 2.0


@dataclass(frozen=True)
class Focus:
    """The sound speed of sharpest focus.

    Attributes
    ----------
    speed, error : float
        The speed and its standard error in m/s.
    stated : float
        The speed of the geometry in m/s.
    """

    speed: float
    error: float
    stated: float

    def doubts(self) -> list[str]:
        """Return why the stated speed is in doubt, as a list of one line or none."""
        off = self.stated / self.speed - 1
        if abs(off) <= _TOLERATED + _SIGMAS * self.error / self.speed:
            return []
        return [
            f"the echoes are most coherent at a sound speed of {self.speed:.0f} +- {_SIGMAS * self.error:.0f} m/s "
            f"({self.stated:.0f} is used): depths are about {abs(off):.1%} too {'large' if off > 0 else 'small'} and "
            f"points blurred in width; give the right speed (--sound-speed {self.speed:.0f}), or time zero "
            "(--time-shift) if that is wrong"
        ]


def find_focus(data: PlaneWaveData, index: int, options: Ultrasound, region: Grid, seed: int = 0) -> Focus | None:
    """Return the sound speed at which a region is in focus; None if the data do not tell.

    Parameters
    ----------
    data : PlaneWaveData
        The channel data of the file. Up to three plane waves are used, also where fewer are reconstructed.
    index : int
        Number of the frame.
    options : Ultrasound
        Elements, sound speed, time zero.
    region : Grid
        Grid of the image.
    seed : int
        Seed of a sparse array.
    """
    waves = min(WAVES, data.shape[0])
    used = choose(replace(options, angles=waves), data, seed)
    width = band(options, used.geometry)
    used = used if width is None else used.to_iq(bandwidth=width)
    stated = used.geometry.sound_speed
    points = Grid(
        _coarse(region.x, _SPACING[1] * used.geometry.wavelength),
        _coarse(region.z, _SPACING[0] * used.geometry.wavelength),
    )
    peak = sharpest(sharpness(used, index, points), FACTORS)
    if peak is None:
        return None
    return Focus(peak[0] * stated, peak[1] * stated, stated)


def sharpness(data: PlaneWaveData, index: int, points: Grid) -> np.ndarray:
    """Return the log sharpness of blocks of the image at every trial speed, ``(factor, block)``.

    Blocks without data at some speed are left out. Depths scale with the speed, so that echoes keep their time.
    """
    values, geometry = torch.from_numpy(data[index]), data.geometry
    found = []
    for factor in FACTORS:
        trial = replace(geometry, sound_speed=geometry.sound_speed * float(factor))
        grid = Grid(points.x, points.z * factor)
        images = [
            beamform(values[k : k + 1], grid, geometry=trial.select(angles=[k]), f_number=_F_NUMBER)
            for k in range(len(geometry.angles))
        ]
        stack = torch.stack(images).numpy()
        power = np.abs(stack.mean(0)) ** 2
        energy = (np.abs(stack) ** 2).mean(0)
        found.append((_block_means(power**2), _block_means(energy)))
    fourth, energy = np.array(found, np.float64).transpose(1, 0, 2)
    whole = (fourth > 0).all(0) & (energy > 0).all(0)
    return np.log(fourth[:, whole]) - 2 * np.log(energy[:, whole])


def sharpest(values: np.ndarray, factors: np.ndarray) -> tuple[float, float] | None:
    """Return the factor of greatest sharpness and its standard error, from values ``(factor, block)``.

    None if no peak well inside the range rises above the fluctuations, or its place is too uncertain.
    """
    count = values.shape[1]
    if count < _FEWEST:
        return None
    mean = values.mean(1)
    i = int(mean.argmax())
    far = np.abs(factors - factors[i]) > _NEAR
    sides = [far & (factors < factors[i]), far & (factors > factors[i])]
    if not all(side.any() for side in sides):
        return None
    height = min(mean[i] - mean[side].mean() for side in sides)
    # What blocks do not have in common; their median, since a wire changes the sharpness of few blocks, but by much.
    fluctuation = float(np.median((values - mean[:, None])[far].std(0)))
    if height * math.sqrt(count) < _LEAST_HEIGHT * fluctuation:
        return None
    step = factors[1] - factors[0]
    slope = (values[i + 1] - values[i - 1]) / (2 * step)
    curvature = (2 * mean[i] - mean[i + 1] - mean[i - 1]) / step**2
    # The blocks are independent estimates of the slope at the peak, which is 0 on average.
    error = float(slope.std(ddof=1)) / math.sqrt(count) / curvature
    return (float(factors[i] + slope.mean() / curvature), error) if error < _MOST_ERROR else None


def _block_means(image: np.ndarray) -> np.ndarray:
    """Return the means of blocks of an image, ``(block,)``."""
    counts = [min(max(length // _SIDE, 1), _SPLIT) for length in image.shape]
    rows, columns = (np.arange(count) * length // count for count, length in zip(counts, image.shape, strict=True))
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff(rows, append=image.shape[0]), np.diff(columns, append=image.shape[1]))
    return (sums / sizes).ravel()


def _coarse(axis: np.ndarray, step: float) -> np.ndarray:
    """Return points over the extent of an axis, ``step`` apart or farther."""
    length = float(axis[-1] - axis[0])
    return np.linspace(axis[0], axis[-1], min(max(round(length / step) + 1, 2), _MOST))
