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
from scipy import ndimage

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
    axis.set_title(f"|image| of coil {coil + 1}")
drawn = axes[4].imshow(np.log10(np.abs(raw[0][0]) + 1e-3), vmin=-2.5)
axes[4].set_title("log10 |k-space|, coil 1")
fig.colorbar(drawn, ax=axes[4], shrink=0.8)
for axis in axes:
    axis.axis("off")

# %% [markdown]
# ## 2. Reconstruct
#
# One call. `acceleration=4` keeps one column in four, the central 8 % among them, and throws the others away. Coil maps
# (ESPIRiT), noise level and scale are then estimated **from what is left**; the full data are not used.
#
# Every result brings a verdict: "ok", "doubtful" or "failed", with reasons. It says whether the data are fitted to their noise
# level, whether the mean holds what was measured, and whether the samples are finite. "ok" does *not* say that the prior
# suits the image: no run can check that from its own data.

# %%
posterior = recon.reconstruct(
    path, prior=prior, samples=samples, steps=steps, seed=0, acceleration=4, center_fraction=0.08, progress=False
)
measured = posterior.provenance["measured"][0]
print("samples", posterior.samples.shape, posterior.samples.dtype)
print(f"sampler {posterior.provenance['sampler']['name']}, {posterior.provenance['network_calls']} network calls")
print("verdict:", posterior.verdict)
print(f"noise level: {measured['noise_std']:.4f} found in the data, true {demo.NOISE_STD}")
print("calibration region, y x:", measured["calibration"], "k-space samples")

# %% [markdown]
# ## 3. Mean, standard deviation, samples
#
# The mean is the best single image in the least-squares sense, and smoother than any sample: details on which the
# samples disagree are averaged away. The samples are what images of this kind look like: they agree on what the
# data determine and differ in fine detail. The standard deviation says where they differ; it shares its colour scale with
# the error.

# %%
reference = scan.reference  # the truth, without noise: a luxury of simulations
zero_filled = np.abs(posterior.images["zero_filled"])
mean = np.abs(posterior.mean)
white = np.quantile(mean, 0.995)

fig, axes = plt.subplots(1, 5, figsize=(13, 3.6), layout="constrained")
for axis, (name, image) in zip(axes, {"truth": reference, "zero-filled": zero_filled, "posterior mean": mean}.items()):
    axis.imshow(image, vmin=0, vmax=white)
    quality = "" if name == "truth" else f"\n{psnr(image, reference):.1f} dB, SSIM {ssim(image, reference):.3f}"
    axis.set_title(name + quality)
axes[3].imshow(np.abs(mean - reference), cmap="viridis", vmin=0, vmax=white / 10)
axes[3].set_title("|error| of the mean")
drawn = axes[4].imshow(posterior.magnitude.std, cmap="viridis", vmin=0, vmax=white / 10)
axes[4].set_title("std of the magnitude (raw)")
fig.colorbar(drawn, ax=axes[4], shrink=0.7, label="|error| and std, a.u.", extend="max")
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
axis.set(xlabel="column", ylabel="magnitude, a.u.", title=f"row {row}: magnitude, 90 % interval and truth", xlim=(0, shape[1] - 1), ylim=(0, 1.25 * upper[row].max()))
axis.legend(loc="upper right", ncols=3);

# %%
tissue = foreground(reference)
magnitude = posterior.magnitude
print(f"coverage of the raw 90 % interval: {coverage(lower, upper, reference, tissue):.1%} of the pixels that show tissue")
ratio = spread_skill(magnitude.mean, magnitude.std, reference, tissue, n_samples=samples)
print(f"spread over error: {ratio:.2f} (1 is calibrated, below 1 over-confident)")

# %% [markdown]
# One number hides much. Sort the pixels by their standard deviation: where the map promises little error, is there little
# error? On the dashed line it is right; above it, it promises too much. Much of the flattening is the noise of the map
# itself: from eight samples the standard deviation of one pixel is known to about 25 %. The second curve sorts by a map that
# was averaged (its square, over 5 x 5 pixels) first, and follows the line more closely.

# %%
wrong = np.abs(magnitude.mean - reference)[tissue]
averaged = np.sqrt(ndimage.uniform_filter(magnitude.std**2, 5).clip(0))  # rounding in air

