"""The random numbers: published integers, the same bits from every implementation, and normals that are normal."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from scipy import stats

from operators import Space
from samplers import Noise, noise, philox

#: Known answers of Random123 1.14 (kat_vectors, philox4x32-10): counter, key, words.
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
IMAGE = Space((40, 50), torch.complex64, "y x")
STREAM = philox.Stream([(1, 2), (3, 0xFFFFFFFF), (0x89ABCDEF, 5)], 7)
has_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_integers_are_the_published_ones(kind: str, counter: tuple, key: tuple, words: tuple) -> None:
    array = (lambda value: torch.tensor([value])) if kind == "torch" else (lambda value: np.array([value]))
    found = philox.philox([array(value) for value in counter], [array(value) for value in key])
    assert tuple(int(word[0]) for word in found) == words


@has_numba
def test_compiled_normals_are_the_same_bits() -> None:
    from samplers import philox_numba

    plain = torch.empty(3, 4 * 1001)
    philox.normals(STREAM, plain, 2.0)
    compiled = torch.full_like(plain, math.nan)
    for (key0, key1), row in zip(STREAM.keys, compiled.numpy(), strict=True):
        place = np.uint32(key0), np.uint32(key1), np.uint32(STREAM.draw)
        philox_numba.normals(*place, np.float32(2), row.reshape(-1, 4))
    assert torch.equal(plain, compiled)


@has_numba
def test_a_long_run_goes_on_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba is loaded after a while; it must not show, and must leave torch its threads."""
    threads = torch.get_num_threads()
    early = Noise(3, [0, 1], torch.zeros(1))
    first = [early.normal(IMAGE) for _ in range(3)]
    late = Noise(3, [0, 1], torch.zeros(1))
    second = [late.normal(IMAGE)]
    monkeypatch.setattr(noise, "_WORTH_NUMBA", -1.0)
    second += [late.normal(IMAGE), late.normal(IMAGE)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.get_num_threads() == threads


def test_without_room_for_a_compiler_the_numbers_are_made_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("Could not find/load shared object file")

    expected = Noise(3, [0], torch.zeros(1)).normal(IMAGE)
    monkeypatch.setattr(noise.importlib, "import_module", broken)
    monkeypatch.setattr(noise, "_kernels", noise._kernels.__wrapped__)
    monkeypatch.setattr(noise, "_WORTH_NUMBA", -1.0)
    assert torch.equal(Noise(3, [0], torch.zeros(1)).normal(IMAGE), expected)


@has_numba
def test_no_compiler_is_loaded_into_limited_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    load = noise._kernels.__wrapped__
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    assert load("numba") is not None
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 30, resource.RLIM_INFINITY))
    assert load("numba") is None


def test_a_device_computes_the_numbers_of_the_cpu() -> None:
    """The route of other devices, whose blocks are not cut up and whose integers are torch's."""
    cpu = torch.device("cpu")
    pieces = [philox._words(STREAM, *ends, cpu) for ends in ((0, 7), (7, 40))]
    words = [torch.cat(part, dim=1) for part in zip(*pieces, strict=True)]
    fixed = [torch.full((1,), value) for value in (STREAM.draw, 0, 0)]
    whole = philox.philox([torch.arange(40), *fixed], philox.place_keys(STREAM.keys, cpu))
    assert all(torch.equal(a, b) for a, b in zip(words, whole, strict=True))


def test_double_precision_has_the_same_numbers_without_rounding() -> None:
    single = Noise(1, range(3), torch.zeros(1)).normal(IMAGE)
    double = Noise(1, range(3), torch.zeros(1, dtype=torch.float64)).normal(IMAGE)
    assert double.dtype == torch.complex128
    assert float((single - double).abs().max()) < 2e-5
    assert float((single - double).abs().square().mean().sqrt()) < 2e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_normal(dtype: torch.dtype) -> None:
    space = Space((500, 1000), dtype, "y x")
    x = Noise(4, [0], torch.zeros(1, dtype=dtype)).normal(space).flatten().double().numpy()
    n = len(x)
    # Five standard errors of each moment; those of a normal variable are 1, 2, 15 and 96 over n.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 5 * math.sqrt(variance / n)
    assert stats.kstest(x, "norm").pvalue > 0.001
    assert 4.3 < np.abs(x).max() < 6.8  # the tail of half a million: 4.9 expected, 6.76 possible


def test_directions_and_neighbours_are_independent() -> None:
    z = Noise(5, [0], torch.zeros(1)).normal(Space((512, 512), torch.complex64, "y x"))[0]
    assert stats.kstest(np.angle(z.numpy()).ravel(), "uniform", (-np.pi, 2 * np.pi)).pvalue > 0.001
    assert stats.kstest(z.abs().square().numpy().ravel(), "expon").pvalue > 0.001
    flat = torch.view_as_real(z).flatten().double()
    for lag in (1, 2, 3, 4, 5, 8, 64, 1024):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 5 / math.sqrt(len(flat))


def test_streams_and_draws_are_independent() -> None:
    several = Noise(6, range(8), torch.zeros(1))
    other = Noise(7, range(8), torch.zeros(1))
    rows = torch.cat([n.normal(IMAGE).flatten(1) for n in (several, several, other)])
    correlation = rows @ rows.mH / rows.shape[1]
    apart = correlation - torch.diag(correlation.diagonal())
    assert float(apart.abs().max()) < 5 / math.sqrt(rows.shape[1])


def test_a_sample_does_not_depend_on_its_batch() -> None:
    together = Noise(8, range(5), torch.zeros(1))
    alone = Noise(8, [3], torch.zeros(1))
    odd = Space((3, 5), torch.float32, "y x")
    for space in (IMAGE, odd, IMAGE):
        assert torch.equal(together.normal(space)[3], alone.normal(space)[0])
