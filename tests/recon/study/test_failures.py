"""What one bad slice, one bad file, a defect or a full disk does to the rest of a study: nothing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recon.errors import InputError
from recon.posterior import Posterior
from recon.study import work
from recon.study.slice_file import write_slice

Run = Callable[..., int]


def test_a_damaged_file_does_not_stop_the_others(volume, run: Run, errors, files, tmp_path) -> None:
    good, also = volume("a.npy", slices=1), volume("c.npy", slices=1, seed=1)
    bad = tmp_path / "b.npy"
    bad.write_bytes(good.read_bytes()[:200])
    assert run(good, bad, also) == 1
    (line,) = errors()
    assert "b.npy" in line
    assert files(tmp_path / "out") == {"a.h5", "c.h5"}


def test_a_file_of_bad_slices_does_not_stop_the_others(volume, run: Run, errors, files, tmp_path) -> None:
    assert run(volume("a.npy", slices=1, bad=[0]), volume("b.npy", slices=1)) == 1
    (line,) = errors()
    assert "a.npy: no result: " in line and "NaN or infinite" in line
    assert files(tmp_path / "out") == {"b.h5"}


def test_a_bad_slice_is_an_invalid_place_in_the_volume(volume, run: Run, errors, tmp_path) -> None:
    scan = volume(bad=[1])
    assert run(scan) == 1
    (line,) = errors()
    assert line.startswith(f"{scan}: slice 1 has no result: ") and "NaN or infinite" in line
    posterior = Posterior.load(tmp_path / "out" / "scan.h5")
    np.testing.assert_array_equal(posterior.diagnostics["slice_valid"], [True, False, True, True])
    finite = np.isfinite(posterior.samples).all(axis=(0, 2, 3))
    np.testing.assert_array_equal(finite, [True, False, True, True])
    assert any("slice 1 is left out" in note for note in posterior.provenance["notes"])
    assert posterior.verdict.level == "doubtful"
    assert np.isfinite(posterior.std[[0, 2, 3]]).all() and np.isfinite(posterior.interval(0.9)[1][[0, 2, 3]]).all()


def test_the_same_command_says_again_which_slice_has_no_result(volume, run: Run, draws, errors) -> None:
    scan = volume(bad=[1])
    assert run(scan) == 1
    draws.units.clear(), errors()
    assert run(scan) == 1
    (line,) = errors()
    assert "slice 1 has no result" in line and not draws.units


def test_a_bad_slice_is_not_tried_again_by_a_run_that_goes_on(volume, run: Run, draws, tmp_path) -> None:
    scan = volume(bad=[0])
    draws.fail[3] = KeyboardInterrupt()
    assert run(scan) == 130
    draws.fail.clear(), draws.units.clear()
    assert run(scan) == 1
    assert draws.units == [(3,)]


@pytest.mark.slow
def test_volumes_with_a_bad_slice_have_the_same_bits_otherwise(volume, run: Run, tmp_path) -> None:
    run(volume(bad=[1])), run(volume("scan.npy"), out="good")
    bad, good = (Posterior.load(tmp_path / out / "scan.h5") for out in ("out", "good"))
    np.testing.assert_array_equal(bad.samples[:, [0, 2, 3]], good.samples[:, [0, 2, 3]])


def test_nothing_but_bad_slices(volume, run: Run, errors, files, tmp_path) -> None:
    assert run(volume(slices=2, bad=[0, 1])) == 2
    (line,) = errors()
    assert "NaN or infinite" in line
    assert not files(tmp_path / "out")


@pytest.mark.slow
def test_a_defect_in_one_slice_keeps_the_others(volume, run: Run, draws, errors, files, same, tmp_path) -> None:
    scan = volume()
    draws.fail[2] = ZeroDivisionError("division by zero")
    assert run(scan) == 1
    (line,) = errors()
    for words in (f"{scan}: slice 2: ZeroDivisionError", "should not happen", "3 of 4 slices are kept, and the same"):
        assert words in line
    assert "scan.h5" not in files(tmp_path / "out")
    draws.fail.clear(), draws.units.clear()
    assert run(scan) == 0
    assert draws.units == [(2,)]
    assert run(scan, out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "Input/output error")])
def test_what_may_pass_is_tried_again_by_the_same_command(volume, run: Run, draws, errors, error) -> None:
    scan = volume(slices=2)
    draws.fail[0] = error
    assert run(scan) == 1
    (line,) = errors()
    assert "slice 0: " in line and "should not happen" not in line
    draws.fail.clear(), draws.units.clear()
    assert run(scan) == 0
    assert draws.units == [(0,)]


@pytest.mark.slow
def test_a_full_disk_stops_the_study_and_keeps_what_is_written(
    volume, run: Run, draws, errors, same, tmp_path, monkeypatch
) -> None:
    """More slices would be drawn in vain."""
    scan, room = volume(), [2]

    def write(*arguments: object) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_slice(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "write_slice", write)
    assert run(scan) == 1
    (line,) = errors()
    assert "No space left on device; 2 of 4 slices are done and kept; the same command goes on" in line
    assert draws.units == [(0,), (1,), (2,)]
    monkeypatch.undo()
    draws.units.clear()
    assert run(scan) == 0
    assert run(scan, out="straight") == 0
    same(tmp_path / "out" / "scan.h5", tmp_path / "straight" / "scan.h5")


def test_a_result_that_cannot_be_written_keeps_all_slices(
    volume, run: Run, draws, errors, tmp_path, monkeypatch
) -> None:
    scan = volume(slices=2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Posterior, "save", full)
        assert run(scan) == 1
    (line,) = errors()
    assert "No space left on device" in line
    draws.units.clear()
    assert run(scan) == 0 and not draws.units


@pytest.mark.slow
def test_pictures_that_cannot_be_drawn_stop_no_other_file(
    volume, run: Run, draws, errors, files, tmp_path, monkeypatch
):
    """Neither when they are drawn first, nor when the same command draws what is missing."""
    pytest.importorskip("matplotlib")
    scans = [volume("a.npy", slices=1), volume("b.npy", slices=1)]
    report = Posterior.report

    def full(self: Posterior, path: Path, *more: object) -> None:
        if path.name == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        report(self, path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Posterior, "report", full)
    for _ in range(2):
        assert run(*scans, report=True) == 1
        (line,) = errors()
        assert line.startswith(f"{scans[0]}: no result: ") or "No space left" in line
        assert files(tmp_path / "out") >= {"a.h5", "b.h5", "b.png", "b.html"}
    monkeypatch.undo()
    assert run(*scans, report=True) == 0
    assert files(tmp_path / "out") == {"a.h5", "a.png", "a.html", "b.h5", "b.png", "b.html"}


def test_options_that_suit_no_slice_stop_at_once(volume, run: Run, draws, errors, files, tmp_path) -> None:
    assert run(volume(), "--set", "cg_iterations=0") == 2
    assert len(errors()) == 1 and not files(tmp_path / "out")


def test_a_single_step_suits_the_companion_run_of_the_held_out_test(volume, run: Run) -> None:
    assert run(volume(slices=1), "--steps", "1") == 0


def test_no_source_can_be_opened(tmp_path: Path, options: dict[str, object]) -> None:
    import recon

    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bad\.npy"):
        recon.reconstruct_many([tmp_path / "bad.npy"], tmp_path / "out", **options)
    with pytest.raises(InputError, match="expected at least one"):
        recon.reconstruct_many([], tmp_path / "out", **options)


def test_too_little_space_is_said_before_anything_is_drawn(volume, run, draws, errors, monkeypatch, tmp_path) -> None:
    def usage(_: object) -> object:
        return type("Usage", (), {"free": 1000})()

    monkeypatch.setattr("recon.files.space.shutil.disk_usage", usage)
    assert run(volume()) == 1
    (line,) = errors()
    assert "the run needs about" in line and "are free" in line
    assert not draws.units
