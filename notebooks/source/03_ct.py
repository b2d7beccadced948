# %% [markdown]
# # Few views, and what they leave open
#
# A CT scanner takes about a thousand projections. With thirty-two of them many images fit the data, and filtered
# backprojection, the usual formula, fills the gaps with streaks. This notebook reconstructs one slice from few projections, compares the posterior mean
# with what people use, and looks at where the samples disagree: first with views all around, then with a third of them
# missing.
#
# It needs no data of yours: the slice is drawn here. To use your own, set `path` to a folder of DICOM images (AAPM/Mayo
# and others), DICOM-CT-PD projections, a LoDoPaB or a Data Exchange file.
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
from recon.baselines import least_squares, total_variation
from recon.metrics import coverage, foreground
from recon.modalities.ct.prepare import prepare_image

small = os.environ.get("DIFFRECON_NOTEBOOK_SIZE") == "small"  # the test-suite runs a quick version
size, steps, samples = (64, 5, 3) if small else (256, None, 8)
prior = os.environ.get("DIFFRECON_NOTEBOOK_PRIOR_CT", "ct")
pixel = 360 / size  # mm
plt.rcParams.update({"image.cmap": "gray", "figure.dpi": 64, "font.size": 9})
soft = {"vmin": -160, "vmax": 240}  # HU

# %% [markdown]
# ## 1. A slice and its sinogram
#
# A body of ellipses in Hounsfield units: fat around muscle, a lung with vessels, ribs and a spine, a liver with three lesions
# that differ from it by 25 to 50 HU. The edges are softened and a little texture is added, because nobody is made of
# plateaus.


# %%
def torso(size: int) -> np.ndarray:
    """Return a slice ``(size, size)`` in HU."""
    fine = 2 * size
    y, x = np.mgrid[-1 : 1 : fine * 1j, -1 : 1 : fine * 1j]
    image = np.full((fine, fine), -1000.0)

    def ellipse(hu, x0, y0, a, b, turn=0.0):
        c, s = np.cos(turn), np.sin(turn)
        u, v = c * (x - x0) + s * (y - y0), -s * (x - x0) + c * (y - y0)
        image[(u / a) ** 2 + (v / b) ** 2 < 1] = hu

    ellipse(-95, 0, 0, 0.92, 0.68)
    ellipse(55, 0, 0, 0.85, 0.6)
    ellipse(-830, 0.45, -0.08, 0.3, 0.4, 0.15)
    ellipse(-90, -0.05, -0.1, 0.5, 0.36)
    ellipse(62, -0.38, -0.02, 0.4, 0.42, -0.2)
    ellipse(45, 0.1, -0.22, 0.24, 0.22, 0.4)
    for number in range(6):
        ellipse(130, -0.55 + 0.09 * number, 0.08 + 0.05 * (-1) ** number, 0.05, 0.014, 0.5 * number)
        ellipse(30, 0.3 + 0.06 * number, -0.25 + 0.07 * number, 0.025, 0.012, 0.7 * number)
    for hu, x0, y0, radius in ((15, -0.5, -0.15, 0.07), (35, -0.3, -0.25, 0.05), (110, -0.58, 0.2, 0.04)):
        ellipse(hu, x0, y0, radius, radius)
    ellipse(180, 0.02, 0.3, 0.14, 0.12)
    ellipse(620, 0.02, 0.3, 0.13, 0.11)
    ellipse(230, 0.02, 0.3, 0.11, 0.09)
    ellipse(150, 0.22, 0.2, 0.06, 0.06)
    for number in range(9):
        angle = 0.3 + number * 2 * np.pi / 9
        ellipse(650, 0.78 * np.cos(angle), 0.53 * np.sin(angle), 0.07, 0.022, angle + np.pi / 2)
    rough = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(image.shape), 3)
    image += 12 * rough / rough.std() * (image > -950)
    return ndimage.gaussian_filter(image, 1.2).reshape(size, 2, size, 2).mean(axis=(1, 3)).astype(np.float32)


