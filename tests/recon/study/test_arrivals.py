"""What a run says of workers that do not come, and of jobs that the queue refuses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from recon.errors import ReconError
from recon.study.arrivals import Arrivals, in_words

REFUSAL = RuntimeError("Command exited.\nstderr:\nsbatch: error: invalid\n  partition\n")


class Watch:
    """Arrivals with a clock of the test's own, looked at every ten seconds."""

    def __init__(self, hours: float = 24) -> None:
        self.now = 0.0
        self.arrivals = Arrivals(Path("slurm.toml"), "sbatch", 3600 * hours, lambda: self.now)

    def minutes(self, count: float, present: int = 0) -> list[str]:
        """What is told in so many minutes."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(int(6 * count)):
                self.now += 10
                self.asked = self.arrivals.check(present)
        return [str(one.message) for one in told]


@pytest.fixture
def watch() -> Callable[..., Watch]:
    return Watch


def test_waiting_is_told_after_five_minutes_and_then_every_hour(watch) -> None:
    one = watch()
    assert not one.minutes(5)
    (line,) = one.minutes(1)
    assert line.startswith("slurm.toml: no worker for 5 min: jobs wait in the queue") and "log_directory" in line
    assert not one.minutes(59)
    assert len(one.minutes(2)) == 1


def test_the_run_ends_when_none_comes(watch) -> None:
    one = watch(hours=1)
    one.minutes(60)
    with pytest.raises(
        ReconError, match=r"slurm.toml: no worker for 60 min: .*finished slices are kept .*wait_minutes"
    ):
        one.minutes(1)


def test_time_counts_from_the_last_worker(watch) -> None:
    one = watch(hours=1)
    assert not one.minutes(600, present=1)
    one.minutes(60)
    with pytest.raises(ReconError, match="no worker for 60 min"):
        one.minutes(1)


@pytest.mark.parametrize(("present", "words"), [(0, "others may still start"), (3, "the run goes on with the others")])
def test_a_refusal_is_told_once_an_hour_and_asked_again_every_minute(watch, present, words) -> None:
    one = watch()
    one.arrivals.refused(REFUSAL)
    (line,) = one.minutes(0.5, present)
    assert line.startswith("slurm.toml: sbatch refused a job") and line.endswith("sbatch: error: invalid partition")
    assert words in line and not one.asked
    asked = 0
    for _ in range(30):
        assert not [told for told in one.minutes(1 / 6, present) if "refused a job" in told]
        asked += one.asked
        if one.asked:
            one.arrivals.refused(REFUSAL)
    assert asked == 5, "in five minutes"
    one.now += 3600
    assert len(one.minutes(1 / 6, present)) == 1


def test_the_end_names_what_the_queue_said(watch) -> None:
    one = watch(hours=0.1)
    one.arrivals.refused(REFUSAL)
    with pytest.raises(ReconError, match="sbatch refused some: sbatch: error: invalid partition"):
        one.minutes(7)


def test_what_a_command_said_is_one_line() -> None:
    assert in_words(REFUSAL) == "sbatch: error: invalid partition"
    assert in_words(OSError("no such\nfile")) == "no such file"
