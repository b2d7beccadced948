"""`recon.reconstruct_many`: the same from Python, with any executor."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import pytest
import torch

import recon
from recon.errors import InputError, ReconError
from recon.posterior import Posterior
from recon.priors.analytic import GaussianPrior
from recon.study.collected import collected


def test_outcomes_are_in_the_order_of_the_sources(volume, options, tmp_path) -> None:
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"nothing")
    scans = [volume("b.npy", slices=2, bad=[1]), bad, volume("a.npy", slices=1)]
    found = recon.reconstruct_many(scans, tmp_path / "out", progress=False, **options)
    assert [one.source for one in found] == scans
    lost, refused, good = found
    assert lost.slices_without_result == (1,) and lost.result == tmp_path / "out" / "b.h5"
    assert "NaN" in lost.reasons[0] and lost.verdict.level == "doubtful"
    assert refused.result is None and refused.verdict.level == "unknown" and "bad.npy" in refused.reasons[0]
    assert good.slices_without_result == () and not good.reasons
    assert good.result is not None and Posterior.load(good.result).n_valid == 2


@pytest.mark.filterwarnings("ignore:2 steps")
@pytest.mark.slow
def test_a_slice_is_the_same_image_alone_and_within_its_volume(volume, options, tmp_path) -> None:
    scan = volume()
    recon.reconstruct_many([scan], tmp_path / "out", progress=False, **options)
    whole = Posterior.load(tmp_path / "out" / "scan.h5")
    memory = recon.reconstruct(scan, progress=False, **options)
    np.testing.assert_array_equal(memory.samples, whole.samples)
    for index in (0, 2, 3):
        alone = recon.reconstruct(scan, slices=index, progress=False, **options)
        np.testing.assert_array_equal(alone.samples, whole.samples[:, index])
        np.testing.assert_array_equal(alone.diagnostics["residual"], whole.diagnostics["residual"][:, index])


@pytest.mark.filterwarnings("ignore:2 steps")
@pytest.mark.slow
def test_the_order_of_slices_and_files_does_not_matter(volume, options, tmp_path) -> None:
    first, second = volume("a.npy", slices=3), volume("b.npy", slices=1, seed=1)
    orders = ([0, 1, 2], [2, 0, 1])
    straight, mixed = (recon.reconstruct(first, slices=order, progress=False, **options) for order in orders)
    np.testing.assert_array_equal(mixed.samples[:, [1, 2, 0]], straight.samples)
    np.testing.assert_array_equal(mixed.diagnostics["residual"][:, [1, 2, 0]], straight.diagnostics["residual"])
    for name, files in (("one", [first, second]), ("other", [second, first])):
        recon.reconstruct_many(files, tmp_path / name, progress=False, **options)
    for file in ("a.h5", "b.h5"):
        one, other = (Posterior.load(tmp_path / name / file) for name in ("one", "other"))
        np.testing.assert_array_equal(one.samples, other.samples)


@contextmanager
def executor_of(kind: str) -> Iterator[Executor]:
    if kind == "threads":
        with ThreadPoolExecutor(3) as pool:
            yield pool
    else:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            yield pool


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_any_executor_gives_the_same_bits_and_stays_open(kind, volume, options, same, tmp_path) -> None:
    scan = volume(slices=6)
    recon.reconstruct_many([scan], tmp_path / "here", progress=False, **options)
    with executor_of(kind) as executor:
        (found,) = recon.reconstruct_many([scan], tmp_path / "out", executor=executor, progress=False, **options)
        assert executor.submit(abs, -1).result() == 1
    assert found.slices_without_result == ()
    same(tmp_path / "out" / "scan.h5", tmp_path / "here" / "scan.h5")


@pytest.mark.slow
def test_threads_do_not_share_what_is_opened(volume, options, tmp_path, monkeypatch) -> None:
    """A modality may set the prior of a slice; then two threads must not do so in one place."""
    owners: dict[int, set[int]] = {}
    draw = recon.engine.reconstruction.Reconstruction.draw

    def watched(self, unit, *more):  # type: ignore[no-untyped-def]
        owners.setdefault(id(self), set()).add(threading.get_ident())
        barrier.wait(20)  # both threads are here at the same time
        return draw(self, unit, *more)

    barrier = threading.Barrier(2)
    monkeypatch.setattr(recon.engine.reconstruction.Reconstruction, "draw", watched)
    with ThreadPoolExecutor(2) as executor:
        recon.reconstruct_many([volume()], tmp_path / "out", executor=executor, progress=False, **options)
    assert len(owners) == 2 and all(len(threads) == 1 for threads in owners.values())


@pytest.mark.slow
def test_threads_leave_the_warnings_of_the_process_alone(volume, options, tmp_path) -> None:
    filters, shown = list(warnings.filters), warnings.showwarning
    with ThreadPoolExecutor(3) as executor:
        recon.reconstruct_many([volume()], tmp_path / "out", executor=executor, progress=False, **options)
    assert warnings.filters == filters and warnings.showwarning is shown


def test_each_thread_collects_its_own_warnings() -> None:
    first, second = threading.Event(), threading.Event()
    texts: dict[str, list[str]] = {}

    def work(name: str, mine: threading.Event, other: threading.Event) -> None:
        with collected() as told:
            mine.set()
            assert other.wait(20)
            for _ in range(2):
                warnings.warn(f"of {name}", stacklevel=1)
        texts[name] = told

    threads = [threading.Thread(target=work, args=("a", first, second))]
    threads.append(threading.Thread(target=work, args=("b", second, first)))
    before = warnings.showwarning
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {"a": ["of a"], "b": ["of b"]} and warnings.showwarning is before


@pytest.mark.slow
def test_a_prior_of_the_users_own_is_part_of_the_settings(volume, options, draws, tmp_path) -> None:
    scan = volume()
    draws.fail[2] = KeyboardInterrupt()

    def call(std: float) -> list[recon.Outcome]:
        prior = GaussianPrior.power_law((16, 16), std=std)
        return recon.reconstruct_many([scan], tmp_path / "out", progress=False, **{**options, "prior": prior})

    with pytest.raises(KeyboardInterrupt, match="2 of 4 slices are done and kept"):
        call(0.3)
    draws.fail.clear(), draws.units.clear()
    with pytest.raises(InputError, match=r"prior\.sha256"):
        call(0.4)
    call(0.3)
    assert draws.units == [(2,), (3,)]


def test_a_broken_executor_is_an_error_that_says_what_to_do(volume, options, tmp_path) -> None:
    executor = ThreadPoolExecutor(1, initializer=_fail)
    with pytest.raises(ReconError, match="the executor takes no more work"):
        recon.reconstruct_many([volume()], tmp_path / "out", executor=executor, progress=False, **options)
    executor.shutdown()


def _fail() -> None:
    raise RuntimeError("no licence")


class Lazy(Executor):
    """Works only when asked for a result, as some schedulers do; says nothing of its width."""

    def submit(self, call: Callable[..., object], /, *arguments: object, **named: object) -> Future:
        future: Future = Future()
        threading.Thread(target=lambda: future.set_result(call(*arguments, **named))).start()
        return future


def test_an_executor_need_not_say_how_wide_it_is(volume, options, tmp_path) -> None:
    scan = volume(slices=2)
    (found,) = recon.reconstruct_many([scan], tmp_path / "out", executor=Lazy(), progress=False, **options)
    assert found.result is not None and found.slices_without_result == ()


def test_random_numbers_of_the_process_are_left_alone(volume, options, tmp_path) -> None:
    before = torch.random.get_rng_state()
    recon.reconstruct_many([volume(slices=1)], tmp_path / "out", progress=False, **options)
    assert torch.equal(before, torch.random.get_rng_state())
