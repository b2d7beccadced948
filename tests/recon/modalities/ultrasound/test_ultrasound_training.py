"""Simulated training images of ultrasound: speckle, points and interfaces as the operator's base band has them."""

import numpy as np
import pytest
import torch

import recon
from operators import Grid, PlaneWaveGeometry, PlaneWaveUltrasound
from recon.engine.samplers import resolve_sampler
from recon.errors import ConfigError
from recon.images.augment import Pool, step_generator
from recon.images.sources import SourceConfig
from recon.modalities import modality, training_images
from recon.modalities.ultrasound.grid import COLUMNS, ROWS
from recon.modalities.ultrasound.image_metrics import fwhm
from recon.modalities.ultrasound.scenes import SCENES, Scene, draw_scene
from recon.modalities.ultrasound.training import BAND, PIXEL, band, draw_images, load_slices, make_image
from recon.training.cli import TrainConfig, train
from recon.training.evaluate import with_noise
from recon.training.state import load_checkpoint

SMALL = {"channels": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 8}
EMPTY = np.zeros((0, 3))


def plain(shape, level=0.0, **parts):
    """A scene of one level."""
    whole = {"density": 1.0, "points": EMPTY, "interfaces": [], **parts}
    return Scene(np.full(shape, level, dtype=np.float32), **whole)


def test_pixels_are_those_of_the_pipeline():
    assert PIXEL == (ROWS, COLUMNS)


def test_speckle_is_developed_within_the_band_and_of_the_level_that_was_asked():
    image = make_image(plain((192, 160), level=-12.0), step_generator(0, 0))
    assert image.dtype == np.complex64 and image.shape == (192, 160)
    assert np.sqrt(np.mean(np.abs(image) ** 2)) == pytest.approx(10 ** (-12 / 20), rel=0.03)
    envelope = np.abs(image)
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.06)
    window = np.hanning(192)[:, None] * np.hanning(160)
    power = np.abs(np.fft.fft2(image * window)) ** 2
    for axis, (step, (_, end)) in enumerate(zip(PIXEL, BAND, strict=True)):
        outside = np.abs(np.fft.fftfreq(image.shape[axis], step)) > end + 0.1
        assert power.sum(1 - axis)[outside].sum() < 1e-3 * power.sum()


def test_sparse_scatterers_are_as_strong_and_not_developed():
    image = make_image(plain((192, 160), density=0.05), step_generator(0, 1))
    envelope = np.abs(image)
    assert np.sqrt(np.mean(envelope**2)) == pytest.approx(1, rel=0.1)
    assert envelope.mean() / envelope.std() < 1.6


def test_a_point_lies_between_pixels_where_it_was_put_with_its_amplitude():
    image = make_image(plain((64, 64), -200.0, points=np.array([[30.4, 25.3, 5.0]])), step_generator(0, 2))
    # The centre of gravity of |image|^2 is the point.
    power = np.abs(image) ** 2
    rows, columns = np.mgrid[:64, :64]
    assert (power * rows).sum() / power.sum() == pytest.approx(30.4, abs=0.02)
    assert (power * columns).sum() / power.sum() == pytest.approx(25.3, abs=0.02)
    assert 3.5 < np.abs(image).max() <= 5.001
    width = fwhm(np.abs(image), np.arange(64) * 1e-4, np.arange(64) * 1e-4, (25.3e-4, 30.4e-4))
    assert width.axial < 4e-4 and width.lateral < 3e-4


def test_a_tilted_interface_has_the_phase_of_the_operator():
    """Its echoes are those of point scatterers along the same line: A knows nothing of this module."""
    wavelength, columns = 0.3e-3, 40
    row = 24 + 0.3 * np.arange(columns)
    image = make_image(plain((64, columns), -200.0, interfaces=[(row, np.ones(columns))]), step_generator(0, 3))
    x = (np.arange(columns) - columns / 2) * PIXEL[1] * wavelength
    z = 8e-3 + np.arange(64) * PIXEL[0] * wavelength
    elements = np.stack([np.linspace(-3e-3, 3e-3, 12), np.zeros(12)], 1)
    geometry = PlaneWaveGeometry(elements, [0.0], 20e6, 5.133e6, 1540.0, 900, is_complex=True)
    assert geometry.wavelength == pytest.approx(wavelength, rel=1e-3)
    echoes = PlaneWaveUltrasound(geometry, Grid(x, z), interpolation="cubic")(torch.from_numpy(image))
    # The same line as scatterers on rows eight times finer.
    fine = Grid(x, 8e-3 + np.arange(64 * 8) * PIXEL[0] / 8 * wavelength)
    points = np.zeros(fine.shape)
    points[np.rint(8 * row).astype(int), np.arange(columns)] = 1
    operator = PlaneWaveUltrasound(geometry, fine, interpolation="cubic")
    expected = operator(operator.from_reflectivity(torch.from_numpy(points).to(torch.complex64)))
    # The phase of row 0 is free.
    cosine = torch.vdot(echoes.flatten(), expected.flatten()).abs() / echoes.norm() / expected.norm()
    assert cosine > 0.95


