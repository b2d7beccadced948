"""Published networks: outputs of the originals, sizes, and the way to the engine's convention."""

import math

import pytest
import torch

from recon import load_prior
from recon.errors import CheckpointError, ConfigError, InputError, ShapeError
from recon.priors.checkpoints import CheckpointPrior, load_checkpoint
from recon.priors.checkpoints.parametrization import VPSteps, parametrize, sigma_range, vp_alphas
from recon.priors.networks.table import build

TOLERANCE = 1e-4  # of the standard deviation of the expected output


def relative_error(found, expected):
    return float((found - expected).abs().max() / expected.std())


def loaded(published, stem):
    (path,) = [file for file in published.glob(f"{stem}.*") if file.suffix in (".pt", ".pth")]
    prior = load_prior(path)
    return prior, torch.load(published / f"{stem}_io.pt", weights_only=True)


@torch.no_grad()
def test_adm_gives_the_original_outputs(published):
    prior, io = loaded(published, "adm_small")
    output = prior.model.network(io["x"], io["t"])
    assert relative_error(output, io["y"]) < TOLERANCE
    assert relative_error(output[:, 2:], io["y"][:, 2:]) < TOLERANCE


@torch.no_grad()
def test_ncsnpp_gives_the_original_score_with_ema_weights(published):
    prior, io = loaded(published, "score_mri_ncsnpp_small")
    assert relative_error(prior.model.network(io["x"], io["sigma"]), io["score"]) < TOLERANCE
    assert prior.card["weights"].startswith("EMA")


@torch.no_grad()
def test_edm_gives_the_original_denoised_image_with_ema_weights(published):
    prior, io = loaded(published, "inversebench_edm_small")
    assert relative_error(prior.model(io["x"], io["sigma"]), io["denoised"]) < TOLERANCE


@torch.no_grad()
def test_ncsnv2_gives_the_original_score_with_ema_weights(published):
    prior, io = loaded(published, "csgm_ncsnv2_small")
    score = prior.model.network(io["x"]) / io["sigma"][:, None, None, None]
    assert relative_error(score, io["score"]) < TOLERANCE


@torch.no_grad()
@pytest.mark.slow
def test_denoisers_agree_with_original_outputs_in_the_sigma_of_the_engine(published):
    """Tweedie's formula by hand, from outputs of the original networks alone."""
    for stem in ("csgm_ncsnv2_small", "score_mri_ncsnpp_small"):
        prior, io = loaded(published, stem)
        sigma = io["sigma"][:, None, None, None]
        expected = io["x"] + sigma**2 * io["score"]
        if stem.startswith("csgm"):
            x, expected = torch.complex(io["x"][:, 0], io["x"][:, 1]), torch.complex(expected[:, 0], expected[:, 1])
        else:
            # One channel, fed part by part: let both parts be the same image.
            x, expected = torch.complex(io["x"][:, 0], io["x"][:, 0]), torch.complex(expected[:, 0], expected[:, 0])
        found = prior.denoise(x, io["sigma"] * math.sqrt(2))
        scale = (expected - x).abs().amax(dim=(1, 2)) + expected.std()
        assert float(((found - expected).abs().amax(dim=(1, 2)) / scale).max()) < TOLERANCE
    prior, io = loaded(published, "adm_small")
    alpha = torch.from_numpy(vp_alphas({}))[io["t"].long()].float()[:, None, None, None]
    sigma = ((1 - alpha) / alpha).sqrt()
    clean = io["x"] / alpha.sqrt() - sigma * io["y"][:, :2]
    x = torch.view_as_complex((io["x"] / alpha.sqrt()).permute(0, 2, 3, 1).contiguous())
    found = torch.view_as_real(prior.denoise(x, sigma.flatten() * math.sqrt(2))).permute(0, 3, 1, 2)
    assert float(((found - clean) / sigma).abs().max()) < 1e-3 * float(io["y"].std())


FULL = {
    "score-MRI": ("ncsnpp", {"channels": 1, "features": 128, "multipliers": [1, 2, 2, 2], "res_blocks": 4}, 61_433_601),
    "DDS knee": (
        "adm",
        {
            "in_channels": 2,
            "out_channels": 4,
            "model_channels": 256,
            "res_blocks": 1,
            "channel_mult": [1, 1, 2, 2, 4, 4],
        },
        361_428_228,
    ),
    "DDS AAPM": (
        "adm",
        {"in_channels": 1, "out_channels": 2, "model_channels": 256, "res_blocks": 1}
        | {"channel_mult": [1, 1, 2, 2, 4, 4], "attention_levels": [4]},
        374_022_658,
    ),
    "InverseBench": (
        "edm-dhariwal",
        {"resolution": 320, "channels": 2, "out_channels": 2, "features": 128, "multipliers": [1, 1, 1, 2, 2]}
        | {"res_blocks": 1},
        26_002_050,
    ),
    "csgm": ("ncsnv2-deepest", {"channels": 2, "features": 128}, 94_130_306),
}
TENSORS = {"score-MRI": 521, "DDS knee": 344, "DDS AAPM": 362, "InverseBench": 304, "csgm": 229}


