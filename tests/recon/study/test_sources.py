"""The source of a study: planned without reading it, hashed once, and distinguished from another one by its content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import recon
from recon.engine import provenance
from recon.posterior import Posterior
from recon.study import checksum, source_state
from recon.study.planning import plan_files

Run = Callable[..., int]
PARTS = ".scan.parts"
ALL = [(0,), (1,), (2,), (3,)]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed, in order; none is remembered."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    for module in (checksum, source_state, provenance):
        monkeypatch.setattr(module, "sha256", counted)
    return names


@pytest.fixture
def stopped(volume: Callable[..., Path], run: Run, draws) -> Path:
    """A volume of which two of four slices were drawn."""
    scan = volume()
    draws.fail[2] = KeyboardInterrupt()
    assert run(scan) == 130
    draws.units.clear(), draws.fail.clear()
    return scan


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def later(path: Path) -> None:
    """Touch a file."""
    os.utime(path, ns=(10**18, 10**18))


def record(tmp_path: Path) -> dict[str, object]:
    return json.loads((tmp_path / "out" / PARTS / "job.json").read_text())


def test_a_plan_hashes_nothing(volume, options, hashed, tmp_path) -> None:
    planned, _ = plan_files([volume("a.npy"), volume("b.npy")], tmp_path / "out", lambda modality: options)
    assert [one.job().request["source.name"] for one in planned] == ["a.npy", "b.npy"]
    assert not hashed


@pytest.mark.slow
def test_a_source_is_hashed_once_and_the_result_says_so(volume, run: Run, hashed, tmp_path) -> None:
    scan = volume()
    assert run(scan) == 0
    assert hashed == ["scan.npy"]
    known = Posterior.load(tmp_path / "out" / "scan.h5").provenance
    assert known["source"] == {"name": "scan.npy", "sha256": sum_of(scan)}
    assert known["request"]["source.sha256"] == sum_of(scan)
    assert run(scan) == 0
    assert hashed == ["scan.npy"], "a result that is complete is known by size and time"


def test_a_run_that_goes_on_does_not_hash_again(stopped, run: Run, draws, hashed, tmp_path) -> None:
    assert (tmp_path / "out" / PARTS / "source.sha256").read_text() == f"{sum_of(stopped)}  scan.npy\n"
    assert run(stopped) == 0
    assert not hashed and draws.units == [(2,), (3,)]


@pytest.mark.parametrize("complete", [False, True])
def test_a_file_that_was_touched_or_copied_goes_on(stopped, run: Run, draws, hashed, tmp_path, complete) -> None:
    if complete:
        assert run(stopped) == 0
        draws.units.clear()
    copy = tmp_path / "copy.npy"
    shutil.copy(stopped, copy)
    copy.replace(stopped)  # another inode and another time
    assert run(stopped) == 0
    assert hashed == ["scan.npy"] and draws.units == ([] if complete else [(2,), (3,)])
    if not complete:
        later(stopped)
        assert run(stopped) == 0


@pytest.mark.parametrize("complete", [False, True])
def test_another_content_of_the_same_size_is_refused(stopped, run: Run, errors, draws, tmp_path, complete) -> None:
    if complete:
        assert run(stopped) == 0
        draws.units.clear()
    content = bytearray(stopped.read_bytes())
    content[-1] ^= 1
    stopped.write_bytes(content)
    later(stopped)
    errors()
    assert run(stopped) == 2
    (line,) = errors()
    assert "scan.h5: is not the result of this file, whose content is another one" in line and not draws.units


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.slow
def test_slices_of_an_older_release_go_on_or_are_refused(
    stopped, run: Run, errors, draws, same, tmp_path, changed
) -> None:
    """Its record had the checksum, and no stamps."""
    folder = tmp_path / "out" / PARTS
    old = record(tmp_path)
    request = {name: value for name, value in old["request"].items() if name not in ("source.stamp", "source.inode")}
    request["source.sha256"] = "0" * 64 if changed else sum_of(stopped)
    (folder / "job.json").write_text(json.dumps({**old, "request": request}))
    (folder / "source.sha256").unlink()
    assert run(stopped) == (2 if changed else 0)
    if changed:
        assert "is not the result of this file" in errors()[0] and not draws.units
        return
    assert draws.units == [(2,), (3,)]
    assert run(stopped, out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


def test_slices_whose_source_was_never_hashed_are_refused_when_it_was_touched(
    stopped, run: Run, errors, draws, tmp_path
) -> None:
    """The worker that hashes was killed before it was done, others had drawn slices."""
    (tmp_path / "out" / PARTS / "source.sha256").unlink()
    later(stopped)
    assert run(stopped) == 2
    (line,) = errors()
    assert "before its size or time changed" in line and "--force" in line and not draws.units


@pytest.mark.slow
def test_a_file_that_was_touched_before_any_slice_was_drawn_is_no_obstacle(volume, run: Run, draws) -> None:
    scan = volume()
    draws.fail[0] = KeyboardInterrupt()
    assert run(scan) == 130
    draws.fail.clear()
    volume(seed=1)
    assert run(scan) == 0 and draws.units == ALL


def test_a_file_that_changes_during_a_run_is_named(volume, options, draws, tmp_path, monkeypatch) -> None:
    scan = volume()
    drawn = recon.engine.reconstruction.Reconstruction.draw

    def draw(self, unit, *more):
        if unit == (3,):
            volume(seed=1)
            later(scan)
        return drawn(self, unit, *more)

    monkeypatch.setattr(recon.engine.reconstruction.Reconstruction, "draw", draw)
    (outcome,) = recon.reconstruct_many([scan], tmp_path / "out", progress=False, **options)
    assert outcome.result is None
    assert outcome.reasons == (f"{scan}: was changed while it was reconstructed; start again with --force",)


def test_the_files_of_a_folder_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = source_state.stamps_of(folder)
    assert source_state.stamps_of(folder) == first
    (folder / "b").write_text("2")
    assert source_state.stamps_of(folder)["stamp"] != first["stamp"]
    (folder / "b").unlink()
    assert source_state.stamps_of(folder) == first
    later(folder / "a")
    assert source_state.stamps_of(folder)["stamp"] != first["stamp"]
    assert source_state.stamps_of(folder)["inode"] == first["inode"]
