# %% [markdown]
# # Is the uncertainty right?
#
# A map of standard deviations is easily drawn and easily wrong. This notebook asks four questions about it, in this
# order:
#
# 1. Does the **sampler** draw from the posterior, when the prior is exact and the posterior is known?
# 2. With a **network** as prior: does the map show where the image is wrong?
# 3. Without a true image: what do **withheld data** say about it?
# 4. If it is not quite right: what makes the intervals right **without believing** prior or sampler?
#
# Everything is simulated here and small enough for a laptop without a GPU. **Research only.** Nothing here may guide a
# diagnosis.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

import recon
from operators import CartesianMRI
from recon import demo
from recon.engine.holdout import cross_validate
from recon.engine.samplers import resolve_sampler
from recon.errors import InputError
from recon.metrics import coverage, foreground, psnr, spread_skill
from recon.modalities import modality
from recon.priors import GaussianPrior
from recon.uncertainty import Case, calibrate, coverage_curve, spread_skill_bins
from recon.uncertainty.known_posteriors import prior_draws, truth_problem, truth_scores
from samplers import DDS, CovarianceModel, ExactGaussian, MomentMatching, Problem, ScoreMRI, sample

small = os.environ.get("DIFFRECON_NOTEBOOK_SIZE") == "small"  # the test-suite runs a quick version
prior = os.environ.get("DIFFRECON_NOTEBOOK_PRIOR", "brain-mri")
colors = {"dds": "tab:green", "moment-matching": "tab:blue", "dds-published": "tab:orange", "score-mri": "tab:red"}
plt.rcParams.update({"image.cmap": "gray", "figure.dpi": 72, "font.size": 9})

# %% [markdown]
# ## 1. A posterior that is known exactly
#
# If the prior is a Gaussian and the measurement linear, the posterior is a Gaussian, too, and a formula gives its mean
# and its standard deviation. `truth_problem` makes such a problem: an image of 24 x 24 pixels, one column of k-space in
# four, a little noise. The denoiser is exact as well, so **whatever is wrong below is the sampler's own doing.**
#
# Four samplers draw from it: moment matching with a covariance estimated from 64 images of the prior, the default of
# `recon.reconstruct` (`dds`), DDS as published, and Score-MRI as published but for fewer noise levels.

# %%
case = truth_problem("fourier", "gaussian", 24)
levels = {"sigma_max": 20.0, "sigma_min": 0.003}
covariance = CovarianceModel.estimate(prior_draws(case.prior, 64), smooth=2)
strategies = {
    "moment-matching": MomentMatching(20, "2m", covariance=covariance, **levels),
    "dds": resolve_sampler("dds"),
    "dds-published": DDS(50),
    "score-mri": ScoreMRI(30 if small else 150, **levels),
}
draws = 32 if small else 128
exact = case.draws(256 if small else 2048, seed=1)
drawn = {name: sample(strategy, case.problem, case.prior, draws, seed=3) for name, strategy in strategies.items()}
scores = {name: truth_scores(found, case, exact) for name, found in drawn.items()}

# %%
fig, axes = plt.subplots(2, 5, figsize=(11, 4.9), layout="constrained")
maps = {"exact": case.truth} | drawn
bright, wide = float(case.truth.mean.abs().max()), 1.1 * float(case.truth.std.max())
for (name, found), (above, below) in zip(maps.items(), axes.T):
    mean = above.imshow(found.mean.abs(), vmin=0, vmax=bright)
    std = below.imshow(found.std, cmap="viridis", vmin=0, vmax=wide)
    above.set_title(f"{name}: mean")
    below.set_title("exact: std" if name == "exact" else f"std ratio {scores[name]['ratio']:.2f}")
for row, drawing, label in ((axes[0], mean, "|mean|, image units"), (axes[1], std, "std, image units")):
    fig.colorbar(drawing, ax=row, shrink=0.85, label=label)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])

