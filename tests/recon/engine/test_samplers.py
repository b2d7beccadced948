"""Samplers by name and quality."""

import pytest

from recon.engine.samplers import SAMPLERS, resolve_sampler
from recon.errors import InputError
from recon.modalities import modality
from samplers import PULA

MRI = modality("mri")


def test_a_draft_takes_fewer_steps():
    draft, standard = (resolve_sampler("dds", None, MRI, quality) for quality in ("draft", "standard"))
    assert standard == SAMPLERS["dds"]
    assert draft.steps < standard.usual_steps / 2


def test_what_is_said_comes_before_the_quality():
    assert resolve_sampler("dds", 5, MRI, "draft").steps == 5
    named = resolve_sampler({"name": "dds", "steps": 6, "eta": 0.5}, None, MRI, "draft")
    assert (named.steps, named.eta) == (6, 0.5)


@pytest.mark.parametrize("sampler", ["pula", PULA()])
def test_a_sampler_without_such_settings_is_refused(sampler):
    name = sampler if isinstance(sampler, str) else "PULA"
    with pytest.raises(InputError, match=f"quality: sampler {name} of MRI has no 'draft' settings; set steps instead"):
        resolve_sampler(sampler, None, MRI, "draft")
    with pytest.raises(InputError, match="sampler pula has no 'draft' settings"):
        resolve_sampler("pula", quality="draft")
