"""The short form of benchmarks/study.py: studies that are killed, or whose disk fills up, lose no slice."""

import os
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills groups of processes")]


@pytest.fixture
def runs(benchmark_module):
    return benchmark_module("study_runs")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_that_is_killed_at_random_moments_goes_on(runs, tmp_path, workers):
    found = runs.killed(tmp_path, slices=8, kills=2, workers=workers, size=16)
    assert found["kills"] >= 1 and found["status"] == 0 and found["same bits"]
    assert found["drawn again"] <= found["allowed"] and not found["left over"]


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("room", [0.3, 1.2])
def test_a_study_whose_disk_fills_up_goes_on(runs, tmp_path, room):
    """While slices are written, and while the result is."""
    found = runs.full_disk(tmp_path, slices=8, workers=1, room=room, size=16)
    assert found["statuses"] == [1, 0] and found["same bits"]
    assert len(found["lines"]) == 1 and "No space left on device" in found["lines"][0]
    assert found["drawn again"] <= found["allowed"]
