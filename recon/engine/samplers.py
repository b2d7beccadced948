"""The strategies by name, with the settings that suit the shipped priors."""

from __future__ import annotations

import dataclasses
from typing import Any

from recon import plugins
from recon.errors import InputError
from samplers import (
    DAPS,
    DDS,
    DPS,
    PULA,
    DDSVolume,
    DiffPIR,
    ExactGaussian,
    LocalEnergy,
    MomentMatching,
    PiGDM,
    PnPDM,
    REDDiff,
    Sampler,
    ScoreALD,
    ScoreMRI,
    Support,
    Uniform,
)

#: What the two forms of DDS share.
_DDS: dict[str, Any] = {
    "steps": 30,
    "noise": "ddim",
    "eta": 1.0,
    "spacing": "karras",
    "sigma_max": 3.0,
    "sigma_min": 0.015,
    "mean_sigma": 0.15,
}

#: The strategies by name, with the settings that `recon run` uses, for images whose .99 quantile is 1. For DDS: data
#: weighted by the measured error of the denoiser, the DDIM variance, and the mean from where it is best known. On
#: held-out data its mean is within .2 dB of the best and its spread is near the error (docs/uncertainty.md).
SAMPLERS: dict[str, Sampler] = {
    "dds": DDS(gamma="rule", spread=Support(0.05), adapt_to_noise=True, mean_steps=20, **_DDS),
    "dds-narrow": DDS(steps=30, gamma="rule", spread=Uniform(0.1), spacing="karras", sigma_max=3.0, sigma_min=0.01),
    # Slices of a volume together, held by a weak total variation: at 10 instead of 3 real stacks lose .2 to .9 dB and
    # the spread of the samples falls further below their error.
    "dds-volume": DDSVolume(**_DDS, spread=Uniform(), tv_weight=3.0),
    "exact": ExactGaussian(),
    "moment-matching": MomentMatching(steps=30, sigma_max=3.0, sigma_min=0.015, mean_sigma=0.15, model_iterations=8),
    # As published: weighted by Bayes' rule the errors of a network's Jacobian grow without bound.
    "pigdm": PiGDM(steps=50, weight="published", prior_std=0.3, sigma_max=3.0, sigma_min=0.01, chunk=4),
    "pula": PULA(steps=30, sigma_max=3.0, sigma_min=0.02),
    "pnp-dm": PnPDM(steps=30, sigma_max=3.0, sigma_min=0.02),
    "diffpir": DiffPIR(steps=50, sigma_max=3.0, sigma_min=0.01),
    "daps": DAPS(steps=20, sigma_max=3.0, sigma_min=0.02, likelihood="exact", width="rule", prior_std=0.1),
    # A fifth of the paper's steps, and longer ones: with .3 the data are not reached.
    "dps": DPS(steps=200, zeta=3.0, sigma_max=3.0, sigma_min=0.02, chunk=4),
    "score-mri": ScoreMRI(steps=150, sigma_max=3.0, sigma_min=0.01),
    "score-ald": ScoreALD(steps=100, sigma_max=3.0, sigma_min=0.01),
    "red-diff": REDDiff(steps=200, sigma_max=3.0, sigma_min=0.02, learning_rate=0.03),
}

#: A first image, for the preparation of a slice: what coil maps and errors of the model are found with.
FIRST_IMAGE: Sampler = dataclasses.replace(SAMPLERS["dds"], steps=10)  # type: ignore[type-var]

#: What is different for CT, whose systems are worse conditioned than those of MRI and not of norm 1.
CT_SETTINGS: dict[str, dict[str, Any]] = {
    # Twice the steps: with fewer, samples stop short of fitting the data. Small noise matters more than in MRI.
    # Rays say much about low frequencies and little about high ones: what MRI does at low SNR and with few steps was
    # not tried on them.
    "dds": {"steps": 60, "cg_iterations": 20, "mean_sigma": 0.05, "adapt_to_noise": False, "mean_steps": 1},
    "dds-narrow": {"cg_iterations": 30},
    "dds-volume": {"steps": 60, "cg_iterations": 20, "mean_sigma": 0.05},
    "moment-matching": {"model_iterations": 20},
    "pigdm": {"cg_iterations": 20},
    "pula": {"cg_iterations": 20},
    "pnp-dm": {"cg_iterations": 20},
    "diffpir": {"cg_iterations": 20},
    "daps": {"cg_iterations": 20},
    # With 1 the data are not reached, with 12 it begins to diverge.
    "dps": {"scaling": "norm", "zeta": 4.0},
    "score-mri": {"scaling": "sirt"},
}

#: What is different for ultrasound: images of 60 dB, so a pixel is not air for being small, and noise levels that go
#: lower, and as high as the prior knows: a wire is up to 30 times as bright as speckle, and what the data do not see of
#: it never comes when one starts at 3 (30 steps from 3: correlation with the truth .89; 60 from 17: .96, with the same
#: weights). Measured with a Gaussian prior against its exact posterior (one wave, speckle, cyst and wires): DDS has a
#: std ratio of .92 and 5 iterations of conjugate gradients do as well as 25. How far a pixel may be off follows from
#: the local brightness, and the mean is taken at little noise (at .4 it was 1 to 2 % further from the truth, and grey
#: in cysts): what is empty stays empty.
US_SETTINGS: dict[str, dict[str, Any]] = {
    "dds": {
        "steps": 60,
        "adapt_to_noise": False,
        "mean_steps": 1,
        "spread": LocalEnergy(5),
        "sigma_max": None,
        "sigma_min": 0.005,
        "mean_sigma": 0.1,
    },
    "exact": {"iterations": 150, "tolerance": 1e-3},
}


def resolve_sampler(sampler: str | Sampler, steps: int | None = None, modality: str = "mri") -> Sampler:
    """Return the strategy of a name, or the one given, with another number of steps where asked.

    A name stands for settings that suit the modality, "mri", "ct" or "ultrasound".

    Raises
    ------
    InputError
        If there is none of that name, or it has no steps to set.
    """
    if isinstance(sampler, str):
        known = SAMPLERS.get(sampler) or plugins.find("samplers", sampler)
        if known is None:
            names = ", ".join([*SAMPLERS, *plugins.names("samplers")])
            raise InputError(f"sampler: there is none called {sampler!r}; expected {names}")
        settings = {"ct": CT_SETTINGS, "ultrasound": US_SETTINGS}.get(modality, {}).get(sampler, {})
        sampler = known() if isinstance(known, type) else known
        sampler = dataclasses.replace(sampler, **settings) if settings else sampler  # type: ignore[type-var]
    if not isinstance(sampler, Sampler):
        raise InputError(f"sampler: expected a name or a samplers.Sampler, came {type(sampler).__name__}")
    if steps is None:
        return sampler
    if "steps" not in {field.name for field in dataclasses.fields(sampler)}:  # type: ignore[arg-type]
        raise InputError(f"steps: {type(sampler).__name__} has no steps to set")
    return dataclasses.replace(sampler, steps=steps)  # type: ignore[type-var]