truth = torso(size)
options = recon.CT(views=32, photons=1e5)
ready = prepare_image(truth, pixel, options)
problem = ready.problem
fig, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained", width_ratios=[1, 1, 1.4])
for axis, name, window in ((axes[0], "full range", {"vmin": -1000, "vmax": 800}), (axes[1], "soft-tissue window", soft)):
    shown = axis.imshow(truth, **window)
    axis.set_title(f"slice, {name}")
    axis.axis("off")
    fig.colorbar(shown, ax=axis, shrink=0.8, label="HU")
shown = axes[2].imshow(problem.y, aspect="auto", interpolation="nearest")
axes[2].set(title="sinogram with noise", xlabel="detector element", ylabel="view")
fig.colorbar(shown, ax=axes[2], shrink=0.8, label="line integral, mm of water");

# %% [markdown]
# ## 2. Thirty-two views with noise
#
# 10^5 photons per ray: each line integral has a noise level of its own, larger behind the spine. Filtered
# backprojection does not know it. Least squares, total variation and the sampler weight each ray by it. Total variation
# gets the best of its weights **with the truth at hand**; the others get nothing from the truth. PSNR is that of values
# clipped to -1000 to 2000 HU, and to the soft-tissue window.


# %%
def psnr(image, low=-1000.0, high=2000.0):
    error = np.clip(image, low, high) - np.clip(truth, low, high)
    return 20 * np.log10(high - low) - 10 * np.log10(np.mean(error**2))


def hounsfield(x):
    return (problem.scale * x + problem.offset).numpy()


weights = (10, 30, 100) if small else (1, 3, 10, 30, 100, 300)
variations = {w: hounsfield(total_variation(problem, w * size / 256, nonnegative=True)) for w in weights}
best = max(variations, key=lambda w: psnr(variations[w]))
images = {
    "filtered backprojection": ready.images["fbp"].numpy(),
    "least squares": hounsfield(least_squares(problem, 10 if small else 60)),
    "total variation": variations[best],
}

# The same through a file, as for data of yours: a folder of numbered slices, 0 for air and one half for water.
path = Path(tempfile.mkdtemp()) / "torso"
path.mkdir()
np.save(path / "0000.npy", (truth + 1000) / 2000)
posterior = recon.reconstruct(
    path,
    prior=prior,
    views=32,
    photons=1e5,
    pixel_size=pixel,
    steps=steps,
    samples=samples,
    progress=False,
)
images["posterior mean"] = posterior.mean
print(f"total variation: the best weight is {best}, of {', '.join(map(str, weights))}")
print("verdict of the posterior:", posterior.verdict)
for name, image in images.items():
    print(f"{name:24s} {psnr(image):6.2f} dB, in the soft-tissue window {psnr(image, -160, 240):6.2f} dB")

# %%
fig, axes = plt.subplots(1, 5, figsize=(15, 3.2), layout="constrained")
for axis, (name, image) in zip(axes, {"truth": truth, **images}.items(), strict=True):
    shown = axis.imshow(image, **soft)
    axis.set_title(name)
    axis.axis("off")
fig.colorbar(shown, ax=axes, shrink=0.8, label="HU");

# %% [markdown]
# ## 3. Where the samples disagree
#
# The map of standard deviations beside the error, which we know only because we drew the slice ourselves. Both are drawn on
# one scale, in HU.

# %%
body = foreground(truth)
fig, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
limit = float(np.quantile(posterior.std, 0.995))
for axis, (name, image) in zip(axes, {"sample 1": 0, "sample 2": 1}.items(), strict=False):
    axis.imshow(posterior.samples[image], **soft)
    axis.set_title(name)
