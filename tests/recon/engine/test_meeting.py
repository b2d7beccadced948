"""Slices of several threads at one network: which calls become one, and that nobody waits for ever."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from recon.engine.meeting import Closed, Meeting
from samplers import Denoiser

SECONDS = 20


class Network:
    """Halves images and adds their level; notes the images and the level of each call.

    Attributes
    ----------
    calls : list
        Number of images and level of each call.
    most : int
        More images at once are out of memory.
    """

    space = None
    sigma_min, sigma_max = 0.01, 10.0

    def __init__(self, most: int = 1000) -> None:
        self.calls: list[tuple[int, Any]] = []
        self.most, self.card = most, {"name": "half"}

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls.append((len(x), sigma.tolist() if isinstance(sigma, Tensor) else sigma))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if bool(torch.isnan(x.abs()).any()):
            raise ValueError("not a number")
        return x / 2 + (sigma.reshape(-1, *[1] * (x.ndim - 1)) if isinstance(sigma, Tensor) else sigma)

    @property
    def sizes(self) -> list[int]:
        return [images for images, _ in self.calls]


def images(number: int, count: int = 2, shape: tuple[int, ...] = (4, 4)) -> Tensor:
    return torch.full((count, *shape), float(number), dtype=torch.complex64)


def meet(network: Network, slices: list[Callable[[Denoiser], Any]], places: int | None = None) -> list[Any]:
    """Run a thread for each slice, which all sample before one of them calls; return results or errors."""
    meeting = Meeting(places or len(slices))
    present = threading.Barrier(places or len(slices))

    def work(slice_: Callable[[Denoiser], Any]) -> Any:
        with torch.no_grad(), meeting.sampling():
            if places is None:
                present.wait(SECONDS)
            return slice_(meeting.prior("half", lambda: network))

    with ThreadPoolExecutor(len(slices)) as pool:
        futures = [pool.submit(work, one) for one in slices]
        return [future.exception(SECONDS) or future.result() for future in futures]


def steps(number: int, sigmas: list[float]) -> Callable[[Denoiser], Tensor]:
    """Return a slice that calls the network at each level."""

    def run(denoiser: Denoiser) -> Tensor:
        x = images(number)
        for sigma in sigmas:
            x = denoiser.denoise(x, sigma)
        return x

    return run


def alone(number: int, sigmas: list[float]) -> Tensor:
    return steps(number, sigmas)(Network())


def test_equal_steps_are_one_call_each() -> None:
    network, sigmas = Network(), [4.0, 2.0, 1.0]
    found = meet(network, [steps(number, sigmas) for number in range(3)])
    assert network.calls == [(6, sigma) for sigma in sigmas]
    for number in range(3):
        assert torch.equal(found[number], alone(number, sigmas))


def test_each_image_has_its_own_level() -> None:
    network = Network()
    levels: list[list[float]] = [[4.0, 1.0], [2.0, 1.0], [0.5, 1.0]]
    found = meet(network, [steps(number, levels[number]) for number in range(3)])
    assert [images for images, _ in network.calls] == [6, 6] and network.calls[1][1] == 1.0
    assert sorted(network.calls[0][1]) == [0.5, 0.5, 2.0, 2.0, 4.0, 4.0]
    for number in range(3):
        assert torch.equal(found[number], alone(number, levels[number]))


def test_levels_by_image_are_kept() -> None:
    network, by_image = Network(), torch.tensor([1.0, 3.0])
    found = meet(network, [lambda d: d.denoise(images(0), by_image), lambda d: d.denoise(images(0, 1), 2.0)])
    assert network.sizes == [3]
    assert torch.equal(found[0], Network().denoise(images(0), by_image))
    assert torch.equal(found[1], Network().denoise(images(0, 1), 2.0))


def test_images_of_another_shape_or_kind_are_a_call_of_their_own() -> None:
    network = Network()
    wanted = [images(1), images(2), images(3, shape=(5, 4)), images(4).real]
    found = meet(network, [lambda d, x=x: d.denoise(x, 1.0) for x in wanted])  # type: ignore[misc]
    assert sorted(network.sizes) == [2, 2, 4]
    for x, denoised in zip(wanted, found, strict=True):
        assert denoised.dtype == x.dtype and torch.equal(denoised, x / 2 + 1)


def test_who_leaves_is_not_waited_for() -> None:
    network = Network()
    few, many = [4.0], [4.0, 2.0, 1.0]
    found = meet(network, [steps(0, few), steps(1, many), steps(2, many)])
    assert network.sizes == [6, 4, 4]
    for number, sigmas in enumerate((few, many, many)):
        assert torch.equal(found[number], alone(number, sigmas))


def test_only_as_many_as_there_are_places_are_waited_for() -> None:
    network, sigmas = Network(), [2.0, 1.0]
    found = meet(network, [steps(number, sigmas) for number in range(5)], places=2)
    assert max(network.sizes) <= 4 and sum(network.sizes) == 5 * 2 * 2
    for number in range(5):
        assert torch.equal(found[number], alone(number, sigmas))


def test_an_error_is_that_of_its_slice() -> None:
    network, sigmas = Network(), [2.0, 1.0]

    def bad(denoiser: Denoiser) -> Tensor:
        return denoiser.denoise(images(0) * torch.nan, 2.0)

    def worse(denoiser: Denoiser) -> Tensor:
        raise KeyError("before the network")

    first, second, third, fourth = meet(network, [steps(1, sigmas), bad, worse, steps(3, sigmas)])
    assert torch.equal(first, alone(1, sigmas)) and torch.equal(fourth, alone(3, sigmas))
    assert str(second) == "not a number" and isinstance(third, KeyError)
    assert network.sizes == [6, 2, 2, 2, 4]  # together, each alone, and together again


def test_without_memory_each_goes_on_alone_with_one_warning() -> None:
    network, sigmas = Network(most=3), [4.0, 2.0, 1.0]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = meet(network, [steps(number, sigmas) for number in range(3)])
    assert network.sizes == [6, *[2] * 9]
    assert [str(one.message) for one in told] == [
        "out of memory with the images of 3 slices: each goes through the network alone"
    ]
    for number in range(3):
        assert torch.equal(found[number], alone(number, sigmas))


def test_who_comes_while_memory_runs_out_does_not_wait() -> None:
    """Its call is not among those that failed, and the others do not come to wait any more."""
    inside, late = threading.Event(), threading.Event()

    class Slow(Network):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            if len(x) > self.most:
                inside.set()
                assert late.wait(SECONDS)
            return super().denoise(x, sigma)

    network, meeting = Slow(most=2), Meeting(3)
    both = threading.Barrier(2)

    def early() -> Tensor:
        with torch.no_grad(), meeting.sampling():
            both.wait(SECONDS)
            return steps(1, [2.0, 1.0])(meeting.prior("half", lambda: network))

    def third() -> Tensor:
        assert inside.wait(SECONDS)
        with torch.no_grad(), meeting.sampling():
            waiting = threading.Timer(0.1, late.set)  # by then its call waits; if not, the test still passes
            waiting.start()
            return meeting.prior("half", lambda: network).denoise(images(2), 1.0)

    with warnings.catch_warnings(), ThreadPoolExecutor(3) as pool:
        warnings.simplefilter("ignore")
        futures = [pool.submit(early), pool.submit(early), pool.submit(third)]
        found = [future.result(SECONDS) for future in futures]
    assert torch.equal(found[0], alone(1, [2.0, 1.0])) and torch.equal(found[2], alone(2, [1.0]))


def test_gradients_are_taken_alone() -> None:
    network = Network()

    def gradient(denoiser: Denoiser) -> Tensor:
        with torch.enable_grad():
            x = torch.ones(2, 3, requires_grad=True)
            denoiser.denoise(x, 1.0).sum().backward()
        assert x.grad is not None
        return x.grad

    found = meet(network, [gradient, gradient])
    assert network.sizes == [2, 2] and all(torch.equal(one, torch.full((2, 3), 0.5)) for one in found)


def test_closing_ends_who_waits_and_who_comes() -> None:
    network, meeting = Network(), Meeting(2)
    entered, closed = threading.Event(), threading.Event()

    def waits() -> None:
        with torch.no_grad(), meeting.sampling():
            meeting.prior("half", lambda: network).denoise(images(0), 1.0)

    def never_comes() -> None:
        with torch.no_grad(), meeting.sampling():
            entered.set()
            assert closed.wait(SECONDS)
            meeting.prior("half", lambda: network).denoise(images(1), 1.0)

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(never_comes)]
        assert entered.wait(SECONDS)
        futures += [pool.submit(waits), pool.submit(waits)]  # one at the network, one without a place
        while not meeting._calls:
            time.sleep(0.01)
        meeting.close()
        closed.set()
        assert all(isinstance(future.exception(SECONDS), Closed) for future in futures)
    assert not network.calls
    with pytest.raises(Closed), meeting.preparing():
        pass


def test_a_prior_is_loaded_once_and_keeps_what_it_knows() -> None:
    meeting, network, loaded = Meeting(2), Network(), []

    def load() -> Network:
        loaded.append(1)
        return network

    first, second = meeting.prior("half", load), meeting.prior("half", load)
    assert first is second and len(loaded) == 1
    assert first.card is network.card and first.sigma_max == 10.0  # type: ignore[attr-defined]
    assert meeting.prior("other", Network) is not first
