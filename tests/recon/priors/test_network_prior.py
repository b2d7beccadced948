import hashlib
import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from recon.errors import CheckpointError, ConfigError, InputError, ReconError, ShapeError
from recon.priors.inference import (
    PreparedNetwork,
    activation_bytes,
    arithmetic,
    pad_to_multiple,
    products,
)
from recon.priors.network import WEIGHTS_FOLDER, NetworkPrior, load_network_prior
from recon.priors.networks.files import write_prior
from recon.priors.networks.unet import EDMDenoiser, UNet

SMALL = {"channels": [8, 12, 16], "encoder_blocks": [1, 1, 1], "decoder_blocks": [1, 1], "embedding": 16}


def small_model(seed=0, trained=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EDMDenoiser(UNet(**SMALL), sigma_data=0.3)
        if trained:  # zero-initialised layers would hide mistakes
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn(parameter.shape)
    return model


def complex_noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def prior():
    return NetworkPrior(small_model(), sigma_min=0.003, sigma_max=20.0)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "small.safetensors"
    card = {"architecture": "unet-edm", "network": SMALL, "sigma_data": 0.3, "sigma_min": 0.003, "sigma_max": 20.0}
    write_prior(path, small_model().state_dict(), card)
    return path


def test_untrained_network_is_the_wiener_filter_of_the_engine_convention():
    # F = 0 at the start, so D = x sigma_data^2 / (sigma_data^2 + sigma_channel^2): the exact posterior mean of white
    # complex Gaussian data with E|x0|^2 = 2 sigma_data^2, where sigma_channel^2 = sigma^2 / 2.
    prior = NetworkPrior(small_model(trained=False), 0.003, 20.0)
    x = complex_noise(2, 16, 16)
    sigma = 0.4
    variance = 2 * 0.3**2
    torch.testing.assert_close(prior.denoise(x, sigma), x * variance / (variance + sigma**2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["edm", "vp", "ve"])
def test_what_the_network_predicts(kind):
    """D(x + sigma n) is x, whatever x is, if F is told to say what its parametrization asks of it."""
    clean, noise = torch.randn(2, 3, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    sigma = torch.tensor([0.01, 0.5, 20.0])
    s = sigma[:, None, None, None]
    model = EDMDenoiser(UNet(**SMALL), 0.3, kind)
    truth = {"vp": noise, "ve": -noise, "edm": (s * clean / 0.3 - 0.3 * noise) / (s**2 + 0.09).sqrt()}[kind]
    seen = {"vp": (s**2 + 1).rsqrt(), "ve": torch.ones(1), "edm": (s**2 + 0.09).rsqrt()}[kind]

    def answer(x, levels):
        torch.testing.assert_close(x, seen * (clean + s * noise))
        torch.testing.assert_close(levels, sigma.log() / 4)
        return truth

    model.network = torch.nn.Identity()
    model.network.forward = answer
    torch.testing.assert_close(model(clean + s * noise, sigma), clean, rtol=1e-4, atol=1e-4)


def test_real_and_imaginary_parts_are_the_two_channels(prior):
    x = complex_noise(1, 16, 16)
    direct = prior.model(torch.stack([x.real, x.imag], 1), torch.tensor([0.2 / math.sqrt(2)]))
    torch.testing.assert_close(prior(x, 0.2), torch.complex(direct[:, 0], direct[:, 1]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (30, 9), (5, 3), (1, 1), (1, 40)])
def test_any_image_size(prior, shape):
    x = complex_noise(2, *shape)
    out = prior.denoise(x, torch.tensor([0.1, 1.0]))
    assert out.shape == x.shape and out.dtype == torch.complex64 and torch.isfinite(out.abs()).all()


def test_padding_is_centred_and_mirrors():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    padded, (top, left) = pad_to_multiple(x, 4)
    assert padded.shape[-2:] == (4, 4) and (top, left) == (1, 0)
    torch.testing.assert_close(padded[0, 0, :, 0], torch.tensor([3.0, 0.0, 3.0, 0.0]))
    assert pad_to_multiple(torch.zeros(1, 1, 1, 1), 8)[0].shape == (1, 1, 8, 8)


def test_batch_equals_one_by_one_and_chunks(prior):
    x, sigma = complex_noise(4, 24, 20), torch.tensor([0.05, 0.3, 1.0, 5.0])
    together = prior.denoise(x, sigma)
    single = torch.cat([prior.denoise(x[k : k + 1], sigma[k]) for k in range(4)])
    torch.testing.assert_close(together, single, rtol=1e-5, atol=1e-5)
    prior.max_batch = 3
    torch.testing.assert_close(prior.denoise(x, sigma), together, rtol=1e-5, atol=1e-5)


def test_gradient_flows_to_the_image_and_not_to_the_parameters(prior):
    x = complex_noise(1, 9, 12).requires_grad_()
    direction = complex_noise(1, 9, 12, seed=1)
    probe = complex_noise(1, 9, 12, seed=2)
    out = prior.denoise(x, 0.5)
    (gradient,) = torch.autograd.grad(out, x, probe)
    assert all(p.grad is None and not p.requires_grad for p in prior.model.parameters())
    with torch.no_grad():
        step = 1e-2
        difference = (prior.denoise(x + step * direction, 0.5) - prior.denoise(x - step * direction, 0.5)) / (2 * step)
    expected = torch.vdot(probe.flatten(), difference.flatten()).real
    measured = torch.vdot(gradient.flatten(), direction.flatten()).real
    torch.testing.assert_close(measured, expected, rtol=5e-3, atol=1e-2)


def test_no_global_randomness(prior):
    state = torch.random.get_rng_state()
    prior.denoise(complex_noise(1, 8, 8), 0.1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_bfloat16_is_close(prior):
    x = complex_noise(1, 16, 16)
    exact = prior.denoise(x, 0.3)
    half = NetworkPrior(small_model(), 0.003, 20.0, precision="bfloat16").denoise(x, 0.3)
    assert half.dtype == torch.complex64
    assert (half - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_limits_of_sigma(prior):
    x = complex_noise(1, 8, 8)
    torch.testing.assert_close(prior.denoise(x, 0.0), prior.denoise(x, prior.sigma_min))
    for sigma in (-0.1, 21.0, math.nan):
        with pytest.raises(InputError, match="expected sigma between 0 and"):
            prior.denoise(x, sigma)


def test_wrong_arguments(prior):
    with pytest.raises(ShapeError, match="complex"):
        prior.denoise(torch.zeros(1, 8, 8), 0.1)
    with pytest.raises(ShapeError, match="batch, y, x"):
        prior.denoise(complex_noise(8, 8), 0.1)
    with pytest.raises(ShapeError, match="sigma"):
        prior.denoise(complex_noise(2, 8, 8), torch.ones(3))
    with pytest.raises(ConfigError, match="precision"):
        NetworkPrior(small_model(), 0.003, 20.0, precision="float16")


def test_saved_prior_is_the_same_to_half_precision(saved, prior):
    loaded = load_network_prior(saved)
    x = complex_noise(1, 16, 16)
    torch.testing.assert_close(loaded.denoise(x, 0.3), prior.denoise(x, 0.3), rtol=1e-2, atol=1e-2)
    assert loaded.sigma_max == 20.0 and loaded.space is None and loaded.device.type == "cpu"
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())


def rewrite(path, change):
    """Change the tensors of a saved prior and give the card the new sha256."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    card = json.loads(path.with_suffix(".json").read_text())
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card))


NAME = "network.stem.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), f"{NAME}.* is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected tensor 'extra'"),
        (lambda t: t.update({NAME: t[NAME][:4].clone()}), f"expected shape .*{NAME}"),
        (lambda t: t[NAME].view(-1)[3].fill_(math.nan), f"{NAME}.*not finite"),
    ],
)
def test_every_tensor_is_accounted_for(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_network_prior(saved)


def test_damaged_files_are_refused(saved):
    content = bytearray(saved.read_bytes())
    content[-5] ^= 255
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_network_prior(saved)
    saved.with_suffix(".json").write_text('{"architecture": "unet-edm"}')
    with pytest.raises(CheckpointError, match="lacks 'network'"):
        load_network_prior(saved)
    saved.with_suffix(".json").unlink()
    with pytest.raises(ReconError, match="model card"):
        load_network_prior(saved)


def test_weights_that_do_not_fit_half_precision_are_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="float16"):
        write_prior(tmp_path / "x.safetensors", {"w": torch.tensor([1e6])}, {})


def test_nothing_is_written_through_a_link(tmp_path):
    own = tmp_path / "own"
    own.write_text("precious")
    names = ("x.safetensors", "x.safetensors.tmp", "x.json", "x.json.tmp")
    for name in names:
        (tmp_path / name).symlink_to(own)
    write_prior(tmp_path / "x.safetensors", {"w": torch.ones(2)}, {})
    assert own.read_text() == "precious"
    assert [(tmp_path / name).is_symlink() for name in names] == [False, True, False, True]


@pytest.mark.parametrize("name", ["brain-mri", "cardiac-mri"])
def test_shipped_mri_prior_denoises(name):
    path = WEIGHTS_FOLDER / f"{name}.safetensors"
    assert path.stat().st_size <= 15_000_000
    prior = load_network_prior(path)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 50), torch.linspace(-1, 1, 44), indexing="ij")
    clean = torch.polar(((y / 0.8) ** 2 + (x / 0.7) ** 2 < 1).float() * 0.7, 0.5 + x)[None]
    for sigma in (0.1, 0.5):
        noise = complex_noise(1, 50, 44)
        before = (sigma * noise).abs().square().mean()
        after = (prior.denoise(clean + sigma * noise, sigma) - clean).abs().square().mean()
        assert after < 0.25 * before
    assert {"licence", "data", "scale", "limits"} <= set(prior.card)
    assert 0.005 < prior.error_std(0.05) < 0.05 < prior.error_std(0.5) < 0.5


def test_shipped_ct_prior_denoises_a_disc():
    path = WEIGHTS_FOLDER / "ct.safetensors"
    assert path.stat().st_size <= 15_000_000
    prior = load_network_prior(path)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 50), torch.linspace(-1, 1, 44), indexing="ij")
    clean = ((y / 0.8) ** 2 + (x / 0.7) ** 2 < 1).float()[None]  # water in air
    for sigma in (0.1, 0.5):
        noise = torch.randn(1, 50, 44, generator=torch.Generator().manual_seed(0))
        before = (sigma * noise).square().mean()
        after = (prior.denoise(clean + sigma * noise, sigma) - clean).square().mean()
        assert after < 0.25 * before
    assert {"licence", "data", "scale", "limits"} <= set(prior.card)
    assert 0.002 < prior.error_std(0.05) < 0.05 < prior.error_std(1.0) < 1.0


def test_measured_error_is_interpolated_in_the_logarithms():
    table = {"sigma": [0.01, 0.1, 1.0], "error": [0.005, 0.04, 0.16]}
    prior = NetworkPrior(small_model(), 0.003, 20.0, {"error_std": table})
    assert prior.error_std(0.1) == pytest.approx(0.04)
    assert prior.error_std(0.1 * math.sqrt(10)) == pytest.approx(0.08)
    assert prior.error_std(0.002) == pytest.approx(0.001)
    assert prior.error_std(9.0) == pytest.approx(0.16)
    assert NetworkPrior(small_model(), 0.003, 20.0).error_std(0.1) is None


def test_measured_error_by_frequency_has_the_shape_of_the_image():
    table = {"sigma": [0.1, 1.0], "frequency": [0.1, 0.3], "ratio": [[0.8, 0.4], [0.2, 0.1]]}
    prior = NetworkPrior(small_model(), 0.003, 20.0, {"error_spectrum": table})
    found = prior.error_spectrum(0.1, (20, 30))
    assert found.shape == (20, 30)
    assert found[10, 15] == pytest.approx(0.08**2)  # the centre is nearest to the first ring
    assert found[0, 0] == pytest.approx(0.04**2)
    assert found[14, 15] == pytest.approx(0.06**2)  # .2 cycles per pixel, half-way
    assert prior.error_spectrum(0.1 * math.sqrt(10), (20, 30))[0, 0] == pytest.approx((0.1 * math.sqrt(0.4)) ** 2)
    assert prior.error_spectrum(0.01, (20, 30))[0, 0] == pytest.approx(0.004**2)
    assert prior.error_spectrum(10.0, (20, 30))[0, 0] == pytest.approx(0.1**2)
    assert NetworkPrior(small_model(), 0.003, 20.0).error_spectrum(0.1, (20, 30)) is None


class Watched(torch.nn.Module):
    """A network of one layer that knows how large its batches were."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(2, 4, 1)
        self.batches = []

    def forward(self, x, levels):
        self.batches.append(len(x))
        return self.layer(x)[:, :2]


def test_batches_are_cut_by_memory(monkeypatch):
    from recon.priors import inference

    network = Watched()
    prepared = PreparedNetwork(network, 1)
    x, levels = torch.zeros(10, 2, 20, 30), torch.ones(10)
    monkeypatch.setattr(inference, "available_memory", lambda device: 1e12)
    prepared(x, levels)
    assert network.batches == [1, 4, 4, 2]  # the first one measures
    assert activation_bytes(network, x, 16, False) == 4 * 4  # four channels of four bytes for each pixel
    image = 16 * 600
    monkeypatch.setattr(inference, "available_memory", lambda device: 2 * 2.5 * image)
    assert prepared.chunk(x.clone().requires_grad_()) == 2
    with torch.no_grad():
        assert prepared.chunk(x) == 4
    monkeypatch.setattr(inference, "available_memory", lambda device: 10.0)
    assert prepared.chunk(x) == 1
    monkeypatch.setattr(inference, "available_memory", lambda device: None)
    assert prepared.chunk(x) == 4
    prepared.max_batch = 7
    assert prepared.chunk(x) == 7
    with pytest.raises(ConfigError, match="max_batch"):
        PreparedNetwork(network, 1, max_batch=0)


def test_a_compiled_network_computes_the_same(prior, monkeypatch):
    calls = []

    def compiled(network, mode):
        assert mode is None

        def run(*arguments):
            calls.append(len(arguments))
            return network(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    x = complex_noise(1, 16, 16)
    again = NetworkPrior(small_model(), 0.003, 20.0, compiled=True)
    torch.testing.assert_close(again.denoise(x, 0.3), prior.denoise(x, 0.3))
    assert calls == [2]


@pytest.mark.slow
def test_graphs_write_to_the_same_place_each_time(prior, monkeypatch):
    calls = []

    def compiled(network, mode):
        assert mode == "reduce-overhead"  # torch's name for CUDA graphs
        place = torch.zeros(1, 2, 16, 16)

        def run(*arguments):
            calls.append(len(arguments[0]))
            return place.copy_(network(*arguments))

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    x = complex_noise(3, 16, 16)
    again = NetworkPrior(small_model(), 0.003, 20.0, max_batch=1, compiled="cuda-graphs")
    torch.testing.assert_close(again.denoise(x, 0.3), prior.denoise(x, 0.3))
    assert calls == [1, 1, 1]
    wanted = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(again.denoise(wanted, 0.3).abs().sum(), wanted)
    assert gradient.abs().min() > 0 and len(calls) == 3  # as it was written, not as a graph
    with pytest.raises(ConfigError, match="cuda-graphs"):
        NetworkPrior(small_model(), 0.003, 20.0, compiled="graphs")


def precisions():
    """Both of torch's sets of names; None where reading raises."""

    def read(setting, name):
        try:
            return getattr(setting, name)
        except RuntimeError:
            return None

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    new = [read(setting, "fp32_precision") for setting in (cudnn.conv, cudnn.rnn, matmul)]
    return new, [read(setting, "allow_tf32") for setting in (cudnn, matmul)]


@pytest.fixture(params=["defaults", "old names", "new names", "a mix"])
def settings_of_a_user(request):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    new, old = precisions()
    if request.param == "old names":
        cudnn.allow_tf32, matmul.allow_tf32 = False, True
    elif request.param == "new names":
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = matmul.fp32_precision = "ieee"
    elif request.param == "a mix":
        cudnn.conv.fp32_precision, matmul.fp32_precision = "ieee", "tf32"
    yield
    cudnn.allow_tf32, matmul.allow_tf32 = old
    for setting, value in zip((cudnn.conv, cudnn.rnn, matmul), new, strict=True):
        setting.fp32_precision = value


def test_torch_is_left_as_it_was(settings_of_a_user):
    before = precisions()
    for kind, allowed in (("ieee", False), ("tf32", True)):
        with pytest.raises(KeyError), products(kind, torch.device("cuda")):
            (convolution, _, product), old = precisions()
            assert old == [allowed, allowed]  # whoever reads them gets an answer
            assert (convolution == "tf32") == (product == "tf32") == allowed
            raise KeyError
        assert precisions() == before
        with products(kind, torch.device("cpu")):
            assert precisions() == before
    with arithmetic("tf32", torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with arithmetic("bfloat16", torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch):
    def broken(network, mode):
        def run(*arguments):
            raise torch._dynamo.exc.BackendCompilerFailed("inductor", RuntimeError("no g++"), None)

        return run

    import torch._dynamo.exc

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ReconError, match="compiled=False"):
        NetworkPrior(small_model(), 0.003, 20.0, compiled=True).denoise(complex_noise(1, 16, 16), 0.3)