# %% [markdown]
# The means are alike. (The exact std map is flat because this prior is the same everywhere and a Fourier column sees
# every pixel equally; the grain of the others is that of few draws.) Two of the four sampled std maps look right, and one of
# these two is wrong in a way that **no map of pixels can show**.
#
# The table has `zerr`, the error of the mean in units of the true std (for exact draws about one over the square root of
# their number; a mean that is not the average of the samples may be better); the std ratio, 1 being right; `cov90`, how often
# the central 90 % of the samples hold an exact draw; and the std ratio split into the directions that the scanner measured
# (`row`) and those that it did not (`null`).

# %%
print(f"{'sampler':16} {'zerr':>6} {'std ratio':>10} {'cov90':>7} {'row':>6} {'null':>6}")
ideal = truth_scores(case.draws(draws, seed=2), case, exact)
for name, score in {"exact draws": ideal, **scores}.items():
    row = f"{score['zerr']:6.2f} {score['ratio']:10.2f} {score['cov90']:7.2f} {score['row']:6.2f} {score['null']:6.2f}"
    print(f"{name:16} {row}")
print(f"\n{draws} draws each; zerr of the average of as many exact draws: about {draws**-0.5:.2f}")

# %% [markdown]
# **Score-MRI replaces what was measured by the data, noise and all, after every step: a projection has no spread where
# it measured.** Three quarters of the directions here are unmeasured and dominate every pixel, so its pixel map and its
# coverage look perfect while it claims to know the measured part of k-space without error. DDS as published spreads too
# little in the unmeasured directions and, as its weight of the data does not know the noise level, too much in the
# measured ones. The default knows the noise level; its spread is too small by a tenth in the unmeasured directions and by
# a quarter in the measured ones. In k-space, column by column, one sees all this (the grey curve below the blue one is exact):

# %%
def kspace_std(images):
    spectrum = np.fft.fftshift(np.fft.fft2(np.asarray(images), norm="ortho"), axes=(-2, -1))
    return np.sqrt(np.mean(spectrum.var(axis=0, ddof=1), axis=0))


columns = np.arange(24)
measured = case.problem.operator.mask.numpy().reshape(-1, 24).any(axis=0)
fig, axis = plt.subplots(figsize=(9.6, 3.2), layout="constrained")
axis.bar(columns[measured], 10, width=1, bottom=1e-3, color="0.9", label="measured")
axis.plot(columns, kspace_std(exact), "k", lw=4, alpha=0.3, label="exact")
for name, found in drawn.items():
    axis.plot(columns, np.maximum(kspace_std(found.samples), 1e-3), "o-", ms=3, lw=1, color=colors[name], label=name)
axis.set(yscale="log", ylim=(2e-3, 3), xlim=(-0.5, 23.5), xlabel="column of k-space", ylabel="std, image units")
axis.set_title("std of the samples in k-space, rms over each column")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False);

# %% [markdown]
# ## 2. The network, on an image
#
# Now the shipped prior on the synthetic patient, one column in four measured by 8 coils, sampled by `dds` and by
# `moment-matching`. Nobody knows this posterior, but the true image is known.
#
# **This patient flatters.** Its texture was drawn from a network prior of the very kind that now reconstructs it. It was
# measured on the grid of the reconstruction, by the model that the reconstruction assumes, and the coil maps are given.
# A true patient is no draw of any network; expect all numbers to be worse on your data, and coverage most of all.

# %%
shape = (96, 80) if small else (128, 104)
samples, steps = (3, 5) if small else (8, None)
scan = demo.simulate(acceleration=4, shape=shape)
known = {"mask": scan.mask, "coil_maps": demo.loop_sensitivities(shape, demo.COILS)}
results = {
    name: recon.reconstruct(scan.kspace, prior, name, samples, steps=steps, progress=False, **known)
    for name in ("dds", "moment-matching")
}
reference, tissue = scan.reference, foreground(scan.reference)