fig, axis = plt.subplots(figsize=(4.4, 3.8), layout="constrained")
for name, image in (("std of each pixel", magnitude.std), ("std averaged over 5 x 5", averaged)):
    std = image[tissue]
    groups = np.array_split(np.argsort(std), 12)
    predicted = [np.sqrt(np.mean(std[group] ** 2) * (1 + 1 / samples)) for group in groups]
    actual = [np.sqrt(np.mean(wrong[group] ** 2)) for group in groups]
    axis.plot(predicted, actual, "o-", ms=4, label=name)
reach = 1.05 * max(axis.get_xlim()[1], axis.get_ylim()[1])
axis.plot([0, reach], [0, reach], "k--", lw=0.8)
axis.set(xlabel="predicted error (std), a.u.", ylabel="actual error (rms), a.u.", xlim=(0, reach), ylim=(0, reach))
axis.set_title("error in twelfths of the pixels, by std")
axis.legend(loc="upper left", frameon=False);

# %% [markdown]
# ## 5. Against a posterior that is known: what the sampler adds
#
# With a *Gaussian* prior the posterior is known exactly, and `ExactGaussian` draws from it. The same problem and the same
# prior, sampled by the default of `recon.reconstruct` (`dds`) and by `moment-matching`, show what a sampler adds: its
# standard deviation should be the exact one. The denoiser is exact here, so this error is the sampler's own. (The Gaussian
# prior itself is a poor model of a head; that is not the point here.)
#
# The std of the default is 0.83 times the exact one here, although its spread over error above is 1.1. The two tests ask
# different things, and neither replaces the other: here, whether the samples are those of the posterior of a given prior;
# above, whether they lie as far apart as the mean is from the truth, whatever the reason.

# %%
import torch

from operators import CartesianMRI
from recon.engine.samplers import resolve_sampler
from recon.priors import GaussianPrior
from samplers import ExactGaussian, Problem, sample

side = (24, 24) if small else (48, 48)
gaussian = GaussianPrior.power_law(side, std=0.35, exponent=2.0, corner=0.02)
truth = gaussian.draw(torch.randn(1, *side, dtype=torch.complex64, generator=torch.Generator().manual_seed(1)))[0]
columns = np.zeros((1, side[1]), dtype=bool)
columns[0, ::4] = columns[0, side[1] // 2 - 2 : side[1] // 2 + 2] = True
operator = CartesianMRI(columns, torch.as_tensor(demo.loop_sensitivities(side, 4)).to(torch.complex64))
noise = torch.randn(operator.codomain.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
problem = Problem(operator(truth) + 0.05 * noise * operator.mask, operator, 0.05)

draws = 32 if small else 128
exact = sample(ExactGaussian(), problem, gaussian, draws, seed=0)
names = ("dds", "moment-matching")
found = {name: sample(resolve_sampler(name), problem, gaussian, draws, seed=0) for name in names}

# %%
fig, axes = plt.subplots(1, 5, figsize=(13, 2.8), layout="constrained")
top = float(exact.std.max())
for axis, (name, result) in zip(axes, {"exact posterior": exact, **found}.items()):
    std = axis.imshow(result.std, cmap="viridis", vmin=0, vmax=top)
    axis.set_title(f"{name}: std")
fig.colorbar(std, ax=axes[:3], shrink=0.8, label="a.u.")
for axis, (name, result) in zip(axes[3:], found.items()):
    ratio = axis.imshow(result.std / exact.std, cmap="RdBu_r", vmin=0.5, vmax=1.5)
    axis.set_title(f"{name} / exact")
    print(f"{name}: median ratio of its std to the exact one {float((result.std / exact.std).median()):.2f}")
fig.colorbar(ratio, ax=axes[3:], shrink=0.8, label="ratio (1 is right)")
for axis in axes:
    axis.axis("off")

# %% [markdown]
# ## 6. Keep it
#
# The result file holds samples, mean, std, interval, geometry, verdict and the full provenance; any HDF5 reader opens it.

# %%
posterior.save(folder / "result.h5")
again = recon.Posterior.load(folder / "result.h5")
png, html = again.report(folder / "result")
for file in (folder / "result.h5", png, html):
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
print("verdict:", again.verdict)
print({name: again.provenance[name] for name in ("diffrecon", "seed", "prior", "sampler")})
