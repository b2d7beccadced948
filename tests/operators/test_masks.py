"""Sampling masks: acceleration, centre, seeds, and the rules each pattern promises."""

import time

import numpy as np
import pytest

from operators import InputError, ShapeError, make_mask
from operators.mri.masks import PATTERNS
from operators.mri.patterns import poisson_disc

COLUMNS = ["equispaced", "random", "magic", "gaussian1d", "fastmri-random", "fastmri-equispaced"]
EXACT = [pattern for pattern in PATTERNS if not pattern.startswith("fastmri")]


@pytest.mark.parametrize("acceleration", [4, 8])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_acceleration_and_centre(pattern: str, acceleration: int) -> None:
    mask = make_mask((320, 320), pattern, acceleration)
    fraction = 0.08 if acceleration == 4 or pattern not in COLUMNS else 0.04
    low = round(320 * fraction)
    centre = slice(160 - low // 2, 160 - low // 2 + low)
    assert mask.dtype == bool
    assert mask.shape == ((1, 320) if pattern in COLUMNS else (320, 320))
    assert mask[centre if mask.shape[0] > 1 else slice(None), centre].all()
    # fastmri-random draws its number of columns: it keeps the acceleration on average (tested below).
    if pattern != "fastmri-random":
        assert mask.size / mask.sum() == pytest.approx(acceleration, rel=0.05)


@pytest.mark.parametrize("shape", [(115, 90), (31, 17), (7, 9), (1, 64)])
@pytest.mark.parametrize("acceleration", [1, 1.3, 2, 4.5])
@pytest.mark.parametrize("pattern", EXACT)
def test_exact_count_on_any_shape(pattern: str, acceleration: float, shape: tuple[int, int]) -> None:
    mask = make_mask(shape, pattern, acceleration, seed=3)
    assert mask.sum() == round(mask.size / acceleration)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_seed_decides(pattern: str) -> None:
    first = make_mask((64, 96), pattern, 4, seed=1)
    assert np.array_equal(first, make_mask((64, 96), pattern, 4, seed=1))
    others = [make_mask((64, 96), pattern, 4, seed=seed) for seed in range(2, 8)]
    assert any(not np.array_equal(first, other) for other in others)
    assert make_mask((64, 96), pattern, 4, seed=(1, 2)).any()


def test_global_generator_is_untouched() -> None:
    before = np.random.get_state()
    for pattern in PATTERNS:
        make_mask((32, 32), pattern, 4)
    after = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((64, 64), "hexagons", 4), "hexagons.*poisson"),
        (((64, 64), "random", 0.5), "acceleration"),
        (((64, 64), "random", float("nan")), "acceleration"),
        (((64, 64), "random", 4, 0.5), "centre alone takes 32"),
        (((64, 64), "poisson", 8, 0.5), "centre alone takes 1024"),
        (((64, 64), "random", 4, -0.1), "center_fraction"),
        (((64, 64), "random", 4, 1.1), "center_fraction"),
        (((4, 4), "random", 40), "no sample"),
    ],
)
def test_impossible_requests(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_mask(*arguments)


@pytest.mark.parametrize("shape", [(64,), (0, 64), (2, 64, 64)])
def test_bad_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="shape"):
        make_mask(shape, "random", 4)  # type: ignore[arg-type]


def test_no_centre_is_possible() -> None:
    assert make_mask((64, 64), "uniform2d", 16, 0.0).sum() == 256


def test_equispaced_lines_are_equispaced() -> None:
    mask = make_mask((1, 320), "equispaced", 4, seed=2)[0]
    gaps = np.diff(np.flatnonzero(mask[:147]))
    assert gaps.max() - gaps.min() <= 1


def test_magic_lines_interleave_under_conjugate_symmetry() -> None:
    mask = make_mask((1, 321), "magic", 4, 0.05, seed=2)[0]
    middle = 160
    outside = np.arange(20, 150)
    right, left = mask[middle + outside], mask[middle - outside]
    assert not (right & left).any()
    gaps = np.diff(np.flatnonzero(right | left))
    plain = np.diff(np.flatnonzero(right))
    assert gaps.max() <= (plain.max() + 1) // 2 + 1


