"""Posteriors that keep few samples, or none: their statistics are those of all samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import recon
from recon.errors import ConfigError, InputError
from recon.posterior import Posterior
from recon.posterior_summary import LEVELS

KINDS = {
    "complex image": ((6, 8, 7), True),
    "complex volume": ((6, 3, 8, 7), True),
    "real volume": ((6, 3, 8, 7), False),
}


def _posterior(shape: tuple[int, ...], complex_values: bool, expectation: bool = False) -> Posterior:
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(shape).astype(np.float32) + (0 if complex_values else np.float32(2))
    if complex_values:
        samples = samples + 1j * rng.standard_normal(shape).astype(np.float32)
    valid = np.ones(shape[0], bool)
    valid[1] = False
    samples[1] = np.nan
    images = {"expectation": samples[0] * np.float32(0.9)} if expectation else {}
    return Posterior(samples, diagnostics={"valid": valid, "residual": np.ones(shape[0])}, images=images)


@pytest.mark.parametrize("keep", [0, 3])
@pytest.mark.parametrize("expectation", [False, True])
@pytest.mark.parametrize(("shape", "complex_values"), KINDS.values(), ids=KINDS)
def test_statistics_are_those_of_all_samples(
    shape: tuple[int, ...], complex_values: bool, expectation: bool, keep: int, tmp_path: Path
) -> None:
    whole = _posterior(shape, complex_values, expectation)
    whole.summarised(keep).save(tmp_path / "x.h5")  # type: ignore[attr-defined]
    few = Posterior.load(tmp_path / "x.h5")
    assert few.samples.shape == (keep, *shape[1:]) and few.n_valid == 5
    assert len(few.kept) == max(keep - 1, 0)
    for name in ("mean", "std"):
        assert np.array_equal(getattr(few, name), getattr(whole, name))
        assert np.array_equal(getattr(few.magnitude, name), getattr(whole.magnitude, name))
    for level in (0.9, 0.5):
        for method in ("student", "quantile"):
            assert np.array_equal(few.interval(level, method), whole.interval(level, method))
    assert few.interval(0.8)[0].shape == shape[1:]
    with pytest.raises(InputError, match="needs all samples"):
        few.interval(0.8, "quantile")


def test_one_slice_and_usable_slices_have_their_own_summary() -> None:
    whole = _posterior((6, 3, 8, 7), True)
    few = whole.summarised(1)
    assert np.array_equal(few.slice(2).interval(), [bound[2] for bound in whole.interval()])
    marked = Posterior(few.samples, diagnostics={**few.diagnostics, "slice_valid": [1, 0, 1]}, summary=few.summary)
    assert np.array_equal(marked.usable.std, whole.std[[0, 2]])


def test_more_than_there_are_is_all_and_summaries_can_lose_samples() -> None:
    whole = _posterior((6, 8, 7), True)
    assert len(whole.summarised(9).samples) == 6
    assert np.array_equal(whole.summarised(4).summarised(2).std, whole.std)
    assert len(LEVELS) == 5


@pytest.mark.slow
def test_a_run_keeps_what_is_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    kspace = (rng.standard_normal((2, 1, 16, 16)) + 1j * rng.standard_normal((2, 1, 16, 16))).astype(np.complex64)
    same = dict(prior="gaussian", sampler="exact", samples=4, progress=False)
    whole = recon.reconstruct(kspace, **same)
    for keep, count in ((0, 0), ("none", 0), (2, 2), ("all", 4)):
        few = recon.reconstruct(kspace, keep=keep, **same)
        assert len(few.samples) == count and np.array_equal(few.samples, whole.samples[:count])
        assert np.array_equal(few.std, whole.std) and np.array_equal(few.interval(), whole.interval())
        assert few.provenance["config"]["keep"] == str(keep if keep else "0")
    with pytest.raises((InputError, ConfigError), match="keep: expected all, none or a number"):
        recon.reconstruct(kspace, keep=-1, **same)


def test_a_damaged_summary_is_refused(tmp_path: Path) -> None:
    import h5py

    _posterior((6, 8, 7), True).summarised(0).save(tmp_path / "x.h5")  # type: ignore[attr-defined]
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        del file["summary/std"]
    with pytest.raises(InputError, match="summary/std"):
        Posterior.load(tmp_path / "x.h5")
