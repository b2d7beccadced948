"""Schedules fall, end with 0 and have the values of their papers."""

import itertools

import pytest

from operators import InputError
from samplers import schedule


@pytest.mark.parametrize("name", ["geometric", "karras"])
def test_ends_and_order(name: str) -> None:
    sigmas = getattr(schedule, name)(80.0, 0.002, 18)
    assert len(sigmas) == 19
    assert sigmas[0] == pytest.approx(80.0)
    assert sigmas[-2] == pytest.approx(0.002)
    assert sigmas[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_geometric_has_a_constant_ratio() -> None:
    sigmas = schedule.geometric(8.0, 1.0, 4)
    assert sigmas[:-1] == pytest.approx([8, 4, 2, 1])


def test_karras_matches_the_paper() -> None:
    # The midpoint of three steps with rho = 7: ((80^(1/7) + .002^(1/7)) / 2)^7.
    assert schedule.karras(80.0, 0.002, 3)[1] == pytest.approx(2.5152, rel=1e-4)


def test_vp_chain_has_the_known_last_level() -> None:
    sigmas = schedule.vp_linear(50)
    assert len(sigmas) == 51
    assert sigmas[0] == pytest.approx(157.407, rel=1e-4)  # sqrt(1 / abar_T - 1), abar_T = 4.0358e-5
    assert schedule.vp_linear(1000)[-2] == pytest.approx((1e-4 / (1 - 1e-4)) ** 0.5)


def test_clip_keeps_the_inside() -> None:
    assert schedule.clip([8.0, 4.0, 2.0, 1.0, 0.0], 5.0, 1.5) == [5.0, 4.0, 2.0, 0.0]
    assert schedule.clip([4.0, 2.0, 0.0], 9.0, 0.1) == [4.0, 2.0, 0.0]


@pytest.mark.parametrize("arguments", [(1.0, 2.0, 5), (1.0, 0.0, 5), (1.0, 0.1, 0), (float("nan"), 0.1, 3)])
def test_impossible_schedules_are_refused(arguments: tuple[float, float, int]) -> None:
    with pytest.raises(InputError, match="schedule"):
        schedule.geometric(*arguments)
    with pytest.raises(InputError):
        schedule.vp_linear(0)
