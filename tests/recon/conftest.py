"""What several tests of the engine share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def kspace() -> np.ndarray:
    """Fully sampled k-space of two coils: noise, and a point in the centre."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 32, 32)) + 1j * rng.normal(size=(2, 32, 32))
    values[:, 16, 16] += 100
    return values.astype(np.complex64)
