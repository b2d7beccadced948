"""Networks that are told where a patch lies and how it was augmented."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from recon.errors import CheckpointError, ConfigError
from recon.images.augment import LABELS, Pool, draw_images, draw_real_images, step_generator
from recon.images.sources import Slice, SourceConfig
from recon.priors.inference import pad_to_multiple
from recon.priors.network import load_network_prior
from recon.priors.networks.blocks import coordinates, positions
from recon.priors.networks.unet import EDMDenoiser, UNet
from recon.training.cli import TrainConfig, train
from recon.training.export import export_prior
from recon.training.state import build_model, load_checkpoint, start_from

SMALL = {"channels": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 8}


@pytest.fixture
def config(tmp_path):
    y, x = np.mgrid[-1:1:40j, -1:1:36j]
    np.save(tmp_path / "s0.npy", np.stack([100.0 * (y**2 + x**2 < r) for r in (0.5, 0.6, 0.7)]))
    return TrainConfig(
        modality="mri",
        data=str(tmp_path),
        output=str(tmp_path / "run"),
        sources=(SourceConfig("*.npy", spacing=(1.0, 1.5)),),
        network=SMALL,
        steps=4,
        warmup=1,
        decay=1,
        learning_rate=1e-2,
        patches=((16, 6, 1.0),),
        position_channels=True,
        augmentation_labels=True,
        precision="float32",
        previews=0,
    )


def perturbed(model):
    """Zero-initialised layers would hide mistakes."""
    rng = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return model


def test_coordinates_are_those_of_pixel_centres():
    assert coordinates(0, 4, 4).tolist() == [-0.75, -0.25, 0.25, 0.75]
    whole = positions((4, 6))
    assert whole.shape == (1, 2, 4, 6) and torch.equal(whole[0, 0, :, 3], coordinates(0, 4, 4))
    padded = positions((4, 6), (8, 8), (2, 1))
    torch.testing.assert_close(padded[..., 2:6, 1:7], whole)
    torch.testing.assert_close(padded[0, 0, :3, 0], torch.tensor([-1.75, -1.25, -0.75]))


def test_patches_know_where_they_were_cut_however_they_were_turned():
    rows, columns = 40, 52
    image = 1 + np.arange(rows)[:, None] + np.zeros(columns), 100 + np.arange(columns)[None] + np.zeros((rows, 1))
    for axis, length in enumerate((rows, columns)):
        source = SourceConfig("", native=1.0)
        pool = Pool.build(source, [Slice(image[axis].astype(np.float32), image[axis] > 0, (1.0, 1.0), "axial", "s")])
        drawn = draw_real_images([pool], step_generator(2, axis), 24, 16)
        labels, position = drawn.labels(), drawn.position()
        assert len(labels[:, :3].unique(dim=0)) == 8  # every way to turn it
        for k in range(24):
            index = drawn.images[k, 0] / labels[k, 5].exp() - (1, 100)[axis]
            original = (2 * index + 1) / length - 1
            flipped, swapped = bool(labels[k, axis]), bool(labels[k, 2])
            expected = -original if flipped else original
            torch.testing.assert_close(position[k, 1 - axis if swapped else axis], expected, atol=2e-4, rtol=0)


def test_an_image_smaller_than_the_patch_is_whole_with_its_zeros():
    pool = Pool.build(SourceConfig("", native=1.0), [Slice(np.ones((9, 40)), np.ones((9, 40)), (1, 1), "axial", "s")])
    drawn = draw_images([pool], step_generator(0, 0), 12, 16)
    for patch, position in zip(drawn.patches, drawn.position(), strict=True):
        short = patch.length.index(16)
        torch.testing.assert_close(position[short].select(1 - short, 0), coordinates(0, 16, 16))
    plain = draw_images([pool], step_generator(0, 0), 12, 16, untouched=1.0)
    assert plain.labels().shape == (12, len(LABELS)) and not plain.labels().any()


def test_conditions_cost_nothing_when_they_are_off(config):
    with_them, without = (
        build_model(config),
        build_model(replace(config, position_channels=False, augmentation_labels=False)),
    )
    old, new = without.state_dict(), with_them.state_dict()
    assert set(new) - set(old) == {"network.embedding.labels.weight"}
    assert not any("labels" in name or "position" in name for name in old)
    assert new["network.stem.weight"].shape[1] == old["network.stem.weight"].shape[1] + 2
    assert without.network.embedding.labels is None


def test_labels_are_heard_and_zeros_are_none():
    model = perturbed(EDMDenoiser(UNet(**SMALL, augmentation_labels=3), 0.3)).network
    x, noise = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(2)
    none, zeros = model(x, noise), model(x, noise, labels=torch.zeros(2, 3))
    torch.testing.assert_close(none, zeros)
    assert (model(x, noise, labels=torch.ones(2, 3)) - none).abs().max() > 1e-3


@pytest.mark.slow
def test_trained_exported_loaded_and_asked_about_whole_images(config, tmp_path):
    checkpoint = train(config)
    assert load_checkpoint(checkpoint)["average"]["network.embedding.labels.weight"].any()
    path = tmp_path / "prior.safetensors"
    card = export_prior(config, checkpoint, path)
    assert card["network"]["position_channels"] and card["network"]["augmentation_labels"] == len(LABELS)
    prior = load_network_prior(path)
    assert prior.channels == 2
    perturbed(prior.model)
    x = torch.randn(5, 17, 23, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    found = prior.denoise(x, 0.5)
    padded, (top, left) = pad_to_multiple(torch.view_as_real(x).permute(0, 3, 1, 2), 2)
    level = torch.full((5,), 0.5 / 2**0.5)
    grid = positions((17, 23), (18, 24), (top, left))
    direct = prior.model(padded, level, grid)[..., top : top + 17, left : left + 23]
    torch.testing.assert_close(found, torch.complex(direct[:, 0], direct[:, 1]), rtol=1e-4, atol=1e-5)
    elsewhere = prior.model(padded, level, grid + 0.5)[..., top : top + 17, left : left + 23]
    assert (elsewhere - direct).abs().max() > 1e-2
    prior.max_batch = 2
    torch.testing.assert_close(prior.denoise(x, 0.5), found, rtol=1e-4, atol=1e-5)
    even = x[:, :16, :22]
    whole = prior.model(torch.view_as_real(even).permute(0, 3, 1, 2), level)  # without a grid, a whole image
    torch.testing.assert_close(prior.denoise(even, 0.5), torch.complex(whole[:, 0], whole[:, 1]), rtol=1e-4, atol=1e-5)


def test_resume_is_exact_and_other_conditions_are_another_run(config, tmp_path):
    whole = load_checkpoint(train(config))["average"]
    parts = replace(config, output=str(tmp_path / "parts"), steps=2, decay=0)
    train(parts)
    again = load_checkpoint(train(replace(parts, steps=4, decay=1)))["average"]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(CheckpointError, match="different network"):
        train(replace(config, augmentation_labels=False))
    with pytest.raises(ConfigError, match="position_channels"):
        train(replace(config, position_channels="yes"))


def test_old_checkpoints_are_continued(config):
    plain = replace(config, position_channels=False, augmentation_labels=False, steps=1)
    path = train(plain)
    state = load_checkpoint(path)
    identity = json.loads(state["identity"])
    old = ("sources", "network", "seed", "patches", "sigma_data", "sigma_log_mean", "sigma_log_std")
    assert sorted(identity) == sorted((*old, "modality", "sigma_min", "sigma_max"))
    assert "every" not in identity["sources"][0]
    torch.save({**state, "identity": json.dumps({key: identity[key] for key in old})}, path)
    assert load_checkpoint(train(replace(plain, steps=2)))["step"] == 2


def test_what_has_changed_on_resume_is_refused_or_said(config):
    path = train(replace(config, steps=1))
    for change in ({"sigma_max": 9.0}, {"sigma_min": 0.01}, {"modality": "ct"}):
        with pytest.raises(CheckpointError, match=f"different network.*{next(iter(change))} differs"):
            train(replace(config, **change))
    train(replace(config, steps=2, weight_decay=0.25, clip=2.0, precision="bfloat16", ema_decay=0.9))
    (line,) = [line for line in (path.parent / "log.txt").read_text().splitlines() if "changed on resume" in line]
    for text in (
        "steps 1 -> 2",
        "weight_decay 0.01 -> 0.25",
        "clip 1.0 -> 2.0",
        "ema_decay 0.999 -> 0.9",
        "float32 -> bfloat16",
    ):
        assert text in line
    assert "sources" not in line and "data" not in line
    state = load_checkpoint(path)
    assert {group["weight_decay"] for name in ("muon", "adam") for group in state[name]["param_groups"]} == {0.25}


def test_a_network_with_conditions_starts_as_the_one_without(config, tmp_path):
    plain = replace(config, position_channels=False, augmentation_labels=False, output=str(tmp_path / "plain"))
    export_prior(plain, train(plain), tmp_path / "plain.safetensors")
    given = load_network_prior(tmp_path / "plain.safetensors").model
    model = build_model(config)
    start_from(model, tmp_path / "plain.safetensors")
    x, sigma = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 1.0])
    torch.testing.assert_close(model(x, sigma, positions((16, 16)) * 3), given(x, sigma), rtol=1e-4, atol=1e-5)
    export_prior(config, train(config), tmp_path / "told.safetensors")
    real = build_model(replace(config, modality="ct"))
    start_from(real, tmp_path / "told.safetensors")
    told = load_network_prior(tmp_path / "told.safetensors").model.state_dict()["network.stem.weight"]
    assert torch.equal(real.state_dict()["network.stem.weight"], told[:, [0, 2, 3]])
    for without in (plain, replace(plain, augmentation_labels=True)):  # nobody would tell it where a patch lies
        with pytest.raises(CheckpointError, match="different network"):
            start_from(build_model(without), tmp_path / "told.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"wings": 2}}, r"\[network\]: unknown key 'wings'; known keys"),
        ({"network": {"encoder_blocks": [1]}}, "invalid settings"),
        ({"network": {"encoder_blocks": [100_000] * 2}}, "expected at most 1000 blocks, got 2000.."),
        ({"network": {"channels": [1_000_000, 8, 8, 8]}}, "expected at most 1,000,000,000 parameters, got"),
        ({"network": {"channels": [8] * 13}}, "expected 1 to 12 levels, got 13"),
        ({"network": {"channels": "wide"}}, "channels: expected a list of whole numbers, got 'wide'"),
        ({"network": 3}, "network: expected a table, got 3"),
        ({"patches": [[17, 4, 1.0]]}, "size a multiple of 2"),
        ({"patches": []}, "patches: expected a list"),
        ({"threads": 0}, "threads: expected a whole number >= 1, got 0"),
        ({"seed": -1}, r"seed: expected .*, got -1"),
        ({"steps": -1}, r"steps: expected .*, got -1"),
        ({"previews": -1}, r"previews: expected .*, got -1"),
        ({"accumulate": True}, r"accumulate: expected .*, got True"),
        ({"ema_decay": 2.0}, "ema_decay: expected a number >= 0 and < 1, got 2.0"),
        ({"ema_decay": 1.0}, r"ema_decay: expected .*, got 1\.0"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number > 0, got 0.0"),
        ({"checkpoint_minutes": 0}, r"checkpoint_minutes: expected .*, got 0"),
        ({"evaluation_minutes": -1.0}, r"evaluation_minutes: expected .*, got -1\.0"),
        ({"sigma_min": 0.0}, r"sigma_min: expected .*, got 0\.0"),
        ({"sigma_log_mean": float("nan")}, "sigma_log_mean: expected a finite number, got nan"),
        ({"clip": 0}, r"clip: expected .*, got 0"),
        ({"sigma_max": float("inf")}, r"sigma_max: expected .*, got inf"),
        ({"sigma_min": 30.0}, "expected sigma_min < sigma_max"),
        ({"parametrization": "flow"}, "expected edm or vp or ve"),
        ({"source": {"spacing": [2.0, 1.0]}}, "two increasing numbers"),
        ({"source": {"spacing": ["a", "b"]}}, "two increasing numbers"),
        ({"source": {"pixel": 0}}, r"sources: pixel: expected .*, got 0"),
        ({"source": {"native": 1.5}}, r"sources: native: expected .*, got 1\.5"),
        ({"source": {"held_out": "s2"}}, "sources: held_out: expected a list of strings, got 's2'"),
        ({"source": {"planes": "axial"}}, "sources: planes: expected a list of strings, got 'axial'"),
        ({"source": {"planes": ["diagonal"]}}, "unknown plane"),
        ({"source": {"weight": 0}}, r"sources: weight: expected .*, got 0"),
        ({"source": {"phase_jumps": 5}}, "sources: phase_jumps: expected a number >= 0 and <= 1, got 5"),
        ({"source": {"pattern": "/s*.npy"}}, "relative"),
        ({"source": {"rescale": (1.0, -1024.0)}}, "rescale has no meaning for training images of this modality"),
        ({"modality": "ultrasound", "source": {"pixel": 0.5}}, "pixel has no meaning"),
    ],
)
def test_settings_that_make_no_sense_are_named_before_anything_is_written(tmp_path, change, message):
    change = dict(change)
    source = SourceConfig(**{"pattern": "s*.npy", **change.pop("source", {})})
    network = {"channels": [8, 8], "encoder_blocks": [1, 1], "decoder_blocks": [1], "embedding": 8}
    settings = {
        "modality": "mri",
        "data": str(tmp_path),
        "output": str(tmp_path / "run"),
        "sources": (source,),
        "network": network,
    }
    with pytest.raises(ConfigError, match=message):
        train(TrainConfig(**{**settings, "patches": [[16, 4, 1.0]], **change}))
    assert not (tmp_path / "run").exists()
