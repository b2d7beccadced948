"""Sampler settings that suit CT, whose systems are worse conditioned than those of MRI and not of norm 1."""

from __future__ import annotations

from typing import Any

SAMPLERS: dict[str, dict[str, Any]] = {
    # Twice the steps: with fewer, samples do not reach the data. Small noise matters more than in MRI.
    # Rays carry much information about low frequencies and little about high ones: the MRI settings for low SNR and
    # few steps were not tested on them.
    "dds": {
        "steps": 60,
        "cg_iterations": 20,
        "sigma_min": 0.015,
        "mean_sigma": 0.05,
        "adapt_to_noise": False,
        "image_draws": False,
    },
    "dds-narrow": {"cg_iterations": 30},
    "dds-volume": {"steps": 60, "cg_iterations": 20, "mean_sigma": 0.05},
    "moment-matching": {"model_iterations": 20},
    "pigdm": {"cg_iterations": 20},
    "pula": {"cg_iterations": 20},
    "pnp-dm": {"cg_iterations": 20},
    "diffpir": {"cg_iterations": 20},
    "daps": {"cg_iterations": 20},
    # With 1 the data are not fitted, with 12 the sampler begins to diverge.
    "dps": {"scaling": "norm", "zeta": 4.0},
    "score-mri": {"scaling": "sirt"},
}
