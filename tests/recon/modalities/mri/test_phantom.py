"""The simulated phantom follows the conventions of the operators, and its reconstruction is the phantom."""

import numpy as np
import pytest
import torch

import recon
from operators import CartesianMRI
from recon.errors import InputError
from recon.io import simulate_phantom


def test_kspace_is_what_the_operator_gives():
    scan = simulate_phantom((48, 40), coils=4, noise_std=0.0)
    operator = CartesianMRI(np.ones((1, 1), bool), scan.coil_maps, shape=(48, 40))
    np.testing.assert_allclose(operator(torch.from_numpy(scan.image)).numpy(), scan.kspace, atol=1e-5)
    noisy = simulate_phantom((48, 40), coils=4, noise_std=0.1, seed=3)
    assert np.std(noisy.kspace - scan.kspace) == pytest.approx(0.1, rel=0.03)
    np.testing.assert_array_equal(noisy.kspace, simulate_phantom((48, 40), 4, 0.1, seed=3).kspace)


@pytest.mark.slow
def test_it_is_reconstructed():
    scan = simulate_phantom((48, 48), coils=3)
    found = recon.reconstruct(scan.kspace, prior="gaussian", sampler="exact", samples=2, acceleration=1.5)
    error = np.abs(np.abs(found.mean) - np.abs(scan.image))
    assert np.sqrt((error**2).mean()) < 0.08


@pytest.mark.parametrize("wrong", [{"coils": 0}, {"shape": (8, 8)}, {"noise_std": -1.0}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(InputError, match="simulate_phantom: expected coils"):
        simulate_phantom(**wrong)
