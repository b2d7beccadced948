# %% [markdown]
# # One plane wave, and what it leaves open
#
# A plane wave insonifies the whole image at once: thousands of frames per second, and poor ones, because the transmitted
# beam is not focused. Delay and sum then fills every cyst with side lobes. This notebook starts from the raw channel
# data of one wave, reconstructs the image with a trained prior and with a plain Gaussian one, and looks at where the
# samples disagree.
#
# It needs no data of yours: the echoes are simulated here, scatterer by scatterer. To use your own, set `data` to
# `recon.io.open_ultrasound(path)` of a PICMUS, UFF, zea or MUST file.
#
# **Research only.** Nothing here may guide a diagnosis.

# %%
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import erfc
from scipy.stats import spearmanr

import recon
from operators import Grid, PlaneWaveGeometry, beamform
from operators.ultrasound.pulse import gaussian_pulse
from recon.io import PlaneWaveData
from recon.modalities.ultrasound.image_metrics import cnr, contrast_regions, fwhm

small = os.environ.get("DIFFRECON_NOTEBOOK_SIZE") == "small"  # the test-suite runs a quick version
elements, bottom, steps, samples = (16, 8e-3, 4, 3) if small else (32, 15e-3, None, 6)
prior = os.environ.get("DIFFRECON_NOTEBOOK_PRIOR_US", "ultrasound")
plt.rcParams.update({"image.cmap": "gray", "figure.dpi": 60, "font.size": 8})

# %% [markdown]
# ## 1. Scatterers and their echoes
#
# Tissue is full of scatterers much smaller than the wavelength of 0.3 mm. Here: speckle with an empty cyst, and two
# bright wires. Each echo is an impulse at its own time, on a time axis much finer than that of the recorded data; it is
# convolved with the pulse, and noise of 3 % (rms) is added. Seven waves between -12 and 12 degrees; the reconstruction will
# get the middle one. The edge of a wave is not sharp: some of the echoes come from outside of the image.

# %%
pitch, center, rate, speed, finer = 0.3e-3, 5.208e6, 20.832e6, 1540.0, 8
rng = np.random.default_rng(0)
x = (np.arange(elements) - (elements - 1) / 2) * pitch
half = x[-1]
cyst = (0.0, 0.62 * bottom, 0.28 * bottom)  # x, z, diameter
wires = [(-0.5 * half, 0.42 * bottom), (0.5 * half, 0.42 * bottom)]
count = int(60e6 * 3 * half * bottom)  # seventy per square millimetre
at = np.stack([rng.uniform(-1.5 * half, 1.5 * half, count), rng.uniform(0.25 * bottom, 1.1 * bottom, count)], axis=1)
at = at[np.hypot(at[:, 0] - cyst[0], at[:, 1] - cyst[1]) > cyst[2] / 2]
strength = np.concatenate([rng.standard_normal(len(at)), [40.0] * len(wires)])
at = np.concatenate([at, wires])

geometry = PlaneWaveGeometry(
    np.stack([x, 0 * x], axis=1),
    np.deg2rad(np.linspace(-12, 12, 7)),
    rate,
    center,
    speed,
    int(2.3 * bottom / speed * rate),
    element_width=0.27e-3,
)


def echoes(geometry: PlaneWaveGeometry) -> np.ndarray:
    """Return channel data ``(angle, element, sample)``."""
    pulse = gaussian_pulse(center, 0.6, finer * rate).real
    length = finer * geometry.sample_count
    found = np.empty(geometry.shape)
    for e, position in enumerate(x):
        way = np.hypot(at[:, 0] - position, at[:, 1])
        sine = (at[:, 0] - position) / way
        weight = strength * np.sinc(0.27e-3 / geometry.wavelength * sine) * (at[:, 1] / way) / np.sqrt(way / 1e-2)
        for k, angle in enumerate(geometry.angles):
            aside = np.abs(at[:, 0] - at[:, 1] * np.tan(angle)) - half
            hit = 0.5 * erfc(aside / np.sqrt(geometry.wavelength * at[:, 1]))
            time = (at[:, 0] * np.sin(angle) + at[:, 1] * np.cos(angle) + way) / speed
            sample = np.rint(time * rate * finer).astype(int)
            impulses = np.bincount(sample[sample < length], (hit * weight)[sample < length], length)
            found[k, e] = np.convolve(impulses, pulse, mode="same")[::finer]
    return found