axes[2].imshow(np.abs(posterior.mean - truth), cmap="viridis", vmin=0, vmax=limit)
axes[2].set_title("|error| of the mean")
shown = axes[3].imshow(posterior.std, cmap="viridis", vmin=0, vmax=limit)
axes[3].set_title("std of the samples")
fig.colorbar(shown, ax=axes[3], label="|error| and std, HU", extend="max")
for axis in axes:
    axis.axis("off")
covered = coverage(*posterior.interval(0.9), truth, body)
print(f"raw 90 % intervals hold the truth in {100 * covered:.0f} % of the body")

# %% [markdown]
# Sort the pixels of the body by their standard deviation: where the map promises little error, is there little error? On
# the dashed line it is right; above it the map promises too much, below it too little. Here the map is too cautious
# for most pixels, by up to 1.7 times, and too bold for the tenth of which it is most certain.

# %%
error = np.abs(posterior.mean - truth)[body]
groups = np.array_split(np.argsort(posterior.std[body]), 10)
predicted = [float(np.sqrt(np.mean(posterior.std[body][g] ** 2))) for g in groups]
actual = [float(np.sqrt(np.mean(error[g] ** 2))) for g in groups]
fig, axis = plt.subplots(figsize=(4, 3.4), layout="constrained")
axis.loglog(predicted, actual, "o-")
axis.loglog(predicted, predicted, "k--", lw=0.8)
axis.set(xlabel="std, HU (tenths of the pixels)", ylabel="error of the mean, rms, HU");

# %% [markdown]
# ## 4. Limited angle
#
# Sixty views, but over 120 degrees only. No ray runs along the edges in the missing directions, so the data do not show
# them, and a prior can only guess: the map should say so. (|error| and std share one scale again, a wider one.)
#
# It does: the streaks of the posterior mean are wrong by hundreds of HU, and the map is bright where they are. The verdict is
# "ok" nevertheless, because the samples fit the data: it does not judge what the data leave open.

# %%
limited = recon.reconstruct(
    path,
    prior=prior,
    views=60,
    arc=120,
    photons=1e5,
    pixel_size=pixel,
    steps=steps,
    samples=samples,
    progress=False,
)
fig, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
problem_limited = prepare_image(truth, pixel, recon.CT(views=60, arc=120, photons=1e5)).problem
fitted = hounsfield(least_squares(problem_limited, 10 if small else 60))
for axis, (name, image) in zip(axes, {"least squares": fitted, "posterior mean": limited.mean}.items(), strict=False):
    axis.imshow(image, **soft)
    axis.set_title(f"{name}, {psnr(image):.1f} dB")
wider = float(np.quantile(limited.std, 0.995))
axes[2].imshow(np.abs(limited.mean - truth), cmap="viridis", vmin=0, vmax=wider)
axes[2].set_title("|error| of the mean")
shown = axes[3].imshow(limited.std, cmap="viridis", vmin=0, vmax=wider)
axes[3].set_title("std of the samples")
fig.colorbar(shown, ax=axes[3], label="|error| and std, HU", extend="max")
for axis in axes:
    axis.axis("off")
covered = coverage(*limited.interval(0.9), truth, body)
ratio = float(np.mean(limited.std[body]) / np.mean(posterior.std[body]))
print("verdict:", limited.verdict)
print(f"limited angle: {psnr(limited.mean):.2f} dB; in the body the std is {ratio:.1f} times that of the full circle")
print(f"raw 90 % intervals hold the truth in {100 * covered:.0f} % of the body")

# %% [markdown]
# ## 5. Measured projections, volumes, the shell
#
# ```sh
# recon info L067/quarter_3mm                                  # what is in a folder
# recon run L067/quarter_3mm -o out --views 32                 # simulate a sparse-view scan of real images
# recon run projections/ -o out --views-every 8                # measured projections: every eighth
# ```
#
# Results are HDF5, and derived DICOM series for folders of DICOM images. `samplers.DDSVolume` couples the slices of a
# volume. Options and conventions: `docs/ct.md`.
