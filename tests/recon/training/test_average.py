"""Averages of priors: the weights are averages, the card says of what, and what has no average is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recon.errors import CheckpointError, ConfigError
from recon.priors.network import load_network_prior
from recon.priors.networks.files import ARCHITECTURE, write_prior
from recon.priors.networks.unet import EDMDenoiser, UNet
from recon.training.export import average_priors, main

NETWORK = {
    "in_channels": 2,
    "out_channels": 2,
    "channels": [8, 8],
    "encoder_blocks": [1, 1],
    "decoder_blocks": [1],
    "embedding": 8,
}


def prior(path: Path, seed: int, **card: object) -> Path:
    """Write a small prior with random weights."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in EDMDenoiser(UNet(**NETWORK), 0.5).state_dict().items()
        if not name.endswith("embedding.frequencies")
    }
    known = {"name": path.stem, "architecture": ARCHITECTURE, "network": NETWORK, "sigma_data": 0.5}
    write_prior(path, tensors, {**known, "sigma_min": 0.01, "sigma_max": 5.0, "training": {"steps": seed}, **card})
    return path


def test_weights_are_averaged_and_the_card_says_so(tmp_path: Path) -> None:
    first, second = prior(tmp_path / "a.safetensors", 1), prior(tmp_path / "b.safetensors", 2)
    target = tmp_path / "mean.safetensors"
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"all": 3.0, "error_std": {"sigma": [0.1], "error": [0.05]}}))
    main(["average", str(target), f"{first}=3", f"{second}=1", "--evaluation", str(results)])
    a, b, mean = load_file(first), load_file(second), load_file(target)
    assert mean.keys() == a.keys()
    for name, value in mean.items():
        expected = 0.75 * a[name].float() + 0.25 * b[name].float()
        assert (value.float() - expected).abs().max() <= 2e-3 * expected.abs().max(), name
    card = load_network_prior(target).card
    assert [part["share"] for part in card["average"]] == [0.75, 0.25]
    assert [part["training"]["steps"] for part in card["average"]] == [1, 2]
    assert card["evaluation"] == {"all": 3.0} and card["error_std"]["error"] == [0.05]


def test_what_has_no_average_is_refused(tmp_path: Path) -> None:
    first = prior(tmp_path / "a.safetensors", 1)
    other = prior(tmp_path / "b.safetensors", 2, sigma_data=0.3)
    target = tmp_path / "mean.safetensors"
    with pytest.raises(CheckpointError, match="sigma_data differs"):
        average_priors({first: 1.0, other: 1.0}, target)
    for weights in ({first: 1.0}, {first: 1.0, other: 0.0}, {first: 1.0, other: float("nan")}):
        with pytest.raises(ConfigError, match="positive weights"):
            average_priors(weights, target)
    damaged = prior(tmp_path / "c.safetensors", 3)
    damaged.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="sha256"):
        average_priors({first: 1.0, damaged: 1.0}, target)
    assert not target.exists()
