"""What the tests of training share."""

import numpy as np
import pytest

# Training of a tiny network on two small volumes, one of them held out; `patches` follow.
TRAINING = """
modality = "mri"
steps = 3
warmup = 1
decay = 0
threads = 1
precision = "float32"
previews = 0
seed = 5
patches = {patches}
[network]
channels = [8, 8]
encoder_blocks = [1, 1]
decoder_blocks = [1]
embedding = 8
[[sources]]
pattern = "s*.npy"
spacing = [1.0, 1.5]
held_out = ["s1"]
"""


@pytest.fixture
def small_training(tmp_path):
    """Return a function that writes ``run.toml`` and the volumes, and returns the configuration."""
    from recon.training.cli import load_config

    def write(patches: str = "[[16, 4, 1.0]]"):
        y, x = np.mgrid[-1:1:40j, -1:1:36j]
        for k in range(2):
            np.save(tmp_path / f"s{k}.npy", np.stack([100.0 * (y**2 + x**2 < r) for r in (0.5, 0.6, 0.7)]))
        (tmp_path / "run.toml").write_text(TRAINING.format(patches=patches))
        return load_config(tmp_path / "run.toml", {"data": str(tmp_path), "output": str(tmp_path / "run")})

    return write
