# %% [markdown]
# # Priors: what the engine believes before it measures
#
# A prior is a network that removes noise from images, and no more than that: to remove noise it must know what images look
# like. This notebook looks at the one that ships, trains a small one from scratch, reads a checkpoint in a published layout, and shows
# what a prior that does not fit does to a reconstruction.
#
# **Research only.** Nothing here may guide a diagnosis.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.restoration import denoise_tv_chambolle

import recon
from recon import demo
from recon.metrics import coverage, foreground, psnr
from recon.training.pictures import draw_prior

small = os.environ.get("DIFFRECON_NOTEBOOK_SIZE") == "small"  # the test-suite runs a quick version
shipped = os.environ.get("DIFFRECON_NOTEBOOK_PRIOR", "brain-mri")
shape = (80, 96) if small else (192, 160)
folder = Path(tempfile.mkdtemp())
plt.rcParams.update({"image.cmap": "gray", "figure.dpi": 56, "font.size": 9})


def show(axis, image, title, **limits):
    axis.imshow(torch.as_tensor(image).abs(), **{"vmin": 0, "vmax": 1.1, **limits})
    axis.set_title(title)
    axis.axis("off")


# %% [markdown]
# ## 1. A denoiser at every noise level
#
# `load_prior` takes a name or a file. Noise is complex with `E|n|^2 = 1`, and images are scaled so that their bright parts
# are about 1: at sigma 0.1 an eye still sees everything, at 2 hardly anything, and the network has to guess. What it returns
# is the *mean* of all clean images that fit, so the less is known the smoother it is. (The grey scale of the noisy images
# grows with sigma; that of the denoised ones is always 0 to 1.1.)

# %%
prior = recon.load_prior(shipped)
print(f"{prior.card.get('name', shipped)}: sigma from {prior.sigma_min:.4f} to {prior.sigma_max:.0f}, licence: {prior.card.get('licence')}")
print("trained on:", *(data["name"] for data in prior.card.get("data", [])), sep="\n  ")

