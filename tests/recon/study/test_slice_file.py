"""The file of one slice: what is read is what was written, bit by bit, or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recon.engine.findings import Judged
from recon.engine.slice_result import FailedSlice, SliceResult
from recon.study.slice_file import path_of, read_slice, write_slice
from recon.verdict import Finding

RNG = np.random.default_rng(0)
RESULT = SliceResult(
    index=7,
    samples=(RNG.normal(size=(2, 5, 4)) + 1j * RNG.normal(size=(2, 5, 4))).astype(np.complex64),
    diagnostics={"valid": np.array([True, False]), "residual": np.array([1.25, np.nan], np.float32)},
    images={"reference": RNG.normal(size=(5, 4)).astype(np.float32), "mask": np.eye(5, 4, dtype=bool)},
    measured={"noise_std": 0.1, "scale": 1 / 3, "centre": [1, 2], "absent": None},
    judged=(Judged("residual", Finding("doubtful", "a reason with an \u00e9"), 2.5),),
    held_out={"chi2": 0.98},
    citations=("chung2022",),
    network_calls=30,
    operator="Blur",
    prior={"name": "gaussian", "sha256": None},
    seconds=1.5,
)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_slice(tmp_path, RESULT)
    found = read_slice(tmp_path, 7)
    assert isinstance(found, SliceResult)
    for name, value in vars(RESULT).items():
        if name in ("samples", "diagnostics", "images"):
            continue
        assert getattr(found, name) == value, name
    pairs = [(found.samples, RESULT.samples)]
    for group in ("diagnostics", "images"):
        known, wanted = getattr(found, group), getattr(RESULT, group)
        assert known.keys() == wanted.keys()
        pairs += [(known[name], wanted[name]) for name in wanted]
    for a, b in pairs:
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_the_reason_of_a_failed_slice_is_kept(tmp_path: Path) -> None:
    write_slice(tmp_path, FailedSlice(3, "contains NaN\nin two lines"))
    assert read_slice(tmp_path, 3) == FailedSlice(3, "contains NaN\nin two lines")


def test_one_of_a_kind_is_written_and_nothing_else(tmp_path: Path) -> None:
    write_slice(tmp_path, FailedSlice(7, "first"))
    write_slice(tmp_path, RESULT)
    assert [path.name for path in tmp_path.iterdir()] == [path_of(tmp_path, 7).name]
    assert isinstance(read_slice(tmp_path, 7), SliceResult)


def test_no_file_is_no_result(tmp_path: Path) -> None:
    assert read_slice(tmp_path, 0) is None and read_slice(tmp_path / "absent", 0) is None


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99])
def test_a_shortened_file_is_no_result(tmp_path: Path, part: float) -> None:
    write_slice(tmp_path, RESULT)
    content = path_of(tmp_path, 7).read_bytes()
    path_of(tmp_path, 7).write_bytes(content[: int(part * len(content))])
    assert read_slice(tmp_path, 7) is None


def test_no_changed_byte_changes_a_result(tmp_path: Path) -> None:
    """Each byte in turn: the file is refused, or the arrays are what they were."""
    write_slice(tmp_path, RESULT)
    path, refused = path_of(tmp_path, 7), 0
    content = path.read_bytes()
    for place in range(0, len(content), 19):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        found = read_slice(tmp_path, 7)
        refused += found is None
        if found is not None:
            assert isinstance(found, SliceResult) and found.samples.tobytes() == RESULT.samples.tobytes(), place
            assert found.images["mask"].tobytes() == RESULT.images["mask"].tobytes() and found.seconds == 1.5, place
    assert refused > len(content) // 100


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY"])
def test_another_file_is_no_result(tmp_path: Path, content: bytes) -> None:
    path_of(tmp_path, 7).write_bytes(content)
    assert read_slice(tmp_path, 7) is None
