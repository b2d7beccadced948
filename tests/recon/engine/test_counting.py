"""What a run really cost, and that a prepared Problem is reconstructed as its file would be."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import recon
from operators import CartesianMRI, Identity
from operators.space import Space
from recon.errors import InputError
from recon.modalities import modality
from recon.priors import GaussianPrior
from samplers import DDS, DPS, MomentMatching, PiGDM, Problem, ScoreMRI

SHAPE = (16, 16)
# So few steps do not reach the data, which is told; here only the cost counts.
FEW = pytest.mark.filterwarnings(
    "ignore:the data residual is", "ignore:the mean reproduces only", "ignore:held-out test"
)


def problem() -> Problem:
    import torch

    generator = torch.Generator().manual_seed(0)
    mask = torch.rand((1, 16), generator=generator) < 0.6
    operator = CartesianMRI(mask, shape=SHAPE)
    image = torch.randn(SHAPE, dtype=torch.complex64, generator=generator)
    return Problem(operator(image), operator, 0.1)


@pytest.mark.parametrize(
    ("sampler", "calls", "gradients"),
    [
        (DDS(steps=5, spacing="karras"), 5, 0),
        (DPS(steps=5), 5, 5),
        (DPS(steps=5, chunk=1), 5, 5),
        (ScoreMRI(steps=5), 9, 0),
    ],
    ids=["dds", "dps", "dps in chunks", "score-mri"],
)
@pytest.mark.parametrize("batch_size", [None, 2])
@FEW
def test_calls_are_those_that_the_docstrings_promise(sampler, calls, gradients, batch_size):
    prior = GaussianPrior.power_law(SHAPE)
    record = recon.reconstruct(problem(), prior=prior, sampler=sampler, samples=4, batch_size=batch_size).provenance
    assert (record["network_calls"], record["back_propagations"]) == (calls, gradients)


@pytest.mark.parametrize("sampler", [PiGDM(steps=4), MomentMatching(steps=4)], ids=["pigdm", "moment-matching"])
@FEW
def test_a_jacobian_costs_gradients(sampler):
    class Opaque:
        """A Gaussian prior that knows nothing of its covariance."""

        inner = GaussianPrior.power_law(SHAPE)
        space, sigma_min, sigma_max = inner.space, inner.sigma_min, inner.sigma_max

        def denoise(self, x, sigma):
            return self.inner.denoise(x, sigma)

    record = recon.reconstruct(problem(), prior=Opaque(), sampler=sampler, samples=2).provenance
    assert record["network_calls"] >= 4
    assert record["back_propagations"] > 0 or isinstance(sampler, MomentMatching)


def test_a_clipped_schedule_is_told():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        prior = GaussianPrior.power_law(SHAPE)
        prior.sigma_max = 3.0
        recon.reconstruct(problem(), prior=prior, sampler=DDS(steps=50), samples=2)
    assert any(re.search(r"\d+ of 50 steps were made", str(one.message)) for one in found)


@FEW
def test_a_problem_belongs_to_the_modality_of_its_operator(tmp_path: Path):
    """The same settings and prior, so the same images as from the file."""
    for k in range(2):
        np.save(tmp_path / f"{k}.npy", 0.5 + 0.1 * np.hypot(*np.mgrid[-1:1:24j, -1:1:24j]))
    settings = {"samples": 2, "steps": 3, "prior": "gaussian", "progress": False}
    whole = recon.reconstruct(tmp_path, views=12, photons=1e5, pixel_size=4.0, slices=0, **settings)
    source = modality("ct").source(tmp_path, recon.CT(views=12, photons=1e5, pixel_size=4.0), 0)
    alone = recon.reconstruct(source.prepare(0, "cpu").problem, **settings)
    np.testing.assert_array_equal(whole.samples, alone.samples)
    assert alone.provenance["modality"] == "ct" and alone.provenance["sampler"] == whole.provenance["sampler"]


def test_a_problem_of_no_modality_needs_a_prior():
    import torch

    space = Space((8, 8), torch.complex64)
    unknown = Problem(torch.ones(8, 8, dtype=torch.complex64), Identity(space), 0.1)
    with pytest.raises(InputError, match="prior: 'auto' needs a modality"):
        recon.reconstruct(unknown, samples=2)
    with pytest.raises(InputError, match="takes no acceleration"):
        recon.reconstruct(problem(), acceleration=4)