scan = demo.simulate(acceleration=1, shape=shape)
kspace = torch.as_tensor(scan.kspace)
clean = torch.as_tensor(scan.reference) / float(np.quantile(scan.reference, 0.99)) * torch.exp(1j * torch.linspace(0, 3, shape[1]))
sigmas = (0.1, 0.4, 2.0)
noise = torch.randn(1, *shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
fig, axes = plt.subplots(2, len(sigmas), figsize=(7.6, 5.8), layout="constrained")
with torch.no_grad():
    for k, sigma in enumerate(sigmas):
        noisy = clean + sigma * noise
        show(axes[0, k], noisy[0], f"|noisy image|, sigma {sigma}", vmax=1.1 + sigma)
        show(axes[1, k], prior.denoise(noisy, sigma)[0], "|denoised|")

# %% [markdown]
# ## 2. How much it knows
#
# The rms error of a pixel after denoising, against total variation with the best of its weights for each noise level (chosen
# *with the truth at hand*). The demo's head was drawn from a network prior of this kind, so the gap is larger than on real
# heads: there it is 3 dB, on people that the network has not seen (`benchmarks/quality_denoising.py`, and the card).


# %%
def rms(image):
    return float(torch.sqrt((torch.as_tensor(image) - clean).abs().square().mean()))


def total_variation(noisy, weight):
    parts = np.stack([noisy.real, noisy.imag], axis=-1)
    # The default tolerance ends long before the minimum at large noise.
    found = denoise_tv_chambolle(parts, weight=weight, eps=1e-6, max_num_iter=500, channel_axis=-1)
    return torch.view_as_complex(torch.as_tensor(found).contiguous())


levels = np.geomspace(0.03, 3, 4 if small else 7)
errors = {"noise": [], "total variation, best weight": [], "network": []}
with torch.no_grad():
    for sigma in levels:
        noisy = (clean + float(sigma) * noise)[0]
        errors["noise"].append(rms(noisy))
        best = min(rms(total_variation(noisy, float(sigma * w))) for w in (0.4, 0.7, 1.0, 1.4, 2.0))
        errors["total variation, best weight"].append(best)
        errors["network"].append(rms(prior.denoise(noisy[None], float(sigma))[0]))
fig, axis = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
for name, values in errors.items():
    axis.loglog(levels, values, "k--" if name == "noise" else "o-", lw=1.2, label=name)
if getattr(prior, "error_std", None) and prior.error_std(0.1):
    expected = [prior.error_std(float(sigma)) for sigma in levels]
    axis.loglog(levels, expected, "s:", color="0.5", label="network, real held-out slices (card)")
axis.set(xlabel="sigma (1: bright tissue)", ylabel="rms error of a pixel (same unit)", title="error after denoising")
axis.legend()
print("network against total variation, dB, for the sigmas of the points:", [round(float(20 * np.log10(t / n)), 1) for t, n in zip(errors["total variation, best weight"], errors["network"])])

# %% [markdown]
# ## 3. What it makes up
#
# Start from pure noise, denoise in small steps with no data at all: that is a draw from the prior. It was trained on patches
# of 96 to 192 pixels: skin, fat, bone and folds look right from near, but the whole is hardly ever a head. Where the data
# leave something open, it is filled with material like this; the shape of the head has to come from the data.

# %%
count = 2 if small else 5
with torch.no_grad():
    drawn = draw_prior(prior, shape, count, seed=4, steps=6 if small else 18)
fig, axes = plt.subplots(1, count, figsize=(12, 2.9), layout="constrained")
for k, axis in enumerate(axes):
    show(axis, drawn[k], f"|draw {k + 1}| from the prior")

# %% [markdown]
# ## 4. Train one
#
# Here a small network learns from cartoons: ellipses and boxes of constant grey. With a settings file like this one,
# your own images and more patience, `recon train --config mine.toml --data FOLDER --output RUN` makes a prior (NIfTI, DICOM,
# NumPy, fastMRI and BART files are read). Training can be stopped and continued at any time.

# %%
rng = np.random.default_rng(0)


def cartoon(size=96):
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.zeros((size, size))
    for _ in range(rng.integers(4, 12)):
        x0, y0 = rng.uniform(-0.7, 0.7, 2)
        a, b = rng.uniform(0.08, 0.6, 2)
        u, v = (x - x0) / a, (y - y0) / b
        image[(u**2 + v**2 < 1) if rng.random() < 0.7 else (np.maximum(abs(u), abs(v)) < 0.8)] = rng.uniform(0, 1)
    return image


np.save(folder / "cartoons.npy", np.stack([cartoon() for _ in range(8 if small else 60)]).astype(np.float32))
np.save(folder / "unseen.npy", np.stack([cartoon() for _ in range(2)]).astype(np.float32))
(folder / "cartoons.toml").write_text(f"""
modality = "mri"
steps = {4 if small else 400}
warmup = 20
decay = {2 if small else 200}
ema_decay = 0.98
learning_rate = 2e-3
precision = "float32"
patches = [[48, 8, 1.0]]
previews = 4
evaluation_minutes = 0.25

[network]
channels = [16, 32, 48]
encoder_blocks = [1, 1, 1]
decoder_blocks = [1, 1]
embedding = 32

[card]
name = "cartoons"
licence = "do as you please"

[[sources]]
pattern = "*.npy"
spacing = [1.0, 1.0]
held_out = ["unseen"]
""")

from recon.training.cli import load_config, train
from recon.training.export import export_prior

config = load_config(folder / "cartoons.toml", {"data": str(folder), "output": str(folder / "run")})
checkpoint = train(config)
card = export_prior(config, checkpoint, folder / "cartoons.safetensors")
print((folder / "run" / "log.txt").read_text().splitlines()[-1].split(" ", 1)[1])

fig, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained", width_ratios=[1.4, 1])
for axis, name in zip(axes, ("curves.png", "previews.png")):
    axis.imshow(plt.imread(folder / "run" / name))
    axis.set_title({"curves.png": "training loss, and PSNR of held-out cartoons", "previews.png": "four draws from it"}[name])
    axis.axis("off")

# %% [markdown]
# ## 5. The wrong prior
#
# The same undersampled scan, reconstructed with each of them; |error| and std share one scale. Both fit the data,
# so the verdict on both is "ok". The one that knows cartoons errs more, its map grows too little to make up for it, and
# its intervals miss: *a map cannot show what its prior has never seen.* Coverage, which needs a reference, tells; so does a
# prior's denoising error on images of the kind at hand.

# %%
fast = demo.simulate(acceleration=4, shape=shape)
cartoons = recon.load_prior(folder / "cartoons.safetensors")
settings = {"mask": fast.mask, "samples": 2 if small else 8, "steps": 4 if small else 20, "progress": False}
results = {name: recon.reconstruct(fast.kspace, prior=p, **settings) for name, p in ((shipped, prior), ("cartoons", cartoons))}

white = np.quantile(fast.reference, 0.995)
tissue = foreground(fast.reference)
fig, axes = plt.subplots(2, 4, figsize=(11.6, 6.6), layout="constrained")
for row, (name, posterior) in zip(axes, results.items()):
    magnitude, (lower, upper) = posterior.magnitude, posterior.interval(0.9)
    row[0].imshow(np.abs(posterior.mean), vmin=0, vmax=white)
    row[0].set_title(f"{Path(name).stem}: mean, {psnr(np.abs(posterior.mean), fast.reference):.1f} dB")
    row[1].imshow(np.abs(posterior.samples[0]), vmin=0, vmax=white)
    row[1].set_title("one sample")
    row[2].imshow(np.abs(np.abs(posterior.mean) - fast.reference), cmap="viridis", vmin=0, vmax=white / 8)
    row[2].set_title("|error| of the mean")
    shown = row[3].imshow(magnitude.std, cmap="viridis", vmin=0, vmax=white / 8)
    covered = coverage(lower, upper, fast.reference, tissue)
    row[3].set_title(f"std; raw 90 % intervals cover {covered:.0%}")
    for axis in row:
        axis.axis("off")
    print(f"{Path(name).stem}: raw 90 % intervals hold the truth in {covered:.0%} of the pixels with signal")
    print(f"  verdict: {posterior.verdict}")
fig.colorbar(shown, ax=axes, shrink=0.6, label="|error| and std (1: bright tissue)", extend="max");

# %% [markdown]
# ## 6. Networks that others have published
#
# Layouts are recognised by the names and shapes of their tensors: score-MRI, DDS / guided-diffusion, InverseBench / EDM, NCSNv2,
# diffusers. Every tensor is accounted for, and nothing in a file is ever executed. A tiny one with random weights, in the
# layout of InverseBench:

# %%
from recon.priors.checkpoints import checkpoint_lines, convert_checkpoint
from recon.priors.networks.edm import DhariwalUNet

generator = torch.Generator().manual_seed(0)
network = DhariwalUNet(resolution=32, channels=2, out_channels=2, features=16, multipliers=[1, 2], res_blocks=1)
weights = {
    "model." + name: value if name.endswith("resample_filter") else 0.1 * torch.randn(value.shape, generator=generator)
    for name, value in network.state_dict().items()
}
torch.save({"ema": weights}, folder / "published.pt")
print("\n".join(line for line in checkpoint_lines(folder / "published.pt") if str(folder) not in line))
convert_checkpoint(folder / "published.pt", folder / "published.safetensors")
print("denoised:", tuple(recon.load_prior(folder / "published.safetensors").denoise(noise, 0.5).shape))

# %% [markdown]
# `recon models` lists what is known by name, `recon models info FILE` says what a file is, and `recon run scan.h5 --prior FILE` takes
# it from there. [docs/priors.md](../docs/priors.md) has the rest: cards, scales, training options, speed.
