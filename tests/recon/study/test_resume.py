"""A study that was stopped goes on where it was, with the same bits; other settings are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recon.posterior import Posterior
from recon.study.slice_file import path_of

Run = Callable[..., int]
PARTS = ".scan.parts"


@pytest.fixture
def stopped(volume: Callable[..., Path], run: Run, draws, tmp_path: Path, capsys) -> Path:
    """A volume of which two of four slices were drawn when Ctrl-C was pressed."""
    scan = volume()
    draws.fail[2] = KeyboardInterrupt()
    assert run(scan) == 130
    assert capsys.readouterr().err.endswith(
        "recon: interrupted: 2 of 4 slices are done and kept; the same command goes on\n"
    )
    assert draws.units == [(0,), (1,)]
    draws.units.clear(), draws.fail.clear()
    return scan


@pytest.mark.slow
def test_only_missing_slices_are_drawn_and_the_bits_are_the_same(stopped, run: Run, draws, same, tmp_path) -> None:
    assert run(stopped) == 0
    assert draws.units == [(2,), (3,)]
    assert run(stopped, out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


@pytest.mark.slow
def test_what_is_kept_and_what_is_left_at_the_end(stopped, run: Run, files, tmp_path) -> None:
    parts = {f"{PARTS}/{name}" for name in ("job.json", "source.sha256", "slice-00000.npz", "slice-00001.npz")}
    assert files(tmp_path / "out") == parts
    assert run(stopped) == 0
    assert files(tmp_path / "out") == {"scan.h5"}


@pytest.mark.slow
def test_a_damaged_slice_is_drawn_again(stopped, run: Run, draws, same, tmp_path) -> None:
    path = path_of(tmp_path / "out" / PARTS, 1)
    path.write_bytes(path.read_bytes()[:-40])
    assert run(stopped) == 0
    assert sorted(draws.units) == [(1,), (2,), (3,)]
    assert run(stopped, out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--seed", "1"), "seed = 0, but now seed = 1"),
        (("--samples", "3"), "samples = 2, but now samples = 3"),
        (("--steps", "3"), "sampler.steps = 2, but now sampler.steps = 3"),
        (("--sampler", "dps"), "sampler.name"),
        (("--set", "eta=0.5"), "sampler.eta"),
        # The arithmetic of a network would be refused first where the processor has bfloat16.
        (("--prior", "brain-mri", "--precision", "float32"), "prior.name = gaussian, but now prior.name = brain-mri"),
        (("--no-holdout",), "holdout = True, but now holdout = False"),
        (("--noise-std", "0.1"), "noise_std"),
    ],
)
def test_changed_options_are_refused_by_name(stopped, run: Run, draws, files, errors, tmp_path, words, name) -> None:
    before = files(tmp_path / "out")
    assert run(stopped, *words) == 2
    (line,) = errors()
    assert name in line and "--force to start again" in line
    assert not draws.units and files(tmp_path / "out") == before


@pytest.mark.slow
def test_a_batch_size_is_not_a_changed_option(stopped, run: Run, draws) -> None:
    assert run(stopped, "--batch-size", "1") == 0
    assert draws.units == [(2,), (3,)]


@pytest.mark.slow
def test_more_slices_keep_those_that_are_done(volume, run: Run, draws, same, tmp_path) -> None:
    scan = volume()
    draws.fail[1] = KeyboardInterrupt()
    assert run(scan, "--slices", "0:2") == 130
    draws.fail.clear(), draws.units.clear()
    assert run(scan) == 0
    assert draws.units == [(1,), (2,), (3,)]
    assert run(scan, out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


@pytest.mark.slow
def test_force_starts_again(stopped, run: Run, draws, files, tmp_path) -> None:
    assert run(stopped, "--seed", "3", "--force") == 0
    assert draws.units == [(0,), (1,), (2,), (3,)]
    assert Posterior.load(tmp_path / "out" / "scan.h5").provenance["seed"] == 3
    assert files(tmp_path / "out") == {"scan.h5"}


def test_a_changed_source_is_refused(stopped, volume, run: Run, draws, errors) -> None:
    volume(seed=1)
    assert run(stopped) == 2
    (line,) = errors()
    assert "is not the result of this file" in line
    assert not draws.units


@pytest.mark.slow
def test_a_result_that_exists_is_kept(volume, run: Run, draws, tmp_path, capsys) -> None:
    scan = volume()
    assert run(scan) == 0
    written = (tmp_path / "out" / "scan.h5").stat().st_mtime_ns
    draws.units.clear(), capsys.readouterr()
    assert run(scan) == 0
    assert not draws.units and (tmp_path / "out" / "scan.h5").stat().st_mtime_ns == written
    assert "scan.h5" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--seed", "1"), ("--slices", "0:2")])
@pytest.mark.slow
def test_a_result_of_other_settings_is_refused(volume, run: Run, draws, errors, tmp_path, words) -> None:
    scan = volume()
    assert run(scan) == 0
    content = (tmp_path / "out" / "scan.h5").read_bytes()
    draws.units.clear()
    assert run(scan, *words) == 2
    (line,) = errors()
    assert f"scan.h5: was made with {words[0][2:]} = " in line
    assert not draws.units and (tmp_path / "out" / "scan.h5").read_bytes() == content


@pytest.mark.slow
def test_missing_pictures_of_a_result_are_written(volume, run: Run, draws, files, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    scan = volume(slices=1)
    assert run(scan) == 0
    draws.units.clear()
    assert run(scan, report=True) == 0
    assert files(tmp_path / "out") == {"scan.h5", "scan.png", "scan.html"} and not draws.units
    (tmp_path / "out" / "scan.png").unlink()
    assert run(scan, report=True) == 0
    assert files(tmp_path / "out") == {"scan.h5", "scan.png", "scan.html"} and not draws.units


def test_a_result_that_does_not_say_how_it_was_made_is_refused(volume, run: Run, draws, errors, tmp_path) -> None:
    """As written by `Posterior.save` or by an older release."""
    (tmp_path / "out").mkdir()
    Posterior(np.ones((2, 16, 16), np.complex64)).save(tmp_path / "out" / "scan.h5")
    assert run(volume()) == 2
    (line,) = errors()
    assert "scan.h5 already exists; use --force to overwrite" in line and not draws.units


@pytest.mark.slow
def test_slices_whose_settings_are_not_known_are_drawn_again(stopped, run: Run, draws, same, tmp_path) -> None:
    """Nobody can tell what they were made with: here, with another seed."""
    (tmp_path / "out" / PARTS / "job.json").write_text("{")
    assert run(stopped, "--seed", "5") == 0
    assert draws.units == [(0,), (1,), (2,), (3,)]
    assert run(stopped, "--seed", "5", out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


@pytest.mark.slow
def test_slices_beside_a_complete_result_are_removed(stopped, run: Run, draws, files, tmp_path) -> None:
    """A run was killed after it wrote the result, before it removed the slices."""
    shutil.copytree(tmp_path / "out" / PARTS, tmp_path / "kept")
    assert run(stopped) == 0
    shutil.copytree(tmp_path / "kept", tmp_path / "out" / PARTS)
    draws.units.clear()
    assert run(stopped) == 0
    assert not draws.units and files(tmp_path / "out") == {"scan.h5"}


@pytest.mark.slow
def test_a_forced_run_that_was_stopped_goes_on_without_force(
    volume, run: Run, draws, same, capsys, errors, tmp_path
) -> None:
    scan = volume()
    assert run(scan) == 0
    draws.fail[3] = KeyboardInterrupt()
    assert run(scan, "--seed", "1", "--force") == 130
    assert "3 of 4 slices are done and kept; the same command without --force goes on" in capsys.readouterr().err
    assert Posterior.load(tmp_path / "out" / "scan.h5").provenance["seed"] == 0
    draws.fail.clear(), draws.units.clear()
    assert run(scan, "--seed", "1") == 0
    assert draws.units == [(3,)]
    assert run(scan, "--seed", "1", out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


def test_a_result_that_came_meanwhile_is_not_overwritten(stopped, run: Run, draws, errors, tmp_path) -> None:
    """Only --force replaces it, whatever slices are there."""
    (tmp_path / "out" / "scan.h5").write_text("precious")
    assert run(stopped) == 2
    (line,) = errors()
    assert "scan.h5 already exists" in line and not draws.units
    assert (tmp_path / "out" / "scan.h5").read_text() == "precious"


def test_a_record_names_source_result_and_settings(stopped, tmp_path) -> None:
    record = json.loads((tmp_path / "out" / PARTS / "job.json").read_text())
    assert record["result"] == "scan.h5" and record["source"] == str(stopped)
    assert record["units"] == [[0], [1], [2], [3]]
    assert {"release", "seed", "source.stamp", "prior.name", "sampler.name"} <= record["request"].keys()
