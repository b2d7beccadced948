import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recon.errors import CheckpointError, ConfigError, InputError, ShapeError
from recon.images.augment import Pool, draw_images, fourier_resample, step_generator
from recon.images.sources import Slice, SourceConfig
from recon.modalities import training_images
from recon.modalities.mri.training import load_slices
from recon.priors.network import load_network_prior
from recon.training.batches import edm_loss
from recon.training.cli import TrainConfig, load_config, main, run_command, train
from recon.training.config import validate
from recon.training.evaluate import error_curve, error_spectrum, evaluation_noise
from recon.training.export import export_prior
from recon.training.muon import Muon, orthogonalise
from recon.training.parallel import Replicas, Workers
from recon.training.run import learning_rate_at
from recon.training.state import build_model, check_network, load_checkpoint, start_from

nibabel = pytest.importorskip("nibabel")
SMALL = {"channels": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 8}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Two ellipsoids with two kinds of tissue, 1.5 mm, and one held out."""
    folder = tmp_path_factory.mktemp("volumes")
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 44, 12)), indexing="ij")
    for k in range(3):
        radius = sum((g / r) ** 2 for g, r in zip(grid, (0.8, 0.7, 1.1), strict=True))
        image = 400 * (radius < 1) + 300 * (radius < 0.3 + 0.1 * k)
        nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), np.diag([1.5, 1.5, 4, 1])), folder / f"s{k}_t1.nii.gz")
    return folder


@pytest.fixture
def config(volumes, tmp_path):
    source = SourceConfig("*.nii.gz", planes=("axial", "coronal"), spacing=(1.5, 2.5), held_out=("s2_",))
    return TrainConfig(
        modality="mri",
        data=str(volumes),
        output=str(tmp_path / "run"),
        sources=(source,),
        network=SMALL,
        steps=6,
        warmup=2,
        decay=2,
        patches=((16, 4, 0.5), (24, 2, 0.5)),
        seed=3,
        previews=0,
    )


def weights(path):
    return load_checkpoint(path)["average"]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.slow
def test_same_seed_same_weights_and_resume_is_exact(config, tmp_path):
    whole = weights(train(config))
    again = weights(train(replace(config, output=str(tmp_path / "again"))))
    assert_same(whole, again)
    # A run that is stopped and continued to another planned end: the rate is still constant at step 3.
    parts = replace(config, output=str(tmp_path / "parts"), steps=3, decay=0)
    train(parts)
    assert_same(whole, weights(train(replace(parts, steps=6, decay=2))))
    other = weights(train(replace(config, output=str(tmp_path / "other"), seed=4)))
    assert any(not torch.equal(whole[name], other[name]) for name in whole)


@pytest.mark.slow
def test_starting_from_exported_weights(config, tmp_path):
    checkpoint = train(config)
    prior = tmp_path / "first.safetensors"
    export_prior(config, checkpoint, prior)
    second = replace(config, output=str(tmp_path / "second"), initial=str(prior), learning_rate=1e-12, steps=1)
    continued = weights(train(second))
    expected = load_network_prior(prior).model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(continued[name], tensor, atol=1e-6, rtol=1e-3)
    other = replace(second, output=str(tmp_path / "third"), network={**SMALL, "channels": [8, 16]})
    with pytest.raises(CheckpointError, match="different network"):
        train(other)


def test_a_prior_of_real_images_starts_from_one_of_complex_images(config, tmp_path):
    prior = tmp_path / "complex.safetensors"
    export_prior(config, train(config), prior)
    model = build_model(replace(config, modality="ct"))
    start_from(model, prior)
    given, own = load_network_prior(prior).model.state_dict(), model.state_dict()
    assert torch.equal(own["network.stem.weight"], given["network.stem.weight"][:, :1])
    assert torch.equal(own["network.head.weight"], given["network.head.weight"][:1])
    assert all(torch.equal(own[name], given[name]) for name in own if ".stem." not in name and ".head." not in name)


@pytest.mark.slow
def test_training_lowers_the_loss(config):
    config = replace(config, steps=150, decay=50, learning_rate=3e-3, precision="float32")
    pools = [Pool.build(s, load_slices(Path(config.data), s)) for s in config.sources]
    clean = draw_images(pools, step_generator(9, 0), 8, 24).images
    noise = torch.stack([n for k in range(8) for n in [torch.view_as_real(evaluation_noise((24, 24), k))]])
    noise = noise.permute(0, 3, 1, 2) * 2**0.5
    sigma = torch.logspace(-1.5, 0.5, 8)
    model = build_model(config)
    before = edm_loss(model, clean, sigma, noise, "float32").item()
    model.load_state_dict(load_checkpoint(train(config))["model"])
    assert edm_loss(model, clean, sigma, noise, "float32").item() < 0.8 * before


def test_global_random_state_is_untouched(config):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    train(replace(config, steps=2))
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_damaged_or_foreign_checkpoints_are_refused(config):
    path = train(replace(config, steps=1))
    with pytest.raises(CheckpointError, match="different network"):
        train(replace(config, seed=9))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot read"):
        train(config)
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        train(config)


def test_held_out_files_are_kept_apart(config, volumes):
    source = config.sources[0]
    train_names = {s.name.split(":")[0] for s in load_slices(volumes, source)}
    held_names = {s.name.split(":")[0] for s in load_slices(volumes, source, held_out=True)}
    assert train_names == {"s0_t1.nii.gz", "s1_t1.nii.gz"} and held_names == {"s2_t1.nii.gz"}
    slices = training_images("mri").held_out(volumes, source, 3)
    assert len(slices) == 3 and {s.plane for s in slices} == {"axial"}
    assert slices[0].image.shape == (44, 40) and slices[0].spacing == (1.5, 1.5)
    with pytest.raises(InputError, match="no training file"):
        load_slices(volumes, replace(source, pattern="nothing*"))
    with pytest.raises(ConfigError, match="diagonal"):
        load_slices(volumes, replace(source, planes=("diagonal",)))


def test_images_are_in_scale_and_depend_on_seed_and_step_only(config, volumes):
    pools = [Pool.build(config.sources[0], load_slices(volumes, config.sources[0]))]
    first, second = (draw_images(pools, step_generator(1, 5), 6, 32).images for _ in range(2))
    assert torch.equal(first, second) and first.shape == (6, 2, 32, 32)
    assert not torch.equal(first, draw_images(pools, step_generator(1, 6), 6, 32).images)
    magnitude = first.square().sum(1).sqrt()
    assert magnitude.max() < 2.5 and magnitude.flatten(1).quantile(0.99, dim=1).min() > 0.3


@pytest.mark.parametrize(("rows", "columns"), [(48, 40), (64, 60), (81, 75), (47, 41)])
def test_resampling_in_kspace_is_exact_for_what_both_grids_hold(rows, columns):
    def waves(ny, nx):
        y, x = np.arange(ny)[:, None] / ny, np.arange(nx)[None, :] / nx
        wave = 1 + np.cos(2 * np.pi * (7 * y - 3 * x) + 0.4) + 0.5 * np.sin(2 * np.pi * 11 * x)
        return wave.astype(np.float32)

    image = fourier_resample(waves(64, 60), rows, columns)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, waves(rows, columns), atol=1e-5)


def test_learning_rate_rises_stays_and_falls():
    config = TrainConfig(steps=100, warmup=10, decay=40, learning_rate=1.0)
    assert learning_rate_at(config, 0) == 0.1 and learning_rate_at(config, 9) == 1.0
    assert learning_rate_at(config, 59) == 1.0 and learning_rate_at(config, 80) == 0.5
    assert learning_rate_at(config, 100) == 0.0


def test_configuration_from_toml(config, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('steps = 5\n[[sources]]\npattern = "*.nii.gz"\nheld_out = ["s2_"]\n[network]\nembedding = 8\n')
    loaded = load_config(path, {"data": "there"})
    assert loaded.steps == 5 and loaded.data == "there" and loaded.sources[0].held_out == ["s2_"]
    path.write_text("stepps = 5\n")
    with pytest.raises(ConfigError, match="unknown key 'stepps'"):
        load_config(path)
    path.write_text('[[sources]]\npattern = "a"\nplane = "axial"\n')
    with pytest.raises(ConfigError, match="unknown key 'plane'"):
        load_config(path)
    path.write_text("sources = 3\n")
    with pytest.raises(ConfigError, match=r"sources: expected tables \[\[sources\]\], got 3"):
        load_config(path)
    path.write_text("steps = \n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(path)
    path.write_text("steps = 5\n")
    with pytest.raises(ConfigError, match="'data'"):
        main(path)
    with pytest.raises(ConfigError, match="precision"):
        train(replace(config, precision="float64"))


def test_command(config, volumes, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(
        'modality = "mri"\nthreads = 1\npatches = [[16, 2, 1.0]]\n'
        '[[sources]]\npattern = "*.nii.gz"\nspacing = [1.5, 2.5]\n'
        "[network]\nchannels = [8, 8]\nencoder_blocks = [1, 1]\ndecoder_blocks = [1]\nembedding = 8\n"
    )
    run_command([str(path), "--data", str(volumes), "--output", config.output, "--steps", "2"])
    assert load_checkpoint(Path(capsys.readouterr().out.strip()))["step"] == 2


@pytest.mark.parametrize("name", ["brain-mri", "cardiac-mri", "ct", "ultrasound"])
def test_shipped_configurations_are_valid(name):
    path = Path(__file__).parents[3] / "benchmarks" / "configs" / f"{name}.toml"
    loaded = load_config(path, {"data": "data", "output": "run"})
    validate(loaded)
    check_network(loaded)
    assert any(s.held_out for s in loaded.sources)
    assert set(loaded.card) >= {"licence", "data", "limits"}


def test_export_and_progress_files(config, tmp_path):
    path = train(replace(config, card={"licence": "none"}))
    log = (path.parent / "log.txt").read_text()
    assert "held-out PSNR" in log
    curve = json.loads((path.parent / "held_out.jsonl").read_text().splitlines()[-1])
    assert curve["step"] == 6 and set(curve["psnr"]) == {"0.05", "0.1", "0.3", "1.0"}
    destination = tmp_path / "small.safetensors"
    export_prior(config, path, destination, {"gain": 1.0})
    prior = load_network_prior(destination)
    assert prior.card["evaluation"] == {"gain": 1.0} and prior.card["training"]["steps"] == 6
    expected = weights(path)["network.stem.weight"]
    torch.testing.assert_close(prior.model.network.stem.weight.data, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_pictures_show_curves_and_draws_of_the_prior(config, ct_config):
    image = pytest.importorskip("matplotlib.image")
    for one, count in ((replace(config, steps=50, decay=10), 2), (replace(ct_config, output=config.output + "-ct"), 3)):
        folder = train(replace(one, previews=count)).parent
        assert image.imread(folder / "previews.png").shape[:2] == (16, 16 * count)
        assert image.imread(folder / "curves.png").std() > 0.01
    losses = [json.loads(line) for line in (Path(config.output) / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in losses] == [50] and 0 < losses[0]["loss"] < 10


def test_muon_steps_have_equal_singular_values():
    matrices = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices).float())
    assert values.min() > 0.6 and values.max() < 1.3
    weight = torch.nn.Parameter(torch.ones(6, 5, 2, 2))
    optimiser = Muon([weight], lr=0.1)
    (weight * matrices[0].view(6, 5, 2, 2)).sum().backward()
    before = weight.detach().clone()
    optimiser.step()
    assert ((weight.detach() - before) * matrices[0].view(6, 5, 2, 2)).sum() < 0


def test_gradients_of_the_workers_add_up(config):
    model = build_model(config)
    workers = Workers(3)
    replicas = Replicas(model, workers)
    clean, noise = (torch.randn(5, 2, 16, 16, generator=torch.Generator().manual_seed(k)) for k in range(2))
    sigma = torch.linspace(0.1, 1, 5)
    for parameter in model.parameters():
        parameter.data += 0.05  # the copies share the weights
    loss = replicas.gradients(lambda m, *batch: edm_loss(m, *batch, "float32"), clean, sigma, noise)
    shared = [p.grad.clone() for p in model.parameters()]
    workers.close()
    model.zero_grad()
    whole = edm_loss(model, clean, sigma, noise, "float32")
    whole.backward()
    torch.testing.assert_close(loss, whole.detach())
    for mine, parameter in zip(shared, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-3, atol=1e-5)


class Lazy:
    """A denoiser that lets low frequencies pass and returns nothing else."""

    space = None

    def denoise(self, x, sigma):
        y, x_ = (torch.fft.fftfreq(n) for n in x.shape[1:])
        return torch.fft.ifft2(torch.fft.fft2(x) * (torch.hypot(y[:, None], x_) < 0.2))


def test_error_of_a_denoiser_is_measured_in_total_and_by_frequency():
    image = np.ones((64, 48), np.float16)  # signal everywhere
    slice_ = Slice(image, image > 0, (1.0, 1.0), "axial", "s")
    images = [training_images("mri").test_image(slice_, k) for k in range(4)]
    found = error_spectrum(Lazy(), images, (0.1, 0.5))
    kept = np.array(found["frequency"]) < 0.18
    lost = np.array(found["frequency"]) > 0.28
    assert np.shape(found["ratio"]) == (2, len(kept))
    # Inside, the error is the noise; outside, what the edges of the image have there.
    np.testing.assert_allclose(np.array(found["ratio"])[:, kept], 1.0, atol=0.15)
    assert np.array(found["ratio"])[1, lost].max() < 0.4
    share = np.pi * 0.2**2  # of k-space
    assert error_curve(Lazy(), images, (2.0,))["error"][0] == pytest.approx(2 * np.sqrt(share), rel=0.05)


@pytest.fixture
def ct_config(tmp_path):
    """Discs of water with bone in a file without a unit of its own, offset by 1024 as published arrays are."""
    y, x = np.mgrid[:48, :40]
    for k in range(3):
        radius = np.hypot(y - 24, x - 20)
        np.save(tmp_path / f"s{k}.npy", np.where(radius < 15, 1024.0, np.where(radius < 18, 2000.0 + k, 0.0)))
    source = SourceConfig("*.npy", spacing=(0.8, 1.2), held_out=("s2",), rescale=(1.0, -1024.0), pixel=0.8)
    return TrainConfig(
        data=str(tmp_path),
        output=str(tmp_path / "run"),
        modality="ct",
        sources=(source,),
        network=SMALL,
        steps=3,
        warmup=1,
        decay=1,
        patches=((16, 4, 1.0),),
        previews=0,
    )


def test_ct_images_keep_their_unit(ct_config):
    kind = training_images("ct")
    items = kind.load(Path(ct_config.data), ct_config.sources[0], False)
    assert [item.name for item in items] == ["s0.npy:axial:0", "s1.npy:axial:0"]
    assert items[0].image[24, 20] == pytest.approx(1.0)  # water
    assert items[0].image[0, 0] == pytest.approx(-0.024, abs=1e-6)  # below the air
    assert items[0].image.max() == pytest.approx(1.976)
    assert items[0].mask[24, 20] and not items[0].mask[0, 0]
    drawn = kind.draw([Pool.build(ct_config.sources[0], items)], step_generator(0, 0), 8, 24, 0.0).images
    assert drawn.shape == (8, 1, 24, 24) and drawn.dtype == torch.float32
    assert 0.9 < float(drawn.median(dim=0).values.median()) < 1.2
    with pytest.raises(InputError, match="body"):
        kind.load(Path(ct_config.data), replace(ct_config.sources[0], rescale=(1.0, -3000.0)), False)
    with pytest.raises(ConfigError, match="modality"):
        train(replace(ct_config, modality="pet"))


def test_a_ct_prior_is_trained_exported_and_denoises_real_images(ct_config, tmp_path):
    checkpoint = train(ct_config)
    card = export_prior(ct_config, checkpoint, tmp_path / "prior.safetensors")
    assert card["network"]["in_channels"] == 1 and "water" in card["scale"]
    assert card["sigma_max"] == pytest.approx(min(20.0, np.exp(-1.8 + 4.5)), abs=1e-3)  # no factor for real noise
    prior = load_network_prior(tmp_path / "prior.safetensors")
    x = torch.randn(2, 20, 22, generator=torch.Generator().manual_seed(0))
    out = prior.denoise(x, 0.5)
    assert out.shape == x.shape and out.dtype == torch.float32
    expected = prior.model(torch.nn.functional.pad(x[:, None], (0, 0, 0, 0)), torch.tensor([0.5, 0.5]))[:, 0]
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match="real"):
        prior.denoise(x.to(torch.complex64), 0.5)
