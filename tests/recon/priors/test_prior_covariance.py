"""The covariance model that a prior carries: estimated from its training images, stored beside it, used by name."""

import numpy as np
import pytest
import torch
from safetensors.torch import save

from operators import CartesianMRI
from recon.errors import CheckpointError, InputError
from recon.priors import GaussianPrior, load_prior
from recon.priors.covariance import SUFFIX, beside, read_covariance, write_covariance
from recon.training.config import load_config
from recon.training.covariance import main, squared, whole_images
from samplers import CovarianceModel, MomentMatching, Noise, Problem, sample

CONFIG = """
modality = "mri"
seed = 3
[[sources]]
pattern = "*.npy"
weight = 1.0
held_out = ["s1"]
"""


@pytest.fixture
def images(tmp_path):
    y, x = np.mgrid[-1:1:40j, -1:1:30j]
    disc = (y**2 + x**2 < 0.5).astype(np.float32)
    np.save(tmp_path / "s0.npy", np.stack([100 * disc * (1 + 0.2 * np.sin(k + 9 * x)) for k in range(4)]))
    np.save(tmp_path / "s1.npy", np.ones((2, 40, 30), np.float32))
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


def test_file_comes_back_as_it_was(tmp_path):
    model = CovarianceModel(torch.rand(6, 8) + 0.1, torch.ones(6, 8))
    write_covariance(tmp_path / ("p" + SUFFIX), model)
    found = beside(tmp_path / "p.safetensors")
    assert torch.equal(found.std_map, model.std_map) and torch.equal(found.spectrum, model.spectrum)
    assert beside(tmp_path / "other.safetensors") is None
    with pytest.raises(InputError, match="map and a spectrum"):
        write_covariance(tmp_path / "q", CovarianceModel.isotropic(1.0))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"nonsense", "cannot read"),
        (save({"std_map": torch.ones(4, 4)}), "got \\['std_map'\\]"),
        (save({"std_map": torch.ones(4, 4), "spectrum": torch.ones(5, 4)}), "spectrum \\(5, 4\\)"),
        (save({"std_map": torch.ones(4), "spectrum": torch.ones(4)}), "float32 \\(y, x\\)"),
        (save({"std_map": -torch.ones(4, 4), "spectrum": torch.ones(4, 4)}), "finite and >= 0"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, words):
    (tmp_path / "p.covariance.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_covariance(tmp_path / "p.covariance.safetensors")


def test_it_is_estimated_from_whole_training_images(images, capsys):
    config = load_config(images / "c.toml", {"data": str(images)})
    whole = whole_images(config, 32, 24)
    assert whole.shape == (24, 32, 32) and whole.is_complex()
    assert float(whole[:, :3, :3].abs().max()) < 0.05  # the held-out images are bright everywhere
    main(
        [str(images / "c.toml"), str(images / "p.safetensors"), "--data", str(images), "--size", "32", "--images", "48"]
    )
    assert "48 images of 32 x 32" in capsys.readouterr().out
    model = beside(images / "p.safetensors")
    assert float(model.std_map[16, 16]) > 5 * float(model.std_map[0, 0])
    assert float(model.spectrum.mean()) == pytest.approx(1.0, rel=1e-4)


def test_images_are_put_in_the_middle_of_a_square():
    image = torch.zeros(20, 10)
    image[:, 4:6] = 1
    found = squared(image, 20)
    assert found.shape == (20, 20) and torch.equal(found[:, 9:11], torch.ones(20, 2)) and float(found.sum()) == 40


@pytest.mark.parametrize("name", ["brain-mri", "ct"])
def test_shipped_priors_carry_one(name):
    model = load_prior(name).covariance_model
    assert model.std_map.shape == model.spectrum.shape == (96, 96)
    small = model.resized((24, 40))
    assert small.std_map.shape == (24, 40) and float(small.spectrum.mean()) == pytest.approx(1.0, rel=1e-4)
    assert 0.1 < model.mean_variance**0.5 < 1.0


class _Knowing:
    """A Gaussian prior that carries its covariance and, if asked to, claims to know its error."""

    def __init__(self, prior: GaussianPrior, model: CovarianceModel | None, error: float | None) -> None:
        self.prior, self.covariance_model, self.error = prior, model, error
        self.sigma_min, self.sigma_max, self.space = prior.sigma_min, prior.sigma_max, prior.space

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return self.prior.denoise(x, sigma)

    def error_std(self, sigma: float) -> float | None:
        return self.error and self.error * sigma


def test_moment_matching_takes_it_by_name_or_where_no_error_is_known():
    prior = GaussianPrior.power_law((16, 16), std=0.5, exponent=2.0, corner=0.1)
    model = CovarianceModel(torch.full((16, 16), 0.5), prior.variance / prior.variance.mean())
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[:, ::3] = True
    operator, noise = CartesianMRI(mask, shape=(16, 16)), Noise(0, [0], prior.mean)
    problem = Problem(operator(prior.draw(noise.normal(prior.space))[0]), operator, 0.05)

    def mean(denoiser, **settings):
        return sample(MomentMatching(steps=6, sigma_max=10.0, sigma_min=0.02, **settings), problem, denoiser, 2).mean

    expected = mean(prior, covariance=model)
    assert torch.equal(mean(_Knowing(prior, model, 0.5), covariance="prior"), expected)
    assert torch.equal(mean(_Knowing(prior, model, None)), expected)
    assert not torch.allclose(mean(_Knowing(prior, model, 0.5)), expected, atol=1e-3)
    assert not torch.allclose(mean(_Knowing(prior, model, None), prior_std=0.1), expected, atol=1e-3)
    with pytest.raises(InputError, match="carries no covariance"):
        mean(_Knowing(prior, None, 0.5), covariance="prior")
    with pytest.raises(InputError, match="'prior', got 'posterior'"):
        MomentMatching(covariance="posterior")