# %%
fig, axes = plt.subplots(2, 4, figsize=(9.6, 6.2), layout="constrained")
white = np.quantile(reference, 0.995)
errors = {name: np.abs(found.magnitude.mean - reference) for name, found in results.items()}
top = max(np.quantile(error, 0.99) for error in errors.values())
for (name, found), row in zip(results.items(), axes):
    row[0].imshow(np.abs(found.images["zero_filled"]) if name == "dds" else reference, vmin=0, vmax=white)
    row[0].set_title("zero-filled" if name == "dds" else "truth")
    row[1].imshow(found.magnitude.mean, vmin=0, vmax=white)
    row[1].set_title(f"{name}\nmean, {psnr(found.magnitude.mean, reference):.1f} dB")
    row[2].imshow(errors[name], cmap="inferno", vmin=0, vmax=top)
    row[2].set_title("|error| of the mean")
    scale = row[3].imshow(found.magnitude.std, cmap="inferno", vmin=0, vmax=top)
    row[3].set_title("std of the samples")
fig.colorbar(scale, ax=axes, shrink=0.6, label="|error| and std, image units (1: bright tissue)")
for axis in axes.flat:
    axis.axis("off")

# %% [markdown]
# |error| and std share one scale. A right map looks like the error with its grain smoothed away: bright where the error
# is bright, and on average a little brighter than it. A darker one promises too much: so does that of `moment-matching` in air,
# where its mean is noisy and its samples are not. (The mean is not their average here, but taken from the denoised images
# around sigma 0.15; for this sampler `found.samples.mean(axis=0)` errs less.) Numbers for pixels with signal, and
# the verdict of each run on itself (whether it fits the data; not whether its intervals hold):

# %%
print(f"{'sampler':16} {'PSNR, dB':>9} {'90 % interval covers':>21} {'spread / error':>15}  verdict")
for name, found in results.items():
    magnitude = found.magnitude
    inside = coverage(*found.interval(0.9), reference, tissue)
    ratio = spread_skill(magnitude.mean, magnitude.std, reference, tissue, n_samples=samples)
    print(f"{name:16} {psnr(magnitude.mean, reference):9.1f} {inside:21.0%} {ratio:15.2f}  {found.verdict}")
print("\nspread / error: 1 is right, below 1 over-confident, above 1 over-cautious")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.9), layout="constrained")
for name, found in results.items():
    curve = coverage_curve(found.samples, reference, support=tissue, mean=found.mean)
    left.plot(curve.levels, curve.covered, "o-", ms=4, color=colors[name], label=name)
    bins = spread_skill_bins(found.samples, reference, support=tissue, mean=found.mean)
    right.plot(bins.spread, bins.error, "o-", ms=4, color=colors[name], label=name)
left.plot([0, 1], [0, 1], "k--", lw=0.8, label="right")
left.set(xlabel="level of the interval", ylabel="fraction of pixels inside", xlim=(0, 1), ylim=(0, 1), aspect="equal")
reach = 1.05 * max(right.get_xlim()[1], right.get_ylim()[1])
right.plot([0, reach], [0, reach], "k--", lw=0.8)
right.set(xlabel="std (tenths of the pixels), image units", ylabel="error of the mean (rms)", xlim=(0, reach), ylim=(0, reach), aspect="equal")
left.set_title("coverage: below the line, over-confident")
right.set_title("error: above the line, over-confident")
left.legend(loc="upper left", frameon=False);

# %% [markdown]
# Whatever the curves say here, they say it of one image, and of one that flatters. (Much of the flattening on the right is
# noise of the map itself: eight samples give a pixel's standard deviation to about 25 %.) A sampler that passed the first
# section may still fail in this one: then suspect the network first.

