"""Alias of `recon.training.cli`: ``python -m recon.train CONFIG`` and ``from recon.train import train``."""

import sys

from recon.training.cli import TrainConfig, load_config, main, run_command, train

__all__ = ["TrainConfig", "load_config", "main", "run_command", "train"]

if __name__ == "__main__":
    sys.exit(run_command())
