"""Every writer on a disk without room: complete files or the old ones, a `StorageError`, no crash, nothing left."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")

SCRIPT = Path(__file__).with_name("full_disk.py")
WRITERS = ["posterior", "fastmri", "many", "evaluation", "calibration", "prior", "covariance", "checkpoint"]
OPTIONAL = {"nibabel": ["nifti", "nifti.gz"], "matplotlib": ["report"]}


def sweep(folder: Path, kind: str, count: int, optional: list[str]) -> None:
    """Let all writers write at many sizes, in a process of its own."""
    writers = WRITERS + [
        name for library in optional if importlib.util.find_spec(library) for name in OPTIONAL[library]
    ]
    root = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(SCRIPT), ",".join(writers), kind, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert (done.returncode, done.stderr) == (0, "")
    for writer, seen in json.loads(done.stdout).items():
        assert seen["faults"] == [], writer
        assert seen["written"] > 0 and seen["refused"] > 0 and seen["written"] + seen["refused"] == count, writer


@pytest.mark.slow
def test_files_that_must_not_grow(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    sweep(tmp_path, "limit", 12, ["nibabel"])


@pytest.mark.slow
def test_disks_of_many_sizes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(disk)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("small disks can be mounted by root on Linux only, and not in every container")
    try:
        sweep(tmp_path, "tmpfs", 12, [*OPTIONAL])
    finally:
        subprocess.run(["umount", str(disk)], check=True)
