import numpy as np
import pytest
import torch

from recon.errors import InputError
from recon.priors import GaussianPrior
from recon.training.memorisation import compare, cut_patches, nearest, orientations, whole
from recon.training.pictures import draw_prior


def textures(count, seed, size=40):
    """Smooth random images."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 9, 9, generator=rng)
    return list(torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[:, 0].clamp(min=0))


def test_a_copy_is_found_wherever_it_lies_and_however_it_is_turned():
    training = textures(6, 0)
    cut = training[4][7:23, 11:27]
    for turned in orientations(cut[None])[:, 0]:
        found = nearest(0.3 + 0.5 * turned[None], training)  # brightness and contrast do not count
        assert found.distance.item() < 2e-3 and found.image.item() == 4
    assert len(orientations(cut[None]).unique(dim=0)) == 8
    new = nearest(cut_patches(textures(6, 1), 16, 10, seed=0), training)
    assert new.distance.min() > 0.1 and new.distance.max() < 2**0.5 + 1e-6


def test_the_ratio_tells_copies_from_new_images():
    training, held_out, samples = textures(8, 0), textures(8, 1), textures(8, 2)
    new, others = cut_patches(samples, 16, 40, seed=0), cut_patches(held_out, 16, 40, seed=1)
    honest = compare(new, others, training)
    assert 0.85 < honest["ratio"] < 1.15 and honest["copies"] == 0
    copied = cut_patches([image.flip(0) for image in training], 16, 40, seed=2)
    caught = compare(
        copied + 0.01 * torch.randn(copied.shape, generator=torch.Generator().manual_seed(0)), others, training
    )
    assert caught["ratio"] < 0.3 and caught["copies"] > 0.9
    some = torch.cat([new[:30], copied[:10]])
    assert compare(some, others, training)["copies"] == pytest.approx(0.25)
    assert compare(some, others, training)["ratio_5"] < 0.1


def test_whole_slices_are_compared_in_one_frame():
    image = torch.zeros(50, 60)
    bump = torch.exp(-(torch.linspace(-2.2, 2.2, 30) ** 2))
    image[10:40, 20:50] = (textures(1, 3, 30)[0] + 0.5) * bump[:, None] * bump
    larger = torch.nn.functional.interpolate(image[None, None], scale_factor=1.5, mode="bilinear")[0, 0]
    moved = torch.roll(larger, (-9, 7), (0, 1)).flip(1)
    found = nearest(whole([moved], 24), list(whole([*textures(3, 4), image], 24)))
    assert found.image.item() == 3 and found.distance.item() < 0.15
    with pytest.raises(InputError, match="no image"):
        whole([torch.zeros(9, 9)], 8)
    with pytest.raises(InputError, match="do not fit"):
        cut_patches([torch.ones(8, 8)], 16, 2, seed=0)
    with pytest.raises(InputError, match="structure"):
        cut_patches([torch.ones(32, 32)], 16, 2, seed=0)


def test_draws_of_a_known_prior_have_its_spectrum_and_do_not_depend_on_their_number():
    prior = GaussianPrior.power_law((32, 32), std=0.5, exponent=2.0)
    draws = draw_prior(prior, (32, 32), 48, seed=3, steps=24)
    assert draws.dtype == torch.complex64
    assert float((draws - prior.mean).abs().square().mean().sqrt()) == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(draw_prior(prior, (32, 32), 2, seed=3, steps=24), draws[:2], rtol=1e-4, atol=1e-4)
    power = torch.fft.fft2(draws, norm="ortho").abs().square().mean(dim=0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32)))
    assert power[torch.from_numpy(radius < 0.1)].mean() > 8 * power[torch.from_numpy(radius > 0.3)].mean()
