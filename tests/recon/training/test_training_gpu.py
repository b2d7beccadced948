"""Training on a GPU, see `tests/test_gpu.py`."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recon.priors.network import load_network_prior
from recon.training.cli import train
from recon.training.export import export_prior


@pytest.mark.cuda
def test_a_few_steps_and_an_export(small_training):
    config = replace(small_training(), device=os.environ.get("DIFFRECON_GPU", "cuda"))
    checkpoint = train(config)
    exported = Path(config.output) / "prior.safetensors"
    export_prior(config, checkpoint, exported)
    x = torch.randn(1, 16, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(load_network_prior(exported).denoise(x, 0.3).abs()).all())