values = echoes(geometry)
values = (values + 0.03 * values.std() * rng.standard_normal(values.shape)).astype(np.float32)
data = PlaneWaveData(Path("simulated"), "simulated", 1, lambda frame: values, geometry)
fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
axes[0].scatter(at[:, 0] * 1e3, at[:, 1] * 1e3, s=0.4, c=np.abs(strength), cmap="gray", vmin=-1, vmax=2)
axes[0].plot(*1e3 * np.array(wires).T, "o", mfc="none", color="tab:orange", ms=9)
title = f"{len(at)} scatterers (circles: the wires)"
axes[0].set(title=title, xlabel="x, mm", ylabel="depth, mm", aspect="equal", facecolor="black")
axes[0].invert_yaxis()
shown = axes[1].imshow(values[3].T, aspect="auto", vmin=-3 * values.std(), vmax=3 * values.std())
axes[1].set(title="channel data of the wave straight down", xlabel="element", ylabel="time sample")
fig.colorbar(shown, ax=axes[1], label="a.u.", extend="both")
print(f"{values.shape[0]} waves x {values.shape[1]} elements x {values.shape[2]} samples")

# %% [markdown]
# ## 2. Reconstruct from one wave
#
# Noise level, pulse and scale come from the data. The trained prior knows speckle, cysts, layers and points, all of
# them simulated; the Gaussian one takes pixels as independent, with a strength that follows delay and sum. Each image is shown
# in dB below its own white (its 0.999 quantile).

# %%
part = {"angles": 1, "depth": (0.28 * bottom * 1e3, bottom * 1e3), "samples": samples, "progress": False}
trained = recon.reconstruct(data, prior=prior, steps=steps, **part)
plain = recon.reconstruct(data, prior="gaussian", sampler="exact", **part)
print("verdict, trained prior:", trained.verdict)
print("verdict, Gaussian prior:", plain.verdict)
_, dz, dx = trained.geometry["voxel_size_mm"]
_, top, left = trained.geometry["origin_mm"]
rows, columns = trained.mean.shape
grid = Grid((left + dx * np.arange(columns)) * 1e-3, (top + dz * np.arange(rows)) * 1e-3)


def beamformed(waves: int, method: str) -> np.ndarray:
    used = data.undersample(angles=waves)
    return beamform(torch.from_numpy(used[0]), grid, method, geometry=used.geometry).numpy()


images = {
    "delay and sum, 1 wave": beamformed(1, "das"),
    "coherence factor, 1 wave": beamformed(1, "cf"),
    "minimum variance, 1 wave": beamformed(1, "mv"),
    "delay and sum, 7 waves": beamformed(7, "das"),
    "Gaussian prior, 1 wave": plain.mean,
    "trained prior, 1 wave": trained.mean,
}


def level(image: np.ndarray, white: float | None = None) -> np.ndarray:
    white = np.quantile(np.abs(image), 0.999) if white is None else white
    return 20 * np.log10(np.abs(image) / white + 1e-6)


extent = (left, left + dx * columns, top + dz * rows, top)
fig, axes = plt.subplots(1, 6, figsize=(14.5, 3.4), layout="constrained")
for axis, (name, image) in zip(axes, images.items(), strict=True):
    shown = axis.imshow(level(image), vmin=-60, vmax=0, extent=extent)
    axis.set(title=name, xlabel="x, mm")
axes[0].set_ylabel("depth, mm")
fig.colorbar(shown, ax=axes, shrink=0.7, pad=0.005, label="level, dB");

# %% [markdown]
# What the PICMUS challenge measures: the contrast-to-noise ratio of the cyst, on the image in dB, and the width of the
# wires at -6 dB.

# %%
inside, outside = contrast_regions(grid.x, grid.z, cyst[:2], cyst[2], 0.3e-3)
for name, image in images.items():
    width = 1e3 * np.mean([fwhm(np.abs(image), grid.x, grid.z, wire).lateral for wire in wires])
    print(f"{name:26s} CNR {cnr(np.abs(image), inside, outside):5.1f} dB, lateral width {width:.2f} mm")

# %% [markdown]
# ## 3. Samples
#
# Each of them explains the data. About half of what makes up a speckle pattern of full resolution is not in the echoes of
# one wave: it differs from sample to sample, and the mean leaves it out. (For the std in dB, levels below -60 dB count as
# -60 dB.)

# %%
white = np.quantile(np.abs(trained.mean), 0.999)
fig, axes = plt.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
for k, axis in enumerate(axes[:3]):
    grey = axis.imshow(level(trained.samples[k], white), vmin=-60, vmax=0, extent=extent)
    axis.set_title(f"sample {k + 1}")
spread = np.maximum(level(trained.samples, white), -60).std(axis=0, ddof=1)
shown = axes[3].imshow(spread, cmap="viridis", vmin=0, vmax=12, extent=extent)
axes[3].set_title("std of the level of the samples")
fig.colorbar(grey, ax=axes[:3], shrink=0.8, label="level, dB")
fig.colorbar(shown, ax=axes[3], shrink=0.8, label="std, dB", extend="max")
axes[0].set_ylabel("depth, mm")
for axis in axes:
    axis.set_xlabel("x, mm")