@pytest.mark.parametrize("kind", SCENES)
def test_scenes_are_reproducible_and_differ(kind):
    scene, again, other = (draw_scene(kind, (48, 40), step_generator(1, n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(scene.level, again.level)
    assert scene.level.shape == (48, 40) and scene.level.dtype == np.float32
    assert not np.array_equal(scene.level, other.level)
    assert scene.level.max() <= 6


def test_batches_are_finite_in_the_scale_of_the_pipeline():
    pools = [Pool.build(SourceConfig(kind), []) for kind in SCENES]
    drawn = [draw_images(pools, step_generator(2, k), 8, 32).images for k in range(12)]
    images = torch.cat(drawn)
    assert images.shape == (96, 2, 32, 32) and images.dtype == torch.float32 and images.isfinite().all()
    assert torch.equal(drawn[0], draw_images(pools, step_generator(2, 0), 8, 32).images)
    tissue = draw_images(pools[:1], step_generator(2, 0), 40, 48).images
    quantile = torch.quantile(tissue.square().sum(1).sqrt().flatten(1), 0.99, dim=1)
    assert 0.7 < quantile.median() < 2.5


def test_held_out_images_are_of_other_seeds():
    source = SourceConfig("cysts", held_out=("1", "2"))
    first, second = load_slices(None, source, True)
    assert np.iscomplexobj(first.image) and not np.array_equal(first.image, second.image)
    np.testing.assert_array_equal(load_slices(None, source, True)[0].image, first.image)
    assert load_slices(None, source, False) == []
    assert training_images("ultrasound").test_image(first, 0).dtype == torch.complex64


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SourceConfig("*.nii.gz"), "expected a kind of scene: cysts, layers, points"),
        (SourceConfig("cysts", held_out=("patient",)), "expected seeds"),
    ],
)
def test_what_cannot_be_drawn_is_refused(source, message):
    with pytest.raises(ConfigError, match=message):
        load_slices(None, source)


def test_band_passes_and_stops():
    found = band(120, 0.25, (1.1, 1.7))
    frequency = np.abs(np.fft.fftfreq(120, 0.25))
    assert (found[frequency <= 1.1] == 1).all() and (found[frequency >= 1.7] == 0).all()


@pytest.mark.slow
def test_a_run_trains_on_simulated_images(tmp_path):
    config = TrainConfig(
        data=".",
        output=str(tmp_path),
        modality="ultrasound",
        sources=(SourceConfig("cysts", held_out=("1",)), SourceConfig("points")),
        network=SMALL,
        patches=((16, 2, 1.0),),
        steps=2,
        threads=1,
        previews=0,
    )
    assert load_checkpoint(train(config))["step"] == 2
    assert "psnr" in (tmp_path / "held_out.jsonl").read_text()


def test_the_prior_of_ultrasound_is_found_and_keeps_what_it_says():
    assert modality("ultrasound").prior == "ultrasound"
    prior = recon.load_prior("ultrasound")
    assert prior.channels == 2 and prior.card["licence"] == "Apache-2.0"
    assert prior.sigma_min <= resolve_sampler("dds", modality=modality("ultrasound")).sigma_min
    assert 0.05 < prior.error_std(0.1) < 0.1
    # Developed speckle in as much noise: better than the formula that knows its strength but not its band.
    image = make_image(plain((64, 64), -3.5), step_generator(9, 0))
    clean = torch.from_numpy(image)[None]
    noisy = with_noise(clean, 0.5, 0)
    error = (prior.denoise(noisy, 0.5) - clean).abs().square().mean()
    power = clean.abs().square().mean()
    assert error < 0.95 * power * 0.25 / (power + 0.25)
