"""Slices of a run as one result."""

from __future__ import annotations

import numpy as np
import pytest

from recon.engine.assemble import assemble
from recon.engine.slice_result import SliceResult


def of_slice(index: int, samples: np.ndarray) -> SliceResult:
    diagnostics = {"valid": np.ones(len(samples), bool), "residual": np.ones(len(samples))}
    images = {"expectation": samples[0]}
    return SliceResult(index=index, samples=samples, diagnostics=diagnostics, images=images, operator="Operator")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_magnitudes_and_complex_images_of_one_volume_are_both_kept(order: tuple[int, int]) -> None:
    real, turning = np.full((2, 3, 4), 2, np.float32), np.full((2, 3, 4), 1 - 3j, np.complex64)
    slices = [of_slice(0, real), of_slice(1, turning)]
    record = {"slices": [0, 1], "citations": [], "config": {}, "seed": 0}
    found = assemble([slices[k] for k in order], (), record, {}, stacked=True)
    assert found.samples.dtype == np.complex64
    np.testing.assert_array_equal(found.samples, np.stack([real, turning], axis=1))
    np.testing.assert_array_equal(found.images["expectation"], np.stack([real[0], turning[0]]))
