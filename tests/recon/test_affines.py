"""The affine of a stack from those of its slices, and of slices that are chosen from it."""

import numpy as np
import pytest

from recon.affines import stacked
from recon.engine.slices import of_slices

TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]


def slices(places, normal=TURN[:, 2]) -> np.ndarray:
    """Affines of slices of 4 mm at places along their normal."""
    affines = np.tile(np.eye(4), (len(places), 1, 1))
    affines[:, :3, :2] = TURN[:, :2] * (0.5, 0.7)
    affines[:, :3, 2] = 4 * normal
    affines[:, :3, 3] = np.array([1.0, 2.0, 3.0]) + np.asarray(places)[:, None] * normal
    return affines


@pytest.mark.parametrize(
    ("places", "step", "even"),
    [
        ([0.0], 4.0, True),
        ([0, 5, 10], 5.0, True),
        ([10, 5, 0], -5.0, True),
        ([0, 5, 10.2], 5.1, True),  # rounded
        ([0, 5, 11], 5.5, False),
        ([0, 10, 5], 2.5, False),
        ([7, 7, 7], 4.0, False),  # contrasts
        ([0, 5, 0], 4.0, False),
    ],
)
def test_step_and_evenness(places, step, even) -> None:
    affine, found = stacked(slices(places))
    assert found == even
    np.testing.assert_allclose(affine[:3, 2], step * TURN[:, 2], atol=1e-9)
    np.testing.assert_array_equal(affine[:, [0, 1, 3]], slices(places)[0][:, [0, 1, 3]])


def test_another_orientation_or_pixel_size_is_not_even() -> None:
    affines = slices([0, 5, 10])
    for change in (affines[1, :3, [1, 0]].T, affines[1, :3, :2] * 1.1):
        other = affines.copy()
        other[1, :3, :2] = change
        assert stacked(affines)[1] and not stacked(other)[1]


def test_chosen_slices_of_an_even_stack() -> None:
    stack = {"affine": stacked(slices([0, 5, 10, 15]))[0].tolist(), "other": 1}
    for chosen, places in (([2], [10]), ([1, 2, 3], [5, 10, 15]), ([0, 2], [0, 10]), ([3, 1], [15, 5])):
        found = of_slices(stack, chosen)
        expected = stacked(slices(places))[0]
        if len(chosen) == 1:
            expected[:3, 2] *= 5 / 4  # nothing else is known of it
        np.testing.assert_allclose(found["affine"], expected, atol=1e-9)
        assert found["other"] == 1 and "affines" not in found
    found = of_slices(stack, [0, 1, 3])
    np.testing.assert_allclose(np.array(found["affines"])[:, :3, 3], slices([0, 5, 15])[:, :3, 3])


def test_chosen_slices_of_an_uneven_stack() -> None:
    each = slices([0, 5, 11])
    np.testing.assert_allclose(of_slices({"affine": each.tolist()}, [2])["affine"], each[2])
    assert "affines" not in of_slices({"affine": each.tolist()}, [0, 1])
    np.testing.assert_allclose(of_slices({"affine": each.tolist()}, [0, 1, 2])["affines"], each)
    assert of_slices({"affine": None}, [0]) == {"affine": None}