differs = np.sum(trained.std**2) / np.mean(np.sum(np.abs(trained.samples) ** 2, axis=(1, 2)))
print(f"fraction of the energy of a sample that differs from sample to sample: {differs:.2f}")
print(f"data residual (chi^2; below 1 where the allowance for model errors is ample): {np.median(trained.diagnostics['residual']):.2f}")

# %% [markdown]
# ## 4. Is it wrong where it says so?
#
# We drew the scatterers ourselves, so the image that the prior describes is known: every scatterer as a small spot,
# with its phase. Sort the pixels by their standard deviation and compare with the error. (On the dashed line both are
# equal; |error| and std share one scale.)

# %%
from recon.modalities.ultrasound.training import BAND, PIXEL, band  # noqa: E402


def spot(distance: np.ndarray, step: float, edges: tuple[float, float]) -> np.ndarray:
    """Return what a point shows at a distance in pixels."""
    waves, weights = np.fft.fftfreq(256), band(256, step, edges)
    table = np.cos(2 * np.pi * np.outer(np.linspace(0, 60, 6001), waves)) @ weights / len(weights)
    return np.interp(np.abs(distance), np.linspace(0, 60, 6001), table, right=0.0)


along_z = spot((grid.z[:, None] - at[:, 1]) / grid.spacing[0], PIXEL[0], BAND[0])
along_x = spot((grid.x[:, None] - at[:, 0]) / grid.spacing[1], PIXEL[1], BAND[1])
truth = (along_z * strength * np.exp(-4j * np.pi * at[:, 1] / geometry.wavelength)) @ along_x.T
error = np.abs(trained.mean - truth)
fig, axes = plt.subplots(1, 4, figsize=(12, 3.5), layout="constrained", width_ratios=[1, 1, 1, 1.2])
grey = axes[0].imshow(level(truth, white), vmin=-60, vmax=0, extent=extent)
axes[0].set(title="truth", ylabel="depth, mm")
for axis, name, image in ((axes[1], "|error| of the mean", error), (axes[2], "std of the samples", trained.std)):
    shown = axis.imshow(level(image, white), cmap="viridis", vmin=-50, vmax=0, extent=extent)
    axis.set_title(name)
for axis in axes[:3]:
    axis.set_xlabel("x, mm")
fig.colorbar(grey, ax=axes[0], shrink=0.8, label="level, dB")
fig.colorbar(shown, ax=axes[1:3], shrink=0.8, label="|error| and std, dB", extend="min")
groups = np.array_split(np.argsort(trained.std.ravel()), 10)
predicted, actual = ([float(np.sqrt(np.mean(v.ravel()[g] ** 2))) / white for g in groups] for v in (trained.std, error))
axes[3].loglog(predicted, actual, "o-")
axes[3].loglog(predicted, predicted, "k--", lw=0.8)
axes[3].minorticks_off()
axes[3].set(xlabel="std (tenths of the pixels), white = 1", ylabel="error of the mean, rms, white = 1")
print(f"rank correlation of std and error: {spearmanr(trained.std.ravel(), error.ravel())[0]:.2f}")
print(f"std over error: {np.sqrt(np.mean(trained.std**2) / np.mean(error**2)):.2f}")

# %% [markdown]
# ## 5. Half of the channels
#
# The same with every second element: they are now two wavelengths apart, and echoes from one place look like those from
# another (grating lobes). With one wave the prior cannot tell them apart either, and the cyst is lost. The run notes the wide
# spacing, but its verdict is "ok", because the samples fit the data: a good fit is no proof.

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the note that is printed below
    halved = recon.reconstruct(data, prior=prior, steps=steps, elements=elements // 2, **part)
used = data.undersample(angles=1, elements=elements // 2)
pair = {
    "delay and sum, half of the elements": beamform(
        torch.from_numpy(used[0]), grid, "das", geometry=used.geometry
    ).numpy(),
    "trained prior, half of the elements": halved.mean,
    "trained prior, all elements": trained.mean,
}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.6), layout="constrained")
print("verdict, half of the elements:", halved.verdict)
print(*(f"note: {note}" for note in halved.provenance["notes"]), sep="\n")
for axis, (name, image) in zip(axes, pair.items(), strict=True):
    shown = axis.imshow(level(image), vmin=-60, vmax=0, extent=extent)
    axis.set(title=name.replace(", ", "\n"), xlabel="x, mm")
    print(f"{name:36s} CNR {cnr(np.abs(image), inside, outside):5.1f} dB")
axes[0].set_ylabel("depth, mm")
fig.colorbar(shown, ax=axes, shrink=0.8, label="level, dB");

# %% [markdown]
# ## What to take home
#
# - The reconstruction inverts wave, pulse and elements; what the data leave open is filled by the prior, and differs
#   from sample to sample.
# - The prior has seen simulated tissue only. What a real probe, real sound speeds and real tissue add is not in it.
# - Options, files and measurements: [ultrasound data and options](../docs/ultrasound.md).