def test_gaussian_patterns_are_denser_near_the_centre() -> None:
    columns = make_mask((1, 320), "gaussian1d", 4, 0.0, seed=1)[0]
    assert columns[100:220].sum() > 3 * (columns[:100].sum() + columns[220:].sum())
    points = make_mask((320, 320), "gaussian2d", 8, 0.0, seed=1)
    assert points[100:220, 100:220].mean() > 4 * points[:60, :60].mean()


def test_poisson_disc_keeps_its_distance() -> None:
    y, x = np.mgrid[:60, :70]
    radius = 1.5 + 0.05 * np.hypot(y - 30, x - 35)
    order = np.random.default_rng(0).permutation(60 * 70)
    mask = poisson_disc(radius, np.zeros((60, 70), dtype=bool), order)
    points = np.argwhere(mask)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    radii = radius[mask]
    assert (distance >= np.minimum(radii[:, None], radii[None])).all()
    # And it is full: every point left out lies in the disc of one that was kept.
    gaps = np.linalg.norm(np.argwhere(~mask)[:, None] - points[None], axis=-1)
    assert (gaps < radii).any(axis=1).all()


def test_poisson_mask_keeps_points_apart_and_thins_outwards() -> None:
    mask = make_mask((320, 320), "poisson", 8, seed=1)
    # Neighbours touch in the dense middle only.
    touching = mask & (np.roll(mask, 1, 0) | np.roll(mask, -1, 0) | np.roll(mask, 1, 1) | np.roll(mask, -1, 1))
    outside = np.ones_like(mask)
    outside[100:220, 100:220] = False
    assert touching[1:-1, 1:-1][outside[1:-1, 1:-1]].sum() == 0
    assert mask[120:200, 120:200].mean() > 2 * mask[:60].mean()


def test_poisson_is_fast() -> None:
    start = time.process_time()
    make_mask((320, 320), "poisson", 8)
    assert time.process_time() - start < 2  # 0.3 s on an idle core


def test_spokes_and_spiral_are_lines_through_the_whole_field() -> None:
    radial = make_mask((128, 128), "radial", 8, 0.0)
    assert radial[64, 64]
    assert radial[0].any() and radial[-1].any() and radial[:, 0].any() and radial[:, -1].any()
    spiral = make_mask((128, 128), "spiral", 8, 0.0)
    assert spiral[64, 64]
    assert all(
        spiral[i : i + 32, j : j + 32].mean() == pytest.approx(1 / 8, rel=0.5) for i in (0, 48, 96) for j in (0, 48, 96)
    )


def test_fastmri_rules_bit_for_bit() -> None:
    # Written out from the package's published rules, without any of its code.
    name = tuple(map(ord, "file1000031.h5"))
    for n in (320, 368, 372, 181):
        for acceleration, fraction in ((4, 0.08), (8, 0.04)):
            low = round(n * fraction)
            centre = np.zeros(n, dtype=bool)
            centre[(n - low + 1) // 2 : (n - low + 1) // 2 + low] = True
            rng = np.random.RandomState(name)
            probability = (n / acceleration - low) / (n - low)
            expected = (rng.uniform(size=n) < probability) | centre
            assert np.array_equal(make_mask((640, n), "fastmri-random", acceleration, fraction, name)[0], expected)
            rng = np.random.RandomState(name)
            adjusted = acceleration * (low - n) / (low * acceleration - n)
            offset = rng.randint(0, round(adjusted))
            expected = centre.copy()
            expected[np.around(np.arange(offset, n - 1, adjusted)).astype(np.uint)] = True
            assert np.array_equal(make_mask((640, n), "fastmri-equispaced", acceleration, fraction, name)[0], expected)


def test_fastmri_random_keeps_the_acceleration_on_average() -> None:
    counts = [make_mask((1, 320), "fastmri-random", 4, seed=seed).sum() for seed in range(400)]
    assert np.mean(counts) == pytest.approx(80, rel=0.02)
