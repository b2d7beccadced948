# %% [markdown]
# # From raw k-space to a posterior
#
# A scanner that measures one column of k-space in four leaves a question open: many images fit the data. This notebook
# goes the whole way, from a raw-data file to several such images, their mean, and an honest look at the map of where they
# differ.
#
# It needs no data of yours: the scan is simulated from a synthetic head. To use a scan of your own, set `path` below
# to a fastMRI `.h5`, a BART `.cfl` or a `.npy` file with `(coil, y, x)` k-space.
#
# **Research only.** Nothing here may guide a diagnosis.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import recon
from recon import demo
from recon.io import open_kspace
from recon.metrics import coverage, foreground, psnr, spread_skill, ssim

small = os.environ.get("DIFFRECON_NOTEBOOK_SIZE") == "small"  # the test-suite runs a quick version
shape = (96, 160) if small else (192, 160)
samples = 3 if small else 8
steps = 6 if small else 30
prior = os.environ.get("DIFFRECON_NOTEBOOK_PRIOR", "brain-mri")
folder = Path(tempfile.mkdtemp())
plt.rcParams.update({"image.cmap": "gray", "figure.dpi": 64, "font.size": 9})

# %% [markdown]
# ## 1. A raw-data file
#
# `demo.simulate` stands in for a scanner: 8 coils around a head, Fourier transform, complex noise. Here it measures all
# columns, as a fully sampled research scan would, so that there is something to compare with.

# %%
scan = demo.simulate(acceleration=1, shape=shape)
path = folder / "scan.npy"
np.save(path, scan.kspace)

raw = open_kspace(path)
print(f"{raw.format}: {len(raw)} slice of {raw.shape} (coil, y, x)")

# %%
fig, axes = plt.subplots(1, 5, figsize=(13, 3.2), layout="constrained")
for coil, axis in enumerate(axes[:4]):
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(raw[0][coil])))
    axis.imshow(np.abs(image))
    axis.set_title(f"coil {coil + 1}")
axes[4].imshow(np.log(np.abs(raw[0][0]) + 1e-2))
axes[4].set_title("log |k-space|, coil 1")
for axis in axes:
    axis.axis("off")

# %% [markdown]
# ## 2. Reconstruct
#
# One call. `acceleration=4` throws three columns in four away and keeps the central 8 %. Coil maps (ESPIRiT), noise level
# and scale are then estimated **from what is left**; the full data only serve as reference.

# %%
posterior = recon.reconstruct(
    path, prior=prior, samples=samples, steps=steps, seed=0, acceleration=4, center_fraction=0.08, progress=False
)
measured = posterior.provenance["measured"][0]
print("samples", posterior.samples.shape, posterior.samples.dtype)
print("found in the data:", {name: measured[name] for name in ("acceleration", "noise_std", "calibration")})
print(f"true noise level: {demo.NOISE_STD}")

# %% [markdown]
# ## 3. Mean, standard deviation, samples
#
# The mean is the best single image in the least-squares sense, and smoother than any sample: details on which the
# samples disagree are averaged away. The samples are what images of this kind look like. The standard deviation says
# where they differ.

# %%
reference = scan.reference  # the truth, without noise: a luxury of simulations
zero_filled = np.abs(posterior.images["zero_filled"])
mean = np.abs(posterior.mean)
white = np.quantile(mean, 0.995)

fig, axes = plt.subplots(1, 5, figsize=(13, 3.6), layout="constrained")
for axis, (name, image) in zip(axes, {"reference": reference, "zero-filled": zero_filled, "posterior mean": mean}.items()):
    axis.imshow(image, vmin=0, vmax=white)
    quality = "" if name == "reference" else f"\n{psnr(image, reference):.1f} dB, SSIM {ssim(image, reference):.3f}"
    axis.set_title(name + quality)
error = axes[3].imshow(np.abs(mean - reference), cmap="inferno", vmin=0, vmax=white / 5)
axes[3].set_title("|error| of the mean")
spread = axes[4].imshow(posterior.magnitude.std, cmap="viridis", vmin=0)
axes[4].set_title("std of the magnitude (raw)")
for axis, drawn in ((axes[3], error), (axes[4], spread)):
    fig.colorbar(drawn, ax=axis, shrink=0.6, label="a.u.")
for axis in axes:
    axis.axis("off")

