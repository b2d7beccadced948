"""Reports of results that keep few samples, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recon.posterior import Posterior
from recon.report.write import write_report


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("shape", [(5, 24, 20), (5, 3, 24, 20)])
def test_a_report_shows_the_statistics_of_all(tmp_path: Path, shape: tuple[int, ...], keep: int) -> None:
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    samples = 1 + 0.1 * rng.standard_normal(shape).astype(np.float32)
    whole = Posterior(samples, images={"reference": np.ones(shape[1:], np.float32)})
    png, page = write_report(whole.summarised(keep), tmp_path / "x")
    assert png.stat().st_size > 1000
    assert "5 of 5" in page.read_text("utf-8")