@pytest.mark.parametrize("name", FULL)
def test_full_networks_have_the_published_size_and_are_recognised(name, tmp_path):
    architecture, arguments, parameters = FULL[name]
    network = build(architecture, arguments)
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(state) == TENSORS[name]
    assert all(value.is_meta or value.numel() < 100 for value in state.values())
    # The arguments can be read off names and shapes alone.
    from recon.priors.checkpoints.archive import Content
    from recon.priors.checkpoints.load import LAYOUTS

    content = Content(tmp_path, state)
    (layout,) = [layout for layout in LAYOUTS.values() if layout.matches(content)]
    found = layout.read(content)
    assert found.architecture == architecture
    assert {key: found.network[key] for key in arguments} == arguments
    assert build(architecture, found.network).state_dict().keys() == state.keys()


def test_song_networks_are_recognised():
    from pathlib import Path

    from recon.priors.checkpoints import edm
    from recon.priors.checkpoints.archive import Content

    common = {"resolution": 32, "channels": 3, "out_channels": 3, "features": 128, "multipliers": [2, 2, 2]}
    common |= {"res_blocks": 4, "attention_levels": [1]}
    for extra, parameters in (
        ({}, 55_732_739),
        ({"encoder": "residual", "fourier": True, "noise_features": 256, "taps": [1, 1, 1, 1]}, None),
        ({"encoder": "skip", "decoder": "skip"}, None),
    ):
        network = build("edm-song", {**common, **extra})
        found = edm.read(Content(Path("x"), network.state_dict()))
        again = build(found.architecture, found.network)
        shapes = {name: value.shape for name, value in again.state_dict().items()}
        assert shapes == {name: value.shape for name, value in network.state_dict().items()}
        assert parameters in (None, sum(p.numel() for p in network.parameters()))


class Wiener(torch.nn.Module):
    """Exact noise estimate for white images of variance v per channel, as a DDPM network sees them."""

    multiple = 1

    def __init__(self, variance, steps):
        super().__init__()
        self.variance = variance
        self.steps = steps
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.alphas = torch.from_numpy(vp_alphas({}))

    def forward(self, x, t):
        self.steps.append(t)
        sigma = torch.from_numpy(self._sigma(t.double().numpy()))[:, None, None, None].float()
        signal = (1 + sigma**2).rsqrt()
        noise = sigma / (self.variance + sigma**2) * (x / signal)
        return torch.cat([noise, torch.full_like(noise, math.nan)], dim=1)  # a learned variance nobody looks at

    def _sigma(self, t):
        import numpy as np

        table = 0.5 * np.log((1 - self.alphas.numpy()) / self.alphas.numpy())
        return np.exp(np.interp(t, np.arange(len(table)), table))


@pytest.mark.parametrize("images", ["complex", "real"])
@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_steps_scale_and_convention_of_noise_are_exact(images, gain):
    # White images of variance v (complex: in all) have the posterior mean v / (v + sigma^2) x; gain scales units.
    channels, parts = (2, 2) if images == "complex" else (1, 1)
    variance = 0.3
    steps = []
    model = VPSteps(Wiener(gain**2 * variance / parts, steps), vp_alphas({}))
    prior = CheckpointPrior(model, channels, sigma_range({"kind": "vp"}), images, gain)
    generator = torch.Generator().manual_seed(0)
    kind = torch.complex64 if images == "complex" else torch.float32
    x = torch.randn(2, 6, 5, dtype=kind, generator=generator)
    for sigma in (0.1, 0.777, 20.0):
        expected = x * variance / (variance + sigma**2)
        torch.testing.assert_close(prior.denoise(x, sigma), expected, rtol=1e-3, atol=2e-5 * max(1, sigma))
    assert any(bool((t != t.round()).any()) for t in steps)  # between the trained steps
    assert prior.sigma_min == pytest.approx(0.0100005 * math.sqrt(parts) / gain, rel=1e-3)
    assert prior.sigma_max == pytest.approx(157.4 * math.sqrt(parts) / gain, rel=1e-2)