# %%
fig, axes = plt.subplots(1, min(samples, 6), figsize=(13, 3.0), layout="constrained")
middle = tuple(slice(n // 4, 3 * n // 4) for n in shape)
for number, axis in enumerate(axes):
    axis.imshow(np.abs(posterior.samples[number][middle]), vmin=0, vmax=white)
    axis.set_title(f"sample {number + 1}, centre")
    axis.axis("off")

# %% [markdown]
# ## 4. Intervals, and whether to believe them
#
# `posterior.interval(0.9)` is the interval that would hold the true magnitude in 90 % of the pixels **if** the samples were
# exact posterior draws. Along one row of the image:

# %%
lower, upper = posterior.interval(0.9)
row = shape[0] // 2
columns = np.arange(shape[1])

fig, axis = plt.subplots(figsize=(13, 3), layout="constrained")
axis.fill_between(columns, lower[row], upper[row], color="tab:blue", alpha=0.3, lw=0, label="90 % interval")
axis.plot(columns, posterior.magnitude.mean[row], color="tab:blue", lw=1, label="mean")
axis.plot(columns, reference[row], color="k", lw=1, label="truth")
axis.set(xlabel="column", ylabel="magnitude, a.u.", title=f"row {row}", xlim=(0, shape[1] - 1), ylim=(0, 1.25 * upper[row].max()))
axis.legend(loc="upper right", ncols=3);

# %%
tissue = foreground(reference)
magnitude = posterior.magnitude
print(f"coverage of the 90 % interval: {coverage(lower, upper, reference, tissue):.1%} of the pixels that show tissue")
ratio = spread_skill(magnitude.mean, magnitude.std, reference, tissue, n_samples=samples)
print(f"spread over error: {ratio:.2f} (1 is calibrated, below 1 over-confident)")

# %% [markdown]
# One number hides much. Sort the pixels by their standard deviation: where the map promises little error, is there little
# error? On the dashed line it is right; above it, it promises too much. (Part of the flattening is the noise of the map
# itself: from eight samples a standard deviation is known to about 25 %.)

# %%
std, wrong = magnitude.std[tissue], np.abs(magnitude.mean - reference)[tissue]
groups = np.array_split(np.argsort(std), 12)
predicted = [np.sqrt(np.mean(std[group] ** 2) * (1 + 1 / samples)) for group in groups]
actual = [np.sqrt(np.mean(wrong[group] ** 2)) for group in groups]

fig, axis = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
axis.plot(predicted, actual, "o-")
axis.plot([0, max(predicted)], [0, max(predicted)], "k--", lw=0.8)
axis.set(xlabel="predicted error (std)", ylabel="actual error (rms)", xlim=(0, None), ylim=(0, None));

# %% [markdown]
# ## 5. Against the truth: the linear-Gaussian oracle
#
# With a *Gaussian* prior the posterior is known exactly, and `ExactGaussian` draws from it. The same problem and the same
# prior, sampled by DDS, shows what the sampler adds: its spread should be that of the oracle, and is smaller. This is
# the sampler's own error, before any network enters. (The Gaussian prior itself is a poor model of a head; that is not
# the point here.)

# %%
from operators import CartesianMRI
from recon.priors import GaussianPrior
from samplers import DDS, ExactGaussian, Problem, Uniform, sample
import torch

side = (24, 24) if small else (48, 48)
truth_prior = GaussianPrior.power_law(side, std=0.35, exponent=2.0, corner=0.02)
truth = truth_prior.draw(torch.randn(1, *side, dtype=torch.complex64, generator=torch.Generator().manual_seed(1)))[0]
columns = np.zeros((1, side[1]), dtype=bool)
columns[0, ::4] = columns[0, side[1] // 2 - 2 : side[1] // 2 + 2] = True
operator = CartesianMRI(columns, torch.as_tensor(demo.loop_sensitivities(side, 4)).to(torch.complex64))
noise = torch.randn(operator.codomain.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
problem = Problem(operator(truth) + 0.05 * noise * operator.mask, operator, 0.05)

draws = 32 if small else 128
exact = sample(ExactGaussian(), problem, truth_prior, draws, seed=0)
dds = sample(DDS(gamma="rule", spread=Uniform(0.35)), problem, truth_prior, draws, seed=0)

# %%
fig, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
top = float(exact.std.max())
for axis, (name, image, limit, cmap) in zip(
    axes,
    [
        ("truth", truth.abs(), None, "gray"),
        ("exact posterior std", exact.std, top, "viridis"),
        ("DDS std", dds.std, top, "viridis"),
        ("ratio DDS / exact", dds.std / exact.std, None, "RdBu_r"),
    ],
):
    limits = {"vmin": 0, "vmax": limit} if cmap != "RdBu_r" else {"vmin": 0.5, "vmax": 1.5}
    drawn = axis.imshow(image, cmap=cmap, **limits)
    fig.colorbar(drawn, ax=axis, shrink=0.75)
    axis.set_title(name)
    axis.axis("off")
print(f"median ratio of the standard deviations, DDS over exact: {float((dds.std / exact.std).median()):.2f}")

# %% [markdown]
# ## 6. Keep it
#
# The result file holds samples, mean, std, interval, geometry and the full provenance; any HDF5 reader opens it.

# %%
posterior.save(folder / "result.h5")
again = recon.Posterior.load(folder / "result.h5")
png, html = again.report(folder / "result")
for file in (folder / "result.h5", png, html):
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
print({name: again.provenance[name] for name in ("diffrecon", "seed", "sampler")})