# %% [markdown]
# ## 3. The held-out test beside a known truth
#
# The next scan has no true image. What can be checked on it is whether the posterior predicts **data**. So every run
# withholds some, here whole columns of k-space outside the centre, draws two samples without them, and compares:
#
# - **chi2** is the squared error of the prediction over what noise and spread together explain: about 1 where the posterior
#   is right;
# - **excess** leaves the noise out: it is (error / spread)² of the withheld data, with the spread of the samples alone.
#
# What does it tell about the image? Below, images are draws of a Gaussian prior, four coils measure the central 24
# columns and one in three of the others, and the sampler is exact. So if the scan is as assumed, the posterior is right.
# Then the signal has half, 2 or 4 times the strength that the prior assumes, the noise is twice as strong, or the
# coil maps are shifted by 1 or 4 pixels. The last column of the table is what only a simulation knows: (error / spread)² of the
# image, reconstructed from all data.

# %%
size, noise_std, seeds = (48, 0.03, 2) if small else (64, 0.03, 6)
believed = GaussianPrior.power_law((size, size), std=0.3, exponent=3.0, corner=0.04)
loops = torch.as_tensor(demo.loop_sensitivities((size, size), 4)).to(torch.complex64)
sampled = torch.arange(size) % 3 == 0
sampled[size // 2 - 12 : size // 2 + 12] = True
model, exact_sampler = CartesianMRI(sampled[None], loops), ExactGaussian(tolerance=0.01)


def held_out_beside_truth(seed, strength=1.0, noise=1.0, shift=0):
    """Return chi2 and excess of withheld data, and (error / spread)² of the image."""
    generator = torch.Generator().manual_seed(seed)
    image = strength * believed.draw(torch.randn((1, size, size), dtype=torch.complex64, generator=generator))[0]
    measured = CartesianMRI(sampled[None], loops.roll(shift, dims=-1))(image)
    white = torch.randn(measured.shape, dtype=torch.complex64, generator=generator) * sampled
    problem = Problem(measured + noise * noise_std * white, model, noise_std)
    test = cross_validate(problem, exact_sampler, believed, seed, modality("mri"))
    images = sample(exact_sampler, problem, believed, 4, seed).samples
    error, variance = (image - images.mean(0)).abs().square().mean(), images.var(0).mean()
    return test.chi2, test.excess, float(error / ((1 + 1 / 4) * variance))


conditions = {
    "as assumed": {},
    "signal x 1/2": {"strength": 0.5},
    "signal x 2": {"strength": 2},
    "signal x 4": {"strength": 4},
    "noise x 2": {"noise": 2},
    "maps 1 px off": {"shift": 1},
    "maps 4 px off": {"shift": 4},
}
tested = {name: [held_out_beside_truth(k, **wrong) for k in range(seeds)] for name, wrong in conditions.items()}

# %%
print(f"{'':14} {'held-out chi2':>14} {'held-out excess':>16} {'image, (error / spread)²':>25}")
for name, rows in tested.items():
    (chi2, excess, image), deviation = np.mean(rows, axis=0), np.std(rows, axis=0)
    columns = f"{chi2:7.2f} ± {deviation[0]:.2f} {excess:9.2f} ± {deviation[1]:.2f} {image:18.2f} ± {deviation[2]:.2f}"
    print(f"{name:15} {columns}")
print(f"\nmean ± standard deviation over {seeds} images")

# %%
fig, axis = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
axis.plot([0.3, 20], [0.3, 20], "k--", lw=0.8)
axis.axvline(1, color="0.8", lw=0.8, zorder=0)
axis.axhline(1, color="0.8", lw=0.8, zorder=0)
for name, rows in tested.items():
    (_, x, y), (_, dx, dy) = np.mean(rows, axis=0), np.std(rows, axis=0)
    axis.errorbar(x, y, dy, dx, fmt="o", ms=5, capsize=2, lw=1, label=name)
axis.set(xscale="log", yscale="log", xlim=(0.3, 20), ylim=(0.3, 20), aspect="equal")
axis.set(xlabel="held-out excess: (error / spread)² of withheld data", ylabel="(error / spread)² of the image")
axis.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
axis.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
axis.minorticks_off()
axis.set_title("above the diagonal: worse than the withheld data show")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False);

