"""From CT images and projections to Problems: geometry, units, noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recon.errors import InputError
from recon.modalities.ct.data import ScanGeometry
from recon.modalities.ct.options import CT
from recon.modalities.ct.prepare import balanced, estimate_noise, field_of_view, prepare_image, prepare_projections

SIZE, PIXEL = 64, 2.0
MIDDLE, RADIUS, HEIGHT = (20.0, -13.0), 25.0, 0.02  # of a disc: (x right, y up) in mm, attenuation in 1/mm


def disc() -> np.ndarray:
    """The disc in HU on the pixel grid, y up; pixels on the edge hold their share."""
    x = (np.arange(8 * SIZE) - (8 * SIZE - 1) / 2) * PIXEL / 8
    inside = np.hypot(x[None] - MIDDLE[0], -x[:, None] - MIDDLE[1]) < RADIUS
    share = inside.reshape(SIZE, 8, SIZE, 8).mean(axis=(1, 3))
    return 1000 * (share * HEIGHT / 0.0192 - 1)


def chords(geometry: ScanGeometry) -> np.ndarray:
    """Line integrals of the disc along the rays that ``recon.modalities.ct.data`` defines."""
    t, g = geometry.angles[:, None], geometry.fan_angles
    u, d = np.stack([np.cos(t), np.sin(t)], -1), np.stack([-np.sin(t), np.cos(t)], -1)
    if geometry.kind == "parallel":
        point, along = geometry.positions_mm[:, None] * u, d
    else:
        point, along = -geometry.source_to_iso_mm * d, d * np.cos(g)[:, None] + u * np.sin(g)[:, None]
    offset = point - np.array(MIDDLE)
    distance = np.abs(offset[..., 0] * along[..., 1] - offset[..., 1] * along[..., 0])
    return HEIGHT * 2 * np.sqrt(np.maximum(RADIUS**2 - distance**2, 0))


@pytest.mark.parametrize("kind", ["parallel", "fan-curved", "fan-flat"])
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_projections_of_a_file_land_where_the_object_is(kind, offset):
    fan = kind != "parallel"
    distances = {"source_to_iso_mm": 300.0, "source_to_detector_mm": 500.0} if fan else {}
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    geometry = ScanGeometry(kind, angles, 160, 2.0, offset, **distances)
    scan = CT()
    ready = prepare_projections(chords(geometry), geometry, scan, image_shape=(SIZE, SIZE), pixel_size=PIXEL)
    truth = disc()
    inner, outer = _eroded(truth > 0), _eroded(truth <= -999)
    assert np.abs(ready.images["fbp"].numpy()[inner].mean() - truth[inner].mean()) < 15
    assert np.abs(ready.images["fbp"].numpy()[outer].mean() + 1000) < 15
    # The operator agrees with the file's line integrals: little is left of them for the true image.
    image = torch.from_numpy(truth / 1000 + 1).float()
    if fan:  # whose rays are closer than the pixels
        assert tuple(ready.problem.operator.domain.shape) == (2 * SIZE, 2 * SIZE)
        image = image.repeat_interleave(2, 0).repeat_interleave(2, 1)
        torch.testing.assert_close(ready.combine(image[None])[0], torch.from_numpy(truth / 1000 + 1).float())
    assert (ready.problem.operator(image) - ready.problem.y).norm() < 0.025 * ready.problem.y.norm()
    assert any("water" in note for note in ready.notes)
    fewer = prepare_projections(chords(geometry), geometry, CT(views_every=4), water=0.0192)
    assert fewer.problem.y.shape == (45, 160) and not fewer.notes
    assert fewer.diagnostics["pixel_size_mm"] * 160 == pytest.approx(2 * field_of_view(geometry))


def test_pixels_larger_than_the_ray_spacing_are_means_of_smaller_ones():
    geometry = ScanGeometry("parallel", np.linspace(0, np.pi, 40, endpoint=False), 160, 1.0)
    sharp = chords(geometry)
    large = prepare_projections(sharp, geometry, CT(), image_shape=(40, 40), pixel_size=4.0, water=0.02)
    assert large.images["fbp"].shape == (40, 40) and large.diagnostics["pixel_size_mm"] == 4.0
    assert tuple(large.problem.operator.domain.shape) == (160, 160) and large.diagnostics["parts_of_pixels"] == 4
    assert "computed on pixels of 1 mm and averaged" in large.notes[0]
    images = torch.randn(3, 160, 160)
    means = images.reshape(3, 40, 4, 40, 4).mean(dim=(2, 4))
    torch.testing.assert_close(large.combine(images), means)
    # The automatic grid has a pixel for each ray, and the largest image stays within bounds, with a note.
    plain = prepare_projections(sharp, geometry, CT(), water=0.02)
    assert plain.problem.operator.domain.shape == plain.images["fbp"].shape and not plain.notes
    wide = ScanGeometry("parallel", np.linspace(0, np.pi, 8, endpoint=False), 1600, 0.1)
    bound = prepare_projections(chords(wide), wide, CT(), image_shape=(500, 500), pixel_size=0.32, water=0.02)
    assert bound.images["fbp"].shape == (500, 500) and "3.2 times the spacing of the rays" in bound.notes[0]


@pytest.mark.parametrize("geometry", ["fan", "fan-flat", "parallel"])
def test_images_are_simulated_and_come_back_in_their_unit(geometry):
    truth = disc()
    ready = prepare_image(truth, PIXEL, CT(views=180, geometry=geometry))
    inner = _eroded(truth > 0)
    assert np.abs(ready.images["fbp"].numpy()[inner].mean() - truth[inner].mean()) < 15
    assert ready.problem.scale == 1000 and ready.problem.offset == -1000
    relative = torch.from_numpy(truth / 1000 + 1).float()
    torch.testing.assert_close(ready.problem.operator(relative), ready.problem.y, rtol=1e-4, atol=1e-3)
    assert ready.problem.y[:, [0, -1]].abs().max() == 0  # the corners of the image are inside


def test_photons_make_noise_of_the_level_that_the_problem_tells():
    truth = disc()
    clean = prepare_image(truth, PIXEL, CT(views=60)).problem
    noisy = prepare_image(truth, PIXEL, CT(views=60, photons=1e4), seed=3).problem
    score = (noisy.y - clean.y) / noisy.noise_std
    assert float(score.std()) == pytest.approx(1, rel=0.05)
    assert float(noisy.noise_std.max() / noisy.noise_std.min()) > 1.2  # dense rays are noisier
    again = prepare_image(truth, PIXEL, CT(views=60, photons=1e4), seed=3).problem
    assert torch.equal(again.y, noisy.y)
    electronic = prepare_image(truth, PIXEL, CT(views=60, photons=1e4, electronic_noise=80.0)).problem
    assert float(((electronic.y - clean.y) / electronic.noise_std).std()) == pytest.approx(1, rel=0.05)
    assert float((electronic.noise_std / noisy.noise_std).min()) > 1.2


def test_noise_level_of_a_measured_sinogram():
    geometry = ScanGeometry("parallel", np.linspace(0, np.pi, 90, endpoint=False), 200, 1.0)
    noise = 0.02 * np.random.default_rng(0).standard_normal((90, 200))
    assert estimate_noise(torch.from_numpy(chords(geometry) + noise)) == pytest.approx(0.02, rel=0.1)
    photons = np.full((1, 200), 1e5)
    ready = prepare_projections(chords(geometry), geometry, CT(), photons=photons, water=0.02)
    expected = np.exp(chords(geometry) / 2) / np.sqrt(1e5) / 0.02
    np.testing.assert_allclose(ready.problem.noise_std.numpy(), expected, rtol=1e-5)


def test_scans_that_cannot_be_are_refused():
    for wrong, hint in (
        ({"views": 0}, "views"),
        ({"geometry": "cone"}, "fan"),
        ({"arc": 400.0}, "arc"),
        ({"photons": -1.0}, "photons"),
        ({"views_every": 0}, "views_every"),
        ({"electronic_noise": -1.0, "photons": 1e5}, "electronic_noise"),
        ({"electronic_noise": 3.0}, "photons"),
    ):
        with pytest.raises(InputError, match=hint):
            CT(**wrong)
    with pytest.raises(InputError, match="give the number of projections"):
        prepare_image(disc(), PIXEL, CT())
    with pytest.raises(InputError, match="pixel size"):
        prepare_image(disc(), 40.0, CT(views=8))
    with pytest.raises(InputError, match="photons"):
        estimate_noise(torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"views": 16}, "views is 16 here but was 32"),
        ({"arc": 120.0}, "arc is 120 here but was 360"),
        ({"geometry": "parallel"}, "geometry is ParallelBeam here but was FanBeam"),
        ({"photons": 1e4}, "noise"),
        ({"photons": 1e5}, None),
        ({"photons": 9e4}, None),
    ],
)
def test_a_calibration_belongs_to_its_projections(other, field):
    """Other views, another arc or another dose are not what the intervals were calibrated on."""
    from recon.posterior import Posterior
    from recon.uncertainty.fingerprint import fingerprint, require_match

    def of(**scan):
        facts = prepare_image(disc(), PIXEL, CT(**{"views": 32, "photons": 1e5, **scan})).diagnostics
        return fingerprint(Posterior(np.ones((2, 4, 4)), provenance={"operator": "CT", "measured": [facts]}))

    if field is None:
        require_match(of(), of(**other))
    else:
        with pytest.raises(InputError, match=field):
            require_match(of(), of(**other))
    assert of()["views"] == [32, 32] and of()["simulated"] is True


def _eroded(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_erosion(mask, iterations=3)


@pytest.mark.slow
def test_a_folder_of_dicom_images_becomes_samples_in_hu_and_derived_dicom(tmp_path, write_ct, capsys):
    from recon.cli import main
    from recon.posterior import Posterior

    (tmp_path / "scan").mkdir()
    stored = np.round(disc() + 1024).astype(np.uint16)
    for k in range(2):
        write_ct(tmp_path / "scan" / f"{k}.dcm", stored + k, z=3.0 * k, PixelSpacing=["2.0", "2.0"])
    command = ["run", str(tmp_path / "scan"), "-o", str(tmp_path / "out"), "--prior", "gaussian", "--samples", "3"]
    assert main([*command, "--steps", "8"]) == 2  # how many views?
    assert "--views" in capsys.readouterr().err
    options = ["--steps", "8", "--views", "60", "--photons", "1e6", "--slices", "1", "--nifti"]
    assert main([*command, *options]) == 0
    found = Posterior.load(tmp_path / "out" / "scan.h5")
    assert found.samples.shape == (3, SIZE, SIZE) and found.geometry["units"] == "HU"
    truth = found.images["reference"]
    assert np.abs(truth - disc()).max() < 2
    inner = _eroded(truth > 0)
    assert abs(found.mean[inner].mean() - truth[inner].mean()) < 15
    assert (tmp_path / "out" / "scan.png").is_file()
    derived = sorted((tmp_path / "out" / "scan_dicom").rglob("*.dcm"))
    assert [path.parent.name for path in derived] == ["mean", "std"]
    nibabel = pytest.importorskip("nibabel")
    volumes = [nibabel.load(tmp_path / "out" / f"scan_{kind}.nii.gz") for kind in ("mean", "std", "lower", "upper")]
    np.testing.assert_array_equal(volumes[0].get_fdata()[..., 0].T.astype(np.float32), found.mean)
    # Slice 1 is at 3 mm; x and y of DICOM run to the left and to the back, those of NIfTI the other way.
    assert all(np.allclose(v.affine @ [10, 20, 0, 1], [190 - 2 * 10, 190 - 2 * 20, 3, 1]) for v in volumes)
    assert main(["run", str(tmp_path / "scan"), "-o", str(tmp_path / "o2"), "--acceleration", "4", "--views", "9"]) == 2
    assert "CT" in capsys.readouterr().err


def test_options_of_ct_are_refused_for_kspace():
    import recon

    kspace = np.ones((2, 8, 8), np.complex64)
    with pytest.raises(InputError, match="views"):
        recon.reconstruct(kspace, prior="gaussian", views=8)


def test_strategies_by_name_have_settings_for_ct():
    from recon.engine.samplers import SAMPLERS, resolve_sampler
    from recon.modalities import modality

    known = modality("ct")
    for name in SAMPLERS:
        found = resolve_sampler(name, modality=known)
        assert (found == SAMPLERS[name]) == (name not in known.samplers)
    assert resolve_sampler("score-mri", modality=known).scaling == "sirt"
    assert resolve_sampler(SAMPLERS["dds"], modality=known) == SAMPLERS["dds"]  # an object is taken as it is


def discs(geometry):
    """Projections of two discs, the first one wider than 30 mm on either side of the axis."""
    t, s = np.asarray(geometry.angles)[:, None], geometry.positions_mm[None]
    found = np.zeros((len(t), s.shape[1]))
    for x, y, r, mu in ((3, -2, 36, 0.02), (12, 8, 7, 0.01)):
        found += 2 * mu * np.sqrt(np.clip(r**2 - (s - x * np.cos(t) - y * np.sin(t)) ** 2, 0, None))
    return found.astype(np.float32)


def test_a_half_acquisition_sees_as_far_as_its_long_side():
    theta = np.arange(180) * 2 * np.pi / 180
    geometry = ScanGeometry("parallel", theta, 60, 1.0, 17.5)  # from -12 to 47 mm
    assert field_of_view(geometry) == 47.0
    assert field_of_view(replace(geometry, angles=theta[:90])) == 12.0
    weighted, symmetric = balanced(torch.ones(180, 60), geometry)
    assert symmetric.positions_mm[[0, -1]].tolist() == [-47.0, 47.0]
    at = np.interp([-8.0, -3.0, 3.0, 8.0, 40.0, -40.0], symmetric.positions_mm, weighted[0].numpy())
    np.testing.assert_allclose([at[0] + at[3], at[1] + at[2], at[4], at[5]], [2, 2, 2, 0], atol=0.01)
    mirrored = replace(geometry, det_offset_mm=-17.5)
    assert torch.equal(balanced(torch.ones(180, 60), mirrored)[0], weighted.flip(1))
    for other in (replace(geometry, angles=theta[:90]), replace(geometry, det_offset_mm=0.4)):
        assert balanced(torch.ones(180, 60), other)[1] is other
    ready = prepare_projections(discs(geometry), geometry, CT(), water=0.02, hounsfield=False)
    assert not ready.doubts and ready.problem.operator.domain.shape == (88, 88)
    y, x = np.mgrid[43.5:-44.5:-1, -43.5:44.5] * ready.diagnostics["pixel_size_mm"]
    truth = 0.02 * (np.hypot(x - 3, y + 2) < 36) + 0.01 * (np.hypot(x - 12, y - 8) < 7)
    inside = np.hypot(x - 3, y + 2) < 33
    error = np.asarray(ready.images["fbp"]) - truth
    assert np.sqrt((error[inside] ** 2).mean()) < 0.08 * 0.02


def test_an_object_wider_than_the_detector_is_doubted():
    theta = np.arange(90) * np.pi / 90
    for count, cut in ((60, True), (90, False)):
        geometry = ScanGeometry("parallel", theta, count, 1.0)
        ready = prepare_projections(discs(geometry), geometry, CT(), water=0.02)
        assert any("wider than the detector" in doubt for doubt in ready.doubts) == cut
