"""Conformal calibration: factors by hand, guarantees in simulation, the fingerprint, the file."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from recon import Posterior
from recon.commands.text import calibration_lines
from recon.errors import InputError
from recon.files.plain_values import compact
from recon.modalities.mri.conditions import describe_mask
from recon.uncertainty import Calibration, Case, allowed_risk, calibrate, fingerprint, smallest_factor, spread_map

PROVENANCE = {
    "operator": "CartesianMRI",
    "config": {"mask": "random", "acceleration": 4.0, "precision": "float32"},
    "prior": {"name": "brain-mri", "sha256": "ab"},
    "sampler": {"name": "DDS", "steps": 30, "eta": 0.85},
    "measured": [{"acceleration": 4.0, "noise_std": 0.02, "scale": 2.0}],
}


def case(seed, width=0.5, n=4, shape=(16, 20), group="all", **provenance):
    """A result whose samples spread `width` times too little around an unknown mean."""
    rng = np.random.default_rng(seed)
    std = rng.uniform(0.5, 2.0) * np.linspace(0.5, 4, shape[-1])
    center = 100 + 10 * rng.normal(size=shape)
    truth = center + std * rng.normal(size=shape)
    samples = center + width * std * rng.normal(size=(n, *shape))
    images = {"reference": truth.astype(np.float32), "mask": np.random.default_rng(1).random((1, shape[-1])) < 0.3}
    record = {**PROVENANCE, "source": {"name": f"{seed}.h5", "sha256": f"{seed:064x}"}, **provenance}
    return Case(Posterior(samples.astype(np.float32), provenance=record, images=images), f"case {seed}", None, group)


def risk(calibration, held_out):
    outside = []
    for item in held_out:
        lower, upper = calibration.apply(item.posterior, item.group if len(calibration.factors) > 1 else None)
        truth = item.posterior.images["reference"]
        outside.append(np.mean((truth < lower) | (truth > upper)))
    return np.array(outside)


def test_the_allowed_risk_of_crc_by_hand():
    assert allowed_risk(9, 0.9) == pytest.approx(0, abs=1e-12)
    assert allowed_risk(19, 0.9) == pytest.approx((20 * 0.1 - 1) / 19)
    assert allowed_risk(10**6, 0.9) == pytest.approx(0.1, abs=1e-5)
    with pytest.raises(InputError, match="at least 9 calibration images, got 8"):
        allowed_risk(8, 0.9)


@pytest.mark.parametrize(("n", "delta"), [(200, 0.1), (1000, 0.1), (1000, 0.01)])
def test_the_allowed_risk_of_rcps_inverts_its_bound(n, delta):
    def bound(found, true):
        divergence = found * np.log(found / true) + (1 - found) * np.log((1 - found) / (1 - true))
        return min(np.exp(-n * divergence), np.e * stats.binom.cdf(np.ceil(n * found - 1e-9), n, true))

    found = allowed_risk(n, 0.9, "rcps", delta)
    assert 0 < found < allowed_risk(n, 0.9)
    assert bound(found, 0.1) <= delta * (1 + 1e-9)
    assert bound(found + 1.01 / n, 0.1) > delta


def test_rcps_needs_many_images():
    with pytest.raises(InputError, match="rcps needs at least 200 calibration images, got 199"):
        allowed_risk(199, 0.9, "rcps")


@pytest.mark.parametrize("allowed", [0.0, 0.1, 0.25, 0.5, 0.99, 1.0])
def test_the_smallest_factor_is_the_smallest(allowed):
    rng = np.random.default_rng(0)
    scores = [rng.exponential(size=size).round(1) for size in (5, 20, 11)]  # rounded: with ties

    def outside(factor):
        return np.mean([np.mean(image > factor) for image in scores])

    factor = smallest_factor(scores, allowed)
    assert outside(factor) <= allowed + 1e-9
    if factor > 0:
        assert outside(np.nextafter(factor, 0)) > allowed


def test_every_image_counts_the_same():
    assert smallest_factor([np.full(1000, 1.0), np.full(3, 5.0)], 0.5) == 1.0
    assert smallest_factor([np.full(1000, 1.0), np.full(3, 5.0)], 0.49) == 5.0


@pytest.mark.parametrize("width", [0.3, 1.0, 2.0])
def test_held_out_images_are_covered_whatever_the_sampler(width):
    calibration = calibrate(case(seed, width) for seed in range(40))
    held_out = risk(calibration, [case(seed, width) for seed in range(1000, 1040)]).mean()
    assert 0.05 < held_out < 0.1 + 0.01
    assert calibration.raw_ratio() == pytest.approx(1 / width, rel=0.5)
    assert calibration.images == {"all": 40}


@pytest.mark.slow
def test_rcps_is_more_careful_than_crc():
    cases = [case(seed, shape=(4, 10)) for seed in range(200)]
    crc, rcps = calibrate(cases), calibrate(cases, method="rcps")
    assert rcps.factor() > crc.factor()
    held_out = risk(rcps, [case(seed, shape=(4, 10)) for seed in range(1000, 1050)])
    assert held_out.mean() < 0.1


def test_groups_have_factors_of_their_own():
    cases = [case(seed, 0.3 if seed % 2 else 1.0, group="t2" if seed % 2 else "t1") for seed in range(40)]
    calibration = calibrate(cases)
    assert calibration.images == {"t1": 20, "t2": 20}
    assert calibration.factor("t2") > 2 * calibration.factor("t1")
    with pytest.raises(InputError, match="groups t1, t2; no group was given"):
        calibration.apply(cases[0].posterior)
    with pytest.raises(InputError, match="got 't3'"):
        calibration.apply(cases[0].posterior, "t3")
    with pytest.raises(InputError, match=r"group t2: level 0\.9 needs at least 9"):
        calibrate([*cases[::2], *cases[1:5:2]])


def test_slices_can_count_as_images():
    volumes = [case(seed, shape=(3, 16, 20)) for seed in range(4)]
    with pytest.raises(InputError, match="got 4"):
        calibrate(volumes)
    calibration = calibrate(volumes, per="slice")
    assert calibration.images == {"all": 12}
    assert calibration.apply(volumes[0].posterior)[0].shape == (3, 16, 20)


def test_smoothing_averages_the_variance():
    std = np.zeros((5, 5))
    std[2, 2] = 3.0
    np.testing.assert_allclose(spread_map(std, 1.0, 3)[1:4, 1:4], 1.0)
    assert spread_map(std, 1.0, 3)[0, 0] == 1e-3
    np.testing.assert_allclose(spread_map(np.stack([std, 2 * std]), 1.0, 5)[1], 6 / 5)
    plain, smooth = (calibrate((case(seed, n=3) for seed in range(30)), smoothing=k) for k in (1, 5))
    item = case(2000, n=3).posterior
    assert np.diff(smooth.apply(item), axis=0).mean() < np.diff(plain.apply(item), axis=0).mean()
    for bad in (0, 4):
        with pytest.raises(InputError, match="odd number"):
            spread_map(std, 1.0, bad)


def test_units_do_not_matter():
    def scaled(item, factor):
        images = {**item.posterior.images, "reference": item.posterior.images["reference"] * factor}
        return item._replace(
            posterior=dataclasses.replace(item.posterior, samples=item.posterior.samples * factor, images=images)
        )

    cases = [case(seed) for seed in range(12)]
    one, tiny = calibrate(cases), calibrate([scaled(item, np.float32(2.0**-30)) for item in cases])
    assert tiny.factor() == pytest.approx(one.factor(), rel=1e-5)
    assert tiny.constants["all"] == pytest.approx(one.constants["all"], rel=1e-5)


def test_the_map_beats_a_constant_width_where_the_spread_varies():
    calibration = calibrate(case(seed, 1.0, n=16) for seed in range(30))
    item = case(3000, 1.0, n=16).posterior
    lengths = [
        np.diff(bounds, axis=0).mean() for bounds in (calibration.apply(item), calibration.constant_interval(item))
    ]
    assert lengths[0] < 0.9 * lengths[1]


def test_a_map_that_tells_nothing_is_longer_than_a_constant_width(tmp_path):
    def turned(item):
        """The same errors, with the spread where they are small."""
        samples = item.posterior.samples
        mean = samples.mean(axis=0)
        return item._replace(posterior=dataclasses.replace(item.posterior, samples=mean + (samples - mean)[..., ::-1]))

    honest = calibrate(case(seed, n=16) for seed in range(20))
    useless = calibrate(turned(case(seed, n=16)) for seed in range(20))
    assert honest.constant_ratio() > 1.1
    assert useless.constant_ratio() < 0.9
    assert not any("constant width" in line for line in calibration_lines(Path("c.json"), honest))
    assert any(
        "a constant width with the same guarantee would be 0." in x for x in calibration_lines(Path("c"), useless)
    )
    useless.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json").constant_ratio() == pytest.approx(useless.constant_ratio())
    older = json.loads((tmp_path / "c.json").read_text())
    del older["spreads"]
    (tmp_path / "c.json").write_text(json.dumps(older))
    assert Calibration.load(tmp_path / "c.json").constant_ratio() is None


def test_a_posterior_gives_the_calibrated_interval():
    calibration = calibrate(case(seed) for seed in range(12))
    posterior = case(50).posterior
    bounds = posterior.interval(0.9, "conformal", calibration)
    np.testing.assert_array_equal(bounds, calibration.apply(posterior))
    half = calibration.factor() * np.maximum(posterior.std, 1e-3 * np.quantile(posterior.mean, 0.99))
    np.testing.assert_allclose(bounds[1], posterior.mean + half, rtol=1e-5)
    with pytest.raises(InputError, match=r"level 0\.9, but level 0\.8 was requested"):
        posterior.interval(0.8, "conformal", calibration)
    with pytest.raises(InputError, match="needs a calibration"):
        posterior.interval(0.9, "conformal")
    with pytest.raises(InputError, match="conformal"):
        posterior.interval(0.9, "student", calibration)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"operator": "Other"}, "operator is Other here but was CartesianMRI"),
        ({"prior": {"name": "brain-mri", "sha256": "cd"}}, "prior is cd here but was ab"),
        ({"sampler": {"name": "DDS", "steps": 50, "eta": 0.85}}, "sampler.steps is 50 here but was 30"),
        ({"config": {**PROVENANCE["config"], "precision": "bfloat16"}}, "precision is bfloat16"),
        ({"config": {**PROVENANCE["config"], "mask": "poisson"}}, "pattern is poisson here but was random"),
        ({"measured": [{"acceleration": 8.0, "noise_std": 0.02, "scale": 2.0}]}, "acceleration is 8 here but was 4"),
        ({"measured": [{"acceleration": 4.0, "noise_std": 0.1, "scale": 2.0}]}, "noise is 0.05 here but was 0.01"),
        ({"measured": []}, "noise is not recorded here"),
    ],
)
def test_results_that_were_made_otherwise_are_refused(changes, field):
    calibration = calibrate(case(seed) for seed in range(12))
    with pytest.raises(InputError, match=field):
        calibration.apply(case(50, **changes).posterior)


def test_the_number_of_samples_and_the_mask_belong_to_the_fingerprint():
    calibration = calibrate(case(seed) for seed in range(12))
    with pytest.raises(InputError, match="samples is 5 here but was 4"):
        calibration.apply(case(50, n=5).posterior)
    other = case(50).posterior
    points = np.random.default_rng(0).random(other.samples.shape[1:]) < 0.3
    with pytest.raises(InputError, match="sampling is points here but was uneven columns"):
        calibration.apply(dataclasses.replace(other, images={**other.images, "mask": points}))


def test_small_differences_of_acceleration_noise_and_name_are_allowed():
    calibration = calibrate(case(seed) for seed in range(12))
    other = {
        "prior": {"name": "renamed", "sha256": "ab"},
        "config": {"precision": "float32"},  # measured undersampled, not drawn by us
        "measured": [{"acceleration": 4.2, "noise_std": 0.025, "scale": 2.0}],
    }
    calibration.apply(case(50, **other).posterior)


def test_calibration_images_must_have_been_made_in_one_way():
    odd = case(12, sampler={"name": "DDS", "steps": 31, "eta": 0.85})
    with pytest.raises(InputError, match=r"case 12: sampler\.steps differs from case 0"):
        calibrate([*(case(seed) for seed in range(12)), odd])


def test_the_ranges_of_all_images_are_kept():
    def noisy(seed):
        return case(seed, measured=[{"acceleration": 4.0, "noise_std": 0.01 * (1 + seed), "scale": 1.0}])

    calibration = calibrate(noisy(seed) for seed in range(12))
    assert calibration.fingerprint["noise"] == pytest.approx([0.01, 0.12])


def test_long_settings_are_kept_as_a_digest():
    record = {"sampler": {"name": "Any", "covariance": {"spectrum": list(range(1000)), "std": 0.3}, "steps": 2}}
    settings = fingerprint(Posterior(np.ones((2, 4, 4)), provenance=record))["sampler"]
    assert settings["steps"] == 2
    assert settings["covariance"]["std"] == 0.3
    assert settings["covariance"]["spectrum"].startswith("sha256:")
    assert compact(settings) == settings


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [("equispaced", "evenly spaced columns"), ("random", "uneven columns"), ("poisson", "points")],
)
@pytest.mark.parametrize("acceleration", [2, 4, 8])
def test_masks_are_told_apart(pattern, kind, acceleration):
    from operators.mri.masks import make_mask

    for seed in range(3):
        mask = make_mask((96, 180), pattern, acceleration, seed=seed)
        assert describe_mask(np.broadcast_to(mask, (96, 180))) == kind
    assert describe_mask(np.ones((4, 4), bool)) == "everything"
    assert describe_mask(None) is None


def test_a_file_holds_everything(tmp_path: Path):
    calibration = calibrate((case(seed) for seed in range(12)), smoothing=3)
    calibration.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    assert again == calibration
    assert json.loads((tmp_path / "c.json").read_text())["lambda"] == {"all": calibration.factor()}
    assert len(again.sources) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "not a calibration"),
        ({"format_version": 2}, "format version 2"),
        ({"lambda": {"all": -1}}, "lambda must map"),
        ({"lambda": {"all": float("nan")}}, "lambda must map"),
        ({"lambda": None}, "lambda must map"),
        ({"images": {"other": 3}}, "other groups"),
        ({"level": "high"}, "must be numbers"),
        ({"level": 2}, "between 0 and 1"),
        ({"fingerprint": {}}, "fingerprint"),
        ({"method": "magic"}, "method"),
        ({"sources": 3}, "sources"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change, words):
    path = tmp_path / "c.json"
    calibrate(case(seed) for seed in range(9)).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=words) as caught:
        Calibration.load(path)
    assert "c.json" in str(caught.value) or words in ("between 0 and 1", "method")


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 10_000])
def test_files_that_are_not_json(tmp_path: Path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match=r"c\.json"):
        Calibration.load(tmp_path / "c.json")
    with pytest.raises(InputError, match="cannot be read"):
        Calibration.load(tmp_path / "absent.json")


def test_cases_that_cannot_calibrate():
    good = [case(seed) for seed in range(9)]
    bare = dataclasses.replace(good[0].posterior, images={})
    small = {"reference": np.ones((40, 40), np.float32)}
    for cases, words in (
        ([], "no results"),
        ([good[0]._replace(posterior=bare)], "case 0: has no reference"),
        ([good[0]._replace(posterior=dataclasses.replace(bare, images=small))], "case 0: .* reference of shape"),
        ([good[0]._replace(reference=np.zeros((16, 20)))], "zero everywhere"),
        ([case(0, n=1)], "valid samples, got 1"),
    ):
        with pytest.raises(InputError, match=words):
            calibrate(cases)
    with pytest.raises(InputError, match="per must be"):
        calibrate(good, per="pixel")
    with pytest.raises(InputError, match="method must be"):
        calibrate(good, method="magic")


def test_a_reference_cropped_by_the_scanner():
    cases = [case(seed) for seed in range(12)]
    cropped = [item._replace(reference=item.posterior.images["reference"][2:-2, 3:-3]) for item in cases]
    assert calibrate(cropped).factor() == pytest.approx(calibrate(cases).factor(), rel=0.3)
