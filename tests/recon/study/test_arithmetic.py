"""Device and precision of workers on other machines: decided once, by the first of them, or without knowing them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from recon.commands.machines import Machines
from recon.priors import precision
from recon.settings import Settings
from recon.study.cluster import DaskPool
from recon.study.pools import Here
from recon.study.study import arithmetic_of


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> DaskPool:
    """Workers of a scheduler that are faster in bfloat16; ``asked`` is what they have been asked."""

    class Workers(DaskPool):
        def __init__(self) -> None:
            self.asked: list[tuple[str, ...]] = []

        def submit(self, work: Callable[..., object], *arguments: str) -> Future:
            self.asked.append(arguments)
            monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
            monkeypatch.setattr(precision, "_pays", lambda device: True)
            future: Future = Future()
            future.set_result(work(*arguments))
            return future

    return Workers()


def test_the_first_worker_decides_for_all(workers) -> None:
    assert arithmetic_of(workers, "cpu", "auto") == ("cpu", "bfloat16")
    assert arithmetic_of(workers, "cuda", "auto") == ("cuda", "bfloat16")  # which this machine need not have
    assert arithmetic_of(workers, "auto", "float32")[1] == "float32" and len(workers.asked) == 3
    assert arithmetic_of(workers, "cpu", "tf32") == ("cpu", "tf32") and len(workers.asked) == 3


def test_here_it_is_left_to_the_plan_which_knows_the_prior() -> None:
    assert arithmetic_of(Here(), "cpu", "auto") == ("cpu", "auto")


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda")])
def test_jobs_that_do_not_exist_yet_are_in_float32(gpus: int, device: str, tmp_path: Path) -> None:
    file = tmp_path / "slurm.toml"
    file.write_text(f'kind = "slurm"\nworkers = 2\ncores = 4\nmemory = "8 GB"\ngpus_per_worker = {gpus}\n')
    with Machines("auto", None, file, True).planning(Settings()) as found:
        assert (found.run.device, found.run.precision) == (device, "float32")
    asked = Settings().updated({"precision": "bfloat16"}, "here")
    with Machines("auto", None, file, True).planning(asked) as found:
        assert found.run.precision == "bfloat16"