# %% [markdown]
# **With the right model, both numbers and the image agree on about 1.** If the signal is stronger than the prior assumes, the
# samples spread too little, and the withheld data show it: 2.9 and 10.3, against 2.3 and 7.2 in the image. (They show
# a little more than the image has, whose measured directions rest on the data rather than on the prior.) A prior that is too wide
# gives less than 1, and noise that is underestimated about 2 in both.
#
# **Wrong coil maps show, but less than they harm.** They distort all data in the same way, and an image that makes up for
# it predicts the withheld data better than it resembles the truth. So a large excess is a reason for distrust, and one near 1
# is no proof. Nor is it a precise number: with 2 of 14 columns withheld it scatters by 14 % even where all is right.
#
# Now the two reconstructions of section 2. Each run made the test, and its verdict takes it into account:

# %%
for name, found in results.items():
    test, verdict = found.provenance["held_out"][0], found.verdict.level
    if test is not None:  # a small-size run has too few steps for it
        excess = f"excess {test['excess']:.2f} ± {test['excess_error']:.2f}"
        print(f"{name:16} chi2 {found.held_out_chi2:.2f}, {excess}, {test['withheld']:.1%} of the data; verdict: {verdict}")

# %%
spectrum_of = lambda images: np.fft.fftshift(np.fft.fft2(images, norm="ortho"), axes=(-2, -1))
truth, _ = demo.load_patient(shape)
down, across = np.meshgrid(*((np.arange(n) - n // 2) / n for n in shape), indexing="ij")
radius, unmeasured = np.hypot(down, across), ~np.broadcast_to(scan.mask, shape)
edges = np.arange(0, 0.61, 0.1)
fig, axis = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
for name, found in results.items():
    error = np.abs(spectrum_of(found.samples.mean(axis=0) - truth)) ** 2
    variance = (1 + 1 / samples) * spectrum_of(found.samples).var(axis=0, ddof=1)
    rings = [unmeasured & (radius >= low) & (radius < high) for low, high in zip(edges, edges[1:])]
    ratios = [error[ring].sum() / variance[ring].sum() for ring in rings]
    axis.plot((edges[:-1] + edges[1:]) / 2, ratios, "o-", ms=4, color=colors[name], label=name)
axis.axhline(1, color="k", ls="--", lw=0.8)
axis.set(xlabel="spatial frequency, cycles per pixel", ylabel="(error / spread)²", xlim=(0, 0.6), ylim=(0, None))
axis.set_title("unmeasured k-space, against the true image")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False);

# %% [markdown]
# The two lines are the same: the test always draws with DDS (or the exact sampler). It judges noise level, operator, data and
# prior, **not the samples of `moment-matching`**.
#
# An excess of 1.43 says that the withheld columns are missed by 1.2 times the spread. Yet section 2 found the opposite in the
# image, whose 90 % intervals hold 94 %. Both are right. The test withheld two columns, 6 and 46 from the centre, and nine
# tenths of the spread are in the first: a low frequency, with a wider gap around it than in the scan. There `dds` spreads too little, and at higher
# frequencies, where most of the uncertainty of a pixel lies, too much. Its curve, which needs the true image, shows the same: 1.2
# below 0.1 cycles per pixel, and 0.6 to 0.7 above.
#
# So for MRI a chi2 up to 5 leaves the verdict "ok", and the root of the excess is **not a factor for the std**: here it
# would widen intervals that are too wide already. A factor comes from the next section.

# %% [markdown]
# ## 4. Right intervals without belief: conformal calibration
#
# Suppose there are fully sampled scans, of the same kind as those to come. How far must the raw intervals be stretched
# (or shrunk) to hold the truth of *those*? That factor also serves the next scan, whatever is wrong with prior or
# sampler, as long as it could have been one of them. In ten lines:

# %%
grid, level, count = ((96, 80), 0.8, 4) if small else ((96, 80), 0.8, 12)
maps = demo.loop_sensitivities(grid, demo.COILS)


def acquire(seed, sampler="dds"):
    noise_std = np.random.default_rng(seed).uniform(0.015, 0.03)
    scan = demo.simulate(acceleration=4, seed=seed, noise_std=noise_std, shape=grid)
    options = {"samples": 3 if small else 4, "steps": 3 if small else 20, "seed": seed, "progress": False}
    posterior = recon.reconstruct(scan.kspace, prior, sampler, mask=scan.mask, coil_maps=maps, **options)
    return Case(posterior, f"scan {seed}", scan.reference)


calibration = calibrate([acquire(seed) for seed in range(1, count + 1)], level)

# %%
ratio = calibration.raw_ratio()
print(f"{count} scans: calibrated intervals are {ratio:.2f} times as wide as raw ones")

# %% [markdown]
# Now scans with other masks and other noise, which the calibration has not seen:

# %%
fresh = [acquire(seed) for seed in range(101, 103 if small else 105)]
print(f"{'':10} {'coverage':>19} {'mean length':>19}")
print(f"{'':10} {'raw':>8} {'calibrated':>10} {'raw':>8} {'calibrated':>10}")
found = []
for new in fresh:
    where = foreground(new.reference)
    intervals = new.posterior.interval(level), calibration.apply(new.posterior)
    covers = [coverage(lower, upper, new.reference, where) for lower, upper in intervals]
    lengths = [float(np.mean((upper - lower)[where])) for lower, upper in intervals]
    found.append(covers)
    print(f"{new.name:10} {covers[0]:8.1%} {covers[1]:10.1%} {lengths[0]:8.3f} {lengths[1]:10.3f}")
raw, stretched = np.mean(found, axis=0)
print(f"{'mean':10} {raw:8.1%} {stretched:10.1%}   promised: at least {level:.0%}")

# %%
fig, axis = plt.subplots(figsize=(9.6, 3.2), layout="constrained")
middle, pixels = grid[0] // 2, np.arange(grid[1])
raw, calibrated = [(lower[middle], upper[middle]) for lower, upper in intervals]
axis.fill_between(pixels, *raw, color="#abd0ec", lw=0, label=f"{level:.0%}, raw")
for bound, label in zip(calibrated, (f"{level:.0%}, calibrated", None)):
    axis.plot(pixels, bound, color="tab:blue", lw=1, label=label)
axis.plot(pixels, new.reference[middle], color="k", lw=1, label="truth")
axis.set(xlabel="column", ylabel="magnitude, image units", xlim=(0, grid[1] - 1), ylim=(0, None))
axis.set_title(f"{new.name}, row {middle}: raw and calibrated {level:.0%} intervals")
axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False);

# %% [markdown]
# **Read the promise as it is.** It holds on average over scans like the calibration scans; not in each pixel, not for
# each scan, not for another anatomy or a lesion that they lacked. Here they are all of one synthetic patient, so it
# holds for further scans of *that* patient. The raw intervals hold 81 % on average here, but nothing promises it, and on two
# of the four scans they hold less.
#
# With few scans the factor is cautious: among `n` of them the fraction of pixels outside may be no more than
# `((n + 1) (1 - level) - 1) / n`, here 13 % instead of 20 %; 80 % takes at least 4 scans, 90 % at least 9.
#
# A calibration knows which results it is for, and refuses others:

# %%
try:
    calibration.apply(results["moment-matching"])
except InputError as refusal:
    print(refusal)

# %% [markdown]
# ## What to take away
#
# - Ask a sampler for its spread in *measured* directions (`recon.uncertainty.row_null_split`), not for pixel coverage
#   alone.
# - The map is that of an observer who believes the prior. `recon evaluate` compares it with references you have.
# - The held-out test needs no reference. A large excess is a reason for distrust; one near 1 is no proof.
# - `recon calibrate` makes the intervals right on average, for scans like those it has seen.
#
# More in [what the uncertainty means](../docs/uncertainty.md) and [the samplers](../docs/samplers.md).
