"""Single-slice rebinning against closed-form fan sinograms of ellipsoids, on the real scanner's distances."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from recon.modalities.ct.rebinning import Detector, Rebinner, Trajectory, View

COLUMN: tuple = (((0, 0, 0), (140, 100, 1e7), 0.02), ((40, 20, 0), (30, 20, 1e7), 0.01))


def rebinner(scan, reads: Counter | None = None) -> Rebinner:
    places = np.array([scan.place(k) for k in range(scan.count)]).T
    trajectory = Trajectory(places[0], places[1], np.full(scan.count, scan.radius), *places[2:])
    detector = Detector(
        *(scan.rows, scan.columns, scan.row_spacing, scan.column_spacing),
        *(scan.centre[1], scan.centre[0], scan.distance, scan.curved),
    )

    def load(k: int) -> View:
        if reads is not None:
            reads[k] += 1
        return View(scan.project(k), 1.0, 0.0, np.full(scan.columns, scan.photons))

    return Rebinner(trajectory, detector, load)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("curved", [True, False])
def test_exact_for_a_cylinder_without_flying_focal_spot(helix: Callable, curved: bool) -> None:
    scan = helix(ellipsoids=COLUMN, curved=curved)
    one = rebinner(scan)
    for z in (-1.3, 0.0, 2.1):
        assert relative(one.slice(z)[0], scan.fan(one.angles, z)) < 1e-5


@pytest.mark.parametrize("curved", [True, False])
@pytest.mark.parametrize("spot", ["FFSNONE", "FFSZ", "FFSXY", "FFSXYZ"])
def test_ellipsoids(helix: Callable, spot: str, curved: bool) -> None:
    scan = helix(spot=spot, curved=curved)
    one = rebinner(scan)
    for z in (-2.0, 0.5):
        assert relative(one.slice(z)[0], scan.fan(one.angles, z)) < (0.001 if spot == "FFSNONE" else 0.02)


@pytest.mark.parametrize("spot", ["FFSZ", "FFSXY"])
def test_ignoring_the_flying_focal_spot_would_be_seen(helix: Callable, spot: str) -> None:
    """Away from the edges, where interpolation errs in any case: the 90 % quantile of the error."""
    scan = helix(spot=spot, ellipsoids=COLUMN)
    one = rebinner(scan)
    t, still = one.trajectory, np.zeros(scan.count)
    blind = Rebinner(Trajectory(t.phi, t.z, t.rho, still, still, still), one.detector, one._load)
    expected = scan.fan(one.angles, 1.0)
    seeing, ignoring = (np.quantile(np.abs(each.slice(1.0)[0] - expected), 0.9) for each in (one, blind))
    assert seeing < 0.3 * ignoring


def test_wide_detector_stays_within_a_few_percent(helix: Callable) -> None:
    """64 rows, pitch 0.9: half a turn moves the table by more than 17 mm; spheres end within that."""
    spheres = (((0, 0, 0), (90, 90, 90), 0.02), ((60, 0, 10), (25, 25, 25), 0.01), ((-70, 10, -5), (20, 20, 20), -0.01))
    scan = helix(rows=64, pitch=0.9, ellipsoids=spheres, turns=1.4)
    one = rebinner(scan)
    assert relative(one.slice(0.0)[0], scan.fan(one.angles, 0.0)) < 0.03


def test_either_sense_of_table_and_first_angle(helix: Callable) -> None:
    for fields in ({"pitch": -0.6}, {"first_angle": 5.0}, {"first_angle": -40.0}):
        scan = helix(**fields)
        one = rebinner(scan)
        assert relative(one.slice(0.7)[0], scan.fan(one.angles, 0.7)) < 0.001


def test_slices_in_order_read_each_view_once_and_keep_one_turn(helix: Callable) -> None:
    scan = helix(turns=2.5)
    reads: Counter = Counter()
    one = rebinner(scan, reads)
    for z in np.linspace(-3, 3, 7):
        one.slice(z)
        assert len(one._views) <= scan.views_per_turn + 12
    assert set(reads.values()) == {1}


def test_photons_tell_the_noise(helix: Callable) -> None:
    """Noise of the measured rays, var = exp(p) / N with p = 0, must come out as 1 / photons of the rebinned rays."""
    scan = helix(ellipsoids=(), columns=64, views_per_turn=96)
    quiet = rebinner(scan)
    rng = np.random.default_rng(0)
    noisy = {k: rng.normal(size=(scan.rows, scan.columns)) / np.sqrt(scan.photons) for k in range(scan.count)}
    one = Rebinner(quiet.trajectory, quiet.detector, lambda k: View(noisy[k], 1.0, 0.0, np.full(scan.columns, 1e5)))
    values, photons = one.slice(0.2)
    assert photons is not None
    assert np.mean(values**2 * photons) == pytest.approx(1, rel=0.05)
    assert photons.min() > 0.99e5


def test_a_scan_of_less_than_a_turn(helix: Callable) -> None:
    scan = helix(turns=0.8, pitch=0.0, ellipsoids=COLUMN)
    one = rebinner(scan)
    assert len(one.angles) == scan.count
    assert relative(one.slice(0.0)[0], scan.fan(one.angles, 0.0)) < 1e-5