def test_offset_and_gain_bring_images_to_what_the_network_was_trained_on(make_checkpoint):
    """With them the prior of a network for -1 ... 1 is, of images of 0 ... 1, the same function."""
    path = make_checkpoint("diffusers")
    plain = load_checkpoint(path, images="real")
    shape = (2, 16, 16) if plain.channels == 1 else (2, plain.channels, 16, 16)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(4))
    moved = load_checkpoint(path, images="real", card={"gain": 2.0, "offset": -1.0})
    expected = (plain.denoise(2 * x - 1, 0.6) + 1) / 2
    torch.testing.assert_close(moved.denoise(x, 0.3), expected, rtol=1e-5, atol=1e-5)
    assert moved.sigma_max == pytest.approx(plain.sigma_max / 2)
    for card in ({"offset": "low"}, {"offset": -1.0, "images": "complex"}):
        with pytest.raises(CheckpointError, match="offset"):
            load_checkpoint(path, card=card)


def test_predictions_of_image_and_velocity():
    class Fixed(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x, t):
            return self.function

    x0, noise = torch.full((1, 1, 2, 2), 0.7), torch.full((1, 1, 2, 2), -0.4)
    sigma = torch.tensor([1.5])
    signal = (1 + sigma**2).rsqrt()
    velocity = signal * noise - (1 - signal**2).sqrt() * x0
    for prediction, output in (("epsilon", noise), ("sample", x0), ("v_prediction", velocity)):
        found = VPSteps(Fixed(output), vp_alphas({}), prediction)(x0 + sigma * noise, sigma)
        torch.testing.assert_close(found, x0)
    with pytest.raises(CheckpointError, match="prediction"):
        VPSteps(Fixed(x0), vp_alphas({}), "flow")


def test_schedules():
    for schedule in ("linear", "scaled_linear", "cosine"):
        alphas = vp_alphas({"schedule": schedule, "steps": 50})
        assert (alphas[1:] < alphas[:-1]).all() and 0 < alphas[-1] < alphas[0] < 1
    assert vp_alphas({})[0] == pytest.approx(1 - 1e-4)
    for wrong in ({"schedule": "sigmoid"}, {"steps": 1}, {"beta_start": 0.5}):
        with pytest.raises(CheckpointError):
            vp_alphas(wrong)
    with pytest.raises(CheckpointError, match="parametrization"):
        parametrize(torch.nn.Identity(), {"kind": "flow"})


@pytest.mark.parametrize("kind", ["adm", "score-sde", "edm", "ncsnv2", "diffusers"])
def test_any_size_batch_and_gradient(make_checkpoint, kind):
    prior = load_checkpoint(make_checkpoint(kind))
    x = torch.randn(3, 19, 26, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5, 2.0])
    together = prior.denoise(x, sigma)
    assert together.shape == x.shape and torch.isfinite(together.abs()).all()
    prior.max_batch = 2
    torch.testing.assert_close(prior.denoise(x, sigma), together, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prior.denoise(x, 0.0), prior.denoise(x, prior.sigma_min))
    for outside in (-1.0, prior.sigma_max * 1.1, math.nan):
        with pytest.raises(InputError, match="expected sigma between 0 and"):
            prior.denoise(x, outside)
    single = x[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(prior.denoise(single, 0.5).abs().square().sum(), single)
    assert torch.isfinite(gradient.abs()).all() and float(gradient.abs().max()) > 0
    assert not any(parameter.requires_grad for parameter in prior.model.parameters())


def test_one_channel_networks_take_complex_or_real_images(make_checkpoint):
    path = make_checkpoint("score-sde")
    whole, real = load_checkpoint(path), load_prior(path, images="real", precision="float32")
    x = torch.randn(1, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    parts = torch.complex(real.denoise(x.real, 0.3), real.denoise(x.imag, 0.3))
    torch.testing.assert_close(whole.denoise(x, 0.3 * math.sqrt(2)), parts, rtol=1e-4, atol=1e-5)
    assert whole.sigma_max == pytest.approx(real.sigma_max * math.sqrt(2))
    with pytest.raises(ShapeError, match="images='real'"):
        whole.denoise(x.real, 0.3)
    with pytest.raises(ShapeError, match="real images"):
        real.denoise(x, 0.3)
    with pytest.raises(ConfigError, match="images"):
        load_checkpoint(path, images="quaternion")


@pytest.mark.filterwarnings("ignore:the data residual", "ignore:3 steps")  # the weights are random
def test_it_samples(make_checkpoint):
    """The engine draws from a published layout like from its own prior."""
    import numpy as np

    import recon

    kspace = torch.randn(1, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(2)).numpy()
    posterior = recon.reconstruct(
        kspace, prior=str(make_checkpoint("edm")), samples=2, steps=3, noise_std=0.5, device="cpu",
        coil_maps=np.ones((1, 16, 16), np.complex64), progress=False,
    )  # fmt: skip
    assert posterior.samples.shape == (2, 16, 16)
    assert len(posterior.provenance["prior"]["sha256"]) == 64
