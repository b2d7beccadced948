"""What a run says about its own result: the verdict, its reasons, and where users meet it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import recon
from operators import Diagonal, fftc
from recon import cli
from recon.engine.findings import judge_run
from recon.engine.judge import judge_slice
from recon.engine.part import Part
from recon.modalities.prepared import Prepared
from recon.posterior import Posterior
from recon.verdict import Finding, Verdict
from samplers import Problem, Samples

SHAPE, COUNT = (8, 8), 4


def _part(residual: float = 1.0, held: float = 1.0, invalid: int = 0, index: int = 0, doubts=()) -> Part:
    """Return a slice whose samples are ``held`` times the truth and have the given residual."""
    truth = torch.ones(SHAPE, dtype=torch.complex64)
    problem = Problem(truth, Diagonal(torch.ones(SHAPE, dtype=torch.complex64)), 0.01)
    samples = (held * truth).expand(COUNT, *SHAPE).clone()
    valid = torch.arange(COUNT) >= invalid
    drawn = Samples(samples=samples, valid=valid, residual=torch.full((COUNT,), residual), facts={}, expectation=None)
    return Part(drawn, problem, Prepared(problem=problem, doubts=list(doubts)), index=index, steps=50)


def judge(*parts: Part) -> Verdict:
    """Return the verdict on slices."""
    valid = np.all([part.drawn.valid.numpy() for part in parts], axis=0)
    return Verdict.of(judge_run({part.index: judge_slice(part, {}, None) for part in parts}, valid))


@pytest.mark.parametrize(
    "part, level, words",
    [
        (_part(), "ok", ""),
        (_part(residual=3.0), "doubtful", "data residual is 3 times"),
        (_part(residual=0.1), "doubtful", "data residual is 0.1 times"),
        (_part(residual=50.0), "failed", "data residual is 50 times"),
        (_part(held=0.8), "doubtful", "reproduces only 0.80"),
        (_part(held=0.3), "failed", "reproduces only 0.30"),
        (_part(invalid=1), "doubtful", "1 of 4 samples are not finite"),
        (_part(invalid=3), "failed", "3 of 4 samples are not finite"),
        (_part(doubts=["a first fit explains nothing"]), "doubtful", "a first fit explains nothing"),
    ],
)
def test_each_fault_has_its_level_and_its_reason(part: Part, level: str, words: str) -> None:
    verdict = judge(part)
    assert verdict.level == level
    assert words in str(verdict) and (words != "") == bool(verdict.reasons)


def test_a_bad_slice_of_a_volume_is_named() -> None:
    parts = [_part(index=3), _part(residual=5.0, index=7), _part(residual=30.0, index=9)]
    verdict = judge(*parts)
    assert verdict.level == "failed"
    assert verdict.reasons[0].startswith("slice 9: the data residual is 30 times")
    assert verdict.reasons[0].endswith("also in 1 other slice")


def test_the_worst_reason_comes_first_and_notes_are_no_reasons() -> None:
    verdict = Verdict.of([Finding("ok", "note"), Finding("doubtful", "b"), Finding("failed", "a")])
    assert verdict == Verdict("failed", ("a", "b"))
    assert Verdict.of([Finding("ok", "note")]) == Verdict("ok")


def _posterior(verdict: Verdict | None) -> Posterior:
    rng = np.random.default_rng(0)
    record = {} if verdict is None else {"verdict": dataclasses.asdict(verdict)}
    return Posterior(1 + 0.1 * rng.standard_normal((3, 16, 16)).astype(np.float32), provenance=record)


def test_it_survives_the_file_and_is_unknown_in_older_ones(tmp_path) -> None:
    bad = Verdict("failed", ("<no> signal", "no noise"))
    for verdict, expected in ((bad, bad), (None, Verdict("unknown"))):
        _posterior(verdict).save(tmp_path / "x.h5")
        assert Posterior.load(tmp_path / "x.h5").verdict == expected


@pytest.mark.slow
def test_the_report_shows_a_banner_only_in_doubt(tmp_path) -> None:
    heights = {}
    for level in ("ok", "failed"):
        verdict = Verdict(level, ("<no> signal",) if level == "failed" else ())
        png, html = _posterior(verdict).report(tmp_path / level)
        text = html.read_text("utf-8")
        assert ('class="banner failed"' in text) == (level == "failed")
        assert ("&lt;no&gt; signal" in text) == (level == "failed")
        assert "verdict" in text
        heights[level] = int.from_bytes(png.read_bytes()[20:24], "big")
    assert heights["failed"] > heights["ok"] + 30


@pytest.mark.slow
def test_strict_runs_fail_with_their_own_status(tmp_path, capsys, fastmri_file) -> None:
    """Two steps of DPS are far from the data: the residual says so."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    disc = (y**2 + x**2 < 0.4).to(torch.complex64)
    kspace = fftc(disc) + 0.01 * torch.randn(32, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    path = fastmri_file("scan.h5", kspace.numpy()[None, None])
    common = ["run", str(path), "--prior", "gaussian", "--samples", "2", "--no-report"]
    wrong = ["--sampler", "dps", "--steps", "2"]
    assert cli.main([*common, "--sampler", "exact", "-o", str(tmp_path / "a"), "--strict"]) == 0
    assert cli.main([*common, "-o", str(tmp_path / "b"), *wrong]) == 0
    printed = capsys.readouterr().out
    assert "failed" in printed and "data residual" in printed
    assert cli.main([*common, "-o", str(tmp_path / "c"), *wrong, "--strict"]) == 3
    result = recon.Posterior.load(tmp_path / "c" / "scan.h5")
    assert result.verdict.level == "failed"
    assert cli.main(["info", str(tmp_path / "c" / "scan.h5")]) == 0
    assert "verdict: failed" in capsys.readouterr().out
